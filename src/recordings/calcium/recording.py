"""A calcium recording whose traces are read in pieces, whatever file they lie in: never the whole matrix."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from src.signals import BadInput
from src.storage.hdf5 import reading

PIECE_BYTES, GROUP = 1 << 26, 512
"""Traces that are read from the disk at once, in whole groups of so many cells."""

_RUN_GAP = 8
"""Cells that are read along because reading on is faster than starting another slice."""


_LOOKED_AT, _FEWEST_ALIKE, _CLEARLY_MORE = 2000, 10, 0.1
"""Rows and columns compared; how many there have to be; difference of two correlations that tells axes apart."""


Reader = Callable[[np.ndarray], np.ndarray]
"""From row numbers to these traces, ``(neuron, time)``."""


@dataclass(frozen=True)
class CalciumRecording:
    """One subject: cells, their coordinates, and access to their traces."""

    subject: str
    file: Path  # file or folder that the traces come from, for messages
    fs_hz: float
    frames: int
    positions: np.ndarray  # (cell, 3) float64: image row, image column, plane; units of the source, NaN where unknown
    # (cell,) int64, 1-based number of the cell in the source's full list. It names the cell in random draws, so that
    # dropping one cell does not change another.
    cell_ids: np.ndarray
    reader: Reader
    counts: dict[str, int] = field(default_factory=dict)  # how many cells were found and why some were left out
    notes: tuple[str, ...] = ()  # what a person should know about the reading, one sentence each
    # in the units of the camera, or `dff`: a fraction of F0 that another program computed
    signal: Literal["fluorescence", "dff"] = "fluorescence"

    @property
    def cells(self) -> int:
        return len(self.cell_ids)

    def placed_only(self) -> "CalciumRecording":
        """The same recording without the cells that have no coordinates; :class:`BadInput` if none has any."""
        placed = np.flatnonzero(np.isfinite(self.positions).all(axis=1))
        if len(placed) == self.cells:
            return self
        if not len(placed):
            hint = "use preprocess=cascade_spikes, which needs no positions"
            raise BadInput(self.file, "states no cell positions, so there is no grid", hint)
        counts = self.counts | {"dropped_without_coordinates": self.cells - len(placed)}
        positions, cell_ids, reader = self.positions[placed], self.cell_ids[placed], chosen(self.reader, placed)
        return replace(self, positions=positions, cell_ids=cell_ids, reader=reader, counts=counts)

    def traces(self, rows: np.ndarray) -> np.ndarray:
        """``(neuron, time)`` float32 of the given rows; samples that are not finite become NaN."""
        block = np.array(self.reader(np.asarray(rows)), dtype=np.float32, order="C")
        block[~np.isfinite(block)] = np.nan
        return block

    def pieces(self, most_cells: int | None = None) -> list[np.ndarray]:
        """All row numbers, in pieces to be read at once: at most ``most_cells``, but whole groups."""
        size = min(most_cells or self.cells, PIECE_BYTES // (4 * max(self.frames, 1)))
        size = max(size // GROUP, 1) * GROUP
        return [np.arange(first, min(first + size, self.cells)) for first in range(0, self.cells, size)]


def chosen(reader: Reader, kept: np.ndarray) -> Reader:
    """Some rows of another reader."""
    return lambda rows: reader(kept[rows])


@dataclass(frozen=True)
class Plane:
    """The accepted cells of one plane, or of a whole file."""

    listed: int  # cells that the file has
    kept: np.ndarray  # (cell,) places of the accepted ones among them
    positions: np.ndarray  # (cell, 3)
    frames: int
    reader: Reader  # of all listed cells


def of_planes(
    planes: Sequence[Plane], rates_hz: Sequence[Any], fs_hz: float | None, curate: str, **known: Any
) -> CalciumRecording:
    """The planes of one session as one recording.

    ``rates_hz`` are the frame rates that the planes state, ``fs_hz`` the one the user gave, ``curate`` says where cells
    are accepted. Planes of different rates or lengths are refused. They may differ by the last frame, where the
    recording stopped.
    """
    before, file = np.cumsum([0, *(plane.listed for plane in planes)]), known["file"]
    kept = np.concatenate([n + plane.kept for n, plane in zip(before, planes, strict=False)])
    lengths = sorted({plane.frames for plane in planes})
    if not len(kept):
        raise BadInput(file, f"no ROI is accepted, of {before[-1]}", curate)
    if lengths[-1] - lengths[0] > 1:
        raise BadInput(file, f"planes have {lengths} frames", "take planes of one session")
    starts = np.cumsum([0, *(len(plane.kept) for plane in planes)])

    def read(rows: np.ndarray) -> np.ndarray:
        block = np.empty((len(rows), lengths[0]), np.float32)
        for plane, first in zip(planes, starts, strict=False):
            here = (rows >= first) & (rows < first + len(plane.kept))
            if here.any():
                block[here] = plane.reader(plane.kept[rows[here] - first])[:, : lengths[0]]
        return block

    stated = [rate for rate in rates_hz if rate is not None]
    if fs_hz is None and len({str(rate) for rate in stated}) > 1:
        problem = f"its planes state different frame rates ({', '.join(map(str, stated))} Hz)"
        raise BadInput(file, problem, "take planes of one session, or give fs_hz=…")
    return CalciumRecording(
        fs_hz=frame_rate(file, fs_hz, stated[0] if stated else None),
        frames=lengths[0],
        positions=np.concatenate([plane.positions for plane in planes]).astype(np.float64),
        cell_ids=kept.astype(np.int64) + 1,
        reader=read,
        counts={
            "listed": int(before[-1]),
            "with_traces": int(before[-1]),
            "dropped_invalid": int(before[-1]) - len(kept),
            "dropped_without_coordinates": 0,
        },
        **known,
    )


def read_hdf5(path: Path, dataset: str, frames_first: bool, columns: np.ndarray) -> np.ndarray:
    """``(neuron, time)`` traces of a dataset ``(time, cell)`` (``frames_first``) or ``(cell, time)``."""
    with reading(path) as file:
        data = file[dataset]
        if (place := data.id.get_offset()) is not None and not data.external:
            # Uncompressed and in one piece, as MATLAB writes it: a map finds scattered cells at once,
            # HDF5 walks through the file for each.
            mapped = np.memmap(path, data.dtype, "r", place, data.shape)
            taken = slice(columns[0], columns[-1] + 1) if (np.diff(columns) == 1).all() else columns
            return mapped[:, taken].T if frames_first else mapped[taken]
        block = np.empty((len(columns), data.shape[0 if frames_first else 1]), np.float32)
        order = np.argsort(columns)
        # HDF5 takes index lists one by one, so neighbours are read as slices.
        for run in np.split(order, np.flatnonzero(np.diff(columns[order]) > _RUN_GAP) + 1):
            low, high = columns[run[0]], columns[run[-1]] + 1
            part = data[:, low:high].T if frames_first else data[low:high]
            block[run] = part[columns[run] - low]
        return block


def rows_are_frames(traces: np.ndarray) -> bool:
    """Whether an array looks like ``(time, neuron)``: neighbouring rows are clearly more alike than columns.

    Calcium decays over several frames, so neighbouring frames are alike. Neighbouring cells are less so once the
    mean of every cell and of every frame, and with them brightness and what all cells share, are taken off.
    """
    part = np.asarray(traces[:_LOOKED_AT, :_LOOKED_AT], float)
    if min(part.shape) < _FEWEST_ALIKE or np.isfinite(part).mean() < 0.9:
        return False
    part = np.where(np.isfinite(part), part, np.mean(part, where=np.isfinite(part)))
    part = part - part.mean(axis=1, keepdims=True) - part.mean(axis=0) + part.mean()

    def likeness(rows: np.ndarray) -> float:
        norm = np.linalg.norm(rows, axis=1)
        products = np.maximum(norm[:-1] * norm[1:], np.finfo(float).tiny)
        return float(np.median((rows[:-1] * rows[1:]).sum(axis=1) / products))

    return likeness(part) > likeness(part.T) + _CLEARLY_MORE


def frame_rate(path: Path, given: float | None, stated: object) -> float:
    """The volume rate in Hz: the one the user gave, or else the one the file states; it has to be a positive number."""
    if given is None and stated is None:
        raise BadInput(path, "does not state the frame rate (data.fpsec, or fs in ops.npy)", "give fs_hz=… in Hz")
    value = np.asarray(given if given is not None else stated).ravel()
    if value.dtype.kind not in "fiu" or len(value) != 1 or not np.isfinite(value[0]) or value[0] <= 0:
        raise BadInput(path, f"the frame rate is {value.tolist()}", "give one positive number: fs_hz=…")
    return float(value[0])
