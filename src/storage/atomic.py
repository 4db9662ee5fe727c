"""Files and folders that are either whole or absent.

Everything the project writes goes to a hidden neighbour first and is renamed once, so a killed
process leaves nothing that could be taken for a finished result.
"""

from __future__ import annotations

import errno
import glob
import itertools
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from src.signals import BadInput

_PART = ".part-"
_STALE_S = 24 * 3600.0
_NEARLY_FULL_BYTES = 1 << 16
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_MISPLACED = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
# HDF5 and Rust libraries report a full disk in words, in errors of their own.
_FULL_IN_WORDS = re.compile(r"No space left on device|\(os error 28\)|errno = 28\b")

_HOST = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:16] or "here"
_OWNER = re.compile(rf"{re.escape(_PART)}(?P<host>[A-Za-z0-9]+)-(?P<pid>\d+)-\d+")

_counter = itertools.count()
_open_parts: set[str] = set()


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
    with _part(target) as (part, target):
        if target.exists() and not target.is_dir():
            raise BadInput(target, "is a file where a folder is to be written", "choose another name")
        try:
            part.mkdir()
            yield part
            _sync_tree(part)
            _swap_in(part, target)
        except BaseException as error:
            # Judged before the unfinished folder goes: its removal frees the space that was short.
            bad = disk_error(error, target, within=part)
            shutil.rmtree(part, ignore_errors=True)
            if bad is not None:
                raise bad from error
            raise


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes ``target`` when the block ends without an error.

    Raises
    ------
    BadInput
        If the place cannot be written or the disk is full.
    """
    with _part(target) as (part, target):
        try:
            yield part
            _sync_file(part)
            os.replace(part, target)
        except BaseException as error:
            bad = disk_error(error, target, within=part)
            with suppress(OSError):
                part.unlink()
            if bad is not None:
                raise bad from error
            raise


def remove_leftovers(target: Path) -> None:
    """Delete what killed writers of ``target`` left behind; living writers are left alone."""
    for part in target.parent.glob(f".{glob.escape(target.name)}{_PART}*"):
        if not _in_use(part):
            _remove(part)


def disk_error(error: BaseException, target: Path, *, within: Path | None = None) -> BadInput | None:
    """The user's view of an error met while writing ``target``; ``None`` if the disk is not to blame.

    Parameters
    ----------
    error
        What was raised.
    target
        The file or folder being written.
    within
        Where it is being written for now. What is refused elsewhere is another file's affair.
    """
    if isinstance(error, BadInput):
        return None
    number = error.errno if isinstance(error, OSError) else None
    if number in _FULL or _FULL_IN_WORDS.search(str(error)) or (number is None and _out_of_space(error, target)):
        return BadInput(target, "no space left on the disk", "free some space or choose another folder")
    if not isinstance(error, OSError) or number not in (*_FORBIDDEN, *_MISPLACED):
        return None
    if within is not None and isinstance(error.filename, str) and not _concerns(error.filename, target, within):
        if number in _MISPLACED:
            return None
        return BadInput(error.filename, f"cannot be opened ({error.strerror})", "ask for access to it")
    return BadInput(target, f"cannot be written ({error.strerror})", "choose a folder you may write to")


@contextmanager
def _part(target: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a hidden name, and the place that ``target`` really is once symbolic links are followed."""
    target = Path(os.path.realpath(target))
    # The suffix survives because writers such as np.savez and matplotlib choose their format by it.
    name = f".{target.name}{_PART}{_HOST}-{os.getpid()}-{next(_counter)}{target.suffix}"
    _open_parts.add(name)
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(target)
        except OSError as error:
            bad = disk_error(error, target)
            if bad is None:
                raise
            raise bad from error
        yield target.with_name(name), target
    finally:
        _open_parts.discard(name)


def _in_use(part: Path) -> bool:
    """Whether the process that names itself in ``part`` may still be writing it."""
    match = _OWNER.search(part.name)
    if match is None or part.name in _open_parts:
        return match is not None
    host, pid = match["host"], int(match["pid"])
    if host != _HOST:
        # Another machine's processes cannot be asked; on a shared disk a day's silence has to do.
        with suppress(FileNotFoundError):
            return time.time() - part.stat().st_mtime < _STALE_S
        return False
    return pid != os.getpid() and _alive(pid)


def _alive(pid: int) -> bool:
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
    old = part.with_name(f"{part.name}.old")
    os.rename(target, old)
    os.rename(part, target)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def _concerns(name: str, target: Path, part: Path) -> bool:
    path = Path(os.path.realpath(name))
    return path == target or path.is_relative_to(part)


def _out_of_space(error: BaseException, target: Path) -> bool:
    """Whether the disk is full, for the writers whose error names no cause (``ndarray.tofile``, ``torch.save``)."""
    if not isinstance(error, OSError | RuntimeError):
        return False
    with suppress(OSError):
        disk = os.statvfs(target.parent)
        return disk.f_bavail * disk.f_frsize < _NEARLY_FULL_BYTES
    return False


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            _sync_file(path)


def _sync_file(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
