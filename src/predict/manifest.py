"""The manifest that every prediction leaves beside its files, whatever the task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from src.models.bundle import Bundle
from src.storage.provenance import provenance
from src.storage.step import checksums, fingerprint

MANIFEST = "manifest.json"


def write_manifest(folder: Path, bundle: Bundle, inputs: Mapping[str, Path], facts: Mapping[str, Any]) -> Path:
    """Write ``manifest.json``: what was predicted, with what, from what, and the checksum of every file beside it.

    Parameters
    ----------
    folder
        Holds the finished files of one prediction.
    bundle
        What made it; its origin goes into the manifest.
    inputs
        Recordings by name.
    facts
        What the task has to say: plain types.
    """
    record = {
        "task": bundle.task,
        "bundle": bundle.record(),
        "inputs": {name: {"name": path.name, "sha256": fingerprint(path)} for name, path in inputs.items()},
        **facts,
        "provenance": provenance(),
        "outputs": checksums(folder),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = folder / MANIFEST
    path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    return path
