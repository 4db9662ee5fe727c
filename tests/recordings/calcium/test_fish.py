"""Both MATLAB formats give the same struct."""

import h5py
import numpy as np
import pytest

from src.recordings.matlab import read_fields
from src.signals import BadInput

XYZ = np.arange(12.0).reshape(4, 3)


@pytest.mark.parametrize("userblock", [0, 512])
def test_a_version_7_3_struct_is_turned_back_to_matlabs_orientation(tmp_path, userblock):
    with h5py.File(tmp_path / "d.mat", "w", userblock_size=userblock) as file:
        file["data/CellXYZ"] = XYZ.T
        file["data/fpsec"] = np.array([[2.33]])
    fields = read_fields(tmp_path / "d.mat", ("CellXYZ", "fpsec"), "data")
    np.testing.assert_array_equal(fields["CellXYZ"], XYZ)
    assert fields["fpsec"].item() == 2.33


def test_an_absent_file_and_an_absent_struct_are_named(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        read_fields(tmp_path / "absent.mat", ())
    with h5py.File(tmp_path / "d.mat", "w") as file:
        file["data"] = 1
    with pytest.raises(BadInput, match="no struct named data and no variable 'CellXYZ'"):
        read_fields(tmp_path / "d.mat", ("CellXYZ",), "data")
