"""Resampling keeps what lies in the band, removes what would fold, and has the exact length."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.recordings.sleep.channels import require_band, resample
from src.signals import BadInput, Recording

RATES = (50.0, 64.0, 100.0, 128.0, 199.8, 200.0, 250.0, 256.0, 500.0, 512.0)


def tone(frequency_hz, fs_hz, seconds=20.0):
    return np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * fs_hz)) / fs_hz).astype(np.float32)


@pytest.mark.parametrize("fs_hz", [128.0, 199.8, 200.0, 256.0, 512.0])
@pytest.mark.parametrize("frequency_hz", [0.7, 10.0, 30.0, 44.0])
def test_a_tone_in_the_band_comes_out_in_phase(fs_hz, frequency_hz):
    out = resample(tone(frequency_hz, fs_hz), fs_hz, 100.0)
    np.testing.assert_allclose(out[200:-200], tone(frequency_hz, 100.0)[200:-200], atol=5e-3)


@pytest.mark.parametrize("frequency_hz", [50.5, 55.0, 60.0, 90.0, 110.0])
def test_what_would_fold_is_gone(frequency_hz):
    assert np.abs(resample(tone(frequency_hz, 256.0), 256.0, 100.0)[200:-200]).max() < 2e-3


def test_there_and_back():
    slow = tone(7.0, 100.0) + tone(21.0, 100.0)
    back = resample(resample(slow, 100.0, 128.0), 128.0, 100.0)
    np.testing.assert_allclose(back[200:-200], slow[200:-200], atol=5e-3)


def test_an_offset_leaves_no_step_at_the_ends():
    np.testing.assert_allclose(resample(np.full(2560, 1234.5, np.float32), 256.0, 100.0), 1234.5, rtol=1e-6)


@pytest.mark.parametrize("fs_hz", [127.5, 128.0, 200.0, 256.0, 512.0])
def test_a_stretch_that_does_not_move_is_flat_at_any_rate(fs_hz):
    samples = np.random.default_rng(0).standard_normal(int(40 * fs_hz)).astype(np.float32)
    samples[int(10 * fs_hz) : int(30 * fs_hz)] = -327.67
    out = resample(samples, fs_hz, 100.0)
    assert (out[1001:2999] == np.float32(-327.67)).all()
    assert out[:1000].std() > 0.3
    assert out[3000:].std() > 0.3


@settings(deadline=None)
@given(st.sampled_from(RATES), st.sampled_from(RATES), st.integers(1, 3000))
def test_length_is_exact(from_hz, to_hz, n):
    out = resample(np.ones((2, n), np.float32), from_hz, to_hz)
    assert out.shape == (2, round(n * to_hz / from_hz))
    assert out.dtype == np.float32


def test_missing_samples_stay_missing_and_spoil_nothing_else():
    signal = tone(10.0, 128.0, 60.0)
    holed = signal.copy()
    holed[1280:2560] = np.nan
    out = resample(holed[None], 128.0, 100.0)[0]
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(out)), np.arange(1000, 2000))
    np.testing.assert_allclose(out[2100:-200], resample(signal, 128.0, 100.0)[2100:-200], atol=5e-3)
    assert np.isnan(resample(np.full(128, np.nan, np.float32), 128.0, 100.0)).all()


def test_the_same_rate_is_the_same_array():
    signal = tone(10.0, 100.0)
    assert resample(signal, 100.0, 100.0) is signal


def test_a_rate_too_low_for_the_band_is_refused():
    slow = Recording(np.zeros((1, 100)), 50.0, ("C3-A1",), ("uV",), "n", "n", source="n.edf")
    require_band(replace(slow, fs_hz=100.0), 50.0)
    with pytest.raises(BadInput) as caught:
        require_band(slow, 40.0)
    assert str(caught.value) == (
        "n.edf: channel 'C3-A1': sampling rate 50 Hz is too low, up to 40 Hz is analysed; "
        "export it at 80 Hz or more, or train with a lower max_hz"
    )
