"""Damaged MATLAB files: an error where SciPy's parser would end the process, and whole ones as SciPy gives them."""

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from src.recordings.matlab import load_mat

CONTENT = {
    "data": {"xyz": np.ones((5, 3)), "fpsec": 2.0, "name": "fish", "nested": {"a": np.arange(3, dtype=np.uint8)}},
    "cells": np.array([[np.arange(3.0), "two"]], dtype=object),
    "sparse": scipy.sparse.csc_array(np.diag([1.0, 0.0, 3.0])),
    "complex": np.array([[1 + 2j]]),
    "empty": np.zeros((0, 3)),
}


@pytest.fixture(params=[False, True], ids=["plain", "compressed"])
def path(request, tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", CONTENT, do_compression=request.param)
    return tmp_path / "x.mat"


def test_a_whole_file_is_read_as_by_scipy(path):
    found, expected = load_mat(path), scipy.io.loadmat(path)
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["data"]["xyz"][0, 0], np.ones((5, 3)))
    np.testing.assert_array_equal(found["sparse"].toarray(), np.diag([1.0, 0.0, 3.0]))
    assert set(load_mat(path, ["complex"])) - {"__header__", "__version__", "__globals__"} == {"complex"}


def test_a_matlab_4_file_is_read(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"d": np.arange(40.0)}, format="4")
    np.testing.assert_array_equal(load_mat(tmp_path / "x.mat")["d"], np.arange(40.0)[None])


def test_a_wrong_type_of_numbers_is_an_error(tmp_path):
    # SciPy looks the type up in a table without a bound, and the process ends.
    scipy.io.savemat(tmp_path / "x.mat", {"data": {"xyz": np.ones((5, 3))}})
    content = (tmp_path / "x.mat").read_bytes()
    tag = (9).to_bytes(4, "little") + (15 * 8).to_bytes(4, "little")
    assert content.count(tag) == 1
    (tmp_path / "x.mat").write_bytes(content.replace(tag, (200).to_bytes(4, "little") + tag[4:]))
    with pytest.raises(ValueError, match="120 bytes of type 200 for an array of 15 values"):
        load_mat(tmp_path / "x.mat", ["data"])


@pytest.mark.parametrize("kept", [0, 100, 130, 300])
def test_a_cut_file_is_an_error(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"cut off|wrong variable"):
        load_mat(path)


def test_a_count_beyond_the_file_is_an_error(tmp_path):
    scipy.io.savemat(tmp_path / "x.mat", {"cells": np.array([[1.0, 2.0]], dtype=object)})
    content = bytearray((tmp_path / "x.mat").read_bytes())
    place = content.index((1).to_bytes(4, "little") + (2).to_bytes(4, "little"))
    content[place + 4 : place + 8] = b"\xff\xff\xff\x7f"
    (tmp_path / "x.mat").write_bytes(content)
    with pytest.raises(ValueError):
        load_mat(tmp_path / "x.mat")
