"""Files written front to back: the bytes given, the checksum of exactly these, and every error of the disk."""

import errno
import hashlib
import os
from functools import partial

import numpy as np
import pytest
import xxhash

from src.storage import forward_file, step
from src.storage.forward_file import ForwardFile
from src.storage.manifest import checksums

BLOCK = 1 << 13


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(forward_file, "_BLOCK_BYTES", BLOCK)


def write(path, parts):
    with ForwardFile(path) as file:
        for part in parts:
            before = file.tell()
            file.write(part)
            assert file.tell() == before + memoryview(part).nbytes
    return path


def recorded(path):
    """What a manifest would say of the file, by kind of checksum."""
    return {kind: value for kind, value in checksums(path.parent)[path.name].items() if kind != "bytes"}


@pytest.mark.parametrize("direct", ["yes", "not opened", "not written"])
@pytest.mark.parametrize("lengths", [[], [1], [BLOCK], [BLOCK - 1, 2], [5, 0, 40_000, 7 * BLOCK, 4096], [9 * BLOCK]])
def test_the_file_holds_what_was_written(tmp_path, monkeypatch, direct, lengths):
    opened, written = os.open, os.pwrite

    def open_refusing(path, flags, *args, **kwargs):
        if flags & forward_file._DIRECT:
            raise OSError(errno.EINVAL, "no direct writing here")
        return opened(path, flags, *args, **kwargs)

    def pwrite_refusing(descriptor, data, offset):
        if forward_file.fcntl.fcntl(descriptor, forward_file.fcntl.F_GETFL) & forward_file._DIRECT:
            raise OSError(errno.EINVAL, "not that direct")
        return written(descriptor, data, offset)

    with monkeypatch.context() as patch:
        if direct == "not opened":
            patch.setattr(os, "open", open_refusing)
        elif direct == "not written":
            patch.setattr(os, "pwrite", pwrite_refusing)
        parts = [np.random.default_rng(i).bytes(length) for i, length in enumerate(lengths)]
        path = write(tmp_path / "a", parts)
    assert path.read_bytes() == b"".join(parts)
    assert recorded(path) == {"xxh3_128": xxhash.xxh3_128_hexdigest(b"".join(parts))}
    assert recorded(path) == {"sha256": hashlib.sha256(b"".join(parts)).hexdigest()}  # whoever asks later: of the disk


def test_data_may_change_once_written(tmp_path):
    buffer = np.arange(1000)
    with ForwardFile(tmp_path / "a") as file:
        for _ in range(4):
            file.write(buffer.data)
            buffer += 1
    assert np.fromfile(tmp_path / "a", buffer.dtype).reshape(4, 1000)[:, 0].tolist() == [0, 1, 2, 3]


def test_a_changed_file_is_read_again(tmp_path):
    path = write(tmp_path / "a", [b"x" * 100])
    with path.open("ab") as file:
        file.write(b"y")
    assert recorded(path) == {"xxh3_128": xxhash.xxh3_128_hexdigest(b"x" * 100 + b"y")}


def test_a_manifest_takes_the_checksum_from_the_writer_and_verifies_by_it(tmp_path):
    def run(inputs, params, out_dir, seed):
        write(out_dir / "a.npz", [b"x" * 100])
        (out_dir / "b.txt").write_bytes(b"y")

    made = partial(step.ensure, step.CachedStep("demo", 1, run), {}, {}, label="demo", target=tmp_path / "demo")
    assert made().manifest["outputs"] == {
        "a.npz": {"bytes": 100, "xxh3_128": xxhash.xxh3_128_hexdigest(b"x" * 100)},
        "b.txt": {"bytes": 1, "sha256": hashlib.sha256(b"y").hexdigest()},
    }
    assert made().reused
    (tmp_path / "demo/a.npz").write_bytes(b"x" * 99 + b"y")
    assert not made().reused


@pytest.mark.parametrize("length", [100, 10 * BLOCK])
def test_a_full_disk_is_an_error_of_the_writer(tmp_path, monkeypatch, length):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "a", [b"x" * length])
    assert "sha256" in recorded(tmp_path / "a")


def test_an_error_of_the_user_of_the_file_comes_through(tmp_path):
    with pytest.raises(ValueError, match="mine"), ForwardFile(tmp_path / "a") as file:
        file.write(b"x" * 3 * BLOCK)
        raise ValueError("mine")
    assert "sha256" in recorded(tmp_path / "a")
