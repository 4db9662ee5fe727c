"""Columns that grow, and HDF5's failures in plain words."""

import errno
import hashlib
import io

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.signals import BadInput
from src.storage import hdf5
from src.storage.hdf5 import AppendedColumn, files_reached, reading, writing
from src.storage.step import fingerprint


@given(st.lists(st.integers(0, 40), max_size=8), st.sampled_from([None, 3]))
@settings(max_examples=25, deadline=None)
def test_a_column_holds_what_was_appended_however_it_came(tmp_path_factory, lengths, width):
    path = tmp_path_factory.mktemp("column") / "c.h5"
    tail = () if width is None else (width,)
    parts = [np.random.default_rng(n).integers(0, 99, (n, *tail)).astype(np.int32) for n in lengths]
    with h5py.File(path, "w") as file:
        column = AppendedColumn(file, "x", np.int32, chunk=16, width=width)
        for part in parts:
            column.append(part)
        column.close()
        np.testing.assert_array_equal(file["x"][()], np.concatenate([np.empty((0, *tail), np.int32), *parts]))


def test_how_it_was_appended_does_not_show_in_the_bytes(tmp_path):
    rows = np.arange(1000, dtype=np.int32)
    for name, step in (("a", 1000), ("b", 7)):
        with h5py.File(tmp_path / name, "w") as file:
            column = AppendedColumn(file, "x", np.int32, chunk=64)
            for first in range(0, 1000, step):
                column.append(rows[first : first + step])
            column.close()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_failures_name_the_file(tmp_path):
    with h5py.File(tmp_path / "good.h5", "w") as file:
        file.create_dataset("x", data=np.arange(9000), chunks=(1000,), compression="gzip")
    content = (tmp_path / "good.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[:-100])
    with pytest.raises(BadInput, match=r"cut\.h5: is cut short"), reading(tmp_path / "cut.h5"):
        pass
    with pytest.raises(BadInput, match=r"no\.h5: does not exist"), reading(tmp_path / "no.h5"):
        pass
    with pytest.raises(BadInput, match=r"good\.h5: cannot be read as HDF5"), reading(tmp_path / "good.h5") as file:
        file["y"]


def test_a_damaged_chunk_is_found_when_it_is_read(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        data = file.create_dataset("x", data=np.random.default_rng(0).random(4000), chunks=(1000,), compression="gzip")
        place = data.id.get_chunk_info(2).byte_offset
    content = bytearray((tmp_path / "d.h5").read_bytes())
    content[place : place + 400] = bytes(400)
    (tmp_path / "d.h5").write_bytes(content)
    with pytest.raises(BadInput, match=r"d\.h5: cannot be read as HDF5"), reading(tmp_path / "d.h5") as file:
        file["x"][()]


def test_a_full_disk_is_reported_after_the_file_is_closed(tmp_path, monkeypatch):
    room = 3000

    def cramped(self, data):
        if self.tell() + len(data) > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return io.FileIO.write(self, data)

    monkeypatch.setattr(hdf5._FailsAfterwards, "_put", cramped)
    with pytest.raises(OSError, match="No space left"), writing(tmp_path / "x.h5") as file:
        for k in range(20):
            file[f"x{k}"] = np.arange(1000)
    room = 10**6
    with writing(tmp_path / "y.h5") as file:
        file["x"] = np.arange(1000)
    with reading(tmp_path / "y.h5") as file:
        assert file["x"][-1] == 999


def test_an_error_in_the_block_comes_through(tmp_path):
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "x.h5"):
        raise ZeroDivisionError


def link(folder):
    with h5py.File(folder / "in.h5", "w") as file:
        file["signal"] = h5py.ExternalLink("raw.h5", "/x")


def virtual(folder):
    layout = h5py.VirtualLayout((4,), np.float64)
    layout[:] = h5py.VirtualSource("raw.h5", "x", (4,))
    with h5py.File(folder / "in.h5", "w") as file:
        file.create_group("deep").create_virtual_dataset("signal", layout)


def link_to_a_link(folder):
    link(folder)
    (folder / "in.h5").rename(folder / "middle.h5")
    with h5py.File(folder / "in.h5", "w", userblock_size=512) as file:  # as MATLAB 7.3 begins
        file["signal"] = h5py.ExternalLink(str(folder / "middle.h5"), "/signal")
        file["itself"] = h5py.ExternalLink("in.h5", "/signal")


@pytest.mark.parametrize("make", [link, virtual, link_to_a_link])
def test_a_file_is_hashed_with_what_it_reaches(tmp_path, make):
    def write(value):
        with h5py.File(tmp_path / "raw.h5", "w") as file:
            file["x"] = np.full(4, float(value))

    write(1)
    make(tmp_path)
    assert tmp_path / "raw.h5" in files_reached(tmp_path / "in.h5")
    seen = {fingerprint(tmp_path / "in.h5")}
    write(2)
    seen.add(fingerprint(tmp_path / "in.h5"))
    (tmp_path / "raw.h5").unlink()
    seen.add(fingerprint(tmp_path / "in.h5"))
    assert len(seen) == 3


def test_external_raw_storage_is_refused(tmp_path):
    np.arange(4.0).tofile(tmp_path / "raw.bin")
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("signal", (4,), np.float64, external=[(str(tmp_path / "raw.bin"), 0, 32)])
    with pytest.raises(BadInput, match=r"signal lies in raw storage outside of it .*raw\.bin.*h5repack"):
        fingerprint(tmp_path / "in.h5")


def test_a_plain_file_reaches_nothing_and_has_the_hash_of_its_bytes(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["group/x"] = np.arange(3)
        file["soft"] = h5py.SoftLink("/group/x")
    (tmp_path / "in.txt").write_text("text")
    for name in ("in.h5", "in.txt"):
        assert files_reached(tmp_path / name) == []
        assert fingerprint(tmp_path / name) == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
