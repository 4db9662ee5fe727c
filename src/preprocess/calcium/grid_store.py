"""The files of a subject's grids: dense or sparse grids, ``metadata.h5``, and ``combined_metadata.h5`` of all.

Both kinds of grid pass through :class:`~src.preprocess.calcium.grid.FrameBatch`, so a grid is never whole in
memory and there is one path for building, reading and converting. ``docs/calcium.md`` lists every field.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from src.preprocess.calcium.grid import HEIGHT, PIXELS, WIDTH, CellMap, FrameBatch, VoxelActivity, marker_mask
from src.signals import BadInput
from src.storage.atomic import atomic_file
from src.storage.hdf5 import AppendedColumn, reading, writing
from src.storage.output import OutputFolder, refuse_overlap

DENSE_FILE, COO_FILE = "preaugmented_grids.h5", "preaugmented_grids_coo.h5"
METADATA_FILE, COMBINED_FILE = "metadata.h5", "combined_metadata.h5"
COO_BYTES_PER_ENTRY = 17
"""Four int32 coordinates and a uint8 value."""

_PER_FILE = ("is_train", "is_test", "is_valid", "z_values", "spikes_under_markers")
_ENTRIES_PER_CHUNK = 1 << 16
_DENSE_FRAMES = 8
CONTRACT = (
    "is_train=1: the frame may train; is_test=1: it tests; both 0: it lies in the gap around a test block and is used "
    "for neither. is_valid=0: no spikes could be inferred, and the grid is silent. A frame depends on the recording "
    "from frames_before frames before it to frames_after frames after it: a forecast whose context ends less than "
    "frames_after frames before its target has seen the target's fluorescence."
)
"""How the split of a file is to be used; stands in the file's attributes."""


@dataclass(frozen=True)
class GridHeader:
    """What a grid file states beside the activity.

    ``is_train``, ``is_test``, ``is_valid`` (spikes could be inferred) and ``timepoint_indices`` (by default counted
    from 0) are ``(time,)``, ``z_values`` ``(plane,)``. ``spikes_under_markers`` are flat positions of spikes that a
    z-marker covers, ``markers`` says whether the z-markers are in the grid. The writer adds counts to ``attributes``.
    """

    is_train: np.ndarray
    is_test: np.ndarray
    is_valid: np.ndarray
    z_values: np.ndarray
    markers: bool = False
    spikes_under_markers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    timepoint_indices: np.ndarray | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def frames(self) -> int:
        return len(self.is_valid)

    @property
    def planes(self) -> int:
        return len(self.z_values)

    @property
    def timepoints(self) -> np.ndarray:
        return np.arange(self.frames) if self.timepoint_indices is None else self.timepoint_indices

    @property
    def total_pixels(self) -> int:
        return self.frames * self.planes * PIXELS


def write_dense(path: Path, batches: Iterable[FrameBatch], header: GridHeader) -> int:
    """Write ``grids`` (T, Z, 256, 128) uint8, one gzip chunk per plane-frame. Returns the active pixels."""
    entries = 0
    shape = (header.frames, header.planes, HEIGHT, WIDTH)
    plane_image = np.zeros(PIXELS, np.uint8)
    with writing(path) as file:
        grids = file.create_dataset(
            "grids", shape, np.uint8, chunks=(1, 1, HEIGHT, WIDTH), compression="gzip", compression_opts=1
        )
        for batch in batches:
            entries += len(batch.pixel)
            for k in range(batch.frames * batch.planes):
                pixel = batch.pixel[batch.indptr[k] : batch.indptr[k + 1]]
                plane_image[pixel] = 1
                time, plane = divmod(k, batch.planes)
                # Compressed here because HDF5's own path through its filters costs several times as much.
                grids.id.write_direct_chunk((batch.first + time, plane, 0, 0), zlib.compress(plane_image.data, 1))
                plane_image[pixel] = 0
        _write_header(file, header, entries)
    return entries


def write_coo(path: Path, batches: Iterable[FrameBatch], header: GridHeader) -> int:
    """Write sorted, distinct coordinates and the frame index. Returns the number of entries."""
    with writing(path) as file:
        coords = AppendedColumn(file, "spike_coords", np.int32, _ENTRIES_PER_CHUNK // 4, width=4)
        pixels = AppendedColumn(file, "pixel", np.uint16, _ENTRIES_PER_CHUNK)
        values = AppendedColumn(file, "spike_values", np.uint8, _ENTRIES_PER_CHUNK)
        indptr = np.zeros(header.frames * header.planes + 1, np.int64)
        entries = 0
        for batch in batches:
            coords.append(batch.coords())
            pixels.append(batch.pixel)
            values.append(np.ones(len(batch.pixel), np.uint8))
            start = batch.first * batch.planes
            indptr[start + 1 : start + len(batch.indptr)] = batch.indptr[1:] + entries
            entries += len(batch.pixel)
        coords.close()
        pixels.close()
        values.close()
        file.create_dataset("indptr", data=indptr, compression="gzip", compression_opts=1, shuffle=True)
        file["grid_shape"] = np.array([header.frames, header.planes, HEIGHT, WIDTH], np.int32)
        file.attrs.update(format="COO_sparse", grid_height=HEIGHT, grid_width=WIDTH)
        _write_header(file, header, entries)
    return entries


def _write_header(file: h5py.File, header: GridHeader, entries: int) -> None:
    file["timepoint_indices"] = header.timepoints.astype(np.int32)
    for name in _PER_FILE:
        file[name] = getattr(header, name)
    file.attrs.update(header.attributes)
    file.attrs.update(
        num_timepoints=header.frames,
        num_z_planes=header.planes,
        z_markers=header.markers,
        total_spikes=entries,
        sparsity_percent=100 * entries / header.total_pixels if header.total_pixels else 0.0,
    )


class GridFile:
    """A grid file of either kind, read by frames: its ``path``, ``header`` and ``shape`` ``(T, Z, 256, 128)``.

    Files of the original pipeline, with duplicates, in any order and without ``indptr`` and ``pixel``, are put in
    order on opening.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._indptr: np.ndarray | None = None
        self._pixel: np.ndarray | None = None
        with reading(self.path) as file:
            self.sparse = "spike_coords" in file or "pixel" in file
            if not self.sparse and "grids" not in file:
                raise BadInput(self.path, "holds neither grids nor spike_coords", f"give a {DENSE_FILE} or {COO_FILE}")
            self.shape = tuple(int(n) for n in (file["grid_shape"][()] if self.sparse else file["grids"].shape))
            if len(self.shape) != 4 or self.shape[2:] != (HEIGHT, WIDTH):
                raise BadInput(self.path, f"the grid has shape {self.shape}", f"give (T, Z, {HEIGHT}, {WIDTH})")
            self.header = self._read_header(file)
            if "indptr" in file and "pixel" in file:
                self._indptr = file["indptr"][()]
            elif self.sparse:
                self._indptr, self._pixel = self._build_index(file)
        self._marked = marker_mask(self.shape[1]).ravel()

    def read(self, first: int, last: int, markers: bool | None = None) -> FrameBatch:
        """Frames ``first`` to ``last`` (exclusive), with the z-markers or without; by default as in the file.

        Taking them off brings back the spikes they covered.
        """
        frames = self.shape[0]
        if not 0 <= first <= last <= frames:
            raise IndexError(f"frames {first} to {last} of {frames}")
        batch = self._stored(first, last)
        if markers is None or markers == self.header.markers:
            return batch
        flat, volume = batch.flat(), self.shape[1] * PIXELS
        flat = flat[~self._marked[flat % volume]]
        added = (np.arange(first, last)[:, None] * volume + np.flatnonzero(self._marked)).ravel()
        if not markers:
            covered = self.header.spikes_under_markers
            added = covered[slice(*np.searchsorted(covered, (first * volume, last * volume)))]
        flat = np.sort(np.concatenate([flat, added]), kind="stable")  # which merges two ordered runs
        return FrameBatch.from_flat(flat, first, last - first, self.shape[1])

    def frame(self, time: int, markers: bool | None = None) -> np.ndarray:
        """``(plane, 256, 128)`` uint8 image stack of one time point."""
        return self.read(time, time + 1, markers).dense()[0]

    def batches(self, markers: bool | None = None, size: int = 64) -> Iterator[FrameBatch]:
        """All frames in order, ``size`` at a time."""
        size = size if self.sparse else min(size, _DENSE_FRAMES)
        for first in range(0, self.shape[0], size):
            yield self.read(first, min(first + size, self.shape[0]), markers)

    def index(self, markers: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The whole grid: ``indptr`` (T·Z + 1) int64 and ``pixel`` uint16; see :class:`FrameBatch`."""
        parts = list(self.batches(markers))
        counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.indptr) for part in parts)])
        return np.cumsum(counts), np.concatenate([np.zeros(0, np.uint16), *(part.pixel for part in parts)])

    def _stored(self, first: int, last: int) -> FrameBatch:
        planes = self.shape[1]
        if self._indptr is None:
            with reading(self.path) as file:
                flat = np.flatnonzero(file["grids"][first:last])
            return FrameBatch.from_flat(flat + first * planes * PIXELS, first, last - first, planes)
        indptr = self._indptr[first * planes : last * planes + 1]
        low, high = int(indptr[0]), int(indptr[-1])
        if self._pixel is not None:
            return FrameBatch(first, planes, indptr - low, self._pixel[low:high])
        with reading(self.path) as file:
            return FrameBatch(first, planes, indptr - low, file["pixel"][low:high])

    def _read_header(self, file: h5py.File) -> GridHeader:
        frames, planes = self.shape[:2]
        found = {name: file[name][()] for name in (*_PER_FILE, "timepoint_indices") if name in file}
        is_train = found.get("is_train", np.ones(frames, np.uint8))
        # The original states only is_train, and puts its markers into every file.
        default = {
            "is_train": is_train,
            "is_test": 1 - is_train,
            "is_valid": np.ones(frames, np.uint8),
            "z_values": np.arange(planes, dtype=float),
        }
        attributes = {k: v.item() if isinstance(v, np.generic) else v for k, v in file.attrs.items()}
        markers = bool(attributes.get("z_markers", True))
        return GridHeader(markers=markers, attributes=attributes, **(default | found))

    def _build_index(self, file: h5py.File) -> tuple[np.ndarray, np.ndarray]:
        frames, planes = self.shape[:2]
        coords, values = file["spike_coords"], file["spike_values"]
        flat = np.empty(len(coords), np.int64)
        strides = np.array([planes * PIXELS, PIXELS, WIDTH, 1], np.int64)
        for start in range(0, len(coords), 1 << 20):
            part = coords[start : start + (1 << 20)]
            if len(part) and ((part < 0).any() or (part >= self.shape).any()):
                raise BadInput(self.path, "spike_coords point outside grid_shape", "write the file again")
            flat[start : start + len(part)] = part @ strides
        flat = np.sort(flat[values[()] != 0])
        distinct = flat[np.diff(flat, prepend=-1) > 0]  # np.unique, which hashes, takes fifty times as long
        batch = FrameBatch.from_flat(distinct, 0, frames, planes)
        return batch.indptr, batch.pixel


def open_grids(path: Path | str) -> GridFile:
    """Open a grid file of either kind, or the one in a subject's folder.

    Raises
    ------
    BadInput
        If there is none, or it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        found = [path / name for name in (COO_FILE, DENSE_FILE) if (path / name).is_file()]
        if not found:
            raise BadInput(path, f"has neither {COO_FILE} nor {DENSE_FILE}", "give the folder of a processed subject")
        path = found[0]
    return GridFile(path)


def convert(source: Path | str, target: Path | str, *, sparse: bool) -> None:
    """Write the grids of ``source`` as the other kind (or the same, put in order), whole or not at all."""
    grids = open_grids(source)
    refuse_overlap(Path(target), (grids.path,), "target")
    write = write_coo if sparse else write_dense
    with atomic_file(Path(target)) as part:
        write(part, grids.batches(), grids.header)


def coo_to_dense_grid(spike_coords: np.ndarray, spike_values: np.ndarray, grid_shape: Sequence[int]) -> np.ndarray:
    """Coordinates ``(n, 4)`` and values to a dense uint8 grid; duplicates leave one entry.

    Raises
    ------
    ValueError
        If a coordinate lies outside the grid.
    """
    grid = np.zeros(tuple(int(n) for n in grid_shape), np.uint8)
    grid.reshape(-1)[np.ravel_multi_index(tuple(np.asarray(spike_coords).T), grid.shape)] = spike_values
    return grid


def statistics(activity: VoxelActivity, header: GridHeader) -> dict[str, Any]:
    """Counts and sizes as they are: markers apart from spikes, density called density, bytes in full."""
    dense, entries = header.total_pixels, activity.entries(header.markers)
    index = 2 * entries + 8 * (header.frames * header.planes + 1)
    return {
        "total_spikes": entries,
        "sparsity_percent": _percent(entries, dense),
        "active_voxels": activity.active,
        "density_percent": _percent(activity.active, dense),
        "cell_spikes": activity.cell_spikes,
        "num_cells": len(activity.cells.plane),
        "occupied_voxels": len(activity.voxels),
        "marker_pixels_per_frame": int(marker_mask(header.planes).sum()) if header.markers else 0,
        "dense_bytes": dense,
        "coo_bytes": COO_BYTES_PER_ENTRY * entries,
        "index_bytes": index,
        "coo_saving_percent": 100 - _percent(COO_BYTES_PER_ENTRY * entries, dense),
        "index_saving_percent": 100 - _percent(index, dense),
    }


def write_metadata(
    path: Path, header: GridHeader, cells: CellMap, cell_arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]
) -> None:
    """Write ``metadata.h5`` of one subject, with further ``(cell,)`` arrays by name, and ``facts`` as attributes."""
    with writing(path) as file:
        file["num_timepoints"], file["num_z_planes"] = header.frames, header.planes
        file["z_values"] = header.z_values
        file["train_timepoints"] = np.flatnonzero(header.is_train).astype(np.int64)
        file["test_timepoints"] = np.flatnonzero(header.is_test).astype(np.int64)
        for name in ("is_train", "is_test", "is_valid"):
            file[name] = getattr(header, name)
        file["cell_row"], file["cell_column"] = cells.row.astype(np.uint8), cells.column.astype(np.uint8)
        file["cell_plane"] = cells.plane.astype(np.uint16)
        for name, values in cell_arrays.items():
            file[name] = values
        file.attrs.update(header.attributes | {"z_markers": header.markers} | dict(facts))


def write_combined(output: OutputFolder, subjects: list[str], sparse: bool) -> dict[str, Any]:
    """Gather ``metadata.h5`` of all ``subjects`` in ``combined_metadata.h5``; returns the totals.

    Without a subject nothing is written: a file of earlier results stays as it is.
    """
    if not subjects:
        return {}
    totals = {"total_subjects": len(subjects), "total_spikes": 0, "total_pixels": 0}
    with output.files() as part, writing(part / COMBINED_FILE) as combined:
        for subject in subjects:
            with reading(Path(output.root) / subject / METADATA_FILE) as file:
                group = combined.create_group(subject)
                for name in file:
                    file.copy(name, group)
                # Scalars are found both ways: as the dense pipeline's datasets and the sparse one's attributes.
                group.attrs.update({name: file[name][()] for name in ("num_timepoints", "num_z_planes")})
                group.attrs.update(dict(file.attrs))
                frames, planes = int(file["num_timepoints"][()]), int(file["num_z_planes"][()])
                totals["total_spikes"] += int(file.attrs["total_spikes"])
                totals["total_pixels"] += frames * planes * PIXELS
        overall = _percent(totals["total_spikes"], totals["total_pixels"])
        combined.attrs.update(totals | {"overall_sparsity_percent": overall})
        combined.attrs["format"] = "COO_sparse" if sparse else "dense"
    return totals | {"overall_sparsity_percent": overall}


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
