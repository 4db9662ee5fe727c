"""Transients have their textbook shapes and come when they should."""

import numpy as np
import pytest

from src.simulate.sleep_eeg import FS_HZ, WAVES, Traits

TRAITS = Traits(alpha_hz=10.0, rhythm_rate=1.0, spindle_hz=13.0, spindle_rate=1.0, slow_wave_rate=1.0, eye_rate=1.0)


def waves(name, n=200):
    return WAVES[name].shape(np.random.default_rng(0), n, TRAITS)


@pytest.mark.parametrize("name", sorted(WAVES))
def test_unit_size_and_both_ends_near_rest(name):
    shapes = waves(name)
    assert shapes.dtype == np.float32
    assert np.isfinite(shapes).all()
    peaks = np.abs(shapes).max(axis=1)
    assert 0.4 < np.median(peaks) < 4
    assert np.abs(shapes[:, -1]).mean() < 0.12 * peaks.mean()


def dominant_hz(shapes):
    spectrum = np.abs(np.fft.rfft(shapes, 2000, axis=1)).mean(axis=0)
    return np.fft.rfftfreq(2000, 1 / FS_HZ)[spectrum.argmax()]


def test_spindles_have_their_sleepers_frequency():
    assert dominant_hz(waves("spindle")) == pytest.approx(12.5, abs=0.7)
    lengths = (np.abs(waves("spindle")) > 0.1).sum(axis=1) / FS_HZ
    assert 0.4 < np.percentile(lengths, 5) < np.percentile(lengths, 95) < 1.6


def test_a_k_complex_goes_down_then_up():
    shapes = waves("K-complex")
    assert (shapes.argmin(axis=1) < shapes.argmax(axis=1)).all()
    assert (shapes.min(axis=1) < -0.9).all()


def test_slow_waves_sawteeth_and_rolling_eyes_are_slow():
    assert 0.4 < dominant_hz(waves("slow wave")) < 1.5
    assert 2.0 < dominant_hz(waves("sawtooth")) < 4.2
    assert dominant_hz(waves("rolling eyes")) < 0.8


def test_traits_lie_in_the_population():
    drawn = [Traits.draw(np.random.default_rng(seed)) for seed in range(200)]
    alpha = np.array([t.alpha_hz for t in drawn])
    assert 8.8 <= alpha.min() < alpha.max() <= 10.8
    assert 12 < np.mean([t.spindle_hz for t in drawn]) < 14
    assert all(t.spindle_rate > 0 for t in drawn)
