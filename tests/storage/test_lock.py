import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from src.signals import BadInput
from src.storage.lock import disk_error, folder_lock
from src.storage.output import OutputFolder

CROWD = """
import os, pathlib, sys
from src.storage.lock import folder_lock
busy = pathlib.Path(sys.argv[1]) / "busy"
for _ in range(200):
    with folder_lock(pathlib.Path(sys.argv[1]) / "result"):
        os.close(os.open(busy, os.O_CREAT | os.O_EXCL))
        busy.unlink()
"""

HOLD = """
import pathlib, sys, time
from src.storage.lock import folder_lock
with folder_lock(pathlib.Path(sys.argv[1]) / "result"):
    print("held", flush=True)
    time.sleep(60)
"""


def start(repository: Path, code: str, folder: Path, **options) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, folder], cwd=repository, text=True, **options)


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


def test_many_processes_that_remove_and_take_it_never_overlap(tmp_path, repository):
    crowd = [start(repository, CROWD, tmp_path, stderr=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate()[1] for process in crowd] == [""] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_lets_go(tmp_path, repository):
    with start(repository, HOLD, tmp_path, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == "held\n"
        threading.Timer(0.2, os.kill, (holder.pid, signal.SIGKILL)).start()
        with folder_lock(tmp_path / "result"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"), folder_lock(tmp_path / "file" / "result"):
        pass


WRITE = """
import pathlib, socket, sys, time
socket.gethostname = lambda: "gpu-partition-node-0001"
from src.storage.output import OutputFolder
with OutputFolder(pathlib.Path(sys.argv[1])).folder("result") as part:
    (part / "half").write_text("half")
    print(part.name, flush=True)
    time.sleep(60)
"""


def test_an_unfinished_folder_belongs_to_its_writer_while_that_lives_on_whatever_machine(
    tmp_path, repository, monkeypatch
):
    monkeypatch.setattr("socket.gethostname", lambda: "gpu-partition-node-0002")
    output = OutputFolder(tmp_path)
    with start(repository, WRITE, tmp_path, stdout=subprocess.PIPE) as other:
        part = tmp_path / other.stdout.readline().strip()
        with output.folder("another") as mine:
            (mine / "x").write_text("x")
        with pytest.raises(BadInput, match="another run is writing it"), folder_lock(tmp_path / "result", wait=False):
            pass
        assert (part / "half").read_text() == "half"
        threading.Timer(0.2, other.kill).start()
        with output.folder("result") as mine:  # waits for the other one's end
            assert not part.exists()
            (mine / "whole").write_text("whole")
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
