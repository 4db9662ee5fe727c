import numpy as np
import pytest
import torch

from src.models.sleep.stager import SleepStager
from src.signals import BadInput

SIGNAL = {"shape": [1, 6, 5], "window_s": 30.0}
CLASSES = ["W", "N1", "N2", "N3", "REM"]


def stager(**arguments):
    torch.manual_seed(0)
    return SleepStager(SIGNAL, CLASSES, network_args={"filters": 4, "width": 8, "blocks": 1}, **arguments)


def statistics(counts):
    return {"mean_db": np.full((1, 6), 3.0), "std_db": np.full((1, 6), 2.0), "class_counts": np.array(counts)}


def test_statistics_become_buffers_of_the_network_and_class_weights_average_to_one():
    model = stager(class_weight_power=1.0)
    counts = np.array([400, 50, 800, 100, 150])
    model.set_normalization(statistics(counts))
    assert model.network.state_dict()["encoder.standardize.mean"].eq(3.0).all()
    weights = model.class_weights.numpy()
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(weights * counts, (weights * counts)[0], rtol=1e-5)


def test_power_zero_weighs_all_classes_alike_and_an_absent_class_weighs_nothing():
    model = stager(class_weight_power=0.0)
    model.set_normalization(statistics([10, 0, 20, 30, 40]))
    assert model.class_weights.tolist() == [1.0, 0.0, 1.0, 1.0, 1.0]


def test_a_checkpoint_keeps_its_class_weights():
    saved = {"hyper_parameters": {"class_weight_power": 0.5}}
    stager(class_weight_power=0.5).on_load_checkpoint(saved)
    with pytest.raises(BadInput, match="has class_weight_power="):
        stager(class_weight_power=0.0).on_load_checkpoint(saved)


def test_results_list_recordings_spread_pool_and_baseline():
    model = stager()
    model.test_recordings = ["a", "b", "empty"]
    model.test_counts = np.zeros((3, 5, 5), int)
    model.test_counts[0] = np.diag([5, 1, 9, 3, 2])
    model.test_counts[1] = np.full((5, 5), 2)
    rows = {row["recording"]: row for row in model.results()}
    assert rows["a"]["acc"] == 1.0
    assert "empty" not in rows
    assert rows["mean"]["acc"] == pytest.approx(0.6)
    assert rows["pooled"]["epochs"] == 70
    assert rows["majority stage"]["κ"] == 0.0
    assert rows["human scorers"]["acc"] is None
    assert rows["b"]["W"] == pytest.approx(0.2)
    assert model.test_metrics()["test/accuracy"] == pytest.approx(30 / 70)


def test_the_temperature_undoes_overconfidence():
    model = stager()
    model.take_over(type("Data", (), {"statistics": lambda self: statistics([1, 1, 1, 1, 1])})())
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3000, 1, 6, 5, generator=generator) * 2 + 3

    def tuned():
        return model.tune(type("Data", (), {"val_dataloader": lambda self: [(x, y, None)]})())["temperature"]

    with torch.no_grad():
        model.network.eval()
        y = torch.distributions.Categorical(logits=model.network(x)).sample()
        honest = tuned()
        model.network.head[1].weight.mul_(4)
        model.network.head[1].bias.mul_(4)
        assert tuned() == pytest.approx(4 * honest, rel=0.05)


def test_decay_spares_norms_and_biases():
    decayed, rest = stager().parameter_groups()
    assert "weight_decay" not in decayed
    assert rest["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim <= 1 for p in rest["params"])
