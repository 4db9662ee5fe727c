import errno
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from src.signals import BadInput
from src.storage.atomic import atomic_file, disk_error, folder_lock
from src.storage.output import OutputFolder
from tests.children import ended, fork


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


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


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_no_trace(tmp_path, error):
    target = tmp_path / "result"
    target.write_text("old")
    with pytest.raises(type(error)), atomic_file(target) as part:
        part.write_text("new")
        raise error
    assert visible(tmp_path) == ["result"]
    assert target.read_text() == "old"


def test_a_link_is_followed_not_replaced(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    link.symlink_to(real)
    for text in ("new", "newer"):
        with atomic_file(link) as part:
            part.write_text(text)
        assert link.is_symlink()
        assert real.read_text() == text
    assert visible(tmp_path) == ["link", "real"]


def test_a_file_in_the_place_of_a_folder_is_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match="is a file"), OutputFolder(tmp_path).folder("thesis.txt"):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


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
    with pytest.raises(BadInput, match=message), OutputFolder(small_disk).folder("result") as part:
        write(part)
    assert visible(small_disk) == []


def test_a_full_disk_is_named_for_an_unprivileged_user(tmp_path):
    with pytest.raises(BadInput, match="no space left on the disk"), OutputFolder(tmp_path).folder("result") as part:
        (part / "x").symlink_to("/dev/full")
        (part / "x").write_text("x")
    assert visible(tmp_path) == []


@pytest.mark.parametrize("below", ["result", "deeper/result"])
def test_a_read_only_place_is_named(read_only, below):
    with pytest.raises(BadInput, match="cannot be written") as caught, atomic_file(read_only / below) as part:
        part.write_text("x")
    assert str(read_only) in caught.value.source


@pytest.mark.parametrize(("below", "words"), [("file/result", "cannot be written"), ("x" * 250, "too long")])
def test_a_place_that_cannot_be_is_named(tmp_path, below, words):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=words), atomic_file(tmp_path / below):
        pass


def test_nothing_is_left_beside_the_folder(tmp_path):
    with folder_lock(tmp_path / "result"):
        assert [p.name for p in tmp_path.iterdir()] == [".result.lock"]
    assert list(tmp_path.iterdir()) == []


def test_it_is_given_back_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), folder_lock(tmp_path / "result", wait=False):
            raise ZeroDivisionError


def test_a_second_holder_is_refused_even_in_one_process(tmp_path):
    with folder_lock(tmp_path / "result"):
        with pytest.raises(BadInput, match="another run is writing it"), folder_lock(tmp_path / "result", wait=False):
            pass
        with folder_lock(tmp_path / "other", wait=False):
            pass


def test_many_processes_that_remove_and_take_it_never_overlap(tmp_path):
    def take_it_often():
        for _ in range(200):
            with folder_lock(tmp_path / "result"):
                os.close(os.open(tmp_path / "busy", os.O_CREAT | os.O_EXCL))
                (tmp_path / "busy").unlink()

    assert [ended(child) for child in [fork(take_it_often) for _ in range(3)]] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_folder_belongs_to_its_writer_while_that_lives_on_whatever_machine(tmp_path, monkeypatch):
    output = OutputFolder(tmp_path)

    def write_on_another_machine():
        monkeypatch.setattr("socket.gethostname", lambda: "gpu-partition-node-0001")
        with output.folder("result") as part:
            (part / "half").write_text("half")
            time.sleep(60)

    other = fork(write_on_another_machine)
    while not (parts := list(tmp_path.glob(".result.part-*/half"))):
        time.sleep(0.01)
    with output.folder("another") as mine:
        (mine / "x").write_text("x")
    with pytest.raises(BadInput, match="another run is writing it"), folder_lock(tmp_path / "result", wait=False):
        pass
    threading.Timer(0.2, os.kill, (other, signal.SIGKILL)).start()
    with output.folder("result") as mine:  # waits for the other one's end
        assert not parts[0].exists()
        (mine / "whole").write_text("whole")
    assert ended(other) == -signal.SIGKILL
    assert sorted(p.name for p in tmp_path.iterdir()) == ["another", "result"]
    assert sorted(p.name for p in (tmp_path / "result").iterdir()) == ["manifest.json", "whole"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "no room"), "no space left on the disk"),
        (OSError(errno.EDQUOT, "quota"), "no space left on the disk"),
        (RuntimeError("HDF5: errno = 28, No space left on device"), "no space left on the disk"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be written"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot be written"),
        (OSError(errno.ENAMETOOLONG, "File name too long"), "cannot be written"),
    ],
)
def test_what_the_disk_refuses_is_said_of_the_target(tmp_path, error, words):
    bad = disk_error(error, tmp_path / "result")
    assert bad is not None
    assert words in bad.problem
    assert bad.source == str(tmp_path / "result")


@pytest.mark.parametrize("error", [BadInput("a", "b", "c"), ZeroDivisionError(), FileNotFoundError(2, "none", "x")])
def test_other_errors_are_not_the_disks(tmp_path, error):
    assert disk_error(error, tmp_path / "result") is None


def test_a_file_elsewhere_is_named_itself(tmp_path):
    part = Path(os.path.realpath(tmp_path)) / ".result.part"
    denied = PermissionError(errno.EACCES, "Permission denied", "/somewhere/night.edf")
    assert disk_error(denied, part.with_name("result"), within=part).source == "/somewhere/night.edf"
    here = PermissionError(errno.EACCES, "Permission denied", str(part / "a"))
    assert disk_error(here, part.with_name("result"), within=part).source == str(part.with_name("result"))
