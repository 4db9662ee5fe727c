"""What a recording holds and which bundles it fits: ``infer.py input=<file> list=true``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.models.bundle import Bundle, load_bundle
from src.recordings.calcium.sources import open_recording as open_calcium
from src.recordings.calcium.sources import subject_files, subject_name
from src.recordings.extracellular.reader import open_recording
from src.recordings.sleep.edf_header import read_header
from src.signals import BadInput

_EDF = (".edf", ".bdf")


def channel_rows(path: Path) -> list[dict[str, Any]]:
    """A row per channel: its name, units, rate in Hz and duration in s, and what is wrong with it.

    Raises
    ------
    BadInput
        If the file is neither EDF nor BDF nor a calcium or extracellular recording, or is damaged.
    """
    if calcium := _calcium_row(path):
        return [calcium]
    if path.suffix.lower() in _EDF:
        header = read_header(path)
        return [
            {"channel": s.label, "units": s.units, "fs_hz": s.fs_hz, "seconds": header.duration_s, "note": s.problem}
            for s in header.signals
        ]
    found = open_recording(path)
    note = "; ".join(found.warnings)
    return [
        {"channel": str(name), "units": found.units, "fs_hz": found.fs_hz, "seconds": found.duration_s, "note": note}
        for name in found.channel_ids
    ]


def _calcium_row(path: Path) -> dict[str, Any] | None:
    """The traces of a calcium recording as one row; ``None`` if it is none."""
    try:
        found = open_calcium(subject_files(path), subject_name(path), need_positions=False)
    except BadInput:
        return None
    return {
        "channel": f"{found.cells} cells",
        "units": "ΔF/F" if found.signal == "dff" else "fluorescence",
        "fs_hz": found.fs_hz,
        "seconds": found.frames / found.fs_hz,
        "note": f"preprocess.py preprocess=cascade_spikes input_dir={path} list=true says which model fits",
    }


def bundle_rows(rows: Sequence[dict[str, Any]], places: Sequence[Path]) -> list[dict[str, Any]]:
    """A row per bundle below ``places``: its folder, its task, and whether the channels of a recording fit it."""
    found = []
    for folder in sorted({p.parent for place in places for p in place.glob("**/bundle.json")}):
        if any(part.startswith(".") for part in folder.parts):
            continue
        try:
            bundle = load_bundle(folder)
        except BadInput as error:
            found.append({"bundle": str(folder), "task": "–", "fits": error.problem})
            continue
        found.append({"bundle": str(folder), "task": bundle.task, "fits": misfit(bundle, rows) or "yes"})
    return found


def misfit(bundle: Bundle, rows: Sequence[dict[str, Any]]) -> str:
    """Why a recording with these channels does not suit a bundle as it is; empty if it does."""
    if bundle.task == "grid_forecasting":
        return "reads grids, not recordings"
    wanted = bundle.signal.channels
    if bundle.task == "spike_detection":
        rates = {row["fs_hz"] for row in rows}
        return "" if bundle.signal.fs_hz in rates else f"expects {bundle.signal.fs_hz:g} Hz"
    names = {str(row["channel"]).lower() for row in rows}
    missing = [name for name in wanted if name.lower() not in names]
    return f"lacks {', '.join(missing)}: name others with options.channels=[…]" if missing else ""
