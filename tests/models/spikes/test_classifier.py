import numpy as np

from src.models.bundle import load_bundle
from src.models.spikes.inference import window_probability
from src.models.spikes.networks import TEMPLATE_ONSET


def test_waveforms_of_a_held_out_block_are_told_apart(spike_models):
    model, _, _ = spike_models["classifier"]
    rows = {row["target"]: row for row in model.results()}
    assert rows["D2"]["accuracy"] > 0.75
    assert rows["D5"]["accuracy"] > 0.4
    assert rows["D2"]["spikes"] == rows["D5"]["spikes"] > 50
    assert 0 < model.test_metrics()["test/macro_f1"] < 1


def test_amplitude_decides_between_neurons_of_one_shape(spike_models):
    _, _, folder = spike_models["classifier"]
    network = load_bundle(folder).network()
    templates = network.templates.numpy()[:, TEMPLATE_ONSET - 20 : TEMPLATE_ONSET + 44]
    named = window_probability(network, templates, 0)[:, :-1].argmax(axis=1)
    assert named.tolist() == [0, 1, 2, 3, 4]
    shrunk = window_probability(network, templates[4:5] * 3.95 / 6.15, 0)[0, :-1]
    assert shrunk.argmax() == 3  # neuron 5 at neuron 4's amplitude is neuron 4


def test_silence_is_noise(spike_models):
    _, _, folder = spike_models["classifier"]
    probability = window_probability(load_bundle(folder).network(), np.zeros((3, 64), np.float32), 0)
    assert probability.shape == (3, 6)
    assert (probability.argmax(axis=1) == 5).all()


def test_nothing_is_tuned(spike_models):
    model, data, folder = spike_models["classifier"]
    assert model.tune(data) == {"targets": {"D2": {}, "D5": {}}}
    assert load_bundle(folder).task == "spike_classification"
