"""What recordings hold and which bundles they fit: ``infer.py input=<file or folder> list=true``."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.models.bundle import Bundle, load_bundle
from src.preprocess.cascade.download import MODELS_DIR, package_for_rate
from src.recordings.calcium.sources import open_recording as open_calcium
from src.recordings.calcium.sources import subject_files, subject_name
from src.recordings.extracellular.arrays import SUFFIXES
from src.recordings.extracellular.formats import EDF_HEAD, begins, vendor_format
from src.recordings.extracellular.reader import is_recording, open_recording
from src.recordings.extracellular.spike_trains import holds_spikes
from src.recordings.sleep.channels import choose_channels, is_channel
from src.recordings.sleep.edf import EDF_SUFFIXES, is_edf_file, read_header
from src.signals import BadInput, SourceOptions
from src.storage.foreign_files import absent

CALCIUM_UNITS = ("ΔF/F", "fluorescence")


def recordings_at(path: Path) -> list[Path]:
    """The recordings that a path stands for: itself, or all in a folder, at any depth, that is none itself."""
    if not _is_plain_folder(path):
        return [path]
    inside = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    found = [p for inner in inside if inner.is_dir() for p in recordings_at(inner) if not _is_plain_folder(p)]
    return [*found, *(p for p in inside if p.is_file() and (p.suffix.lower() in EDF_SUFFIXES or is_recording(p)))] or [
        path
    ]


def channel_rows(path: Path, source: SourceOptions | None = None) -> list[dict[str, Any]]:
    """A row per channel: its name, units, rate in Hz and duration in s, and what is wrong with it.

    ``source`` is what an extracellular or calcium file does not state.

    Raises
    ------
    BadInput
        If the file is neither EDF nor BDF nor a calcium or extracellular recording, or is damaged.
    """
    if is_calcium(path):
        fs_hz = source.fs_hz if source else None
        calcium = open_calcium(subject_files(path), subject_name(path), fs_hz, need_positions=False)
        fitting = package_for_rate(calcium.fs_hz, MODELS_DIR).name
        told = f"preprocess.py preprocess=cascade_spikes input_dir={path} takes {fitting}"
        row = {"channel": f"{calcium.cells} cells", "units": CALCIUM_UNITS[calcium.signal != "dff"]}
        return [row | {"fs_hz": calcium.fs_hz, "seconds": calcium.frames / calcium.fs_hz, "note": told}]
    if path.suffix.lower() in EDF_SUFFIXES:
        header = read_header(path)
        return [
            {"channel": s.label, "units": s.units, "fs_hz": s.fs_hz, "seconds": header.duration_s, "note": s.problem}
            for s in header.signals
        ]
    found = open_recording(path, source)
    note = "; ".join(found.warnings)
    return [
        {"channel": str(name), "units": found.units, "fs_hz": found.fs_hz, "seconds": found.duration_s, "note": note}
        for name in found.channel_ids
    ]


def is_calcium(path: Path) -> bool:
    """Whether a path is a file or folder of a calcium recording."""
    try:
        return bool(subject_files(path))
    except BadInput:
        return False


def require_sleep(path: Path) -> None:
    """Refuse calcium traces, WAV files, spikes, arrays and files that nobody knows, with the command that reads them.

    Raises
    ------
    BadInput
        If there is nothing at ``path``, or nothing that may be a night.
    """
    if not path.exists():
        raise absent(path)
    found = recordings_at(path)
    if any(p.suffix.lower() in EDF_SUFFIXES for p in found):
        return
    if any(is_calcium(p) for p in found):
        hint = f"type: python preprocess.py preprocess=cascade_spikes input_dir={path} output_dir=…"
        raise BadInput(path, "is a calcium recording, not a night of sleep", hint)
    if any(holds_spikes(p) for p in found):
        hint = f"type: python infer.py input={path} method=discover, or method=bank labelled=<recording with Index>"
        raise BadInput(path, "holds a recording of spikes; LFP would be method=lfp_states", hint)
    if any(p.suffix.lower() == ".wav" for p in found):
        hint = f"for spikes type: python infer.py method=discover input={path}; for LFP: method=lfp_states"
        raise BadInput(path, "is a WAV file, not a night of sleep", hint)
    _require_known(path)


def _require_known(path: Path) -> None:
    """Refuse what is neither EDF, BDF nor band powers, with the commands that read arrays and raw binary files."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] != ".")
    suffixes = Counter(file.suffix.lower() or "without suffix" for file in files)
    if (
        ".npz" in suffixes
        or any(is_edf_file(file) for file in files)
        or (path.is_file() and begins(path, EDF_HEAD, b"\xffBIOSEMI"))
    ):
        return
    array = next((file for file in files if file.suffix.lower() in SUFFIXES), None)
    told = "source.fs_hz=<Hz>" if array else "source.dtype=int16 source.channels=<number> source.fs_hz=<Hz>"
    place = array or path
    held = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(4)) or "no file"
    problem = f"holds neither EDF nor BDF ({held})" if path.is_dir() else "is neither EDF nor BDF"
    if path.is_dir() and array is None:
        raise BadInput(path, problem, "give a folder of recordings, or one recording")
    if path.suffix.lower() in (".lfp", ".eeg", ".dat"):
        problem += ", and no NeuroScope .xml lies beside it"
    hint = f"LFP: python infer.py method=lfp_states input={place} {told}; spikes: the same with method=discover"
    raise BadInput(path, problem, hint)


def _is_plain_folder(path: Path) -> bool:
    return path.is_dir() and vendor_format(path) is None and not is_calcium(path)


def bundle_rows(recordings: Sequence[Sequence[dict[str, Any]]], places: Sequence[Path]) -> list[dict[str, Any]]:
    """A row per bundle below ``places``: its folder, its task, and whether the channels of the recordings fit it."""
    found = []
    for folder in sorted({p.parent for place in places for p in place.glob("**/bundle.json")}):
        if any(part.startswith(".") for part in folder.parts):
            continue
        try:
            bundle = load_bundle(folder)
        except BadInput as error:
            found.append({"bundle": str(folder), "task": "–", "fits": error.problem})
            continue
        misfits = [reason for rows in recordings if (reason := misfit(bundle, rows))]
        which = f"{len(misfits)} of {len(recordings)} recordings: " if len(recordings) > 1 else ""
        found.append({"bundle": str(folder), "task": bundle.task, "fits": f"{which}{misfits[0]}" if misfits else "yes"})
    return found


def misfit(bundle: Bundle, rows: Sequence[dict[str, Any]]) -> str:
    """Why a recording with these channels does not suit a bundle as it is; empty if it does."""
    if bundle.task == "grid_forecasting":
        return "reads grids, not recordings"
    if any(row.get("units") in CALCIUM_UNITS for row in rows):
        return "reads no calcium traces"
    wanted = bundle.signal.channels
    if bundle.task == "spike_detection":
        rates = {row["fs_hz"] for row in rows}
        return "" if bundle.signal.fs_hz in rates else f"expects {bundle.signal.fs_hz:g} Hz"
    labels = [str(row["channel"]) for row in rows]
    missing = [name for name in wanted if not is_channel(name, labels)]
    if missing and bundle.decision.get("any_channel"):  # takes EEG channels of other places too
        try:
            choose_channels("", wanted, labels, [float(row.get("fs_hz") or 0) for row in rows], "none")
        except BadInput:
            return "has no EEG channel known by its name: name one with options.channels=[…]"
        return ""
    return f"lacks {', '.join(missing)}: name others with options.channels=[…]" if missing else ""
