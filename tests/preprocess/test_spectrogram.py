"""The spectrogram against SciPy value by value, and the properties streaming relies on."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from src.preprocess.spectrogram import SpectrogramPlan
from src.signals import BadInput

SCIPY_COMPAT: dict = {"window": ("tukey", 0.25), "nperseg": 1024, "noverlap": 768, "nfft": 2048}


def scipy_power(samples, fs_hz, window, nperseg, noverlap, nfft, detrend="constant", scaling="density"):
    keep = {"detrend": False if detrend == "none" else detrend, "scaling": scaling, "mode": "psd"}
    return scipy.signal.spectrogram(
        samples.astype(np.float64), fs_hz, window=window, nperseg=nperseg, noverlap=noverlap, nfft=nfft, **keep
    )


def relative_error(ours, reference):
    return np.quantile(np.abs(ours - reference) / np.maximum(reference, np.finfo(np.float32).tiny), 0.999)


@st.composite
def cases(draw):
    nperseg = draw(st.integers(2, 300))
    return {
        "nperseg": nperseg,
        "noverlap": draw(st.integers(0, nperseg - 1)),
        "nfft": nperseg + draw(st.integers(0, 200)),
        "window": draw(st.sampled_from([("tukey", 0.25), "hann", "hamming", "boxcar", ("kaiser", 6.0)])),
        "detrend": draw(st.sampled_from(["constant", "none"])),
        "scaling": draw(st.sampled_from(["density", "spectrum"])),
    }


def power_spectrogram(samples, fs_hz, nperseg, **more):
    """Frequencies, times and power of one channel."""
    plan = SpectrogramPlan(float(fs_hz), nperseg=nperseg, **{"nfft": nperseg, **more})
    power = plan.power(samples)
    return plan.freqs, plan.times(power.shape[1]), power


@settings(max_examples=60, deadline=None)
@given(
    cases(),
    st.integers(0, 700),
    st.floats(0.5, 30_000),
    st.sampled_from([np.int16, np.int32, np.uint16, np.float16, np.float32, np.float64]),
    st.integers(0, 10**6),
)
def test_equals_scipy(case, extra, fs_hz, dtype, seed):
    rng = np.random.default_rng(seed)
    samples = (rng.standard_normal(case["nperseg"] + extra) * 300 + (3000 if dtype != np.float16 else 0)).astype(dtype)
    freqs, times, power = power_spectrogram(samples, fs_hz, **case)
    want_freqs, want_times, want = scipy_power(samples, fs_hz, **case)
    np.testing.assert_allclose(freqs, want_freqs, rtol=1e-12)
    np.testing.assert_allclose(times, want_times, rtol=1e-12)
    assert power.dtype == np.float32
    assert power.shape == want.shape
    np.testing.assert_allclose(power, want, rtol=1e-3, atol=1e-7 * np.nanmax(want))


def test_dc_offset_of_an_amplifier_does_not_cost_precision():
    rng = np.random.default_rng(4)
    samples = (rng.standard_normal(20_000) * 50 + 30_000).astype(np.float32)
    _, _, power = power_spectrogram(samples, 500, **SCIPY_COMPAT)
    assert relative_error(power, scipy_power(samples, 500, **SCIPY_COMPAT)[2]) < 1e-3


@settings(max_examples=30, deadline=None)
@given(cases(), st.data())
def test_any_stretch_gives_the_same_bits(case, data):
    plan = SpectrogramPlan(250.0, **case)
    samples = np.random.default_rng(5).standard_normal(3 * case["nperseg"] + 500).astype(np.float32)
    whole = plan.power(samples)
    first = data.draw(st.integers(0, whole.shape[1] - 1))
    last = data.draw(st.integers(first + 1, whole.shape[1]))
    np.testing.assert_array_equal(plan.power(samples[plan.stretch(first, last)]), whole[:, first:last])


def test_bins_and_fmax_are_slices_of_the_whole():
    samples = np.random.default_rng(6).standard_normal(4000)
    plan = SpectrogramPlan(500.0, **SCIPY_COMPAT)
    whole = plan.power(samples)
    for bins in (slice(0, 7), slice(7, 600), slice(600, 1025), slice(1024, 1025)):
        np.testing.assert_array_equal(plan.power(samples, bins=bins), whole[bins])
    freqs, _, low = power_spectrogram(samples, 500, **SCIPY_COMPAT, fmax_hz=64)
    assert freqs[-1] <= 64 < freqs[-1] + plan.spacing_hz
    np.testing.assert_array_equal(low, whole[: len(freqs)])


@pytest.mark.parametrize("value", [0.0, 3276.71, -0.1, 30000.123456789])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_a_channel_that_does_not_move_has_no_power(value, dtype):
    samples = np.full(20_000, value).astype(dtype)
    assert not SpectrogramPlan(500.0, "hann", 1000, 750, 1000).power(samples).any()


def test_power_beyond_single_precision_is_infinite():
    samples = 1e30 * np.random.default_rng(7).standard_normal(3000)
    assert np.isposinf(SpectrogramPlan(250.0, "hann", 100, 63, 128).power(samples)[1:]).all()


@pytest.mark.parametrize("gap", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("detrend", ["constant", "none"])
def test_a_gap_masks_the_frames_it_touches_and_no_other(gap, detrend):
    samples = np.random.default_rng(7).standard_normal(3000).astype(np.float32)
    plan = SpectrogramPlan(250.0, "hann", 100, 63, 128, detrend=detrend)
    clean = plan.power(samples)
    samples[1000:1003] = gap
    power = plan.power(samples)
    starts = np.arange(clean.shape[1]) * plan.hop
    touched = (starts < 1003) & (starts + 100 > 1000)
    assert np.isnan(power[:, touched]).all()
    np.testing.assert_array_equal(power[:, ~touched], clean[:, ~touched])


def test_multitaper_is_the_average_over_slepian_tapers():
    samples = np.random.default_rng(8).standard_normal(3000)
    tapers = scipy.signal.windows.dpss(256, 2, 3)
    singles = [scipy_power(samples, 100, taper, 256, 200, 256)[2] for taper in tapers]
    _, _, power = power_spectrogram(samples, 100, window=["multitaper", 2, 3], nperseg=256, noverlap=200)
    np.testing.assert_allclose(power, np.mean(singles, axis=0), rtol=1e-3, atol=1e-6)


def test_power_of_white_noise_and_of_a_sine():
    rng = np.random.default_rng(9)
    _, _, power = power_spectrogram(rng.standard_normal(200_000) * 3, 500, **SCIPY_COMPAT)
    assert np.median(power[5:-5].mean(axis=1)) == pytest.approx(2 * 9 / 500, rel=0.02)
    sine = 3 * np.sin(2 * np.pi * 50 * np.arange(5000) / 500)
    freqs, _, peak = power_spectrogram(sine, 500, window="hann", nperseg=500, noverlap=0, scaling="spectrum")
    assert freqs[peak[:, 0].argmax()] == 50
    assert peak.max() == pytest.approx(4.5, rel=1e-5)


def test_resolution_is_the_windows_own_not_the_bin_spacing():
    tukey = SpectrogramPlan(500.0, **SCIPY_COMPAT)
    hann = SpectrogramPlan(500.0, "hann", 1024, 768, 2048)
    assert tukey.spacing_hz == hann.spacing_hz == 500 / 2048
    assert tukey.resolution_hz == pytest.approx(0.49, abs=0.01)
    assert hann.resolution_hz == pytest.approx(1.44 * 500 / 1024, rel=0.02)
    assert hann.noise_bandwidth_hz == pytest.approx(1.5 * 500 / 1024, rel=1e-6)
    assert SpectrogramPlan(500.0, ("multitaper", 2, 3), 1024, 768, 2048).resolution_hz == pytest.approx(
        2 * 2 * 500 / 1024, rel=0.25
    )


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"nperseg": 0}, "nperseg"),
        ({"noverlap": 1024}, "noverlap"),
        ({"noverlap": -1}, "noverlap"),
        ({"nfft": 512}, "nfft"),
        ({"window": "hanning window"}, "window"),
        ({"window": ["multitaper", 2]}, "window"),
        ({"window": np.ones(3)}, "window"),
        ({"detrend": "linear"}, "detrend"),
        ({"scaling": "dB"}, "scaling"),
        ({"window": ["multitaper", 2, 3], "scaling": "spectrum"}, "scaling"),
        ({"fmax_hz": -1}, "fmax_hz"),
        ({"samples": np.zeros(1023)}, "samples"),
        ({"samples": np.zeros(5000, dtype=complex)}, "samples"),
        *(({"fs_hz": fs_hz}, "fs_hz") for fs_hz in (0, -1, np.nan, np.inf)),
    ],
)
def test_parameters_that_make_no_sense(change, names):
    given = {"samples": np.zeros(5000), "fs_hz": 500, **SCIPY_COMPAT, **change}
    with pytest.raises(BadInput) as error:
        power_spectrogram(**given)
    assert error.value.source == names
