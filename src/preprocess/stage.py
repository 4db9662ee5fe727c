"""Cached, atomic, provenance-stamped execution of one preprocessing stage.

A stage is a pure function of its input files, its parameters, an integer version and a seed. The
hash of the four is its key. A finished stage is a folder with the data and a ``manifest.json`` that
states the key and the checksum of every file; the folder appears in one rename. How many workers ran,
on what device and in what batches never enters the key.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from src.preprocess.atomic import atomic_folder
from src.signals import BadInput

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = 1
PACKAGES = ("torch", "numpy", "scipy", "h5py", "pytorch-lightning", "hydra-core", "librosa", "PyWavelets", "tensorflow")
_BLOCK = 1 << 22

StageFunction = Callable[[Mapping[str, Path], dict[str, Any], Path, int | None], dict[str, Any] | None]


@dataclass(frozen=True)
class Stage:
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
    run: StageFunction

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
        return {"stage": self.name, "version": self.version, "params": params, "seed": seed}


@dataclass(frozen=True)
class Artifact:
    """A finished stage on disk; ``reused`` says that nothing had to be computed."""

    path: Path
    manifest: dict[str, Any]
    reused: bool


def ensure(
    stage: Stage,
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
        ``target``, where a result made from other inputs or parameters is replaced. Give one of them.
    wait
        Whether to wait for another process that is making the same output, or to raise.

    Raises
    ------
    BadInput
        For a missing input, an unwritable place, a full disk, or (``wait=False``) a busy output.
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
        started, clock = datetime.now(UTC), time.monotonic()
        with atomic_folder(folder) as part:
            facts = stage.run(inputs, params, part, seed) or {}
            manifest = {
                "schema": MANIFEST_SCHEMA,
                "key": key,
                "label": label,
                **stage.describe(params, seed),
                "inputs": {n: {"name": Path(p).name, "sha256": fingerprint(p)} for n, p in sorted(inputs.items())},
                "outputs": checksums(part),
                "facts": facts,
                "provenance": provenance(),
                "started": started.isoformat(timespec="seconds"),
                "wall_s": round(time.monotonic() - clock, 3),
            }
            (part / MANIFEST).write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n")
        return Artifact(folder, manifest, reused=False)


def cache_folder(cache: Path, stage: Stage, label: str, key: str) -> Path:
    """``cache/<stage>/<label>-<first 16 digits of the key>``."""
    return cache / stage.name / f"{label}-{key[:16]}"


def read_artifact(folder: Path, key: str | None = None) -> Artifact | None:
    """The artifact in ``folder`` if its manifest is there, has this key, and every file verifies."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("schema") != MANIFEST_SCHEMA:
        return None
    if key is not None and manifest.get("key") != key:
        return None
    if manifest.get("outputs") != checksums(folder):
        return None
    return Artifact(folder, manifest, reused=True)


def checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below ``folder`` but the manifest, by relative name."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": fingerprint(p)} for p in files}


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files."""
    path = Path(path)
    if path.is_dir():
        listing = [(p.relative_to(path).as_posix(), fingerprint(p)) for p in sorted(path.rglob("*")) if p.is_file()]
        return hashlib.sha256(canonical_json(listing).encode()).hexdigest()
    try:
        stat = path.stat()
        return _file_digest(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)
    except FileNotFoundError:
        raise BadInput(path, "does not exist", "check the path") from None
    except PermissionError:
        raise BadInput(path, "cannot be read (permission denied)", "ask for read access") from None


@cache
def _file_digest(path: str, size: int, mtime_ns: int, inode: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """The one JSON text of a plain value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@contextmanager
def folder_lock(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of an output folder; the kernel drops it when its owner dies.

    Raises
    ------
    BadInput
        With ``wait=False``, when another process holds it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = (folder.parent / f".{folder.name}.lock").open("w")
    except OSError as error:
        raise BadInput(folder, f"cannot be written ({error.strerror})", "choose a folder you may write to") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise BadInput(folder, "another run is writing it", "wait for it, or choose another folder") from None
        yield


@cache
def _git_state() -> dict[str, Any]:
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(git("status", "--porcelain").strip())}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


@cache
def _package_versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def provenance() -> dict[str, Any]:
    """Code commit, Python and package versions: what has to be known to repeat a result."""
    return {"code": _git_state(), "python": platform.python_version(), "packages": _package_versions()}
