"""npz files written in pieces: ordinary archives, the same bytes in any order of work."""

import shutil
import subprocess
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.preprocess.lfp import npz_writer as module
from src.preprocess.lfp.npz_writer import deflate, npz_writer, rows_per_piece


def write_in_pieces(path, values, rows):
    with npz_writer(path) as file:
        file.add("before", np.arange(3))
        with file.member("values", values.shape, values.dtype) as append:
            flat = values.reshape(-1, values.shape[-1])
            for first in range(0, len(flat), rows):
                append(deflate(np.ascontiguousarray(flat[first : first + rows]).data))
        file.add("after", "text")


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 40), st.integers(1, 50), st.integers(1, 64), st.sampled_from(["f4", "f2", "u1"])
)
def test_numpy_reads_what_was_written(tmp_path_factory, channels, freqs, times, rows, dtype):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    values = np.random.default_rng(freqs).integers(0, 250, (channels, freqs, times)).astype(dtype)
    write_in_pieces(path, values, rows)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays.files == ["before", "values", "after"]
        np.testing.assert_array_equal(arrays["values"], values)
        assert arrays["values"].dtype == values.dtype
        assert arrays["after"] == "text"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_DEFLATED}
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_it_compresses(tmp_path):
    values = np.random.default_rng(0).standard_exponential((4, 100, 500)).astype(np.float32)
    write_in_pieces(tmp_path / "a.npz", values, 64)
    np.savez_compressed(tmp_path / "b.npz", values=values)
    assert (tmp_path / "a.npz").stat().st_size < 1.03 * (tmp_path / "b.npz").stat().st_size < 0.97 * values.nbytes


@pytest.mark.parametrize("limit", ["sizes", "offsets"])
def test_beyond_four_gigabytes(tmp_path, monkeypatch, limit):
    """Large members, and members far into the file, need the format's 64-bit fields."""
    path, values = tmp_path / "a.npz", np.arange(60.0).reshape(3, 4, 5)
    with npz_writer(path) as file:
        file.add("first", values)
        if limit == "offsets":
            file._file._send()
            file._file._sent += 5 << 30  # a hole: takes no room on the disk
        else:
            monkeypatch.setattr(module, "_LARGE", 10)
        file.add("values", values)
        file.add("more", values + 1)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["values"], values)
        np.testing.assert_array_equal(arrays["more"], values + 1)
    if limit == "sizes" and (unzip := shutil.which("unzip")):
        subprocess.run([unzip, "-tq", path], check=True, stdout=subprocess.DEVNULL)


def test_objects_and_unfinished_members_are_refused(tmp_path):
    with npz_writer(tmp_path / "a.npz") as file:
        with pytest.raises(TypeError, match="objects"):
            file.add("params", np.array({}, dtype=object))
        with pytest.raises(ValueError, match="of 168 bytes"), file.member("x", (10,), np.dtype("f4")):
            pass


def test_pieces_tile_groups_of_64_rows():
    for length in (1, 10, 5000, 200_000, 10_000_000):
        rows = rows_per_piece(np.empty(length, np.float32))
        assert 64 % rows == 0
        assert rows == 1 or rows * length * 4 <= 1 << 19
