"""Grids as training reads them: two bytes per active voxel, in memory, made once from a file of either kind."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.calcium.grid import PIXELS, WIDTH
from src.preprocess.calcium.grid_io import COO_FILE, DENSE_FILE, open_grids
from src.preprocess.calcium.grid_metadata import METADATA_FILE
from src.preprocess.calcium.hdf5 import reading
from src.preprocess.stage import Stage, ensure
from src.signals import BadInput

GRIDS, METADATA = "grids", "metadata"
"""Roles of the stage's inputs."""

_FRAMES_AT_ONCE = 256


def make_index(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    """Write ``indptr.npy``, ``pixel.npy`` and ``frames.npz`` of one grid file, z-markers taken off.

    A file without ``indptr`` and ``pixel``, with duplicates, or dense is put in order here, once.
    """
    grids = open_grids(inputs[GRIDS])
    indptr, pixel = grids.index(markers=False)
    planes, header = grids.shape[1], grids.header
    occupied = np.zeros(planes * PIXELS, bool)
    if METADATA in inputs:
        occupied[_cell_voxels(inputs[METADATA], planes)] = True
    base = np.arange(planes, dtype=np.int64) * PIXELS
    for first in range(0, grids.shape[0], _FRAMES_AT_ONCE):
        pointer = indptr[first * planes : (first + _FRAMES_AT_ONCE) * planes + 1]
        sizes = np.diff(pointer)
        occupied[np.repeat(np.tile(base, len(sizes) // planes), sizes) + pixel[pointer[0] : pointer[-1]]] = True
    np.save(out_dir / "indptr.npy", indptr.astype(np.int64))
    np.save(out_dir / "pixel.npy", pixel)
    np.savez(
        out_dir / "frames.npz",
        voxels=np.flatnonzero(occupied),
        z_values=header.z_values,
        is_train=header.is_train.astype(bool),
        is_test=header.is_test.astype(bool),
        is_valid=header.is_valid.astype(bool),
        timepoints=header.timepoint_indices.astype(np.int64),
    )
    rate = header.attributes.get("sampling_rate")
    return {
        "axes": {"indptr": ["time · plane + 1"], "pixel": ["entry"]},
        "subject": str(header.attributes.get("subject", "")),
        "planes": planes,
        "fs_hz": float(rate) if rate else None,
        "guard_frames": int(header.attributes.get("split_guard_frames", 0)),
        "simulated": bool(header.attributes.get("simulated", False)),
    }


GRID_INDEX = Stage("grid_index", 1, make_index)


def _cell_voxels(path: Path, planes: int) -> np.ndarray:
    with reading(path) as file:
        if "cell_plane" not in file:
            return np.zeros(0, np.int64)
        row, column, plane = (file[f"cell_{axis}"][()].astype(np.int64) for axis in ("row", "column", "plane"))
    inside = plane < planes
    voxels: np.ndarray = np.unique((plane * PIXELS + row * WIDTH + column)[inside])
    return voxels


@dataclass(frozen=True)
class SubjectGrids:
    """One subject's activity in memory.

    Attributes
    ----------
    subject, planes, fs_hz, guard_frames
        Name, Z, volume rate, and the frames around a test block that the file's own split leaves out.
    indptr, pixel
        See :class:`~src.preprocess.calcium.grid.FrameBatch`; of the whole recording, without markers.
    voxels
        ``(slot,)`` occupied voxels in increasing order: those with a cell, or with activity where the
        cells' places are not known. A *slot* is a voxel's place in this list.
    is_train, is_test, is_valid, timepoints
        ``(time,)``: the file's split, frames with inferred spikes, original frame numbers.
    """

    subject: str
    planes: int
    fs_hz: float | None
    indptr: np.ndarray
    pixel: np.ndarray
    voxels: np.ndarray
    is_train: np.ndarray
    is_test: np.ndarray
    is_valid: np.ndarray
    timepoints: np.ndarray
    z_values: np.ndarray
    guard_frames: int = 0
    source: Path = field(default=Path())

    @property
    def frames(self) -> int:
        return len(self.timepoints)

    @cached_property
    def slot_of(self) -> np.ndarray:
        """``(plane · PIXELS,)`` int32 slot of every voxel, -1 where there is none."""
        table = np.full(self.planes * PIXELS, -1, np.int32)
        table[self.voxels] = np.arange(len(self.voxels), dtype=np.int32)
        return table

    def slots(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Active slots of frames ``first`` to ``last`` (exclusive), frame by frame, and how many each frame has."""
        pointer = self.indptr[first * self.planes : last * self.planes + 1]
        pixel = self.pixel[pointer[0] : pointer[-1]]
        sizes = np.diff(pointer)
        base = np.tile(np.arange(self.planes, dtype=np.int32) * PIXELS, last - first)
        slot = self.slot_of[np.repeat(base, sizes) + pixel]
        return slot, sizes.reshape(last - first, self.planes).sum(axis=1)

    def raster(self, first: int, last: int) -> np.ndarray:
        """``(time, slot)`` bool of a stretch of frames."""
        active = np.zeros((last - first, len(self.voxels)), bool)
        slot, counts = self.slots(first, last)
        active[np.repeat(np.arange(last - first), counts), slot] = True
        return active

    def with_raster(self, active: np.ndarray) -> SubjectGrids:
        """The same subject with other activity: ``(time, slot)`` bool over all frames."""
        time, slot = np.nonzero(active)
        voxel = self.voxels[slot]
        sizes = np.bincount(time * self.planes + voxel // PIXELS, minlength=self.frames * self.planes)
        indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return replace(self, indptr=indptr, pixel=(voxel % PIXELS).astype(np.uint16))


def find_grids(folder: Path) -> dict[str, Path]:
    """Grid files by subject: ``folder`` itself, a file in it, or one folder per subject; sparse where both are there.

    Raises
    ------
    BadInput
        If there are none.
    """
    folder = Path(folder)
    if folder.is_file():
        return {folder.parent.name: folder}
    if not folder.is_dir():
        raise BadInput(folder, "does not exist", f"give a {COO_FILE}, or the folder of processed subjects")
    places = [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]
    found = {}
    for place in places:
        for name in (COO_FILE, DENSE_FILE):
            if (place / name).is_file():
                found[place.name] = place / name
                break
    if not found:
        raise BadInput(folder, f"holds no {COO_FILE} and no {DENSE_FILE}", "give preprocess.py's output folder")
    return found


def load_grids(path: Path, subject: str, cache: Path) -> SubjectGrids:
    """The grids of one file, from the cache or put in order now; ``subject`` names one whose file does not."""
    artifact = ensure(GRID_INDEX, _inputs(path), {}, label=subject, cache=cache)
    return _opened(artifact.path, artifact.manifest["facts"], path, subject)


def read_grids(path: Path, subject: str) -> SubjectGrids:
    """The grids of one file that is read once and needs no cache."""
    with tempfile.TemporaryDirectory() as folder:
        return _opened(Path(folder), make_index(_inputs(path), {}, Path(folder), None), path, subject)


def _inputs(path: Path) -> dict[str, Path]:
    beside = path.parent / METADATA_FILE
    return {GRIDS: path, **({METADATA: beside} if beside.is_file() else {})}


def _opened(folder: Path, facts: Mapping[str, Any], source: Path, subject: str) -> SubjectGrids:
    with np.load(folder / "frames.npz") as frames:
        return SubjectGrids(
            subject=facts["subject"] or subject,
            planes=facts["planes"],
            fs_hz=facts["fs_hz"],
            indptr=np.load(folder / "indptr.npy"),
            pixel=np.load(folder / "pixel.npy"),
            guard_frames=facts["guard_frames"],
            source=source,
            **{name: frames[name] for name in frames.files},
        )
