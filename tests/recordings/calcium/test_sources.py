"""Which recordings a folder holds."""

import numpy as np
import pytest

from src.recordings.calcium.sources import find_subjects, open_recording, subject_files, subject_name
from src.signals import BadInput
from tests.recordings.calcium.test_suite2p import write_plane


def test_subjects_are_found_by_name_in_order(tmp_path):
    for name in ("subject_2", "subject_10", "notes", "subject_1"):
        (tmp_path / name).mkdir()
    (tmp_path / "subject_file").touch()
    assert [p.name for p in find_subjects(tmp_path)] == ["subject_1", "subject_10", "subject_2"]
    assert [p.name for p in find_subjects(tmp_path, ["subject_10"])] == ["subject_1", "subject_2"]
    with pytest.raises(BadInput, match="skip=subject_7: is no subject here; there are: subject_1, subject_10"):
        find_subjects(tmp_path, ["subject_10", "subject_7"])
    with pytest.raises(BadInput, match="leaves no subject"):
        find_subjects(tmp_path, ["subject_1", "subject_2", "subject_10"])
    with pytest.raises(BadInput, match="subject_"):
        find_subjects(tmp_path / "notes")
    with pytest.raises(BadInput, match="does not exist"):
        find_subjects(tmp_path / "absent")


@pytest.mark.parametrize(
    ("place", "name"), [("mouse/suite2p/plane0", "mouse"), ("mouse/plane0", "mouse"), ("mouse", "mouse")]
)
def test_one_recording_is_a_subject_by_itself(tmp_path, place, name):
    write_plane(tmp_path / place, rois=2, frames=9, plane=0)
    for given in {tmp_path / "mouse", (tmp_path / place).parent, tmp_path / place} - {tmp_path}:
        (found,) = find_subjects(given)
        assert subject_name(found) == "mouse"
    assert [subject_name(p) for p in find_subjects(tmp_path)] == ["mouse"]


def test_every_file_of_a_folder_is_a_recording(tmp_path):
    folder = tmp_path / "mice"
    for name in ("mice/b.nwb", "mice/a.nwb", "mice/c/d.nwb", "mice/c/e.nwb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_subjects(folder) == [folder / "a.nwb", folder / "b.nwb", folder / "c"]
    with pytest.raises(BadInput, match=r"c: holds 2 recordings \(d\.nwb, e\.nwb\); give one of them"):
        subject_files(folder / "c")
    assert find_subjects(folder / "c") == [folder / "c" / "d.nwb", folder / "c" / "e.nwb"]


def test_cells_without_positions_are_kept_where_no_grid_is_made(tmp_path):
    folder = tmp_path / "mouse"
    write_plane(plane := folder / "suite2p" / "plane0", rois=4, frames=9, plane=0)
    (plane / "stat.npy").unlink()
    recording = open_recording(subject_files(folder), "mouse", need_positions=False)
    assert recording.cells == 2
    assert np.isnan(recording.positions[:, :2]).all()
    with pytest.raises(BadInput, match=r"has no stat\.npy"):
        open_recording(subject_files(folder), "mouse")
