import errno
import os
from pathlib import Path

import pytest

from src.signals import BadInput
from src.storage.disk import disk_error


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
