"""The simulated background has the spectra asked for, and stages look like themselves."""

import numpy as np
import pytest
import scipy.signal

from src.simulate import sleep_statistics as measured
from src.simulate.sleep_eeg import SCALE_UV, Sleeper, _amplitude, _overlap_add, simulate_eeg
from src.simulate.sleep_statistics import BANDS_HZ, CHANNELS

W, N1, N2, N3, REM = range(5)


def night_of(stages, seed=0):
    return simulate_eeg(np.random.default_rng([seed, 1]), stages, Sleeper.draw(np.random.default_rng(seed)))


@pytest.fixture(scope="module")
def spectra():
    """``(stage, channel, frequency)`` mean density over 4 sleepers, 20 epochs a stage, and the frequencies."""
    stages = np.repeat(np.arange(5, dtype=np.int8), 20)
    nights = np.stack([night_of(stages, seed).reshape(3, 5, 20, 3000)[:, :, 1:-1] for seed in range(4)])
    freqs, power = scipy.signal.welch(nights, 100.0, nperseg=400)
    return np.median(power, axis=3).mean(axis=0).swapaxes(0, 1), freqs


def band(spectra, stage, channel, low, high):
    power, freqs = spectra
    return power[stage, channel, (freqs >= low) & (freqs < high)].sum() * freqs[1]


def test_background_has_the_band_powers_asked_for():
    levels = np.log(np.array([[200.0, 20.0, 8.0, 4.0, 6.0]], np.float32)).repeat(3000, axis=0)
    rng = np.random.default_rng(0)
    amplitude = _amplitude(levels, np.zeros((3000, 201), np.float32))
    noise = rng.standard_normal((3000, 201, 2), dtype=np.float32).view(np.complex64)[..., 0]
    row = _overlap_add(noise * amplitude, 600_000)
    freqs, power = scipy.signal.welch(row, 100.0, nperseg=400)
    got = [power[(freqs >= low) & (freqs < high)].sum() * freqs[1] for low, high in BANDS_HZ]
    np.testing.assert_allclose(np.log(got), levels[0], atol=0.8)
    assert row[:300_000].std() == pytest.approx(row[300_000:].std(), rel=0.05)


def test_n3_is_slow_and_large(spectra):
    for stage in (W, N1, N2, REM):
        assert band(spectra, N3, 0, 0.5, 4) > 1.8 * band(spectra, stage, 0, 0.5, 4)


def test_wake_has_alpha_over_the_back_of_the_head(spectra):
    power, freqs = spectra
    peak = freqs[(freqs >= 6) & (freqs <= 15)][power[W, 1, (freqs >= 6) & (freqs <= 15)].argmax()]
    assert 8.5 <= peak <= 11.0
    assert band(spectra, W, 1, 8, 12) > 1.5 * band(spectra, N2, 1, 8, 12)


def test_n2_has_spindles(spectra):
    power, freqs = spectra
    inside, beside = (freqs >= 12) & (freqs < 14.5), (freqs >= 16) & (freqs < 18)
    ratio = [power[stage, 0, inside].mean() / power[stage, 0, beside].mean() for stage in (N2, REM)]
    assert ratio[0] > 1.5 * ratio[1]


def test_eyes_move_in_rem(spectra):
    assert band(spectra, REM, 2, 0.5, 2) > 1.3 * band(spectra, N2, 2, 0.5, 2)


def test_measured_power_of_stages_comes_out(spectra):
    """Relative to N2, every band of the EEG channels is within 0.7 of its measured log ratio."""
    for stage in range(5):
        for channel in (0, 1):
            for number, (low, high) in enumerate(BANDS_HZ):
                got = np.log(band(spectra, stage, channel, low, high) / band(spectra, N2, channel, low, high))
                wanted = measured.MEAN[stage, channel, number] - measured.MEAN[N2, channel, number]
                assert abs(got - wanted) < 0.8, (stage, channel, number)


def test_sleepers_differ_and_stay_themselves():
    one, other = (Sleeper.draw(np.random.default_rng(seed)) for seed in (1, 2))
    assert one.traits != other.traits
    assert not np.allclose(one.levels, other.levels)
    again = Sleeper.draw(np.random.default_rng(1))
    assert again.traits == one.traits
    np.testing.assert_array_equal(again.levels, one.levels)


def test_any_epoch_length():
    samples = simulate_eeg(
        np.random.default_rng(0), np.array([0, 1, 2, 2], np.int8), Sleeper.draw(np.random.default_rng(0)), 4.0
    )
    assert samples.shape == (len(CHANNELS), 1600)
    assert len(SCALE_UV) == len(CHANNELS)
