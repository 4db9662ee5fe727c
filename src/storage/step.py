"""Cached, atomic, provenance-stamped execution of one preprocessing stage.

A stage is a pure function of its input files, its parameters, an integer version and a seed. The
hash of the four is its key. A finished stage is a folder with the data and a ``manifest.json`` that
states the key and the checksum of every file; the folder appears in one rename. How many workers ran,
on what device and in what batches never enters the key.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xxhash

from src.signals import BadInput
from src.storage.atomic import atomic_folder
from src.storage.forward_file import CHECKSUM, digest, taken_digest
from src.storage.lock import folder_lock
from src.storage.provenance import provenance

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = 1
_SETTLED_NS = 1_000_000_000
_UNREADABLE = object()

StepFunction = Callable[[Mapping[str, Path], dict[str, Any], Path, int | None], dict[str, Any] | None]


@dataclass(frozen=True)
class CachedStep:
    """A named, versioned preprocessing step.

    Attributes
    ----------
    name
        Folder name under the cache and the name quoted in bundles.
    version
        Raised by hand whenever the output for the same input changes; a golden-digest test holds it.
    run
        ``run(inputs, params, out_dir, seed)`` writes files into ``out_dir`` and returns facts for the
        manifest: axes, units, counts, warnings. It reads nothing but ``inputs`` and draws random
        numbers from ``seed`` alone.
    """

    name: str
    version: int
    run: StepFunction

    def key(self, inputs: Mapping[str, Path], params: dict[str, Any], seed: int | None) -> str:
        """SHA-256 over name, version, parameters, seed and the content of every input file."""
        identity = {
            "stage": self.name,
            "version": self.version,
            "params": params,
            "seed": seed,
            "inputs": {name: fingerprint(path) for name, path in sorted(inputs.items())},
        }
        return hashlib.sha256(canonical_json(identity).encode()).hexdigest()

    def describe(self, params: dict[str, Any], seed: int | None = None) -> dict[str, Any]:
        """The plain record of this step that a bundle carries."""
        return {"step": self.name, "version": self.version, "params": params, "seed": seed}


@dataclass(frozen=True)
class Artifact:
    """A finished stage on disk; ``reused`` says that nothing had to be computed."""

    path: Path
    manifest: dict[str, Any]
    reused: bool


def ensure(
    stage: CachedStep,
    inputs: Mapping[str, Path],
    params: dict[str, Any],
    *,
    label: str,
    cache: Path | None = None,
    target: Path | None = None,
    seed: int | None = None,
    wait: bool = True,
) -> Artifact:
    """Return the stage's output for these inputs, computing it only if it is not there and whole.

    Parameters
    ----------
    stage, inputs, params, seed
        What to compute. ``params`` holds plain JSON types, fully resolved: no default is left out.
    label
        Name of the recording, for folder names and messages.
    cache, target
        Where the output lives: ``cache/<stage>/<label>-<key>`` beside other results, or exactly
        ``target``, where a result made from other inputs or parameters is replaced, and nothing else
        ever is. Give one of them.
    wait
        Whether to wait for another process that is making the same output, or to raise.

    Raises
    ------
    BadInput
        For an input that is missing or changes meanwhile, a ``target`` with files of somebody else's,
        an unwritable place, a full disk, or (``wait=False``) a busy output.
    """
    if (cache is None) == (target is None):
        raise TypeError("give either cache or target")
    key = stage.key(inputs, params, seed)
    folder = Path(target) if target is not None else cache_folder(Path(cache or ""), stage, label, key)
    if found := read_artifact(folder, key):
        return found
    with folder_lock(folder, wait=wait):
        if found := read_artifact(folder, key):
            return found
        if target is not None:
            refuse_foreign(folder)
        started, clock = datetime.now(UTC), time.monotonic()
        with atomic_folder(folder) as part:
            facts = stage.run(inputs, params, part, seed) or {}
            if stage.key(inputs, params, seed) != key:
                raise BadInput(label, "its files changed while they were read", "run again once they are complete")
            manifest = {
                "schema": MANIFEST_SCHEMA,
                "key": key,
                "label": label,
                "stage": stage.name,
                "version": stage.version,
                "params": params,
                "seed": seed,
                "inputs": {n: {"name": Path(p).name, "sha256": fingerprint(p)} for n, p in sorted(inputs.items())},
                "outputs": checksums(part),
                "facts": facts,
                "provenance": provenance(),
                "started": started.isoformat(timespec="seconds"),
                "wall_s": round(time.monotonic() - clock, 3),
            }
            (part / MANIFEST).write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n")
        return Artifact(folder, manifest, reused=False)


def cache_folder(cache: Path, stage: CachedStep, label: str, key: str) -> Path:
    """``cache/<stage>/<label>-<first 16 digits of the key>``; separators in the label become underscores."""
    safe = label.replace("/", "_").replace("\\", "_")
    return cache / stage.name / f"{safe}-{key[:16]}"


def read_artifact(folder: Path, key: str | None = None) -> Artifact | None:
    """The artifact in ``folder`` if its manifest is there, has this key, and every file it lists verifies."""
    manifest = _read_manifest(folder)
    if not isinstance(manifest, dict) or manifest.get("schema") != MANIFEST_SCHEMA:
        return None
    if not {"key", "facts", "outputs"} <= manifest.keys() or (key is not None and manifest["key"] != key):
        return None
    try:
        whole = all(_inside(folder, name) and _verifies(folder / name, r) for name, r in manifest["outputs"].items())
    except (BadInput, OSError, ValueError):  # a file is gone, a name is none, another process replaces the folder
        return None
    return Artifact(folder, manifest, reused=True) if whole else None


def refuse_foreign(folder: Path) -> None:
    """Raise rather than let a folder be replaced that holds anything but a stage's output.

    Raises
    ------
    BadInput
        Naming one file that no manifest lists.
    """
    manifest = _read_manifest(folder)
    if manifest is _UNREADABLE:  # what it listed cannot be told from what it did not
        return
    ours = isinstance(manifest, dict) and {"stage", "outputs"} <= manifest.keys()
    listed = {MANIFEST, *manifest["outputs"]} if isinstance(manifest, dict) and ours else set()
    for path in _files(folder):
        if (name := path.relative_to(folder).as_posix()) not in listed:
            raise BadInput(folder, f"already holds {name}, which no stage wrote", "name a new or an empty folder")


def checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and checksum of every file below ``folder`` but the manifest, by relative name.

    That is XXH3-128 where it was taken while the file was written, and SHA-256 elsewhere.
    """
    outputs = {p.relative_to(folder).as_posix(): p for p in _files(folder) if p != folder / MANIFEST}
    return {name: {"bytes": p.stat().st_size} | _checksum(p) for name, p in outputs.items()}


def _checksum(path: Path) -> dict[str, str]:
    taken = taken_digest(path)
    return {"sha256": fingerprint(path)} if taken is None else {CHECKSUM: taken}


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files.

    A finished stage's folder is what its manifest says it is, apart from when and how fast it was made:
    made again elsewhere it has the same fingerprint.

    Raises
    ------
    BadInput
        If the path is missing or cannot be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            found = read_artifact(path)
            if found is not None:
                return _digest_of([found.manifest["key"], found.manifest["facts"], found.manifest["outputs"]])
            return _digest_of([(p.relative_to(path).as_posix(), fingerprint(p)) for p in _files(path)])
        return _file_digest(path)
    except FileNotFoundError:
        raise BadInput(path, "does not exist", "check the path") from None
    except PermissionError:
        raise BadInput(path, "cannot be read (permission denied)", "ask for read access") from None


def _read_manifest(folder: Path) -> Any:
    """The manifest's content, ``None`` where there is none, ``_UNREADABLE`` where it is damaged."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError):
        return _UNREADABLE
    outputs = manifest.get("outputs", {}) if isinstance(manifest, dict) else None
    if not isinstance(outputs, dict) or not all(isinstance(record, dict) for record in outputs.values()):
        return _UNREADABLE
    return manifest


def _inside(folder: Path, name: str) -> bool:
    """Whether a manifest names a file of its own folder, not one elsewhere through ``..``, a root or a link."""
    return (folder / name).resolve().is_relative_to(folder.resolve())


def _verifies(path: Path, record: dict[str, Any]) -> bool:
    if path.stat().st_size != record.get("bytes"):
        return False
    return (
        _file_digest(path, CHECKSUM) == record[CHECKSUM]
        if CHECKSUM in record
        else (fingerprint(path) == record.get("sha256"))
    )


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _digest_of(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


_digests: dict[tuple[str, str, int, int, int, int, int], str] = {}
_MAKERS: dict[str, Callable[[], Any]] = {"sha256": hashlib.sha256, CHECKSUM: xxhash.xxh3_128}


def _file_digest(path: Path, kind: str = "sha256") -> str:
    """Checksum of a file's content, remembered while the file system says that it is the same file."""
    stat = path.stat()
    identity = (kind, str(path), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if identity in _digests:
        return _digests[identity]
    # Clocks of file systems are coarse: two writes in one tick look alike, so a fresh file is not remembered.
    settled = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS
    value = digest(path, _MAKERS[kind]())
    if settled:
        _digests[identity] = value
    return value


def canonical_json(value: Any) -> str:
    """The one JSON text of a plain value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
