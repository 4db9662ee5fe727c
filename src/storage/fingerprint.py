"""Content of files and folders as a checksum, and plain values as the one JSON text that is hashed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xxhash

from src.signals import BadInput
from src.storage.forward_file import CHECKSUM, digest

_SETTLED_NS = 1_000_000_000
_digests: dict[tuple[str, str, int, int, int, int, int], str] = {}
_MAKERS: dict[str, Callable[[], Any]] = {"sha256": hashlib.sha256, CHECKSUM: xxhash.xxh3_128}


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
        identity = (kind, str(path), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        if identity in _digests:
            return _digests[identity]
        # Clocks of file systems are coarse: two writes in one tick look alike, so a fresh file is not remembered.
        settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS
        value = digest(path, _MAKERS[kind]())
    except FileNotFoundError:
        raise BadInput(path, "does not exist", "check the path") from None
    except PermissionError:
        raise BadInput(path, "cannot be read (permission denied)", "ask for read access") from None
    if settled:
        _digests[identity] = value
    return value
