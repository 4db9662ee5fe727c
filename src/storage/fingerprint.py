"""Content of files as a checksum, and plain values as the one JSON text that is hashed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import xxhash

from src.signals import BadInput

CHECKSUM = "xxh3_128"
"""What large results are verified by: a damaged one is found as surely as by SHA-256, in a thirtieth of its time."""
_READ_BYTES = 1 << 22
_SETTLED_NS = 1_000_000_000
_MAKERS: dict[str, Any] = {"sha256": hashlib.sha256, CHECKSUM: xxhash.xxh3_128}
_Identity = tuple[int, int, int, int, int]
_digests: dict[tuple[str, str, _Identity], str] = {}
_taken: dict[str, tuple[_Identity, str]] = {}


def canonical_json(value: Any) -> str:
    """The one JSON text of a plain value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: Any) -> str:
    """SHA-256 of a plain value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_digest(path: Path, kind: str = "sha256") -> str:
    """Checksum of a file's content, remembered while the file system says that it is the same file.

    Raises
    ------
    BadInput
        If the file is missing or cannot be read.
    """
    try:
        stat = path.stat()
        key = (kind, str(path), _identity(stat))
        if key in _digests:
            return _digests[key]
        # Clocks of file systems are coarse: two writes in one tick look alike, so a fresh file is not remembered.
        settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS
        checksum = _MAKERS[kind]()
        with path.open("rb") as handle:
            while block := handle.read(_READ_BYTES):
                checksum.update(block)
    except FileNotFoundError:
        raise BadInput(path, "does not exist", "check the path") from None
    except PermissionError:
        raise BadInput(path, "cannot be read (permission denied)", "ask for read access") from None
    if settled:
        _digests[key] = checksum.hexdigest()
    return str(checksum.hexdigest())


def remember(path: Path, stat: os.stat_result, digest: str) -> None:
    """Keep the XXH3-128 that was taken while a file was written, for :func:`taken_digest`."""
    _taken[str(path)] = _identity(stat), digest


def taken_digest(path: Path) -> str | None:
    """XXH3-128 of a file that :func:`remember` knows, taken anew if it has changed since; else ``None``.

    It is given once.
    """
    found = _taken.pop(str(path), None)
    if found is None:
        return None
    return found[1] if found[0] == _identity(path.stat()) else file_digest(path, CHECKSUM)


def _identity(stat: os.stat_result) -> _Identity:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
