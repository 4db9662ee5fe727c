import numpy as np
import torch

from src.models.bundle import load_bundle
from src.models.spikes.detector import SpikeDetection


def test_references_are_filled_from_the_training_block(spike_models):
    model, data, folder = spike_models["detector"]
    statistics = data.statistics()
    network = load_bundle(folder).network()
    np.testing.assert_allclose(network.templates.numpy(), statistics["templates"], rtol=1e-6)
    np.testing.assert_allclose(network.noise(1, 25_000.0).sigma(), data.backgrounds[1].noise.sigma(), rtol=0.01)
    assert network.scale.tolist() == [np.float32(b.level) for b in data.backgrounds]
    assert model.hparams["kind"] == "spike_detector"


def test_hyper_parameters_are_plain_enough_for_a_safe_checkpoint(spike_models, tmp_path):
    model, _, _ = spike_models["detector"]
    torch.save({"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict()}, tmp_path / "x.ckpt")
    again = torch.load(tmp_path / "x.ckpt", weights_only=True)
    copy = SpikeDetection(**again["hyper_parameters"])
    copy.load_state_dict(again["state_dict"])
    x = torch.randn(1, 1, 200)
    torch.testing.assert_close(copy.network(x, 1), model.network(x, 1))
