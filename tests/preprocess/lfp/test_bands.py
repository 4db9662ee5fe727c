"""Band powers are integrals of the density; the theta ratio is theta over 2-15 Hz."""

from itertools import pairwise

import numpy as np
import pytest

from src.preprocess.lfp.bands import BandPowers, band_powers_file
from src.preprocess.sleep.spectrogram import SpectrogramPlan
from src.signals import BadInput

PLAN = SpectrogramPlan(500.0, "hann", 1000, 750, 1000)


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


def test_what_makes_no_sense():
    with pytest.raises(BadInput, match="no bin between"):
        BandPowers(PLAN, {"narrow": [5.1, 5.2]})
    with pytest.raises(BadInput, match="density"):
        BandPowers(SpectrogramPlan(500.0, "hann", 1000, 0, 1000, scaling="spectrum"), {"delta": [1, 4]})


def test_the_file(tmp_path):
    bands = BandPowers(PLAN, {"delta": [1, 4], "theta": [5, 10]})
    sums = np.random.default_rng(0).random((3, 3, 11)).astype(np.float32)
    with band_powers_file(tmp_path / "b.npz", bands, {"times": np.arange(11.0)}, 3, 11) as file:
        for first in (7, 0):
            for channel in (2, 0, 1):
                file.put(channel, first, sums[channel, :, first : first + 7])
    with np.load(tmp_path / "b.npz", allow_pickle=False) as arrays:
        assert arrays.files == ["times", "bands", "band_edges_hz", "band_powers", "theta_ratio"]
        np.testing.assert_array_equal(arrays["band_powers"], sums[:, :2])
        np.testing.assert_array_equal(arrays["theta_ratio"], sums[:, 2])
        assert arrays["bands"].tolist() == ["delta", "theta"]
