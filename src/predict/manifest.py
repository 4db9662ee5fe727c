"""What the manifest of every prediction says, whatever the task."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from src.models.bundle import Bundle
from src.storage.manifest import source_record, write_manifest
from src.storage.provenance import provenance


def write_prediction_manifest(
    folder: Path, bundle: Bundle, inputs: Mapping[str, Path], facts: Mapping[str, Any]
) -> None:
    """Write ``manifest.json``: what was predicted, with what and trained on what, and from which files.

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
        "inputs": {name: source_record(path) for name, path in inputs.items()},
        **facts,
        "provenance": provenance(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_manifest(folder, record)
