"""Figures of the LFP from plain arrays: gaps, silence, one column; a coherence and its level of chance."""

from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from src.reports import lfp
from src.reports.figures import saved
from src.reports.lfp import Page, draw_channel, draw_coherence, draw_overview, draw_states, median_spectrum

FREQS, TIMES = np.arange(0.5, 64, 0.5), np.arange(0, 900, 3.0)


@pytest.fixture(autouse=True)
def small_figures(monkeypatch):
    monkeypatch.setattr(lfp, "DPI", 40)


def page(times=TIMES):
    power = np.random.default_rng(0).standard_exponential((len(FREQS), len(times))) / FREQS[:, None]
    return Page("ch 1", power, FREQS, times, "dB re 1 µV²/Hz", "2-s windows")


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_a_channel_and_an_overview(tmp_path, suffix):
    one = page()
    one.power[:, 50:90] = np.nan
    file = saved(draw_channel(one, "rat · shank 0"), tmp_path / f"a.{suffix}", 40)
    assert file.stat().st_size > 5000
    spectra = [median_spectrum(one.decibels)] * 2
    ratio = [one.theta_ratio()] * 2
    overview = draw_overview("rat · shank 0", one, ["1", "2"], [one.band(0.5, 4)] * 2, ratio, spectra)
    assert saved(overview, tmp_path / f"b.{suffix}", 40).stat().st_size > 5000
    if suffix == "png":
        assert matplotlib.image.imread(file).std() > 0.05


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_nothing_recorded_and_silence_can_be_drawn(tmp_path, value):
    one = page(TIMES[:1])
    one.power[:] = value
    assert saved(draw_channel(one, "rat"), tmp_path / "a.png", 40).stat().st_size > 1000


def test_a_band_is_an_integral():
    one = page()
    one.power[:] = 2.0
    np.testing.assert_allclose(one.band(4, 8.5), 2 * 4)
    assert np.nanmax(one.theta_ratio()) < 1


def test_coherence_over_time_with_its_level_of_chance(tmp_path):
    squared = np.random.default_rng(0).random((len(FREQS), 30)) * 0.2
    squared[10:14] = 0.9
    squared[:, 7] = np.nan
    path = tmp_path / "c.png"
    windows = np.arange(30) * 30.0
    draw_coherence(path, ("sh0:1", "sh1:2"), FREQS, windows, squared, squared - 0.1, (0.095, 0.246), "rat")
    assert matplotlib.image.imread(path).std() > 0.05


def test_states_under_the_spectrogram(tmp_path):
    one = page()
    states = SimpleNamespace(stages=np.arange(len(TIMES)) // 20 % 4 - 1, confidence=np.full(len(TIMES), 0.9))
    features = {"slow waves (z)": np.sin(TIMES), "theta ratio": np.full(len(TIMES), np.nan)}
    path = draw_states(tmp_path / "s.png", one.decibels, FREQS, TIMES, states, features)
    assert matplotlib.image.imread(path).std() > 0.05
