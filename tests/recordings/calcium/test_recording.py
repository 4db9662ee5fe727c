"""Reading subjects: alignment of cells, both orientations, and every way a file can be wrong."""

import fcntl
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy.io import savemat

from src.recordings.calcium import recording as module
from src.recordings.calcium.sources import open_recording, subject_files
from src.signals import BadInput

FRAMES, CELLS = 12, 7


def positions(cells: int = CELLS) -> np.ndarray:
    return np.column_stack([np.arange(cells) * 10.0, np.arange(cells) * 3.0, np.arange(cells) % 3 + 1.0])


def write_fish(
    folder: Path,
    *,
    xyz: object = None,
    invalid: tuple[int, ...] = (),
    listed: np.ndarray | None = None,
    response: np.ndarray | None = None,
    fs: object = 2.0,
    **layout: object,
) -> Path:
    """A subject in the recordings' layout; trace of cell ``k`` (1-based) is ``100 k + time``."""
    folder.mkdir(parents=True, exist_ok=True)
    xyz = positions() if xyz is None else xyz
    fields = {"CellXYZ": xyz, "IX_inval_anat": np.array(invalid, float)[:, None]}
    savemat(folder / "data_full.mat", {"data": fields | ({} if fs is None else {"fpsec": fs})})
    if response is None:
        kept = np.setdiff1d(np.arange(1, CELLS + 1), invalid) if listed is None else listed
        response = traces_of(kept).T
    with h5py.File(folder / "TimeSeries.h5", "w") as file:
        file.create_dataset("CellResp", data=response.astype(np.float32), **layout)
        if listed is not None:
            file["absIX"] = np.asarray(listed, float)[None]
    return folder


def traces_of(ids: ArrayLike) -> np.ndarray:
    return 100.0 * np.asarray(ids)[:, None] + np.arange(FRAMES)


def read(folder: Path, fs_hz: float | None = None):
    return open_recording(subject_files(folder), folder.name, fs_hz)


def whole(recording) -> np.ndarray:
    return np.concatenate([recording.traces(rows) for rows in recording.pieces()])


@pytest.mark.parametrize("frames_first", [True, False])
@pytest.mark.parametrize("with_ids", [True, False])
def test_traces_and_positions_stay_together(tmp_path, frames_first, with_ids):
    kept = np.array([1, 2, 4, 6, 7])
    response = traces_of(kept)
    folder = write_fish(
        tmp_path / "subject_1",
        invalid=(3, 5),
        listed=kept if with_ids else None,
        response=response.T if frames_first else response,
    )
    recording = read(folder)
    assert (recording.cells, recording.frames, recording.fs_hz) == (5, FRAMES, 2.0)
    assert recording.cell_ids.tolist() == kept.tolist()
    np.testing.assert_array_equal(recording.positions, positions()[kept - 1])
    np.testing.assert_array_equal(whole(recording), traces_of(kept))
    np.testing.assert_array_equal(recording.traces(np.array([4, 0])), traces_of(kept)[[4, 0]])
    assert whole(recording).dtype == np.float32


def test_absix_in_any_order_wins_over_the_count(tmp_path):
    ids = np.array([6, 2, 7])
    recording = read(write_fish(tmp_path / "subject_1", invalid=(1,), listed=ids))
    assert recording.cell_ids.tolist() == [6, 2, 7]
    np.testing.assert_array_equal(recording.positions, positions()[ids - 1])
    np.testing.assert_array_equal(whole(recording), traces_of(ids))


def test_cells_without_coordinates_are_dropped_and_counted(tmp_path):
    xyz = positions()
    xyz[1, 2] = np.nan
    xyz[4] = np.inf
    recording = read(write_fish(tmp_path / "subject_1", xyz=xyz, invalid=(7,), listed=np.arange(1, 8)))
    assert recording.cell_ids.tolist() == [1, 3, 4, 6]
    np.testing.assert_array_equal(whole(recording), traces_of([1, 3, 4, 6]))
    assert recording.counts == {"listed": 7, "with_traces": 7, "dropped_invalid": 1, "dropped_without_coordinates": 2}


def test_traces_that_still_hold_invalid_cells_are_aligned(tmp_path):
    folder = write_fish(tmp_path / "subject_1", invalid=(2,), response=traces_of(np.arange(1, 8)).T)
    recording = read(folder)
    assert recording.cell_ids.tolist() == [1, 3, 4, 5, 6, 7]
    np.testing.assert_array_equal(whole(recording), traces_of(recording.cell_ids))
    assert "IX_inval_anat" in recording.notes[0]


def test_the_orientation_of_three_positions_is_stated(tmp_path):
    xyz = positions(3)
    recording = read(write_fish(tmp_path / "subject_1", xyz=xyz, response=traces_of([1, 2, 3]).T))
    np.testing.assert_array_equal(recording.positions, xyz)
    assert "CellXYZ was taken as (cell, 3)" in recording.notes[-1]


def test_as_many_frames_as_cells_reads_as_matlab_writes(tmp_path):
    square = traces_of(np.arange(1, 8))[:, :7]
    recording = read(write_fish(tmp_path / "subject_1", response=square.T))
    np.testing.assert_array_equal(whole(recording), square)
    assert "(time, cell)" in recording.notes[0]


def test_samples_that_are_not_finite_become_gaps(tmp_path):
    response = traces_of(np.arange(1, 8)).T
    response[3, 2], response[4, 2] = np.inf, -np.inf
    block = whole(read(write_fish(tmp_path / "subject_1", response=response)))
    assert np.isnan(block[2, 3:5]).all()
    assert np.isnan(block).sum() == 2


@pytest.mark.parametrize("layout", [{}, {"chunks": (3, 2), "compression": "gzip"}, {"chunks": (1, CELLS)}])
def test_pieces_are_whole_groups_and_cover_everything_once(tmp_path, monkeypatch, layout):
    recording = read(write_fish(tmp_path / "subject_1", **layout))
    assert [len(rows) for rows in recording.pieces()] == [CELLS]
    monkeypatch.setattr(module, "GROUP", 2)
    monkeypatch.setattr(module, "PIECE_BYTES", 5 * FRAMES * 4)
    assert [rows.tolist() for rows in recording.pieces()] == [[0, 1, 2, 3], [4, 5, 6]]
    assert [len(rows) for rows in recording.pieces(3)] == [2, 2, 2, 1]
    np.testing.assert_array_equal(whole(recording), traces_of(np.arange(1, 8)))


def test_the_rate_can_be_given_where_the_file_has_none(tmp_path):
    folder = write_fish(tmp_path / "subject_1", fs=None)
    with pytest.raises(BadInput, match="fs_hz"):
        read(folder)
    assert read(folder, 1.97).fs_hz == 1.97
    assert read(write_fish(tmp_path / "subject_2", fs=2.33)).fs_hz == 2.33


TRACES, CELL_FILE = "TimeSeries.h5", "data_full.mat"


def damaged(folder: Path, name: str, change: object) -> None:
    """Leave so many bytes of a file, remove it (``None``), or put other content, variables or datasets into it."""
    path = folder / name
    if change is None or isinstance(change, int):
        content = path.read_bytes()[:change]
        path.unlink() if change is None else path.write_bytes(content)
    elif isinstance(change, bytes):
        path.write_bytes(change)
    elif name == CELL_FILE:
        savemat(path, change)
    else:
        with h5py.File(path, "w") as file:
            file.update(change)


@pytest.mark.parametrize(
    ("damage", "settings", "message"),
    [
        ({TRACES: -200}, {}, r"TimeSeries\.h5: .*(cut short|cannot be read)"),
        ({TRACES: b"not HDF5 at all"}, {}, r"TimeSeries\.h5: cannot be read as HDF5"),
        ({CELL_FILE: 300}, {}, r"data_full\.mat: cannot be read as a MATLAB file"),
        ({TRACES: None}, {}, r"subject_1: has no TimeSeries\.h5; put"),
        ({TRACES: None, CELL_FILE: None}, {}, r"has no TimeSeries\.h5 and no data_full\.mat"),
        ({TRACES: {"CellRespZ": np.zeros((3, 3))}}, {}, r"has no dataset CellResp \(it has CellRespZ\)"),
        ({CELL_FILE: {"other": 1}}, {}, "no struct named data"),
        ({CELL_FILE: {"data": {"fpsec": 2.0}}}, {}, r"no field data\.CellXYZ"),
        ({}, {"response": np.zeros((FRAMES, 5))}, r"CellResp is 12 × 5; CellXYZ has 7 cells"),
        ({}, {"listed": np.arange(1, 4), "response": np.zeros((FRAMES, 5))}, r"absIX lists 3 cells"),
        ({}, {"listed": np.arange(3, 10)}, r"absIX runs from 3 to 9 but there are 7"),
        ({}, {"listed": np.array([0, 1, 2])}, r"absIX runs from 0"),
        ({}, {"listed": np.array([1, 1, 2])}, r"absIX names a cell twice"),
        ({}, {"listed": np.array([1.5, 2, 3])}, r"whole numbers"),
        ({}, {"invalid": (9,), "listed": np.arange(1, 8)}, r"IX_inval_anat runs from 9"),
        ({}, {"xyz": np.array([["a", "b", "c"]] * 7, object)}, r"CellXYZ holds object, not numbers"),
        ({}, {"xyz": np.zeros((7, 2))}, r"CellXYZ has shape \(7, 2\)"),
        ({}, {"xyz": np.full((7, 3), np.nan)}, r"no cell has coordinates"),
        ({}, {"response": np.zeros((2, 3, 4))}, r"CellResp has shape \(2, 3, 4\)"),
        ({}, {"fs": -2.0}, r"the frame rate is \[-2.0\]"),
        ({}, {"fs": "fast"}, r"frame rate"),
    ],
)
def test_whatever_is_wrong_is_named_with_its_file_and_a_hint(tmp_path, damage, settings, message):
    folder = write_fish(tmp_path / "subject_1", **settings)
    for name, change in damage.items():
        damaged(folder, name, change)
    with pytest.raises(BadInput, match=message) as caught:
        whole(read(folder))
    assert caught.value.hint


def test_a_file_that_another_program_writes_is_reported_as_locked(tmp_path):
    folder = write_fish(tmp_path / "subject_1")
    with (folder / "TimeSeries.h5").open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # as HDF5 does in a program that writes
        with pytest.raises(BadInput, match="locked"):
            read(folder)


@pytest.mark.parametrize("variant", ["three_rows", "top_level"])
def test_positions_are_read_however_they_were_saved(tmp_path, variant):
    folder = write_fish(tmp_path / "subject_1", xyz=positions().T if variant == "three_rows" else None)
    if variant == "top_level":
        savemat(folder / "data_full.mat", {"CellXYZ": positions(), "fpsec": 2.0})
    recording = read(folder)
    np.testing.assert_array_equal(recording.positions, positions())
    np.testing.assert_array_equal(whole(recording), traces_of(np.arange(1, 8)))


def test_blosc_files_open(tmp_path):
    response = traces_of(np.arange(1, 8)).T
    folder = write_fish(tmp_path / "subject_1", response=response, **hdf5plugin.Blosc(), chunks=(4, 3))
    np.testing.assert_array_equal(whole(read(folder)), response.T)


def test_real_cell_positions_read_back(shared_data, tmp_path):
    xyz = np.loadtxt(shared_data / "zebrafish_whole_brain" / "fishexplorer" / "F12_XYZ_Xflipped_corrected.txt")[:500]
    response = np.zeros((FRAMES, 500))
    recording = read(write_fish(tmp_path / "subject_1", xyz=xyz, response=response))
    np.testing.assert_array_equal(recording.positions, xyz)
