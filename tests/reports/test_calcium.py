"""The figures of a subject: pages, vectors, and the same bytes every time."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_pdf import PdfPages

from src.reports.calcium import FrameMarks, NeuronTraces, SubjectFigures, draw_neurons, draw_overview

FRAMES, CELLS = 400, 30


@pytest.fixture
def figures() -> SubjectFigures:
    rng = np.random.default_rng(0)
    is_test = (np.arange(FRAMES) // 100 == 1).astype(np.uint8)
    is_train = ((np.arange(FRAMES) < 80) | (np.arange(FRAMES) >= 220)).astype(np.uint8)
    is_valid = (np.arange(FRAMES) >= 32).astype(np.uint8)
    marks = FrameMarks(2.0, is_train, is_test, is_valid)
    levels = rng.uniform(1, 6, CELLS)
    levels[4] = np.nan
    facts = {
        "num_cells": CELLS, "occupied_voxels": 29, "active_voxels": 1234, "density_percent": 0.01, "train_frames": 260,
        "test_frames": 100, "active_per_plane": [400, 400, 434],
    }  # fmt: skip
    positions = np.column_stack([rng.random((CELLS, 2)), rng.integers(0, 3, CELLS)])
    raster = rng.random((20, FRAMES)) < 0.1
    return SubjectFigures("subject_1", marks, positions, levels, (2, 3, 4), raster, facts)


def neurons(path: Path, figures: SubjectFigures, count: int) -> bytes:
    rng = np.random.default_rng(1)
    shape = (count, FRAMES)
    dff, expected = rng.standard_normal(shape), rng.random(shape).astype(np.float16)
    expected[:, :32] = np.nan
    ids, levels, spikes = np.arange(count), np.ones(count), rng.random(shape) < 0.1
    draw_neurons(path, NeuronTraces("subject_1", figures.marks, ids, levels, dff, expected, spikes, "ΔF/F"))
    return path.read_bytes()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_page_per_neuron_without_a_date_or_a_bitmap(tmp_path, figures, count):
    content = neurons(tmp_path / "n.pdf", figures, count)
    assert content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") == max(count, 1)
    assert b"CreationDate" not in content
    assert b"/Subtype /Image" not in content
    assert content == neurons(tmp_path / "again.pdf", figures, count)


def test_every_page_has_its_own_scale_and_says_what_was_left_out(tmp_path, figures, monkeypatch):
    pages = []

    class Pages(PdfPages):
        def savefig(self, figure=None, **options):
            pages.append((figure.axes[1].get_ylim(), figure.get_suptitle()))

    monkeypatch.setattr("src.reports.calcium.PdfPages", Pages)
    expected = np.stack([np.full(FRAMES, np.nan), *(size * np.ones(FRAMES) for size in (0.1, 5.0))])
    expected[1:, 0] = 0
    spikes = np.zeros(expected.shape, bool)
    draw_neurons(
        tmp_path / "n.pdf",
        NeuronTraces("mouse", figures.marks, np.arange(1, 4), np.ones(3), expected, expected, spikes, "ΔF/F"),
    )
    assert [limits[0] for limits, _ in pages] == [0, 0, 0]
    assert 0.1 < pages[1][0][1] < 0.2
    assert 5 < pages[2][0][1] < 6
    assert [title.split(" · ")[1:3] for _, title in pages[:2]] == [
        ["cell 1", "left out (cell_state says why)"],
        ["cell 2", "noise level 1.0 % / √Hz"],
    ]


def test_the_overview_is_one_page_that_says_what_it_shows(tmp_path, figures):
    draw_overview(tmp_path / "o.pdf", figures)
    content = (tmp_path / "o.pdf").read_bytes()
    assert content.count(b"/Type /Page\n") + content.count(b"/Type /Page ") == 1
    assert len(content) < 300_000
    streams = [part.split(b"endstream")[0].strip() for part in content.split(b"stream\n")[1:]]
    drawn = b"".join(zlib.decompress(s) for s in streams if s[:1] == b"x")
    assert len(drawn) > 10_000


def test_a_subject_without_any_noise_level_still_draws(tmp_path, figures):
    object.__setattr__(figures, "noise_levels", np.full(CELLS, np.nan))
    object.__setattr__(figures, "available_levels", ())
    draw_overview(tmp_path / "o.pdf", figures)
    assert (tmp_path / "o.pdf").stat().st_size > 0
