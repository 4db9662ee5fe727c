import numpy as np
import pytest
import torch

from src.models.spikes.networks import SpikeClassifier, SpikeDetector


def test_the_detector_sees_eleven_samples_as_the_coursework_s():
    network = SpikeDetector().eval()
    assert network.receptive_field == 11
    x = torch.zeros(1, 1, 101)
    x[0, 0, 50] = 100.0
    seen = (network(x) - network(torch.zeros_like(x))).abs()[0] > 1e-7
    assert seen[45:56].any()
    assert not seen[:45].any()
    assert not seen[56:].any()
    assert sum(p.numel() for p in network.parameters()) == 16 * 6 + 32 * 81 + 64 * 97 + 65


def test_dilations_widen_the_view():
    network = SpikeDetector((8, 8, 8, 8), (7, 5, 3, 3), (1, 2, 4, 8))
    assert network.receptive_field == 1 + 6 + 8 + 8 + 16
    assert network(torch.zeros(3, 1, 120)).shape == (3, 120)


def test_the_classifier_keeps_amplitude():
    network = SpikeClassifier(5).eval()
    network.scale.fill_(2.0)
    small, large = network(torch.ones(2, 1, 64)), network(3 * torch.ones(2, 1, 64))
    assert small.shape == (2, 5)
    assert not torch.allclose(small, large)


def test_layers_need_the_same_number_of_entries():
    with pytest.raises(ValueError, match="argument"):
        SpikeDetector((16,), (5, 5), (1, 1))


def test_one_pass_is_the_same_as_windows_of_120_samples_and_as_other_pieces():
    torch.manual_seed(0)
    network = SpikeDetector((8, 8, 8), (5, 5, 3), (1, 2, 4)).eval()
    trace = np.random.default_rng(0).standard_normal(700).astype(np.float32)
    whole = network.onset_probability(trace)
    np.testing.assert_allclose(network.onset_probability(trace, piece=111), whole, atol=1e-6)
    windows = np.lib.stride_tricks.sliding_window_view(trace, 120)
    with torch.no_grad():
        middle = torch.sigmoid(network(torch.from_numpy(windows.copy())[:, None]))[:, 60].numpy()
    np.testing.assert_allclose(middle, whole[60 : 60 + len(middle)], atol=1e-6)


def test_waveforms_are_cut_around_their_onsets():
    torch.manual_seed(0)
    network = SpikeClassifier(3).eval()
    trace = np.random.default_rng(1).standard_normal(500).astype(np.float32)
    probability = network.neuron_probability(trace, np.array([5, 200]))
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-6)
    with torch.no_grad():
        alone = torch.softmax(network(torch.from_numpy(trace[180:244])[None, None]), dim=1)[0].numpy()
    np.testing.assert_allclose(probability[1], alone, atol=1e-6)
    assert network.neuron_probability(trace, np.zeros(0, int)).shape == (0, 3)
