"""Whole-brain fish in the FishExplorer layout: ``TimeSeries.h5`` with traces, ``data_full.mat`` with cells."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from src.recordings.calcium.recording import CalciumRecording, chosen, frame_rate, read_hdf5
from src.recordings.matlab import read_fields
from src.signals import BadInput
from src.storage.hdf5 import reading

TIME_SERIES, POSITIONS = "TimeSeries.h5", "data_full.mat"
_FIELDS = ("CellXYZ", "IX_inval_anat", "fpsec")


def open_fish(traces: Path, cells: Path, subject: str, fs_hz: float | None) -> CalciumRecording:
    """The recording of one fish; files that are incomplete or contradict each other raise :class:`BadInput`."""
    fish = read_fields(cells, _FIELDS, "data")
    positions = _positions(cells, fish)
    invalid = _ids(cells, "IX_inval_anat", fish.get("IX_inval_anat"), len(positions))
    with reading(traces) as file:
        if "CellResp" not in file:
            raise BadInput(traces, f"has no dataset CellResp (it has {', '.join(file) or 'none'})", "export it again")
        shape, kind = file["CellResp"].shape, file["CellResp"].dtype.kind
        listed = _ids(traces, "absIX", file["absIX"][()], len(positions)) if "absIX" in file else None
    if len(shape) != 2 or kind not in "fiu" or 0 in shape:
        raise BadInput(traces, f"CellResp has shape {shape} and type kind {kind!r}", "give numbers as (time, cell)")
    ids, notes = _cell_order(traces, shape, len(positions), listed, invalid)
    frames_first = shape[1] == len(ids)
    if shape[0] == shape[1]:
        notes.append("as many frames as cells: CellResp was taken as (time, cell), as MATLAB's HDF5 files read")
    if len(positions) == 3:
        notes.append("three cells: CellXYZ was taken as (cell, 3)")
    keep = ~np.isin(ids, invalid)
    placed = np.isfinite(positions[ids - 1]).all(axis=1)
    counts = {
        "listed": len(positions),
        "with_traces": len(ids),
        "dropped_invalid": int((~keep).sum()),
        "dropped_without_coordinates": int((keep & ~placed).sum()),
    }
    columns = np.flatnonzero(keep & placed)
    if not len(columns):
        raise BadInput(cells, "no cell has coordinates and a trace", "check CellXYZ and IX_inval_anat")
    reader = chosen(partial(read_hdf5, traces, "CellResp", frames_first), columns)
    rate = frame_rate(cells, fs_hz, fish.get("fpsec"))
    kept, frames = ids[columns], shape[0] if frames_first else shape[1]
    return CalciumRecording(subject, traces, rate, frames, positions[kept - 1], kept, reader, counts, tuple(notes))


def _cell_order(
    traces: Path, shape: tuple[int, int], total: int, listed: np.ndarray | None, invalid: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """1-based id of every cell of ``CellResp``, in its order."""
    if listed is not None:
        if len(listed) in shape:
            return listed, []
        problem = f"CellResp is {shape[0]} × {shape[1]} but absIX lists {len(listed)} cells"
        raise BadInput(traces, problem, "export both from the same recording")
    everyone = np.arange(1, total + 1)
    valid = np.setdiff1d(everyone, invalid)
    if len(valid) in shape:
        return valid, ["no absIX: cells were matched by leaving out IX_inval_anat"] if len(invalid) else []
    if total in shape:
        return everyone, ["CellResp still holds the cells of IX_inval_anat; they were dropped"]
    problem = f"CellResp is {shape[0]} × {shape[1]}; CellXYZ has {total} cells, {len(valid)} without IX_inval_anat"
    raise BadInput(traces, problem, f"give TimeSeries.h5 and {POSITIONS} of the same recording, or absIX")


def _positions(path: Path, fish: Mapping[str, np.ndarray]) -> np.ndarray:
    if "CellXYZ" not in fish:
        raise BadInput(path, "has no field data.CellXYZ", "export the cell positions again")
    raw = np.asarray(fish["CellXYZ"])
    if raw.dtype.kind not in "fiu":
        raise BadInput(path, f"CellXYZ holds {raw.dtype.name}, not numbers", "give row, column and plane as numbers")
    if raw.ndim == 2 and raw.shape[1] != 3 and raw.shape[0] == 3:
        raw = raw.T
    if raw.ndim != 2 or raw.shape[1] != 3 or not len(raw):
        raise BadInput(path, f"CellXYZ has shape {raw.shape}", "give (cell, 3) or (3, cell): row, column, plane")
    return raw.astype(np.float64)


def _ids(path: Path, name: str, raw: np.ndarray | None, total: int) -> np.ndarray:
    """1-based cell numbers as int64 in the order of the file; checked against the number of cells."""
    values = np.zeros(0) if raw is None else np.asarray(raw).ravel()
    if values.dtype.kind not in "fiub" or not np.array_equal(values, np.round(values)):
        raise BadInput(path, f"{name} does not hold whole numbers", "give 1-based cell numbers")
    ids = values.astype(np.int64)
    if len(ids) and (ids.min() < 1 or ids.max() > total):
        problem = f"{name} runs from {ids.min()} to {ids.max()} but there are {total} cells"
        raise BadInput(path, problem, "give 1-based cell numbers of the same recording")
    if len(np.unique(ids)) != len(ids):
        raise BadInput(path, f"{name} names a cell twice", "give every cell once")
    return ids
