import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from src.signals import BadInput
from src.storage.atomic import atomic_file
from src.storage.lock import folder_lock
from src.storage.output import replacement


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A result's folder as every writer makes it."""
    with folder_lock(target), replacement(target) as part:
        yield part


@pytest.fixture
def small_disk(tmp_path):
    """A file system with one mebibyte of room."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def read_only(tmp_path):
    """A folder that nobody may write to, not even root."""
    place = tmp_path / "locked"
    place.mkdir()
    if os.geteuid() != 0:
        place.chmod(0o555)
        yield place
        place.chmod(0o755)
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", place], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("root may not mount a read-only file system here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_file_appears_whole_only_at_the_end_and_keeps_its_suffix_meanwhile(tmp_path):
    target = tmp_path / "x.npz"
    with atomic_file(target) as part:
        np.savez(part, a=np.arange(3))
        assert not target.exists()
        assert part.suffix == ".npz"
    assert visible(tmp_path) == ["x.npz"]


@pytest.mark.parametrize("writer", [atomic_file, atomic_folder])
@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_result_and_no_trace(tmp_path, writer, error):
    target = tmp_path / "result"
    with writer(target) as part:
        (part / "old" if writer is atomic_folder else part).write_text("old")
    with pytest.raises(type(error)), writer(target) as part:
        (part / "new" if writer is atomic_folder else part).write_text("new")
        raise error
    assert visible(tmp_path) == ["result"]
    assert (target / "old" if writer is atomic_folder else target).read_text() == "old"


@pytest.mark.parametrize("writer", [atomic_file, atomic_folder])
def test_a_link_is_followed_not_replaced(tmp_path, writer):
    real, link = tmp_path / "real", tmp_path / "link"
    for existing in (False, True):
        link.unlink(missing_ok=True)
        link.symlink_to(real)
        with writer(link) as part:
            (part / "x" if writer is atomic_folder else part).write_text(str(existing))
        assert link.is_symlink()
        assert (real / "x" if writer is atomic_folder else real).read_text() == str(existing)
    assert visible(tmp_path) == ["link", "real"]


def test_a_file_in_the_place_of_a_folder_is_not_touched(tmp_path):
    target = tmp_path / "thesis.txt"
    target.write_text("years of work")
    with pytest.raises(BadInput, match="is a file"), atomic_folder(target):
        pass
    assert target.read_text() == "years of work"


def test_a_folder_in_the_place_of_a_file_is_not_touched(tmp_path):
    (tmp_path / "x" / "inner").mkdir(parents=True)
    with pytest.raises(BadInput, match="cannot be written"), atomic_file(tmp_path / "x") as part:
        part.write_text("x")
    assert visible(tmp_path) == ["x"]
    assert visible(tmp_path / "x") == ["inner"]


def test_what_dead_writers_left_is_removed_and_nothing_else(tmp_path):
    target = tmp_path / "result"
    dead = tmp_path / ".result.part-0123abcd"
    dead.mkdir()
    others = [tmp_path / name for name in (".result2.part-0123abcd", ".result.part-notes", "result.part-0123abcd")]
    for other in others:
        other.mkdir()
    with atomic_file(target) as part:
        assert not dead.exists()
        part.write_text("x")
    assert visible(tmp_path) == sorted(["result", *(p.name for p in others)])


def write_array(part: Path) -> None:
    np.save(part / "x.npy", np.ones(1 << 20))


def write_hdf5(part: Path) -> None:
    with h5py.File(part / "x.h5", "w") as file:
        file["x"] = np.ones(1 << 20)


def write_safetensors(part: Path) -> None:
    save_file({"x": torch.ones(1 << 20)}, part / "x.safetensors")


def write_checkpoint(part: Path) -> None:
    torch.save(torch.ones(1 << 20), part / "x.ckpt")


def write_text(part: Path) -> None:
    (part / "x.csv").write_text("x" * (1 << 21))


# h5py cannot close a file that no longer fits on the disk, and says so when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("write", [write_array, write_hdf5, write_safetensors, write_checkpoint, write_text])
def test_a_full_disk_is_named_whatever_library_met_it(small_disk, write):
    message = "no space left on the disk; free some space"
    with pytest.raises(BadInput, match=message), atomic_folder(small_disk / "result") as part:
        write(part)
    assert visible(small_disk) == []


def test_a_full_disk_is_named_for_an_unprivileged_user(tmp_path):
    with pytest.raises(BadInput, match="no space left on the disk"), atomic_folder(tmp_path / "result") as part:
        (part / "x").symlink_to("/dev/full")
        (part / "x").write_text("x")
    assert visible(tmp_path) == []


@pytest.mark.parametrize("writer", [atomic_file, atomic_folder])
@pytest.mark.parametrize("below", ["result", "deeper/result"])
def test_a_read_only_place_is_named(read_only, writer, below):
    with pytest.raises(BadInput, match="cannot be written") as caught, writer(read_only / below) as part:
        part.write_text("x")
    assert str(read_only) in caught.value.source


def test_a_file_where_a_parent_folder_should_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"), atomic_folder(tmp_path / "file" / "result"):
        pass


def test_a_name_too_long_for_the_disk_is_named(tmp_path):
    with pytest.raises(BadInput, match="too long"), atomic_folder(tmp_path / ("x" * 250)):
        pass
