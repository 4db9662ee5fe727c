"""``manifest.json``: what a folder of results holds, how it was made, and with which checksums.

It lists every file that was written beside it and carries a checksum of itself. A file is provably ours if a manifest
above it lists it and its content has the checksum stated there; nothing else is.
"""

import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import xxhash

from src.signals import BadInput
from src.storage.foreign_files import explained

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = 2
UNREADABLE: dict[str, Any] = {}
"""Stands for a manifest that is there and damaged; compare by identity."""
CHECKSUM = "xxh3_128"
"""What large results are verified by: a damaged one is found as surely as by SHA-256, in a thirtieth of its time."""
PACKAGES = ("torch", "numpy", "scipy", "h5py", "pytorch-lightning", "hydra-core", "librosa", "PyWavelets", "tensorflow")
_READ_BYTES = 1 << 22
_SETTLED_NS = 1_000_000_000
_MAKERS: dict[str, Any] = {"sha256": hashlib.sha256, CHECKSUM: xxhash.xxh3_128}
Record = dict[str, Any]
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
    with explained(path):
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
    if settled:
        _digests[key] = checksum.hexdigest()
    return str(checksum.hexdigest())


def remember(path: Path, stat: os.stat_result, digest: str) -> None:
    """Keep the XXH3-128 that was taken while a file was written, for the manifest that lists it."""
    _taken[str(path)] = _identity(stat), digest


def _identity(stat: os.stat_result) -> _Identity:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def checksums(folder: Path) -> dict[str, Record]:
    """Size and checksum of every file below ``folder`` but the manifest, by relative name.

    That is XXH3-128 where it was taken while the file was written, and SHA-256 elsewhere.
    """
    records: dict[str, Record] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST):
        name = path.relative_to(folder).as_posix()
        stat, taken = path.stat(), _taken.pop(str(path), None)
        if taken is None:
            records[name] = {"bytes": stat.st_size, "sha256": file_digest(path)}
        else:
            same = taken[0] == _identity(stat)  # else it was changed after it was written
            records[name] = {"bytes": stat.st_size, CHECKSUM: taken[1] if same else file_digest(path, CHECKSUM)}
    return records


def read_record(file: Path) -> dict[str, Any]:
    """The record in a JSON file; empty where there is none that can be read."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(file.read_text())
        return found if isinstance(found, dict) else {}
    return {}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder: ``None`` where there is none, :data:`UNREADABLE` where it is damaged or not ours."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError):
        return UNREADABLE
    outputs = manifest.get("outputs") if isinstance(manifest, dict) else None
    if not isinstance(outputs, dict) or not all(isinstance(record, dict) for record in outputs.values()):
        return UNREADABLE
    return dict(manifest)


def is_intact(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is finished and is what was written: its own checksum holds."""
    whole = manifest.get("schema") == MANIFEST_SCHEMA and "unfinished" not in manifest
    return whole and manifest.get("checksum") == digest_of({k: v for k, v in manifest.items() if k != "checksum"})


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest, with its schema and its checksum."""
    plain = json.loads(json.dumps({**manifest, "schema": MANIFEST_SCHEMA}, allow_nan=False))
    plain = {"schema": MANIFEST_SCHEMA, **{k: v for k, v in plain.items() if k != "checksum"}}
    plain["checksum"] = digest_of(plain)
    (folder / MANIFEST).write_text(json.dumps(plain, indent=2) + "\n")


def listed_files(folder: Path) -> dict[str, list[Record]] | None:
    """What a folder's manifest lists: relative name and the records its content may have; ``None`` without one."""
    manifest = read_manifest(folder)
    if manifest is None or manifest is UNREADABLE:
        return None
    found = {name: [record] for name, record in manifest["outputs"].items()}
    replaced = manifest.get("replaced")
    for name, records in replaced.items() if isinstance(replaced, dict) else ():
        if isinstance(records, list):
            found.setdefault(name, []).extend(r for r in records if isinstance(r, dict))
    return found


def is_ours(folder: Path, name: str, records: list[Record]) -> bool:
    """Whether ``folder/name`` is a file of this folder that has the content of one of the records."""
    path = folder / name
    with suppress(BadInput, OSError, ValueError):  # it is gone, or the name is none
        inside = path.resolve().is_relative_to(folder.resolve()) and not path.is_symlink()
        for record in records if inside else ():
            kind = CHECKSUM if CHECKSUM in record else "sha256"
            if path.stat().st_size == record.get("bytes") and file_digest(path, kind) == record.get(kind):
                return True
    return False


@dataclass(frozen=True)
class Artifact:
    """A finished step on disk; ``reused`` says that nothing had to be computed."""

    path: Path
    manifest: dict[str, Any]
    reused: bool


def read_artifact(folder: Path, key: str | None = None) -> Artifact | None:
    """The artifact in ``folder`` if its manifest is intact and has this key, and every file it lists verifies."""
    manifest = read_manifest(folder)
    if not manifest or not {"key", "facts", "outputs"} <= manifest.keys():
        return None
    if not is_intact(manifest) or (key is not None and manifest["key"] != key):
        return None
    whole = all(is_ours(folder, name, [record]) for name, record in manifest["outputs"].items())
    return Artifact(folder, manifest, reused=True) if whole else None


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files.

    An HDF5 file that takes data from other files is hashed with them, see :func:`src.storage.hdf5.files_reached`.

    A finished step's folder is what its manifest says it is, apart from when and how fast it was made:
    made again elsewhere it has the same fingerprint.

    Raises
    ------
    BadInput
        If the path is missing or cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        digest = file_digest(path)
        if not _is_hdf5(path):
            return digest
        from src.storage.hdf5 import files_reached  # loads HDF5, which few inputs need

        reached = files_reached(path)
        return digest_of([digest, [file_digest(other) for other in reached]]) if reached else digest
    if found := read_artifact(path):
        return digest_of([found.manifest["key"], found.manifest["facts"], found.manifest["outputs"]])
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return digest_of([(p.relative_to(path).as_posix(), fingerprint(p)) for p in files])


def _is_hdf5(path: Path) -> bool:
    """Whether the signature of HDF5 stands where the format allows it: at byte 0, 512, 1024, 2048…"""
    place, size = 0, path.stat().st_size
    with path.open("rb") as handle:
        while place < size:
            handle.seek(place)
            if handle.read(8) == b"\x89HDF\r\n\x1a\n":
                return True
            place = max(512, 2 * place)
    return False


def source_record(path: Path) -> Record:
    """What a manifest says of an input: its name, a hash of its place and the checksum of its content."""
    return {"name": path.name, "place": _place(path), "sha256": fingerprint(path)}


def _place(path: Path) -> str:
    """A hash, because manifests are given to others and no path of this machine belongs into them."""
    return hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]


def is_source(record: Record, path: Path) -> bool:
    """Whether a record of an input means this one: by its place or, where it was moved, by its content.

    A record that states neither means every file of its name.
    """
    if record.get("place") == _place(path) or not {"place", "sha256"} & record.keys():
        return True
    return record.get("sha256") == fingerprint(path)


@cache
def provenance() -> dict[str, Any]:
    """Code commit, Python and package versions: what has to be known to repeat a result."""
    root, packages = str(Path(__file__).resolve().parents[2]), {}
    code: dict[str, Any] = {"commit": None, "dirty": None}
    with suppress(OSError, subprocess.CalledProcessError):
        commands = (["git", "-C", root, "rev-parse", "HEAD"], ["git", "-C", root, "status", "--porcelain"])
        done = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands]
        code = {"commit": done[0].strip(), "dirty": bool(done[1].strip())}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {"code": code, "python": platform.python_version(), "packages": packages}
