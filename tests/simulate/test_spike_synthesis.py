import numpy as np
import pytest

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import slow_baseline
from src.preprocess.spikes.waveforms import fit_waveforms
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.simulate.spike_synthesis import (
    Grafting,
    Source,
    add_spikes,
    conditioned_waveforms,
    grafted,
    onset_mask,
    overlaid,
)
from src.simulate.spikes import background, mean_peak, simulate

CHAIN = Conditioning(low_hz=20.0)


@pytest.fixture(scope="module")
def waveforms():
    trace, train = simulate(700, 30.0, 5, duration_s=18)
    return fit_waveforms(trace - slow_baseline(trace), train, 5)


@pytest.fixture(scope="module")
def source(waveforms):
    return Source(waveforms, 40.0, CHAIN)


def test_a_synthetic_trace_is_as_noisy_as_the_target_and_as_full_as_asked(source):
    noise = background(5.0, 0.0, mean_peak())
    trace, train = source.trace(200_000, noise, np.random.default_rng(0))
    assert trace.dtype == np.float32
    assert 0.7 * 40 * 8 * 0.8 < len(train) < 2.2 * 40 * 8 * 1.2
    assert train.index.min() >= 0
    assert train.index.max() < 200_000
    again, _ = source.trace(200_000, noise, np.random.default_rng(0))
    other, _ = source.trace(200_000, noise, np.random.default_rng(1))
    np.testing.assert_array_equal(trace, again)
    assert np.abs(trace - other).max() > 1
    for unit in range(1, 6):
        assert np.diff(train.index[train.unit == unit]).min() >= Grafting().dead_samples
    assert np.diff(train.index).min() < 10  # different neurons do overlap


def test_a_stretch_of_the_target_can_take_the_place_of_synthetic_noise(source):
    rng = np.random.default_rng(0)
    stretch = rng.standard_normal(20_000 + 2 * source.margin)
    trace, train = source.trace(20_000, stretch, np.random.default_rng(1))
    quiet, same = source.trace(20_000, np.zeros_like(stretch), np.random.default_rng(1))
    np.testing.assert_array_equal(train.index, same.index)
    np.testing.assert_allclose(trace - quiet, stretch[source.margin : -source.margin], atol=1e-4)


def test_classes_absent_from_training_are_never_drawn(waveforms):
    counts = waveforms.counts.copy()
    counts[[1, 3]] = 0
    partial = type(waveforms)(waveforms.templates, waveforms.modes, waveforms.onset, counts)
    _, train = Source(partial, 40.0, CHAIN).trace(100_000, background(5.0, 0.0, mean_peak()), np.random.default_rng(0))
    assert set(train.unit) == {1, 3, 5}


def test_grafting_brings_a_quiet_recording_to_the_targets_level():
    own, target = background(30.0, 0.0, mean_peak()), background(5.0, 0.0, mean_peak())
    quiet = own.synthesise(100_000, np.random.default_rng(0))
    noisy = grafted(quiet, own, target, np.random.default_rng(1))
    assert noisy.std() == pytest.approx(target.sigma(), rel=0.05)
    same = grafted(noisy, target, own, np.random.default_rng(2))  # a louder recording is left as it is
    np.testing.assert_allclose(same, noisy, atol=1e-6)


def test_spikes_lie_where_the_train_says(waveforms):
    train = SpikeTrain(np.array([0, 500, 995]), np.array([1, 5, 2]))
    trace = add_spikes(train, waveforms, 1_000, np.random.default_rng(0), variation=0.0)
    np.testing.assert_allclose(trace[490:590], waveforms.templates[4], atol=1e-6)
    np.testing.assert_allclose(trace[:90], waveforms.templates[0, 10:], atol=1e-6)
    np.testing.assert_allclose(trace[985:], waveforms.templates[1, :15], atol=1e-6)


def test_labels_cover_the_onset_widened_and_shifted():
    train = SpikeTrain(np.array([2, 50, 98]), np.array([1, 2, 2]))
    mask = onset_mask(train, 100, 2, half_width=3, offset=0)
    assert np.flatnonzero(mask[0]).tolist() == [0, 1, 2, 3, 4, 5]
    assert np.flatnonzero(mask[1]).tolist() == [*range(47, 54), *range(95, 100)]
    shifted = onset_mask(train, 100, 1, half_width=1, offset=10)
    assert np.flatnonzero(shifted[0]).tolist() == [11, 12, 13, 59, 60, 61]


def test_the_band_pass_widens_waveforms_and_keeps_their_place(waveforms):
    seen = conditioned_waveforms(waveforms, CHAIN, reach=60)
    assert seen.templates.shape == (5, 220)
    assert seen.onset == 70
    assert np.abs(seen.templates[4]).argmax() == pytest.approx(70 + 14, abs=3)
    assert seen.templates[4].max() == pytest.approx(waveforms.templates[4].max(), rel=0.1)


def test_a_trace_over_itself_has_every_spike_twice():
    rng = np.random.default_rng(0)
    train = SpikeTrain.sorted(rng.integers(0, 20_000, 150), rng.integers(1, 6, 150))
    trace = np.zeros(20_000, np.float32)
    trace[train.index] += train.unit
    dense, both = overlaid(trace, train, 25, rng)
    assert len(both) == 2 * len(train)
    assert np.all(np.diff(both.index) >= 0)
    expected = np.zeros(20_000)
    for at in range(2):  # the same spikes, then the same spikes one lag later
        lag = 0 if at == 0 else int(np.argmax([np.dot(dense - trace, np.roll(trace, k)) for k in range(20_000)]))
        expected += np.roll(trace, lag)
    np.testing.assert_allclose(dense, expected)
    assert dense.sum() == pytest.approx(2 * trace.sum())
    order = np.argsort(both.unit, kind="stable")
    close = (np.diff(both.index[order]) <= 25) & (np.diff(both.unit[order]) == 0)
    own = np.argsort(train.unit, kind="stable")
    before = (np.diff(train.index[own]) <= 25) & (np.diff(train.unit[own]) == 0)
    assert close.sum() <= 2 * before.sum() + 8  # hardly any that the lag has brought together
