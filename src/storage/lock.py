"""One writer per output folder, across processes and, where the file system has locks, across machines."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.signals import BadInput
from src.storage.atomic import disk_error


@contextmanager
def folder_lock(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of an output folder; the kernel drops it when its owner dies.

    Raises
    ------
    BadInput
        If the place cannot be written or has no locks; with ``wait=False``, when another process holds it.
    """
    lock = folder.parent / f".{folder.name}.lock"
    handle = None
    while handle is None:
        handle = _locked(lock, folder, wait)
    try:
        yield
    finally:
        # Removed while held, so that no lock file stays beside the results; see `_locked`.
        lock.unlink(missing_ok=True)
        os.close(handle)


def _locked(lock: Path, folder: Path, wait: bool) -> int | None:
    """A handle that holds ``lock``, or ``None`` if its last owner removed it while we waited."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        bad = disk_error(error, folder)
        if bad is None:
            raise
        raise bad from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.fstat(handle).st_ino == lock.stat().st_ino:
            return handle
    except FileNotFoundError:
        pass
    except BlockingIOError:
        os.close(handle)
        raise BadInput(folder, "another run is writing it", "wait for it, or choose another folder") from None
    except OSError as error:
        os.close(handle)
        raise BadInput(folder, f"cannot be locked ({error.strerror})", "choose a folder on another disk") from error
    os.close(handle)
    return None
