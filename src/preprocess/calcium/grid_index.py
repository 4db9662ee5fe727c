"""Grids as training reads them: lists of active voxels in memory, from a file of either kind."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.calcium.grid import PIXELS, WIDTH
from src.preprocess.calcium.grid_store import COO_FILE, DENSE_FILE, METADATA_FILE, open_grids
from src.signals import BadInput
from src.storage.hdf5 import reading

GRID_INDEX: dict[str, Any] = {"step": "grid_index", "version": 4, "params": {}, "seed": None}
"""What a grid file goes through before a network; travels in the bundle. Raise the version when the voxels change."""


@dataclass(frozen=True)
class SubjectGrids:
    """One subject's activity in memory: two bytes per active voxel, four where more than 65 536 are occupied.

    Attributes
    ----------
    subject, planes, fs_hz, guard_frames
        Name, Z, volume rate, and the frames around a test block that the file's own split leaves out.
    frames_after
        How many later frames of the recording the activity of one frame was inferred from; ``None`` where the file
        does not say.
    simulated
        Whether the file says that its activity is simulated.
    voxels
        ``(voxel,)`` occupied voxels in increasing order: those with a cell, or with activity where the
        cells' places are not known. A *voxel index* is a voxel's place in this list.
    indptr, voxel_index
        ``(time · plane + 1,)`` int64 where the entries of every plane-frame begin, and ``(entry,)`` the voxel index
        of every active voxel; without markers.
    is_train, is_test, is_valid, timepoints
        ``(time,)``: the file's split, frames with inferred spikes, original frame numbers.
    """

    subject: str
    planes: int
    fs_hz: float | None
    voxels: np.ndarray
    indptr: np.ndarray
    voxel_index: np.ndarray
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
    def pixels(self) -> np.ndarray:
        """``(voxel,)`` uint16 pixel of every occupied voxel in its plane."""
        return (self.voxels % PIXELS).astype(np.uint16)

    def entries(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Voxel indices of frames ``first`` to ``last`` (exclusive), and how many each frame has."""
        pointer = self.indptr[first * self.planes : last * self.planes + 1 : self.planes]
        return self.voxel_index[pointer[0] : pointer[-1]], np.diff(pointer)

    def raster(self, first: int, last: int) -> np.ndarray:
        """``(time, voxel)`` bool of a stretch of frames."""
        active = np.zeros((last - first, len(self.voxels)), bool)
        voxel_index, counts = self.entries(first, last)
        active[np.repeat(np.arange(last - first), counts), voxel_index] = True
        return active

    def with_raster(self, active: np.ndarray, voxels: np.ndarray | None = None) -> "SubjectGrids":
        """The same subject with other activity, ``(time, voxel)`` bool over all frames, of other voxels if given."""
        voxels = self.voxels if voxels is None else voxels
        time, voxel_index = np.nonzero(active)
        plane_frame = time * self.planes + voxels[voxel_index] // PIXELS
        indptr = np.searchsorted(plane_frame, np.arange(self.frames * self.planes + 1))
        return replace(self, voxels=voxels, indptr=indptr, voxel_index=_smallest(voxel_index, voxels))


def _smallest(voxel_index: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    return voxel_index.astype(np.uint16 if len(voxels) <= 1 << 16 else np.int32)


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


def read_grids(path: Path, subject: str) -> SubjectGrids:
    """The grids of one file, z-markers taken off; ``subject`` names one whose file does not.

    A file without ``indptr`` and ``pixel``, with duplicates, or dense is put in order here.
    """
    grids = open_grids(path)
    indptr, pixel = grids.index(markers=False)
    planes, header = grids.shape[1], grids.header
    plane = np.tile(np.arange(planes, dtype=np.int32), grids.shape[0])
    voxel = np.repeat(plane * PIXELS, np.diff(indptr)) + pixel
    occupied = np.zeros(planes * PIXELS, bool)
    occupied[voxel] = True
    occupied[_cell_voxels(path.parent / METADATA_FILE, planes)] = True
    voxels = np.flatnonzero(occupied)
    stated = header.attributes.get
    frames_after = stated("frames_after")
    return SubjectGrids(
        subject=str(stated("subject") or subject),
        planes=planes,
        fs_hz=float(stated("sampling_rate", 0)) or None,
        voxels=voxels,
        indptr=indptr,
        voxel_index=_smallest(np.cumsum(occupied) - 1, voxels)[voxel],
        is_train=header.is_train.astype(bool),
        is_test=header.is_test.astype(bool),
        is_valid=header.is_valid.astype(bool),
        timepoints=header.timepoints.astype(np.int64),
        z_values=header.z_values,
        guard_frames=int(stated("split_guard_frames", 0)),
        frames_after=None if frames_after is None else int(frames_after),
        simulated=bool(stated("simulated", False)),
        source=path,
    )


def _cell_voxels(path: Path, planes: int) -> np.ndarray:
    """Voxels of the cells that ``metadata.h5`` lists; none where it is absent or does not say."""
    if not path.is_file():
        return np.zeros(0, np.int64)
    with reading(path) as file:
        if "cell_plane" not in file:
            return np.zeros(0, np.int64)
        row, column, plane = (file[f"cell_{axis}"][()].astype(np.int64) for axis in ("row", "column", "plane"))
    voxels: np.ndarray = (plane * PIXELS + row * WIDTH + column)[plane < planes]
    return voxels
