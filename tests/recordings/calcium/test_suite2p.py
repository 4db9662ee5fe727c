"""suite2p folders: accepted ROIs of all planes, and nothing but plain data out of their pickles."""

import os
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import scipy.io

from src.recordings.calcium.sources import find_subjects, open_recording, subject_files, subject_name
from src.recordings.calcium.suite2p import load_objects
from src.signals import BadInput


def write_plane(folder: Path, rois: int, frames: int, plane: int, fs_hz: float | None = 7.5) -> None:
    folder.mkdir(parents=True)
    accepted = np.column_stack([np.arange(rois) % 2 == 0, np.full(rois, 0.5)]).astype(float)
    stat = np.array([{"med": [10 * plane + k, 2 * k], "npix": k} for k in range(rois)], object)
    np.save(folder / "F.npy", (1000 * plane + 10 * np.arange(rois)[:, None] + np.arange(frames)).astype(np.float32))
    np.save(folder / "iscell.npy", accepted)
    np.save(folder / "stat.npy", stat, allow_pickle=True)
    if fs_hz is not None:
        np.save(folder / "ops.npy", np.array({"fs": fs_hz, "nplanes": 2}, object), allow_pickle=True)


def read(folder: Path, fs_hz: float | None = None):
    return open_recording(subject_files(folder), folder.name, fs_hz)


@pytest.mark.parametrize("place", ["suite2p", "."])
def test_accepted_cells_of_all_planes_with_their_positions(tmp_path, place):
    root = tmp_path / "subject_1" / place
    write_plane(root / "plane0", rois=4, frames=9, plane=0)
    write_plane(root / "plane1", rois=3, frames=8, plane=1)
    recording = read(tmp_path / "subject_1")
    assert (recording.cells, recording.frames, recording.fs_hz) == (4, 8, 7.5)
    assert recording.positions.tolist() == [[0, 0, 0], [2, 4, 0], [10, 0, 1], [12, 4, 1]]
    assert recording.cell_ids.tolist() == [1, 3, 5, 7]
    assert recording.counts["dropped_invalid"] == 3
    np.testing.assert_array_equal(recording.traces(np.array([3, 0, 1]))[:, 0], [1020, 0, 20])


def test_ten_planes_keep_their_order(tmp_path):
    for plane in (0, 2, 10):
        write_plane(tmp_path / "subject_1" / f"plane{plane}", rois=1, frames=5, plane=plane)
    recording = read(tmp_path / "subject_1")
    assert recording.positions[:, 0].tolist() == [0, 20, 100]


def test_a_rate_must_come_from_somewhere(tmp_path):
    write_plane(tmp_path / "subject_1" / "plane0", 2, 5, 0, fs_hz=None)
    with pytest.raises(BadInput, match="fs_hz"):
        read(tmp_path / "subject_1")
    assert read(tmp_path / "subject_1", 30).fs_hz == 30


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    write_plane(tmp_path / "subject_1" / "plane0", 4, 5, 0)
    np.save(tmp_path / "subject_1" / "plane0" / "iscell.npy", np.ones((3, 2)))
    with pytest.raises(BadInput, match="same suite2p run"):
        read(tmp_path / "subject_1")
    np.save(tmp_path / "subject_1" / "plane0" / "iscell.npy", np.zeros((4, 2)))
    with pytest.raises(BadInput, match="no ROI is accepted"):
        read(tmp_path / "subject_1")
    (tmp_path / "subject_1" / "plane0" / "stat.npy").write_bytes(b"no array")
    with pytest.raises(BadInput, match=r"stat\.npy: cannot be read"):
        read(tmp_path / "subject_1")
    (tmp_path / "subject_1" / "plane0" / "stat.npy").unlink()
    with pytest.raises(BadInput, match=r"has no stat\.npy"):
        read(tmp_path / "subject_1")


def test_every_roi_is_a_cell_where_nobody_curated_and_this_is_named(tmp_path):
    write_plane(tmp_path / "subject_1" / "plane0", 4, 5, 0)
    (tmp_path / "subject_1" / "plane0" / "iscell.npy").unlink()
    recording = read(tmp_path / "subject_1")
    assert recording.cell_ids.tolist() == [1, 2, 3, 4]
    assert any("no iscell.npy, so every ROI was taken as a cell" in note for note in recording.notes)


def test_planes_of_different_sessions_are_refused(tmp_path):
    write_plane(tmp_path / "subject_1" / "plane0", 2, 9, 0)
    write_plane(tmp_path / "subject_1" / "plane1", 2, 5, 1)
    with pytest.raises(BadInput, match="one session"):
        read(tmp_path / "subject_1")


def write_matlab(plane: Path, place: Path) -> None:
    """suite2p's ``save_mat``: the arrays of a plane as variables, dates and paths as text."""
    inside = {name: load_objects(plane / f"{name}.npy") for name in ("F", "Fneu", "spks", "iscell", "stat")}
    ops = load_objects(plane / "ops.npy").item()
    ops = {name: value for name, value in ops.items() if value is not None and name[0].isalpha()}
    ops |= {name: str(value) for name, value in ops.items() if isinstance(value, datetime)}
    place.parent.mkdir(parents=True)
    scipy.io.savemat(place, inside | {"ops": ops})


@pytest.mark.parametrize("where", ["subject_1/suite2p/plane0/Fall.mat", "subject_1/Fall.mat", "night2_Fall.mat"])
def test_the_export_for_matlab_gives_what_the_folder_gives(shared_data, tmp_path, where):
    plane = shared_data / "field_formats/suite2p_plane/plane0"
    write_matlab(plane, tmp_path / "mat" / where)
    (found,) = find_subjects(tmp_path / "mat")
    assert subject_name(found) == Path(where).parts[0].removesuffix(".mat")
    expected, recording = (open_recording(subject_files(place), "s", neuropil=0.7) for place in (plane, found))
    assert (recording.fs_hz, recording.frames, recording.counts) == (expected.fs_hz, expected.frames, expected.counts)
    assert expected.notes == recording.notes == ("0.7 of the neuropil (Fneu) was subtracted",)
    np.testing.assert_array_equal(recording.positions, expected.positions)
    np.testing.assert_array_equal(recording.cell_ids, expected.cell_ids)
    rows = np.arange(expected.cells)[::-2]
    np.testing.assert_array_equal(recording.traces(rows), expected.traces(rows))


def test_a_matlab_file_beside_the_arrays_is_not_read_and_one_without_traces_is_refused(tmp_path):
    write_plane(tmp_path / "subject_1" / "plane0", 4, 5, 0)
    (tmp_path / "subject_1" / "plane0" / "Fall.mat").write_bytes(b"not looked at")
    assert read(tmp_path / "subject_1").cells == 2
    scipy.io.savemat(tmp_path / "Fall.mat", {"spks": np.ones((2, 3))})
    with pytest.raises(BadInput, match="no variable 'F'"):
        read(tmp_path / "Fall.mat")
    scipy.io.savemat(tmp_path / "Fall.mat", {"F": np.ones((2, 3)), "stat": np.ones((1, 2))})
    with pytest.raises(BadInput, match="an ROI in stat has no centre"):
        read(tmp_path / "Fall.mat", 2.0)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_real_suite2p_session(shared_data, tmp_path):
    (tmp_path / "subject_1").symlink_to(shared_data / "suite2p_sample")
    (folder,) = find_subjects(tmp_path)
    recording = read(folder, 30.0)
    assert (recording.cells, recording.frames) == (20, 2000)
    fluorescence = np.load(shared_data / "suite2p_sample" / "plane0" / "F.npy")
    kept = np.load(shared_data / "suite2p_sample" / "plane0" / "iscell.npy")[:, 0] > 0
    np.testing.assert_array_equal(recording.traces(np.arange(20)), fluorescence[kept])
    assert "no neuropil was subtracted" in recording.notes[0]


def test_neuropil_is_subtracted(tmp_path):
    plane = tmp_path / "subject_1" / "suite2p" / "plane0"
    write_plane(plane, rois=4, frames=9, plane=0)
    neuropil = np.random.default_rng(0).random((4, 9)).astype(np.float32)
    np.save(plane / "Fneu.npy", neuropil)
    files = subject_files(tmp_path / "subject_1")
    plain = np.load(plane / "F.npy")[::2]
    for share in (0.7, 0.0):
        traces = open_recording(files, "subject_1", neuropil=share).traces(np.arange(2))
        np.testing.assert_array_equal(traces, plain - np.float32(share) * neuropil[::2])
    np.save(plane / "Fneu.npy", neuropil[:3])
    with pytest.raises(BadInput, match=r"Fneu \(3, 9\)"):
        read(tmp_path / "subject_1")


def test_settings_with_dates_and_paths_are_read_as_suite2p_writes_them(tmp_path, monkeypatch):
    plane = tmp_path / "subject_1" / "plane0"
    write_plane(plane, 2, 5, 0)
    settings = {
        "fs": np.float64(9.5), "date_proc": datetime.now(UTC), "save_path": PurePosixPath("a/b"),
        "data_path": [PureWindowsPath("c:/d")], "meanImg": np.zeros((2, 2), np.float32),
    }  # fmt: skip
    np.save(plane / "ops.npy", np.array(settings, object), allow_pickle=True)
    assert read(tmp_path / "subject_1").fs_hz == 9.5
    np.save(plane / "ops.npy", np.array({"fs": 3.0, "bad": Bomb()}, object), allow_pickle=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="mkdir, which is not plain data"):
        read(tmp_path / "subject_1")
    assert not (tmp_path / "exploded").exists()


def test_combined_alone_is_one_recording_with_the_plane_of_every_roi(tmp_path):
    folder = tmp_path / "subject_1" / "suite2p" / "combined"
    write_plane(folder, rois=4, frames=9, plane=0)
    stat = np.array([{"med": [k, k], "iplane": k // 2} for k in range(4)], object)
    np.save(folder / "stat.npy", stat, allow_pickle=True)
    assert read(tmp_path / "subject_1").positions.tolist() == [[0, 0, 0], [2, 2, 1]]
    write_plane(folder.with_name("plane0"), rois=2, frames=9, plane=0)
    assert read(tmp_path / "subject_1").cells == 1


def test_planes_of_two_rates_and_traces_that_are_no_numbers_are_refused(tmp_path):
    planes = [tmp_path / "subject_1" / f"plane{k}" for k in range(2)]
    for plane, rate in zip(planes, (3.0, 30.0), strict=True):
        write_plane(plane, 2, 5, 0)
        np.save(plane / "ops.npy", np.array({"fs": rate}, object), allow_pickle=True)
    with pytest.raises(BadInput, match=r"planes state different frame rates \(3\.0, 30\.0 Hz\); .*fs_hz="):
        read(tmp_path / "subject_1")
    assert open_recording(subject_files(tmp_path / "subject_1"), "subject_1", 7.0).fs_hz == 7.0
    np.save(planes[0] / "F.npy", np.load(planes[0] / "F.npy").astype(complex))
    with pytest.raises(BadInput, match="holds complex128, not real numbers"):
        open_recording(subject_files(tmp_path / "subject_1"), "subject_1", 7.0)
