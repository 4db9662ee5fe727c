"""Atomic files, unfinished folders and locks.

Whatever the project writes gets a hidden name first and its own name once it is whole, so a killed process leaves
nothing that could be taken for a finished result. The hidden name ends in a random token. Whoever writes an output
holds its lock, so what the holder finds there under other tokens was left by writers that are dead, on whatever
machine they ran.
"""

import errno
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from src.signals import BadInput

PART = re.compile(r"\..+\.part-[0-9a-f]{8}(\.[^.]*)?")
"""Hidden names of what is being written."""
_NEARLY_FULL_BYTES = 1 << 16
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_MISPLACED = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
# HDF5 and Rust libraries report a full disk in words, in errors of their own.
_FULL_IN_WORDS = re.compile(r"No space left on device|\(os error 28\)|errno = 28\b")


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes ``target`` when the block ends without an error.

    For files inside a folder that is being written or is the run's own. What a user sees goes through
    :class:`src.storage.output.OutputFolder`, which asks whose file would be replaced.

    Raises
    ------
    BadInput
        If the place cannot be written or the disk is full.
    """
    target = Path(os.path.realpath(target))
    with folder_lock(target), unfinished(target) as part:
        yield part
        sync(part)
        os.replace(part, target)


@contextmanager
def unfinished(target: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield a hidden path beside ``target`` that is removed at the end, unless the block has renamed it.

    The caller holds the lock of ``target``. What killed writers left of it is removed first.

    Parameters
    ----------
    target
        A path without symbolic links.
    folder
        Whether to make it a folder.

    Raises
    ------
    BadInput
        If the place cannot be written or the disk is full.
    """
    # The suffix survives because writers such as np.savez and matplotlib choose their format by it.
    part = target.with_name(f".{target.name}.part-{secrets.token_hex(4)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f".{glob.escape(target.name)}.part-*"):
            if PART.fullmatch(left.name):
                remove(left)
        if folder:
            part.mkdir()
        yield part
    except BaseException as error:
        # Judged before the unfinished output is removed: its removal frees the space that was short.
        bad = disk_error(error, target, within=part)
        if bad is not None:
            raise bad from error
        raise
    finally:
        remove(part)


def remove(path: Path) -> None:
    """Remove an unfinished file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def sync(path: Path) -> None:
    """Have a file, or every file of a folder, on the disk before it gets its name."""
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


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
        raise BadInput(folder, "another run is writing it", "wait for it, or choose another folder") from None
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
    place = Path(os.path.realpath(error.filename)) if isinstance(error.filename, str) else target
    if within is not None and place != target and not place.is_relative_to(within):
        if number in _MISPLACED:
            return None
        return BadInput(error.filename, f"cannot be opened ({error.strerror})", "ask for access to it")
    return BadInput(target, f"cannot be written ({error.strerror})", "choose a folder you may write to")


def _out_of_space(error: BaseException, target: Path) -> bool:
    """Whether the disk is full, for the writers whose error names no cause (``ndarray.tofile``, ``torch.save``)."""
    if not isinstance(error, OSError | RuntimeError):
        return False
    with suppress(OSError):
        disk = os.statvfs(target.parent)
        return disk.f_bavail * disk.f_frsize < _NEARLY_FULL_BYTES
    return False
