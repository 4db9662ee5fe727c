"""Calcium recordings on disk: whole-brain fish in the FishExplorer layout, and suite2p folders.

A :class:`CalciumRecording` knows where its cells are and hands out their traces in blocks of neurons;
the whole matrix is never in memory. Row ``i`` of every block belongs to row ``i`` of ``positions``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np

from src.recordings.calcium.matlab import read_struct
from src.recordings.calcium.suite2p import SUITE2P_FILES, find_planes, read_planes
from src.signals import BadInput
from src.storage.hdf5 import reading

TIME_SERIES, POSITIONS = "TimeSeries.h5", "data_full.mat"
SLAB_BYTES = 1 << 27
"""Traces that are read from the disk at once; blocks are cut out of such a slab."""


_RUN_GAP = 8
"""Cells that are read along rather than begin another slice."""


class TraceSource(Protocol):
    """Where traces come from: any rows of ``(neuron, time)`` on demand."""

    def read(self, rows: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class CalciumRecording:
    """One subject: cells, their coordinates, and access to their traces.

    Attributes
    ----------
    subject
        Folder name.
    file
        The file (or folder) the traces come from, for messages.
    fs_hz, frames
        Volume rate and number of time points.
    positions
        ``(cell, 3)`` float64: image row, image column, plane; the units of the source.
    cell_ids
        ``(cell,)`` int64, 1-based number of the cell in the source's full list. It names the cell in
        random draws, so that dropping one cell does not change another.
    counts
        How many cells were found and why some were left out.
    notes
        What a person should know about the reading, one sentence each.
    """

    subject: str
    file: Path
    fs_hz: float
    frames: int
    positions: np.ndarray
    cell_ids: np.ndarray
    source: TraceSource
    counts: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> int:
        return len(self.cell_ids)

    def traces(self, rows: np.ndarray) -> np.ndarray:
        """``(neuron, time)`` float32 of the given rows; samples that are not finite become NaN."""
        block = np.array(self.source.read(np.asarray(rows)), dtype=np.float32, order="C")
        block[~np.isfinite(block)] = np.nan
        return block

    def blocks(self, size: int, first: int = 0, last: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Rows ``first`` to ``last`` in blocks of at most ``size``: (row of the first neuron, traces)."""
        last = self.cells if last is None else last
        slab_size = max(SLAB_BYTES // (4 * max(self.frames, 1)) // size, 1) * size
        for slab_first in range(first, last, slab_size):
            slab = self.traces(np.arange(slab_first, min(slab_first + slab_size, last)))
            for offset in range(0, len(slab), size):
                yield slab_first + offset, slab[offset : offset + size]


def find_subjects(input_dir: Path, skip: tuple[str, ...] | list[str] = ()) -> list[Path]:
    """Sub-folders named ``subject_*`` in name order, without those in ``skip``.

    Raises
    ------
    BadInput
        If the folder is missing, holds no subject, or ``skip`` leaves none.
    """
    input_dir = Path(input_dir)
    if not input_dir.is_dir():
        raise BadInput(input_dir, "is not a folder", "set input_dir to the folder that holds subject_1, subject_2, …")
    found = sorted(p for p in input_dir.iterdir() if p.is_dir() and p.name.startswith("subject_"))
    if not found:
        raise BadInput(input_dir, "has no sub-folder whose name starts with subject_", "put every subject in its own")
    kept = [p for p in found if p.name not in set(skip)]
    if not kept:
        raise BadInput(f"skip={list(skip)}", "leaves no subject to work on", "take one off the list")
    return kept


def subject_files(folder: Path) -> dict[str, Path]:
    """The input files of one subject by role; what is read is exactly what is listed here.

    Raises
    ------
    BadInput
        If neither layout is complete.
    """
    folder = Path(folder)
    planes = find_planes(folder)
    if planes:
        return {
            f"{plane.name}/{name}": plane / name
            for plane in planes
            for name in SUITE2P_FILES
            if (plane / name).exists()
        }
    missing = [name for name in (TIME_SERIES, POSITIONS) if not (folder / name).is_file()]
    if missing:
        problem = f"has no {' and no '.join(missing)}"
        raise BadInput(folder, problem, f"put {TIME_SERIES} and {POSITIONS}, or a suite2p folder, there")
    return {"traces": folder / TIME_SERIES, "cells": folder / POSITIONS}


def open_recording(files: Mapping[str, Path], subject: str, fs_hz: float | None = None) -> CalciumRecording:
    """Open a subject from the files that :func:`subject_files` found.

    Parameters
    ----------
    files
        File by role.
    subject
        Name of the subject.
    fs_hz
        Volume rate that overrides the one in the files.

    Raises
    ------
    BadInput
        For files that are unreadable, incomplete, or that contradict each other.
    """
    if "traces" in files:
        return _open_fish(files["traces"], files["cells"], subject, fs_hz)
    planes = sorted({path.parent for path in files.values()}, key=lambda p: (len(p.name), p.name))
    rows, positions, ids, rate, counts = read_planes(planes)
    hz = _rate(planes[0], fs_hz, rate)
    return CalciumRecording(subject, planes[0], hz, rows.frames, positions, ids, rows, counts)


@dataclass(frozen=True)
class Hdf5Traces:
    """A 2-D dataset of traces; ``columns`` are the positions of the kept cells on its cell axis."""

    path: Path
    frames_first: bool
    columns: np.ndarray

    def read(self, rows: np.ndarray) -> np.ndarray:
        columns = self.columns[rows]
        with reading(self.path) as file:
            data = file["CellResp"]
            if (place := data.id.get_offset()) is not None:
                # Uncompressed and in one piece, as MATLAB writes it: a map finds scattered cells at once,
                # HDF5 walks through the file for each.
                data = np.memmap(self.path, data.dtype, "r", place, data.shape)
                taken = slice(columns[0], columns[-1] + 1) if (np.diff(columns) == 1).all() else columns
                return data[:, taken].T if self.frames_first else data[taken]
            return self._from_chunks(data, columns)

    def _from_chunks(self, data: h5py.Dataset, columns: np.ndarray) -> np.ndarray:
        block = np.empty((len(columns), data.shape[0 if self.frames_first else 1]), np.float32)
        order = np.argsort(columns)
        # HDF5 takes index lists one by one, so neighbours are read as slices.
        for run in np.split(order, np.flatnonzero(np.diff(columns[order]) > _RUN_GAP) + 1):
            low, high = columns[run[0]], columns[run[-1]] + 1
            part = data[:, low:high].T if self.frames_first else data[low:high]
            block[run] = part[columns[run] - low]
        return block


def _open_fish(traces: Path, cells: Path, subject: str, fs_hz: float | None) -> CalciumRecording:
    fish = read_struct(cells, ("CellXYZ", "IX_inval_anat", "fpsec"))
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
    frames = shape[0] if frames_first else shape[1]
    source = Hdf5Traces(traces, frames_first, columns)
    rate = _rate(cells, fs_hz, fish.get("fpsec"))
    kept = ids[columns]
    return CalciumRecording(subject, traces, rate, frames, positions[kept - 1], kept, source, counts, tuple(notes))


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
    if raw.ndim != 2 or raw.shape[1] != 3 or not len(raw):
        raise BadInput(path, f"CellXYZ has shape {raw.shape}", "give (cell, 3): row, column, plane")
    return raw.astype(np.float64)


def _ids(path: Path, name: str, raw: np.ndarray | None, total: int) -> np.ndarray:
    """1-based cell numbers as sorted-by-nothing int64; checked against the number of cells."""
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


def _rate(path: Path, override: float | None, raw: object) -> float:
    if override is None and raw is None:
        raise BadInput(path, "does not state the frame rate (data.fpsec, or fs in ops.npy)", "give fs_hz=… in Hz")
    value = np.asarray(override if override is not None else raw).ravel()
    if value.dtype.kind not in "fiu" or len(value) != 1 or not np.isfinite(value[0]) or value[0] <= 0:
        raise BadInput(path, f"the frame rate is {value.tolist()}", "give one positive number: fs_hz=…")
    return float(value[0])
