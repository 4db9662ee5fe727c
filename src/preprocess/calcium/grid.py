"""Where cells sit on the 256 × 128 × plane grid, and which voxels are active when.

Everything here is in memory and sparse. A voxel is numbered plane-major: ``plane * PIXELS + row * WIDTH
+ column``, so that voxels in numerical order are planes in order and pixels in order inside them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from src.signals import BadInput

HEIGHT, WIDTH = 256, 128
PIXELS = HEIGHT * WIDTH
"""Pixels of a plane; 32 768, so a pixel number fits uint16."""

MAX_PLANES = 512
"""More distinct depths than any volume has slices: the z column is then not a plane."""

FRAMES_AT_ONCE = 64
"""Frames unpacked at a time; the bits of more of them no longer fit the processor's cache."""


@dataclass(frozen=True)
class CellMap:
    """Grid position of every cell: ``row`` (H), ``column`` (W) and ``plane`` are ``(cell,)`` int64."""

    row: np.ndarray
    column: np.ndarray
    plane: np.ndarray
    z_values: np.ndarray

    @property
    def planes(self) -> int:
        return len(self.z_values)

    @property
    def voxel(self) -> np.ndarray:
        return self.plane * PIXELS + self.row * WIDTH + self.column


def map_cells(positions: np.ndarray, source: str = "positions") -> CellMap:
    """Put cells on the grid: each axis is stretched over all cells of the subject, then rounded down.

    Column 0 of ``positions`` becomes the row (0 to 255) and column 1 the column (0 to 127), so only
    the outermost cell reaches the last index. Planes are the distinct z, to three decimals, in order.

    Raises
    ------
    BadInput
        If z takes more than ``MAX_PLANES`` values.
    """
    positions = np.asarray(positions, dtype=np.float64)
    z_values, plane = np.unique(np.round(positions[:, 2], 3), return_inverse=True)
    if len(z_values) > MAX_PLANES:
        problem = f"z takes {len(z_values)} different values, so it is not a plane"
        raise BadInput(source, problem, "give the slice number (or depth of the slice) as third column")
    row = np.floor(_stretch(positions[:, 0]) * (HEIGHT - 1)).astype(np.int64)
    column = np.floor(_stretch(positions[:, 1]) * (WIDTH - 1)).astype(np.int64)
    return CellMap(row, column, plane.astype(np.int64), z_values)


_FAR = 20
"""Interquartile ranges that a cell has to lie from the median to be named."""
_FEW_PLANES = 20


def position_notes(positions: np.ndarray, cell_ids: np.ndarray, cells: CellMap) -> list[str]:
    """A sentence where a few far cells squeeze all others into a corner of the grid, or z is no plane."""
    notes = []
    if cells.planes == 1 and (depths := len(np.unique(positions[:, 2]))) > 1:
        notes.append(
            f"z takes {depths} values within {np.ptp(positions[:, 2]):g}, and planes are told apart to 0.001, so all "
            "cells lie in one plane: give positions in micrometres, not in metres"
        )
    if cells.planes > max(_FEW_PLANES, len(positions) / 2):
        notes.append(
            f"{len(positions)} cells lie in {cells.planes} planes, because z takes as many values: give the number or "
            "the depth of the plane as z, not a position in a volume"
        )
    for axis, name, places, size in ((0, "row", cells.row, HEIGHT), (1, "column", cells.column, WIDTH)):
        values = positions[:, axis]
        low, middle, high = np.percentile(values, (25, 50, 75))
        is_far = np.abs(values - middle) > _FAR * (high - low)
        if high == low or not is_far.any():
            continue
        named = ", ".join(f"cell {cell_ids[k]} at {values[k]:g}" for k in np.flatnonzero(is_far)[:3])
        others = values[~is_far]
        notes.append(
            f"{named}: the others have {name} {others.min():.3g} to {others.max():.3g}, so they share "
            f"{np.ptp(places[~is_far]) + 1} of {size} {name}s; correct its position or list it in IX_inval_anat"
        )
    return notes


def _stretch(axis: np.ndarray) -> np.ndarray:
    low, high = axis.min(), axis.max()
    return (axis - low) / (high - low) if high > low else np.zeros_like(axis)


def marker_mask(planes: int) -> np.ndarray:
    """``(plane, 256, 128)`` bool: the z-marker, two rows high and ``z + 2`` wide, low rows, high columns."""
    mask = np.zeros((planes, HEIGHT, WIDTH), dtype=bool)
    for plane in range(planes):
        mask[plane, :2, WIDTH - min(plane + 2, WIDTH) :] = True
    return mask


@dataclass(frozen=True)
class FrameBatch:
    """Consecutive frames from number ``first`` on in index form: the ``planes`` of a frame one after the other.

    ``indptr`` is ``(frame · plane + 1,)`` int64, starting at 0: entries ``indptr[k]`` to ``indptr[k + 1]`` belong to
    plane-frame ``k``. ``pixel`` is ``(entry,)`` uint16, ``row * 128 + column``, increasing and distinct inside it.
    """

    first: int
    planes: int
    indptr: np.ndarray
    pixel: np.ndarray

    @property
    def frames(self) -> int:
        return (len(self.indptr) - 1) // self.planes

    def flat(self) -> np.ndarray:
        """``(entry,)`` int64 position of every entry in the raveled ``(T, Z, 256, 128)`` grid, increasing."""
        plane_frame = np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))
        return (plane_frame + self.first * self.planes) * PIXELS + self.pixel

    def coords(self) -> np.ndarray:
        """``(entry, 4)`` int32: time point, plane, row, column."""
        axes = np.unravel_index(self.flat(), (self.first + self.frames, self.planes, HEIGHT, WIDTH))
        return np.stack(axes, axis=1, dtype=np.int32, casting="same_kind")

    def dense(self) -> np.ndarray:
        """``(frame, plane, 256, 128)`` uint8."""
        grid = np.zeros(self.frames * self.planes * PIXELS, np.uint8)
        grid[self.flat() - self.first * self.planes * PIXELS] = 1
        return grid.reshape(self.frames, self.planes, HEIGHT, WIDTH)

    @classmethod
    def from_flat(cls, flat: np.ndarray, first: int, frames: int, planes: int) -> "FrameBatch":
        """Inverse of :meth:`flat`; ``flat`` is sorted and distinct."""
        local = flat - first * planes * PIXELS
        edges = np.arange(frames * planes + 1, dtype=np.int64) * PIXELS
        return cls(first, planes, np.searchsorted(local, edges).astype(np.int64), (local % PIXELS).astype(np.uint16))


class VoxelActivity:
    """Activity of the occupied voxels of one subject, one bit per voxel and frame.

    Cells that share a voxel are joined by *or*, as a pixel is either active or not.
    """

    def __init__(self, cells: CellMap, frames: int) -> None:
        self.cells, self.frames, self.planes = cells, frames, cells.planes
        self.voxels, self._slot = np.unique(cells.voxel, return_inverse=True)
        self._bits = np.zeros((len(self.voxels), -(-frames // 8)), np.uint8)
        self.cell_spikes = 0

    def add(self, first: int, spikes: np.ndarray) -> None:
        """Take over ``(neuron, time)`` binary spikes of the cells from row ``first`` on."""
        self.cell_spikes += int(np.count_nonzero(spikes))
        voxel_index = self._slot[first : first + len(spikes)]
        order = np.argsort(voxel_index, kind="stable")
        where, starts = np.unique(voxel_index[order], return_index=True)
        packed = np.packbits(spikes.astype(bool, copy=False), axis=1)[order]
        self._bits[where] |= np.bitwise_or.reduceat(packed, starts, axis=0)

    @property
    def active(self) -> int:
        """Active voxels over all frames, markers not counted."""
        return int(np.bitwise_count(self._bits).sum(dtype=np.int64))

    def entries(self, markers: bool) -> int:
        """Active pixels over all frames, those of the z-markers included or not."""
        if not markers:
            return self.active
        return self.active + self.frames * int(marker_mask(self.planes).sum()) - len(self.spikes_under_markers())

    def active_per_plane(self) -> np.ndarray:
        """``(plane,)`` active voxels over all frames, markers not counted."""
        per_voxel = np.bitwise_count(self._bits).sum(axis=1, dtype=np.int64)
        return np.bincount(self.voxels // PIXELS, per_voxel, self.planes).astype(np.int64)

    def spikes_under_markers(self) -> np.ndarray:
        """``(n,)`` int64 flat positions of active voxels that a z-marker covers, in order."""
        hidden = np.flatnonzero(marker_mask(self.planes).ravel()[self.voxels])
        time, voxel = np.nonzero(np.unpackbits(self._bits[hidden], axis=1, count=self.frames).T)
        return time * (self.planes * PIXELS) + self.voxels[hidden[voxel]]

    def batches(self, markers: bool, size: int = FRAMES_AT_ONCE) -> Iterator[FrameBatch]:
        """All frames in order, ``size`` (a multiple of 8) at a time, with the z-markers put on or not."""
        if size < 8 or size % 8:
            raise ValueError(f"{size} frames at once: whole bytes are unpacked, so give a multiple of 8")
        voxels, bits = (self.voxels, self._bits) if not markers else self._with_markers()
        pixel = (voxels % PIXELS).astype(np.uint16)
        plane_ends = np.searchsorted(voxels, np.arange(1, self.planes + 1) * PIXELS)
        for first in range(0, self.frames, size):
            count = min(size, self.frames - first)
            chunk = np.unpackbits(bits[:, first // 8 : (first + size) // 8], axis=1, count=count)
            active = np.ascontiguousarray(chunk.T).view(bool)
            entry = np.flatnonzero(active)
            # Where each plane of each frame ends among the entries.
            ends = (np.arange(count)[:, None] * len(voxels) + plane_ends).ravel()
            indptr = np.concatenate([[0], np.searchsorted(entry, ends)]).astype(np.int64)
            yield FrameBatch(first, self.planes, indptr, pixel[entry % len(voxels)])

    def _with_markers(self) -> tuple[np.ndarray, np.ndarray]:
        markers = np.flatnonzero(marker_mask(self.planes))
        voxels = np.union1d(self.voxels, markers)
        bits = np.zeros((len(voxels), self._bits.shape[1]), np.uint8)
        bits[np.searchsorted(voxels, self.voxels)] = self._bits
        bits[np.searchsorted(voxels, markers)] = 0xFF
        return voxels, bits
