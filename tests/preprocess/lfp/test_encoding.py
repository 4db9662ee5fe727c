"""What is kept of a spectrogram: rows, decibels, log-spaced bins, and the sums of bands."""

from itertools import pairwise

import numpy as np
import pytest

from src.preprocess.lfp.encoding import FLOOR, BandPowers, Encoding
from src.preprocess.sleep.spectrogram import SpectrogramPlan
from src.signals import BadInput

PLAN = SpectrogramPlan(500.0, "hann", 1000, 750, 1000)
POWER = np.random.default_rng(0).standard_exponential((PLAN.n_freqs, 9)).astype(np.float32)
PLAIN = {"dtype": "float32", "decibel": False, "fmax_hz": None, "log_bins": None}


def encode(power=POWER, **params):
    encoding = Encoding(PLAN, PLAIN | params)
    return encoding, encoding.encode(power)


def test_plain_power_is_untouched():
    np.testing.assert_array_equal(encode()[1], POWER)


def test_decibels_and_crop():
    encoding, values = encode(dtype="float16", decibel=True, fmax_hz=64.0)
    assert encoding.freqs[-1] == 64.0
    np.testing.assert_allclose(values, 10 * np.log10(POWER[:129]), atol=0.04)
    assert values.dtype == np.float16


def test_silence_is_finite_and_a_gap_is_not():
    power = POWER.copy()
    power[:, 0], power[:, 1] = 0, np.nan
    _, values = encode(power, decibel=True)
    np.testing.assert_allclose(values[:, 0], 10 * np.log10(FLOOR), rtol=1e-6)
    assert np.isnan(values[:, 1]).all()


def test_logarithmic_bins():
    encoding, values = encode(log_bins=60)
    assert encoding.freqs[0] == PLAN.freqs[1]
    assert encoding.freqs[-1] == pytest.approx(250.0)
    np.testing.assert_allclose(np.diff(np.log(encoding.freqs)), np.log(500) / 59)
    # Wide rows are means of the bins between geometric midpoints, narrow ones are interpolated.
    low, high = np.sqrt(encoding.freqs[[57, 58]] * encoding.freqs[[58, 59]])
    inside = (PLAN.freqs >= low) & (PLAN.freqs < high)
    np.testing.assert_allclose(values[58], POWER[inside].mean(axis=0), rtol=1e-5)
    interpolated = [np.interp(encoding.freqs[1], PLAN.freqs, POWER[:, t]) for t in range(9)]
    np.testing.assert_allclose(values[1], interpolated, rtol=1e-5)
    np.testing.assert_allclose(encode(np.full_like(POWER, 3), log_bins=60)[1], 3, rtol=1e-5)


@pytest.mark.parametrize("params", [{"fmax_hz": -1.0}, {"log_bins": 1}, {"log_bins": 5, "fmax_hz": 0.5}])
def test_what_makes_no_sense(params):
    with pytest.raises(BadInput):
        Encoding(PLAN, PLAIN | params)


def test_a_sines_power_is_in_its_band():
    time = np.arange(20_000) / 500
    power = PLAN.power(3 * np.sin(2 * np.pi * 7 * time) + 0.1 * np.sin(2 * np.pi * 12 * time))
    delta, theta, ratio = BandPowers(PLAN, {"delta": [0.5, 4], "theta": [5, 10]}).sum(power)
    np.testing.assert_allclose(theta, 4.5, rtol=1e-4)
    assert delta.max() < 1e-6
    np.testing.assert_allclose(ratio, 4.5 / 4.505, rtol=1e-4)


def test_neighbouring_bands_add_up_to_the_variance():
    samples = np.random.default_rng(0).standard_normal(200_000)
    edges = [0.5, 4, 30, 100, 250]
    bands = {str(low): [low, high] for low, high in pairwise(edges)}
    sums = BandPowers(PLAN, bands).sum(PLAN.power(samples))[:-1]
    assert sums.sum(axis=0).mean() == pytest.approx(1, rel=0.02)


def test_bands_above_half_the_rate_are_named():
    bands = BandPowers(SpectrogramPlan(128.0, "hann", 256, 0, 256), {"delta": [1, 4], "gamma": [40, 100]})
    assert (bands.names, bands.left_out) == (("delta",), ("gamma",))
    assert bands.edges_hz.tolist() == [[1, 4]]


def test_silence_has_no_ratio_and_a_gap_no_power():
    bands = BandPowers(PLAN, {"delta": [1, 4]})
    power = np.zeros((501, 3), np.float32)
    power[:, 1] = np.nan
    sums = bands.sum(power)
    assert np.isnan(sums[-1]).all()
    np.testing.assert_array_equal(sums[0], [0, np.nan, 0])


def test_bands_that_make_no_sense():
    with pytest.raises(BadInput, match="no bin between"):
        BandPowers(PLAN, {"narrow": [5.1, 5.2]})
    with pytest.raises(BadInput, match="density"):
        BandPowers(SpectrogramPlan(500.0, "hann", 1000, 0, 1000, scaling="spectrum"), {"delta": [1, 4]})
