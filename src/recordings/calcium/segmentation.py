"""Traces that other programs wrote: NWB through pynwb; CaImAn and EXTRACT through roiextractors; Inscopix's cell sets.

Both packages give what is known about the cells. The traces are read block by block. A cell set (``.isxd``) is an image
and a trace per cell, and a JSON text at the end of the file.
"""

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from src.recordings.calcium.recording import CalciumRecording, Plane, of_planes, read_hdf5
from src.signals import BadInput
from src.storage.foreign_files import explained
from src.storage.hdf5 import reading

_SAVE_AGAIN = "open it with the program that wrote it, and save again"
NWB, INSCOPIX = "nwb", "inscopix"
EXTRACTORS = {"caiman": "CaImAn", "extract": "EXTRACT"}
"""Role of a file that roiextractors reads, and the program that wrote it."""

_CELL_SET, _ACCEPTED = 1, 0  # of Inscopix
_PLANE = re.compile(r"plane_?\d+", re.I)
"""What tells the series of the planes of one session apart."""

_LONGEST_STEP = 1.5
"""Steps between two timestamps, relative to the median, above which frames are missing."""

_DFF = re.compile(r"d(elta)?_?f(_?(over|/)_?)?f|dff", re.I)
_NO_TRACES = re.compile("deconv|background|event|spike|denoised", re.I)


def recognise(path: Path) -> str | None:
    """The role of a file of traces, by its suffix and the names in it; ``None`` if it is none of these."""
    if not path.is_file():
        return None
    suffix = path.suffix.lower()
    if suffix == ".nwb":
        return NWB
    if suffix == ".isxd":
        return INSCOPIX
    if suffix not in (".h5", ".hdf5", ".mat"):
        return None
    try:
        with reading(path) as file:
            if "estimates" in file and "params" in file:
                return "caiman"
            groups = [item for name in file if hasattr(item := file.get(name), "keys")]
            return "extract" if any("temporal_weights" in group for group in groups) else None
    except BadInput:
        return None


def open_nwb(path: Path, subject: str, fs_hz: float | None, coefficient: float) -> CalciumRecording:
    """The ROIs of an NWB file: fluorescence less ``coefficient`` times the neuropil, or ΔF/F where that is all.

    Series named after planes (``plane0``, ``plane1``), as suite2p writes them, are one recording. A file without a
    ``RoiResponseSeries``, or with several of one kind, raises :class:`BadInput`.
    """
    import pynwb

    with explained(path, hint=_SAVE_AGAIN), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old files state old versions of NWB's schemas
        with pynwb.NWBHDF5IO(str(path), "r") as handle:
            series, neuropil, signal, notes = _chosen_series(path, handle.read())
            planes = [_nwb_plane(path, n, s, neuropil.get(_plane_name(s)), coefficient) for n, s in enumerate(series)]
            rates = [s.rate or _rate_of_times(s.timestamps) for s in series]
            notes += [note for s in series for note in _series_notes(s)]
    if coefficient and all(_plane_name(s) in neuropil for s in series):
        notes.append(f"{coefficient:g} of the neuropil was subtracted")
    known: dict[str, Any] = {"subject": subject, "file": path, "notes": tuple(notes), "signal": signal}
    return of_planes(planes, rates, fs_hz, "curate the ROIs (column iscell or Accepted)", **known)


def _chosen_series(
    path: Path, file: Any
) -> tuple[list[Any], dict[str, Any], Literal["fluorescence", "dff"], list[str]]:
    """The series to read, the neuropil by plane, what the series hold, judged by their names, and what is not read."""
    kinds: dict[str, list[Any]] = {"fluorescence": [], "dff": [], "neuropil": []}
    for item in file.objects.values():
        if getattr(item, "neurodata_type", "") != "RoiResponseSeries":
            continue
        names = f"{item.name} {getattr(item.parent, 'name', '')}"
        if re.search("neuropil", names, re.I):
            kinds["neuropil"].append(item)
        elif getattr(item.parent, "neurodata_type", "") == "DfOverF" or _DFF.search(names):
            kinds["dff"].append(item)
        elif not _NO_TRACES.search(names):
            kinds["fluorescence"].append(item)
    if not kinds["fluorescence"] and not kinds["dff"]:
        raise BadInput(path, "holds no RoiResponseSeries with fluorescence or ΔF/F", "export the traces to NWB")
    signal: Literal["fluorescence", "dff"] = "fluorescence" if kinds["fluorescence"] else "dff"
    chosen = sorted(kinds[signal], key=lambda item: (len(_plane_name(item)), _plane_name(item)))
    planes = [_plane_name(item) for item in chosen]
    if len(chosen) > 1 and ("" in planes or len(set(planes)) < len(planes)):
        names = ", ".join(item.name for item in chosen)
        raise BadInput(path, f"holds several series of traces ({names})", "give a file with one of them")
    neuropil = kinds["neuropil"] if signal == "fluorescence" else []
    alone = len(chosen) == len(neuropil) == 1
    told = bool(kinds["fluorescence"] and kinds["dff"])
    notes = ["the fluorescence was used, and not the ΔF/F that the file holds too"] if told else []
    return chosen, {_plane_name(chosen[0] if alone else item): item for item in neuropil}, signal, notes


def _plane_name(series: Any) -> str:
    """``plane0`` where the name of the series or of what holds it says so; else empty."""
    found = _PLANE.search(series.name) or _PLANE.search(getattr(series.parent, "name", ""))
    return found[0].lower() if found else ""


def _nwb_plane(path: Path, number: int, series: Any, neuropil: Any, coefficient: float) -> Plane:
    """The accepted cells of one series."""
    rows, shape = np.asarray(series.rois.data[:], np.int64), tuple(series.data.shape)
    if len(shape) != 2 or len(rows) not in shape:
        raise BadInput(path, f"{series.name} has shape {shape} but names {len(rows)} ROIs", "export it again")
    if neuropil is not None and neuropil.data.shape != shape:
        raise BadInput(path, f"{neuropil.name} has another shape than {series.name}", "export both again")
    # NWB asks for (time, ROI); suite2p's writer gives (ROI, time).
    frames_first = shape[1] == len(rows) and shape[0] != len(rows)
    accepted, positions = _nwb_cells(series.rois.table, rows)
    kept = np.flatnonzero(accepted)
    scale, offset, subtracted = float(series.conversion), float(series.offset), None
    if _is_percent(series):
        scale, offset = scale / 100, offset / 100
    if neuropil is not None and coefficient:
        offset -= coefficient * float(neuropil.offset)
        subtracted, coefficient = neuropil.data.name, coefficient * float(neuropil.conversion)
    name = series.data.name  # pynwb closes the file before traces are read

    def read(rows: np.ndarray) -> np.ndarray:
        block = read_hdf5(path, name, frames_first, rows)
        if (scale, offset) != (1, 0):
            block = np.float32(scale) * block + np.float32(offset)
        if subtracted:
            block = block - np.float32(coefficient) * read_hdf5(path, subtracted, frames_first, rows)
        return block

    return Plane(len(rows), kept, positions[kept] + [0, 0, number], shape[0 if frames_first else 1], read)


def _nwb_cells(table: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which ROIs are accepted, and their ``(ROI, 3)`` median row and column; plane 0."""
    accepted = np.ones(len(rows), bool)
    for name in ("iscell", "Accepted", "accepted", "is_cell"):
        if name in table.colnames:
            column = np.asarray(table[name].data[:])
            accepted = np.asarray(column.reshape(len(column), -1)[:, 0] > 0)[rows]
            break
    kind = next((name for name in ("pixel_mask", "voxel_mask", "image_mask") if name in table.colnames), None)
    masks: Iterable[Any] = (table[kind][int(row)] for row in rows) if kind else [()] * len(rows)
    listed = (np.argwhere(m) if kind == "image_mask" else [[p[0], p[1]] for p in m] for m in masks)
    return accepted, _centres(listed)


def _centres(rois: Iterable[Any]) -> np.ndarray:
    """``(ROI, 3)``: median row and column of each ROI's ``(pixel, 2 or more)``, plane 0; NaN where there is none."""
    centres = [(*np.median(np.asarray(p, float)[:, :2], axis=0), 0) if len(p) else (np.nan,) * 3 for p in rois]
    return np.array(centres, np.float64).reshape(-1, 3)


def _is_percent(series: Any) -> bool:
    return str(series.unit).strip().lower() in ("%", "percent")


def _rate_of_times(times: Any) -> float | None:
    if times is None or len(times) < 2:
        return None
    steps = np.diff(np.asarray(times[:], float))
    return float(1 / np.median(steps)) if (steps > 0).all() else None


def _series_notes(series: Any) -> Iterator[str]:
    """What is to be known of a series' unit and times."""
    if _is_percent(series):
        yield f"{series.name}: its unit is percent, so it was divided by 100"
    if series.timestamps is not None and len(series.timestamps) > 2:
        steps = np.diff(np.asarray(series.timestamps[:], float))
        if (gaps := steps > _LONGEST_STEP * np.median(steps)).any():
            place, count = int(steps.argmax()), f"{gaps.sum()} gap{'s' if gaps.sum() > 1 else ''}"
            yield (
                f"{series.name}: {count} in its timestamps, the longest {steps[place]:.3g} s after frame "
                f"{place + 1}; the frames before and behind a gap were taken as neighbours"
            )


def open_extractor(role: str, path: Path, subject: str, fs_hz: float | None) -> CalciumRecording:
    """The accepted cells of a CaImAn or EXTRACT file; ΔF/F where the program computed it."""
    program = EXTRACTORS[role]
    with explained(path, hint=_SAVE_AGAIN):
        extractor = _extractor(role, path, fs_hz)
        present = {name: value for name, value in extractor.get_traces_dict().items() if value is not None}
        name = next((n for n in ("dff", "raw") if n in present), None)
        if name is None:
            raise BadInput(path, f"holds no traces of {program}", "save the result again")
        if role == "caiman" and name == "raw":
            problem = "has no F_dff, and CaImAn's C + YrA has no baseline to divide by"
            raise BadInput(path, problem, "call estimates.detrend_df_f() in CaImAn and save again")
        rois = list(extractor.get_roi_ids())
        kept = np.flatnonzero(_accepted(extractor, rois))
        positions = _mask_centres(extractor, [rois[n] for n in kept])
        frames, rate = int(present[name].shape[0]), extractor.get_sampling_frequency()

    def read(rows: np.ndarray) -> np.ndarray:
        with explained(path, hint=_SAVE_AGAIN):
            return np.asarray(extractor.get_traces(roi_ids=[rois[row] for row in rows], name=name)).T

    plane = Plane(len(rois), kept, positions, frames, read)
    signal = "dff" if name == "dff" else "fluorescence"
    known = {"subject": subject, "file": path, "notes": (f"{name} traces of {program}",), "signal": signal}
    rates = [] if rate is None else [float(rate)]
    return of_planes([plane], rates, fs_hz, f"curate the cells in {program}", **known)


def _extractor(role: str, path: Path, fs_hz: float | None) -> Any:
    import roiextractors

    if role == "caiman":
        return roiextractors.CaimanSegmentationExtractor(str(path))
    if fs_hz is None:
        raise BadInput(path, "does not state the frame rate (EXTRACT's files never do)", "give fs_hz=… in Hz")
    return roiextractors.ExtractSegmentationExtractor(str(path), sampling_frequency=fs_hz)


def _accepted(extractor: Any, rois: list[Any]) -> list[bool]:
    if hasattr(extractor, "get_accepted_list"):
        accepted = set(extractor.get_accepted_list())
        return [roi in accepted for roi in rois]
    if "is_accepted" in extractor.get_property_keys():
        return [bool(value) for value in extractor.get_property("is_accepted", rois)]
    return [True] * len(rois)


def _mask_centres(extractor: Any, rois: Sequence[Any]) -> np.ndarray:
    try:
        return _centres(extractor.get_roi_pixel_masks(roi_ids=rois))
    except (NotImplementedError, KeyError, TypeError, AttributeError):
        return np.full((len(rois), 3), np.nan)


def open_inscopix(path: Path, subject: str, fs_hz: float | None) -> CalciumRecording:
    """The accepted cells of a cell set."""
    with explained(path, "is no Inscopix cell set", "export it again"):
        content, footer = _footer(path)
        timing, size = footer["timingInfo"], footer["spacingInfo"]["numPixels"]
        stated = timing["period"]["den"] / timing["period"]["num"]
        frames, image, cells = timing["numTimes"], (size["y"], size["x"]), len(footer["CellStatuses"])
    pixels = image[0] * image[1]
    if content != 4 * cells * (pixels + frames):
        raise BadInput(path, "is shorter or longer than its cells and frames need", "copy it again")
    kept = np.flatnonzero(np.asarray(footer["CellStatuses"]) == _ACCEPTED)
    mapped = np.memmap(path, "<f4", "r", shape=(cells, pixels + frames))  # of each cell an image, then its trace
    positions = _centres(np.argwhere(one.reshape(image)) for one in mapped[kept, :pixels])
    plane = Plane(cells, kept, positions, frames, mapped[:, pixels:].__getitem__)  # NaN where a frame was dropped
    notes = ("Inscopix's files state no unit: give baseline=divide if the traces are raw fluorescence",)
    curate = "accept cells in Inscopix's software, and save again"
    return of_planes([plane], [stated], fs_hz, curate, subject=subject, file=path, notes=notes, signal="dff")


def _footer(path: Path) -> tuple[int, dict[str, Any]]:
    """Bytes before the JSON text, and its content. The text ends with a zero and its length in eight bytes."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(end - 8, 0))
        first = end - 9 - int.from_bytes(file.read(8), "little")
        if first < 0:
            raise ValueError("it has no JSON text at its end")
        file.seek(first)
        footer = json.loads(file.read(end - 9 - first))
    if not isinstance(footer, dict) or footer.get("type") != _CELL_SET:
        raise ValueError("it is a file of another kind, such as a movie")
    return first, footer
