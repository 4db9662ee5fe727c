"""The pages of a shank: every channel, an overview, gaps shown as gaps, any length, either format."""

import matplotlib.image
import numpy as np
import pytest

from src.preprocess.lfp import pages as lfp_pages
from src.preprocess.lfp.pages import draw_shank, pages
from src.preprocess.lfp.spectrogram_file import open_spectrograms
from src.reports import lfp as lfp_figures
from tests.preprocess.lfp.lfp_files import compute as compute_into
from tests.preprocess.lfp.lfp_files import random_traces, write_shank


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr(lfp_figures, "DPI", 40)
    monkeypatch.setattr(lfp_pages, "COLUMNS", 300)


@pytest.fixture
def compute(tmp_path):
    def make(samples, preset="sleep", **overrides):
        path = write_shank(tmp_path, "a", 0, samples, units="uV")
        compute_into(tmp_path / "out", path, preset, **overrides)
        return tmp_path / "out"

    return make


def test_a_page_per_channel_and_an_overview(tmp_path, compute):
    files = draw_shank(compute(random_traces(20_000, 2)), tmp_path, title="a/sh0")
    assert [file.name for file in files] == ["a_sh0_ch0.png", "a_sh0_ch1.png", "a_sh0_overview.png"]
    assert all(file.stat().st_size > 5_000 for file in files)
    assert matplotlib.image.imread(files[0]).std() > 0.05


def test_pages_average_power_and_keep_gaps(compute, monkeypatch):
    monkeypatch.setattr(lfp_pages, "COLUMNS", 10)
    samples = random_traces(60_000, 2)
    samples[18_000:31_000, 1] = np.nan
    folder = compute(samples, format="npz", decibel=False, dtype="float32")
    with np.load(folder / "a_sh0_spectrograms.npz") as arrays:
        power = arrays["spectrograms"].astype(float)
    source = open_spectrograms(folder)
    first, second = pages(source, [0, 1])
    edges = np.linspace(0, power.shape[2], 11).astype(int)
    np.testing.assert_allclose(first.power[:, 3], power[0, 1:, edges[3] : edges[4]].mean(axis=1), rtol=1e-5)
    assert np.isnan(second.power[:, 4]).all()
    assert np.isfinite(second.power[:, [0, 9]]).all()
    assert np.isnan(second.theta_ratio()[4])


@pytest.mark.parametrize(
    ("samples", "options"),
    [
        (random_traces(1024, 1), {"preset": "scipy_compat", "log_bins": 40, "decibel": True}),
        (np.full((3000, 1), np.nan, np.float32), {}),
        (np.zeros((3000, 1), np.float32), {}),
    ],
    ids=["one frame", "nothing recorded", "silence"],
)
def test_whatever_there_is_can_be_drawn(tmp_path, compute, samples, options):
    files = draw_shank(compute(samples, **options), tmp_path, title="a/sh0", suffix="pdf")
    assert [file.name for file in files] == ["a_sh0_ch0.pdf", "a_sh0_overview.pdf"]
