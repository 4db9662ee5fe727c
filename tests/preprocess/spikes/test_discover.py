import numpy as np
import pytest

from src.preprocess.spikes.bank import Whitening
from src.preprocess.spikes.discover import DiscoverParams, discover, find_peaks, mean_waveforms, merge_similar
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.signals import BadInput

FS_HZ = 25_000.0


def bump(at, width, height, length=75):
    return height * np.exp(-0.5 * ((np.arange(length) - at) / width) ** 2)


def test_the_larger_polarity_is_chosen_and_pulses_are_above_the_ceiling():
    scaled = np.random.default_rng(0).standard_normal((1, 50_000)).astype(np.float32)
    for at in range(500, 49_000, 500):
        scaled[0, at : at + 5] -= 15
    scaled[0, 20_250] = 900
    sign, peaks, height, ceiling = find_peaks(scaled, FS_HZ, 5.0)
    assert sign == -1
    assert len(peaks) == 97
    assert 15 < height.mean() < 18
    assert ceiling < 900


def test_units_whose_waveforms_cannot_be_told_apart_are_one():
    shapes = np.stack([bump(25, 4, 5.0), bump(25, 4, 5.2), bump(25, 4, 12.0)])[:, None]
    plain = Whitening(np.eye(1), np.ones((1, 1)))
    kept, _, counts = merge_similar(shapes, np.zeros((3, 2, 1, 75)), np.array([40, 60, 50]), 25, plain, 0.9)
    np.testing.assert_array_equal(counts, [100, 50])
    assert kept[0].max() == pytest.approx(5.2)


def test_mean_waveforms_are_cut_around_the_spikes():
    traces = np.zeros((2, 3_000))
    for at in (500, 1_500):
        traces[1, at - 5 : at + 5] = 7
    means = mean_waveforms(traces, SpikeTrain(np.array([500, 1_500]), np.array([2, 2])), 2, 25, 50)
    assert means.shape == (2, 2, 75)
    assert not means[0].any()
    assert means[1, 1, 25] == 7


def test_a_recording_without_peaks_is_refused():
    with pytest.raises(BadInput, match="peaks beyond"):
        discover(np.random.default_rng(0).standard_normal((1, 20_000)), FS_HZ, DiscoverParams(threshold=8.0))
