"""Files and unfinished folders: whatever the project writes gets a hidden name first and its own name once it is whole.

A killed process thus leaves nothing that could be taken for a finished result. The hidden name ends in a random
token. Whoever writes an output holds its lock, so what the holder finds there under other tokens was left by
writers that are dead, on whatever machine they ran.
"""

from __future__ import annotations

import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from src.storage.lock import disk_error, folder_lock

PART = re.compile(r"\..+\.part-[0-9a-f]{8}(\.[^.]*)?")
"""Hidden names of what is being written."""


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
