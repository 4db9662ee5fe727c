"""Both MATLAB formats give the same struct."""

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from src.recordings.matlab import read_fields
from src.signals import BadInput

XYZ = np.arange(12.0).reshape(4, 3)


def test_a_version_7_struct_has_the_fields_asked_for(tmp_path):
    savemat(tmp_path / "d.mat", {"data": {"CellXYZ": XYZ, "fpsec": 2.0, "other": "text"}})
    fields = read_fields(tmp_path / "d.mat", ("CellXYZ", "fpsec", "IX_inval_anat"), "data")
    assert set(fields) == {"CellXYZ", "fpsec"}
    np.testing.assert_array_equal(fields["CellXYZ"], XYZ)


@pytest.mark.parametrize("userblock", [0, 512])
def test_a_version_7_3_struct_is_turned_back_to_matlabs_orientation(tmp_path, userblock):
    with h5py.File(tmp_path / "d.mat", "w", userblock_size=userblock) as file:
        file["data/CellXYZ"] = XYZ.T
        file["data/fpsec"] = np.array([[2.33]])
    fields = read_fields(tmp_path / "d.mat", ("CellXYZ", "fpsec"), "data")
    np.testing.assert_array_equal(fields["CellXYZ"], XYZ)
    assert fields["fpsec"].item() == 2.33


@pytest.mark.parametrize("content", [b"", b"x" * 40, b"\x89HDF\r\n\x1a\n" + b"\0" * 600])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "d.mat").write_bytes(content)
    with pytest.raises(BadInput, match=r"d\.mat: cannot be read as a MATLAB file"):
        read_fields(tmp_path / "d.mat", ("CellXYZ",), "data")


def test_an_absent_file_and_an_absent_struct_are_named(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        read_fields(tmp_path / "absent.mat", ())
    with h5py.File(tmp_path / "d.mat", "w") as file:
        file["data"] = 1
    with pytest.raises(BadInput, match="no struct named data and no variable 'CellXYZ'"):
        read_fields(tmp_path / "d.mat", ("CellXYZ",), "data")
