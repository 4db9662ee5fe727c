"""The cached step: one preprocessing step, computed once and kept with a manifest that says how it was made.

A step is a pure function of its input files, its parameters, an integer version and a seed. The
hash of the four is its key. A finished step is a folder with the data and a ``manifest.json`` that
states the key and the checksum of every file; the folder appears in one rename. How many workers ran,
on what device and in what batches never enters the key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from src.signals import BadInput
from src.storage.fingerprint import digest_of, file_digest
from src.storage.lock import folder_lock
from src.storage.manifest import all_there, files_of, is_intact, read_manifest, source_record, write_manifest
from src.storage.output import plain_name, refuse_other_source, refuse_overlap, replacement
from src.storage.provenance import provenance

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
        return digest_of(identity)

    def describe(self, params: dict[str, Any], seed: int | None = None) -> dict[str, Any]:
        """The plain record of this step that a bundle carries."""
        return {"step": self.name, "version": self.version, "params": params, "seed": seed}


@dataclass(frozen=True)
class Artifact:
    """A finished step on disk; ``reused`` says that nothing had to be computed."""

    path: Path
    manifest: dict[str, Any]
    reused: bool


def ensure(
    step: CachedStep,
    inputs: Mapping[str, Path],
    params: dict[str, Any],
    *,
    label: str,
    cache: Path | None = None,
    target: Path | None = None,
    seed: int | None = None,
    wait: bool = True,
) -> Artifact:
    """Return the step's output for these inputs, computing it only if it is not there and whole.

    Parameters
    ----------
    step, inputs, params, seed
        What to compute. ``params`` holds plain JSON types, fully resolved: no default is left out.
    label
        Name of the recording, for folder names and messages.
    cache, target
        Where the output lives: ``cache/<step>/<label>-<key>``, or exactly ``target``, where a result made from
        other inputs or parameters is replaced and nothing else ever is. Give one of them.
    wait
        Whether to wait for another process that is making the same output, or to raise.

    Raises
    ------
    BadInput
        For an input that is missing or changes meanwhile, a ``target`` with others' files or with what was made from
        another recording of the same name, an unwritable place, a full disk, or (``wait=False``) a busy output.
    """
    if (cache is None) == (target is None):
        raise TypeError("give either cache or target")
    key = step.key(inputs, params, seed)
    folder = Path(target) if target is not None else cache_folder(Path(cache or ""), step, label, key)
    if found := read_artifact(folder, key):
        return found
    refuse_overlap(folder, inputs.values(), "output_dir" if cache is None else "cache_dir")
    with folder_lock(folder, wait=wait):
        if found := read_artifact(folder, key):
            return found
        if target is not None:
            refuse_other_source(folder, inputs)
        started, clock = datetime.now(UTC), time.monotonic()
        with replacement(folder, cached=cache is not None) as part:
            facts = step.run(inputs, params, part, seed) or {}
            if step.key(inputs, params, seed) != key:
                raise BadInput(label, "its files changed while they were read", "run again once they are complete")
            manifest = {
                "key": key,
                "label": label,
                **step.describe(params, seed),
                "inputs": {name: source_record(Path(path)) for name, path in sorted(inputs.items())},
                "facts": facts,
                "provenance": provenance(),
                "started": started.isoformat(timespec="seconds"),
                "wall_s": round(time.monotonic() - clock, 3),
            }
            write_manifest(part, manifest)
        return Artifact(folder, read_manifest(folder) or {}, reused=False)


def cache_folder(cache: Path, step: CachedStep, label: str, key: str) -> Path:
    """``cache/<step>/<label>-<first 16 digits of the key>``; separators in the label become underscores."""
    safe = label.replace("/", "_").replace("\\", "_").lstrip(".")
    return cache / step.name / plain_name(f"{safe}-{key[:16]}")


def read_artifact(folder: Path, key: str | None = None) -> Artifact | None:
    """The artifact in ``folder`` if its manifest is intact and has this key, and every file it lists verifies."""
    manifest = read_manifest(folder)
    if not manifest or not {"key", "facts", "outputs"} <= manifest.keys():
        return None
    if not is_intact(manifest) or (key is not None and manifest["key"] != key):
        return None
    return Artifact(folder, manifest, reused=True) if all_there(folder, manifest) else None


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
    return digest_of([(p.relative_to(path).as_posix(), fingerprint(p)) for p in files_of(path)])


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
