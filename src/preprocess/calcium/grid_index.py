"""Grids as training reads them: two bytes per active voxel, in memory, made once from a file of either kind."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.calcium.grid import PIXELS, WIDTH
from src.preprocess.calcium.grid_store import COO_FILE, DENSE_FILE, METADATA_FILE, open_grids
from src.signals import BadInput
from src.storage.hdf5 import reading
from src.storage.step import CachedStep, ensure

GRIDS, METADATA = "grids", "metadata"
"""Roles of the step's inputs."""


def make_index(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    """Write ``indptr.npy``, ``rank.npy`` and ``frames.npz`` of one grid file, z-markers taken off.

    A file without ``indptr`` and ``pixel``, with duplicates, or dense is put in order here, once.
    """
    grids = open_grids(inputs[GRIDS])
    indptr, pixel = grids.index(markers=False)
    planes, header = grids.shape[1], grids.header
    voxel = np.repeat(np.tile(np.arange(planes, dtype=np.int32) * PIXELS, grids.shape[0]), np.diff(indptr))
    voxel += pixel
    occupied = np.zeros(planes * PIXELS, bool)
    occupied[voxel] = True
    if METADATA in inputs:
        occupied[_cell_voxels(inputs[METADATA], planes)] = True
    voxels = np.flatnonzero(occupied)
    # Place of every occupied voxel among those of its plane.
    starts = np.searchsorted(voxels, np.arange(planes) * PIXELS)
    rank = np.zeros(planes * PIXELS, np.uint16)
    rank[voxels] = np.arange(len(voxels)) - starts[voxels // PIXELS]
    np.save(out_dir / "indptr.npy", indptr.astype(np.int64))
    np.save(out_dir / "rank.npy", rank[voxel])
    np.savez(
        out_dir / "frames.npz",
        voxels=voxels,
        z_values=header.z_values,
        is_train=header.is_train.astype(bool),
        is_test=header.is_test.astype(bool),
        is_valid=header.is_valid.astype(bool),
        timepoints=header.timepoints.astype(np.int64),
    )
    rate, after = (header.attributes.get(name) for name in ("sampling_rate", "frames_after"))
    return {
        "axes": {"indptr": ["time · plane + 1"], "rank": ["entry"]},
        "subject": str(header.attributes.get("subject", "")),
        "planes": planes,
        "fs_hz": float(rate) if rate else None,
        "guard_frames": int(header.attributes.get("split_guard_frames", 0)),
        "frames_after": None if after is None else int(after),
        "simulated": bool(header.attributes.get("simulated", False)),
    }


GRID_INDEX = CachedStep("grid_index", 4, make_index)


def _cell_voxels(path: Path, planes: int) -> np.ndarray:
    with reading(path) as file:
        if "cell_plane" not in file:
            return np.zeros(0, np.int64)
        row, column, plane = (file[f"cell_{axis}"][()].astype(np.int64) for axis in ("row", "column", "plane"))
    voxels: np.ndarray = (plane * PIXELS + row * WIDTH + column)[plane < planes]
    return voxels


@dataclass(frozen=True)
class SubjectGrids:
    """One subject's activity in memory: two bytes per active voxel.

    Attributes
    ----------
    subject, planes, fs_hz, guard_frames
        Name, Z, volume rate, and the frames around a test block that the file's own split leaves out.
    frames_after
        How many later frames of the recording the activity of one frame was inferred from; ``None`` where the file
        does not say.
    simulated
        Whether the file says that its activity is simulated.
    indptr, rank
        ``(time · plane + 1,)`` int64 where the entries of every plane-frame begin, and ``(entry,)`` uint16
        places of the active voxels among the occupied ones of their plane; without markers.
    voxels
        ``(voxel,)`` occupied voxels in increasing order: those with a cell, or with activity where the
        cells' places are not known. A *voxel index* is a voxel's place in this list.
    is_train, is_test, is_valid, timepoints
        ``(time,)``: the file's split, frames with inferred spikes, original frame numbers.
    """

    subject: str
    planes: int
    fs_hz: float | None
    indptr: np.ndarray
    rank: np.ndarray
    voxels: np.ndarray
    is_train: np.ndarray
    is_test: np.ndarray
    is_valid: np.ndarray
    timepoints: np.ndarray
    z_values: np.ndarray
    guard_frames: int = 0
    frames_after: int | None = None
    simulated: bool = False
    source: Path = field(default=Path())

    @property
    def frames(self) -> int:
        return len(self.timepoints)

    @cached_property
    def starts(self) -> np.ndarray:
        """``(plane,)`` int32 first voxel index of every plane."""
        return np.searchsorted(self.voxels, np.arange(self.planes) * PIXELS).astype(np.int32)

    @cached_property
    def places(self) -> np.ndarray:
        """``(voxel,)`` uint16 pixel of every occupied voxel in its plane."""
        return (self.voxels % PIXELS).astype(np.uint16)

    def voxel_index(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Active voxels of frames ``first`` to ``last`` (exclusive) by index, and how many each frame has."""
        pointer = self.indptr[first * self.planes : last * self.planes + 1]
        base = np.repeat(np.tile(self.starts, last - first), np.diff(pointer))
        return base + self.rank[pointer[0] : pointer[-1]], np.diff(pointer[:: self.planes])

    def raster(self, first: int, last: int) -> np.ndarray:
        """``(time, voxel)`` bool of a stretch of frames."""
        active = np.zeros((last - first, len(self.voxels)), bool)
        voxel, counts = self.voxel_index(first, last)
        active[np.repeat(np.arange(last - first), counts), voxel] = True
        return active

    def with_raster(self, active: np.ndarray, voxels: np.ndarray | None = None) -> "SubjectGrids":
        """The same subject with other activity, ``(time, voxel)`` bool over all frames, of other voxels if given."""
        voxels = self.voxels if voxels is None else voxels
        time, voxel = np.nonzero(active)
        plane = voxels[voxel] // PIXELS
        sizes = np.bincount(time * self.planes + plane, minlength=self.frames * self.planes)
        indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        starts = np.searchsorted(voxels, np.arange(self.planes) * PIXELS)
        return replace(self, indptr=indptr, rank=(voxel - starts[plane]).astype(np.uint16), voxels=voxels)


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
    found = {p.name: p / name for p in places for name in (DENSE_FILE, COO_FILE) if (p / name).is_file()}
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
            rank=np.load(folder / "rank.npy"),
            guard_frames=facts["guard_frames"],
            frames_after=facts["frames_after"],
            simulated=facts["simulated"],
            source=source,
            **{name: frames[name] for name in frames.files},
        )
