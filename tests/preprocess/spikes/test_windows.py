import numpy as np
import pytest

from src.preprocess.spikes.matched_filter import FilterBank, subtract
from src.preprocess.spikes.waveforms import cut
from src.preprocess.spikes.windows import detector_windows, hard_negatives, spike_windows
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.simulate.spikes import NEURONS, background, mean_peak, simulate

TEMPLATES = np.stack([neuron.at(np.arange(-10, 90) - 0.0) for neuron in NEURONS])


def test_pieces_beyond_the_ends_are_zero():
    pieces = cut(np.arange(1.0, 6.0), np.array([-2, 3]), 4)
    assert pieces.tolist() == [[0, 0, 1, 2], [4, 5, 0, 0]]
    assert cut(np.ones(5), np.zeros(0, int), 4).shape == (0, 4)


def test_a_spikes_window_is_free_of_its_neighbours_and_keeps_its_amplitude():
    train = SpikeTrain(np.array([200, 215, 600]), np.array([5, 1, 4]))
    trace = np.zeros(1_000)
    for index, unit in zip(train.index, train.unit, strict=True):
        subtract(trace, -TEMPLATES[unit - 1], index - 10)
    windows = spike_windows(trace, train, TEMPLATES, 10)
    assert windows.shape == (3, 64)
    for window, unit in zip(windows, train.unit, strict=True):
        np.testing.assert_allclose(window[10:], TEMPLATES[unit - 1, :54], atol=1e-5)
        np.testing.assert_allclose(window[:10], 0, atol=1e-5)


def test_what_a_spike_itself_is_held_for_does_not_change_its_window():
    trace, train = simulate(60, 5.0, 0, duration_s=1.0)
    alone = np.flatnonzero(np.diff(train.index, prepend=-1000, append=10**6).clip(max=400)[:-1] > 300)[0]
    mistaken = SpikeTrain(train.index, np.where(np.arange(len(train)) == alone, train.unit % 5 + 1, train.unit))
    right, wrong = (spike_windows(trace, t, TEMPLATES, 10)[alone] for t in (train, mistaken))
    np.testing.assert_allclose(right, wrong, atol=1e-4)


def test_hard_negatives_exist_and_hold_no_spike():
    trace, train = simulate(100, 4.0, 1, duration_s=2.0)
    bank = FilterBank(TEMPLATES, 10, background(4.0, 1.0, mean_peak()))
    places = hard_negatives(trace, train, bank, 40)
    assert len(places) == 40
    assert np.abs(places[:, None] - train.index).min() > 12
    best = bank.outputs(trace).max(axis=0)
    assert best[places[:10]].mean() > np.quantile(best, 0.9)
    assert len(hard_negatives(trace, SpikeTrain.empty(), bank, 5)) == 5


def test_detector_windows_tile_the_trace_with_context():
    trace = np.arange(1_000.0)
    labels = np.stack((trace, -trace))
    pieces, inner = detector_windows(trace, labels, window=120, context=40)
    assert pieces.shape == (7, 200)
    assert inner.shape == (7, 2, 120)
    np.testing.assert_array_equal(pieces[:, 40:160], inner[:, 0])
    np.testing.assert_array_equal(pieces[3], trace[360:560])


@pytest.mark.parametrize("unit", range(5))
def test_the_window_places_the_onset_at_sample_20(unit):
    trace = np.zeros(300)
    subtract(trace, -TEMPLATES[unit], 100 - 10)
    window = spike_windows(trace, SpikeTrain(np.array([100]), np.array([unit + 1])), TEMPLATES, 10)[0]
    assert not window[:20].any()
    assert window[21] > 0.1
