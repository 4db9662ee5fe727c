"""Inscopix cell sets, byte for byte as its own software writes them."""

import json
from pathlib import Path

import numpy as np
import pytest

from src.recordings.calcium.sources import find_subjects, open_recording, subject_files
from src.signals import BadInput


def write_cell_set(path: Path, statuses: list[int], kind: int = 1) -> np.ndarray:
    """Cells of 4 × 5 pixels and 30 frames at 10 Hz, one of them dropped; status 0 accepted, 1 undecided, 2 rejected."""
    traces = np.random.default_rng(0).random((len(statuses), 30)).astype("<f4")
    traces[:, 7] = np.nan
    images = np.zeros((len(statuses), 4, 5), "<f4")
    for number, image in enumerate(images):
        image[number, number : number + 2] = 1
    footer = {
        "CellNames": [f"C{n}" for n in range(len(statuses))],
        "CellStatuses": statuses,
        "spacingInfo": {"numPixels": {"x": 5, "y": 4}},
        "timingInfo": {"numTimes": 30, "period": {"num": 100, "den": 1000}, "dropped": [7]},
        "type": kind,
    }
    text = json.dumps(footer).encode()
    cells = np.concatenate([images.reshape(len(statuses), -1), traces], axis=1)
    path.write_bytes(cells.tobytes() + text + b"\0" + len(text).to_bytes(8, "little"))
    return traces


def test_accepted_cells_are_read(tmp_path):
    traces = write_cell_set(tmp_path / "cells.isxd", [0, 2, 1, 0])
    (found,) = find_subjects(tmp_path)
    recording = open_recording(subject_files(found), "cells")
    assert (recording.signal, recording.fs_hz, recording.frames) == ("dff", 10.0, 30)
    assert recording.cell_ids.tolist() == [1, 4]
    assert recording.positions.tolist() == [[0, 0.5, 0], [3, 3.5, 0]]
    np.testing.assert_array_equal(recording.traces(np.array([1, 0])), traces[[3, 0]])
    assert recording.counts["dropped_invalid"] == 2
    assert "baseline=divide" in recording.notes[0]


def test_what_is_no_usable_cell_set_is_refused(tmp_path):
    path = tmp_path / "cells.isxd"
    write_cell_set(path, [1, 2])
    with pytest.raises(BadInput, match="no ROI is accepted, of 2"):
        open_recording(subject_files(path), "cells")
    write_cell_set(path, [0], kind=0)
    with pytest.raises(BadInput, match="another kind"):
        open_recording(subject_files(path), "cells")
    write_cell_set(path, [0, 0])
    whole = path.read_bytes()
    for spoiled in (b"", b"short", whole[:-200], whole[40:]):
        path.write_bytes(spoiled)
        with pytest.raises(BadInput, match=r"cells\.isxd: is (no Inscopix cell set|shorter or longer)"):
            open_recording(subject_files(path), "cells")
