"""The cached step: one preprocessing step, computed once and kept with a manifest that says how it was made.

A step is a pure function of its input files, its parameters, an integer version and a seed. The
hash of the four is its key. A finished step is a folder with the data and a ``manifest.json`` that
states the key and the checksum of every file; the folder appears in one rename. How many workers ran,
on what device and in what batches never enters the key.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from src.signals import BadInput
from src.storage.atomic import folder_lock
from src.storage.manifest import (
    Artifact,
    digest_of,
    fingerprint,
    provenance,
    read_artifact,
    read_manifest,
    source_record,
    write_manifest,
)
from src.storage.output import plain_name, refuse_other_source, refuse_overlap, replacement

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
            "stage": self.name,  # only hashed; another word would make every cached result again
            "version": self.version,
            "params": params,
            "seed": seed,
            "inputs": {name: fingerprint(path) for name, path in sorted(inputs.items())},
        }
        return digest_of(identity)

    def describe(self, params: dict[str, Any], seed: int | None = None) -> dict[str, Any]:
        """The plain record of this step that a bundle carries."""
        return {"step": self.name, "version": self.version, "params": params, "seed": seed}


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
    step
        What to compute.
    inputs
        The files it reads, by role.
    params
        Its parameters: plain JSON types, fully resolved, no default left out.
    seed
        Of its random numbers, if it draws any.
    label
        Name of the recording, for folder names and messages.
    cache
        The output lives in ``cache/<step>/<label>-<key>``. Give this or ``target``.
    target
        The output lives exactly here, where a result made from other inputs or parameters is replaced and nothing
        else ever is.
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
        with replacement(folder, cached=cache is not None) as part:
            _compute(step, inputs, params, seed, part, {"key": key, "label": label})
        return Artifact(folder, read_manifest(folder) or {}, reused=False)


def _compute(
    step: CachedStep,
    inputs: Mapping[str, Path],
    params: dict[str, Any],
    seed: int | None,
    part: Path,
    identity: dict[str, str],
) -> None:
    """Run the step into the unfinished folder ``part``, with a manifest that begins with ``identity``."""
    started, clock = datetime.now(UTC), time.monotonic()
    facts = step.run(inputs, params, part, seed) or {}
    if step.key(inputs, params, seed) != identity["key"]:
        problem = "its files changed while they were read"
        raise BadInput(identity["label"], problem, "run again once they are complete")
    manifest = {
        **identity,
        **step.describe(params, seed),
        "inputs": {name: source_record(Path(path)) for name, path in sorted(inputs.items())},
        "facts": facts,
        "provenance": provenance(),
        "started": started.isoformat(timespec="seconds"),
        "wall_s": round(time.monotonic() - clock, 3),
    }
    write_manifest(part, manifest)


def cache_folder(cache: Path, step: CachedStep, label: str, key: str) -> Path:
    """``cache/<step>/<label>-<first 16 digits of the key>``; separators in the label become underscores."""
    safe = label.replace("/", "_").replace("\\", "_").lstrip(".")
    return cache / step.name / plain_name(f"{safe}-{key[:16]}")
