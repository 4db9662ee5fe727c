"""What a disk refuses, in words a user can act on."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

from src.signals import BadInput

_NEARLY_FULL_BYTES = 1 << 16
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_MISPLACED = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
# HDF5 and Rust libraries report a full disk in words, in errors of their own.
_FULL_IN_WORDS = re.compile(r"No space left on device|\(os error 28\)|errno = 28\b")


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
