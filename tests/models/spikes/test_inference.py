import numpy as np
import torch

from src.models.spikes.inference import neuron_probability, onset_probability
from src.models.spikes.networks import SpikeClassifier, SpikeDetector


def test_one_pass_is_the_same_as_windows_of_120_samples_and_as_other_pieces():
    torch.manual_seed(0)
    network = SpikeDetector((8, 8, 8), (5, 5, 3), (1, 2, 4)).eval()
    trace = np.random.default_rng(0).standard_normal(700).astype(np.float32)
    whole = onset_probability(network, trace)
    np.testing.assert_allclose(onset_probability(network, trace, piece=111), whole, atol=1e-6)
    windows = np.lib.stride_tricks.sliding_window_view(trace, 120)
    with torch.no_grad():
        middle = torch.sigmoid(network(torch.from_numpy(windows.copy())[:, None]))[:, 60].numpy()
    np.testing.assert_allclose(middle, whole[60 : 60 + len(middle)], atol=1e-6)


def test_waveforms_are_cut_around_their_onsets():
    torch.manual_seed(0)
    network = SpikeClassifier(3).eval()
    trace = np.random.default_rng(1).standard_normal(500).astype(np.float32)
    probability = neuron_probability(network, trace, np.array([5, 200]))
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-6)
    with torch.no_grad():
        alone = torch.softmax(network(torch.from_numpy(trace[180:244])[None, None]), dim=1)[0].numpy()
    np.testing.assert_allclose(probability[1], alone, atol=1e-6)
    assert neuron_probability(network, trace, np.zeros(0, int)).shape == (0, 3)
