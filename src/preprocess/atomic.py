"""Files and folders that are either whole or absent.

Everything the project writes goes to a hidden neighbour first and is renamed once, so a killed
process leaves nothing that could be taken for a finished result.
"""

from __future__ import annotations

import errno
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from src.signals import BadInput

_PART = ".part-"


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` when the block ends without an error.

    An existing ``target`` is replaced. On an error, and after a kill once the next writer of the
    same target comes by, the unfinished folder is removed.

    Raises
    ------
    BadInput
        If the place cannot be written or the disk is full.
    """
    target = Path(target)
    with _disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
        part = _part_path(target)
        part.mkdir()
    try:
        with _disk_errors(target):
            yield part
            _sync_tree(part)
            _swap_in(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes ``target`` when the block ends without an error.

    Raises
    ------
    BadInput
        If the place cannot be written or the disk is full.
    """
    target = Path(target)
    with _disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target)
    part = _part_path(target)
    try:
        with _disk_errors(target):
            yield part
            _sync_file(part)
            os.replace(part, target)
    except BaseException:
        with suppress(FileNotFoundError):
            part.unlink()
        raise


def remove_leftovers(target: Path) -> None:
    """Delete what killed writers of ``target`` left behind; living writers are left alone."""
    for part in target.parent.glob(f".{glob.escape(target.name)}{_PART}*"):
        pid = part.name.rpartition("-")[2].partition(".")[0]
        if pid.isdigit() and _alive(int(pid)):
            continue
        shutil.rmtree(part) if part.is_dir() else part.unlink()


def _part_path(target: Path) -> Path:
    # The suffix survives because writers such as np.savez and matplotlib choose their format by it.
    return target.with_name(f".{target.name}{_PART}{os.getpid()}{target.suffix}")


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _swap_in(part: Path, target: Path) -> None:
    if not target.exists():
        os.rename(part, target)
        return
    old = target.with_name(f".{target.name}{_PART}old-{os.getpid()}")
    os.rename(target, old)
    os.rename(part, target)
    shutil.rmtree(old)


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _sync_file(path)


def _sync_file(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise BadInput(target, "no space left on the disk", "free some space or choose another folder") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            problem = f"cannot be written ({error.strerror})"
            raise BadInput(target, problem, "choose a folder you may write to") from error
        raise
