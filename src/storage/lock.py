"""One writer per output, across processes and machines: ``filelock`` with errors a user can act on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from src.signals import BadInput
from src.storage.disk import disk_error


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
