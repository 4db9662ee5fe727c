"""One writer per output, across processes and machines, and what a disk refuses, in words a user can act on."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from src.signals import BadInput

_NEARLY_FULL_BYTES = 1 << 16
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_MISPLACED = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
# HDF5 and Rust libraries report a full disk in words, in errors of their own.
_FULL_IN_WORDS = re.compile(r"No space left on device|\(os error 28\)|errno = 28\b")


@contextmanager
def folder_lock(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of an output file or folder; the kernel drops it when its owner dies.

    The lock is the file ``.<name>.lock`` beside the output. It is removed while it is held, so that none stays
    beside the results; ``filelock`` notices a file that was removed while it waited.

    Raises
    ------
    BadInput
        If the place cannot be written or has no locks; with ``wait=False``, when another process holds it.
    """
    folder = Path(os.path.realpath(folder))
    path = folder.with_name(f".{folder.name}.lock")
    lock = FileLock(path, timeout=-1 if wait else 0, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise busy(folder) from None
    except OSError as error:
        bad = disk_error(error, folder)
        if bad is None:
            problem = f"cannot be locked ({error.strerror})"
            bad = BadInput(folder, problem, "choose a folder on another disk")
        raise bad from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def busy(folder: Path) -> BadInput:
    """What is said where another process holds the lock."""
    return BadInput(folder, "another run is writing it", "wait for it, or choose another folder")


def try_lock(path: Path, *, wait: bool = False) -> AcquireReturnProxy | None:
    """Take the lock file ``path``; ``None`` if another process has it.

    What is returned is a context that releases the lock at its end; the end of the process does so too.
    """
    try:
        return FileLock(path, timeout=-1 if wait else 0, fallback_to_soft=False).acquire()
    except Timeout:
        return None


def disk_error(error: BaseException, target: Path, *, within: Path | None = None) -> BadInput | None:
    """The user's view of an error met while writing ``target``; ``None`` if the disk is not the cause.

    Parameters
    ----------
    error
        What was raised.
    target
        The file or folder being written.
    within
        Where it is being written for now. An error about any other file is not about the target.
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
