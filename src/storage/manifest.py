"""``manifest.json``: what a folder of results holds, and with which checksums.

It lists every file that was written beside it, says how they were made, and carries a checksum of itself. A file is
provably ours if a manifest above it lists it and its content has the checksum stated there; nothing else is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.signals import BadInput
from src.storage.fingerprint import CHECKSUM, digest_of, file_digest, taken_digest

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = 2
"""Schema 1 had no ``checksum`` and called the step ``stage``. It is still read, without the check of a checksum."""
UNREADABLE: dict[str, Any] = {}
"""Stands for a manifest that is there and damaged; compare by identity."""
Record = dict[str, Any]


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
    if "stage" in manifest:
        manifest.setdefault("step", manifest["stage"])
    return manifest


def is_intact(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is finished and is what was written: its own checksum holds, or it is of schema 1."""
    if manifest.get("schema") == MANIFEST_SCHEMA:
        return "unfinished" not in manifest and manifest.get("checksum") == _checksum(manifest)
    return manifest.get("schema", 1) == 1 and "checksum" not in manifest


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest, with its schema and its checksum."""
    plain = json.loads(json.dumps({**manifest, "schema": MANIFEST_SCHEMA}, allow_nan=False))
    plain = {"schema": MANIFEST_SCHEMA, **{k: v for k, v in plain.items() if k != "checksum"}}
    plain["checksum"] = _checksum(plain)
    (folder / MANIFEST).write_text(json.dumps(plain, indent=2) + "\n")


def _checksum(manifest: Mapping[str, Any]) -> str:
    return digest_of({k: v for k, v in manifest.items() if k != "checksum"})


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
    try:
        inside = path.resolve().is_relative_to(folder.resolve()) and not path.is_symlink()
        return inside and any(_verifies(path, record) for record in records)
    except (BadInput, OSError, ValueError):  # it is gone, or the name is none
        return False


def all_there(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether every file that a manifest lists is there and has its checksum."""
    return all(is_ours(folder, name, [record]) for name, record in manifest["outputs"].items())


def _verifies(path: Path, record: Record) -> bool:
    if path.stat().st_size != record.get("bytes"):
        return False
    kind = CHECKSUM if CHECKSUM in record else "sha256"
    return file_digest(path, kind) == record.get(kind)


def checksums(folder: Path) -> dict[str, Record]:
    """Size and checksum of every file below ``folder`` but the manifest, by relative name.

    That is XXH3-128 where it was taken while the file was written, and SHA-256 elsewhere.
    """
    outputs = {p.relative_to(folder).as_posix(): p for p in files_of(folder) if p != folder / MANIFEST}
    return {name: {"bytes": p.stat().st_size} | _content(p) for name, p in outputs.items()}


def _content(path: Path) -> dict[str, str]:
    taken = taken_digest(path)
    return {"sha256": file_digest(path)} if taken is None else {CHECKSUM: taken}


def files_of(folder: Path) -> list[Path]:
    """Every file below a folder, in order."""
    return sorted(p for p in folder.rglob("*") if p.is_file())


def source_record(path: Path) -> dict[str, Any]:
    """What a manifest says of an input: its name, a hash of its place and the checksum of its content."""
    from src.storage.step import fingerprint  # that module reads manifests

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
    return record.get("sha256") == source_record(path)["sha256"]
