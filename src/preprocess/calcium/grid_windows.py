"""Windows of sparse grids: index lists, as training and inference give them to a network, and images of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.preprocess.calcium.grid import HEIGHT, PIXELS, WIDTH
from src.preprocess.calcium.grid_index import SubjectGrids


class WindowFrames(NamedTuple):
    """Frames of a window: ``context`` frames are seen, ``gap`` are passed over, ``horizon`` are to be forecast."""

    context: int
    gap: int
    horizon: int

    @property
    def target(self) -> int:
        """First frame to forecast, counted from the first context frame."""
        return self.context + self.gap

    @property
    def length(self) -> int:
        return self.context + self.gap + self.horizon


class WindowBatch(NamedTuple):
    """Windows of one or many subjects; nothing dense.

    Attributes
    ----------
    subject, first
        ``(window,)`` int64: number of the subject, first frame of the context.
    voxel_index, counts
        Active voxels of the context by index, window by window and frame by frame, int32; ``(window, frame)`` int64
        how many each frame has.
    target_voxel_index, target_counts
        The same of the frames to forecast.
    image
        The context as a sparse or dense tensor (:func:`as_sparse`, :func:`as_dense`) in place of ``voxel_index`` and
        ``counts``, which are then empty.
    """

    subject: Tensor
    first: Tensor
    voxel_index: Tensor
    counts: Tensor
    target_voxel_index: Tensor
    target_counts: Tensor
    image: Tensor | None = None


def window_batch(subjects: Sequence[SubjectGrids], windows: np.ndarray, frames: WindowFrames) -> WindowBatch:
    """The batch of ``windows`` ``(window, 2)``: number of the subject, first frame of the context.

    Frames beyond the end of a recording, which a forecast may reach, have no entries.
    """
    where = torch.from_numpy(np.ascontiguousarray(windows))
    seen = _entries(subjects, windows, 0, frames.context)
    return WindowBatch(where[:, 0], where[:, 1], *seen, *_entries(subjects, windows, frames.target, frames.length))


def _entries(subjects: Sequence[SubjectGrids], windows: np.ndarray, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Voxel indices and counts of frames ``start`` to ``stop`` of every window."""
    parts, counts = [np.zeros(0, np.int32)], np.zeros((len(windows), stop - start), np.int64)
    for place, (number, first) in enumerate(windows.tolist()):
        grids = subjects[number]
        found, sizes = grids.entries(*(min(first + frame, grids.frames) for frame in (start, stop)))
        parts.append(found)
        counts[place, : len(sizes)] = sizes
    return torch.from_numpy(np.concatenate(parts, dtype=np.int32)), torch.from_numpy(counts)


def as_sparse(batch: WindowBatch, subjects: Sequence[SubjectGrids]) -> Tensor:
    """The context as a coalesced sparse tensor ``(window, frame, plane, 256, 128)`` uint8, checked.

    Subjects with fewer planes than the largest one have nothing on the planes they lack.

    Raises
    ------
    ValueError
        If an entry occurs twice; ``coalesce`` would have summed it to 2.
    """
    frames = batch.counts.shape[1]
    frame, voxel = _active(batch, subjects)
    pixel = voxel % PIXELS
    index = torch.stack([frame // frames, frame % frames, voxel // PIXELS, pixel // WIDTH, pixel % WIDTH])
    ones = torch.ones(len(voxel), dtype=torch.uint8)
    sparse = torch.sparse_coo_tensor(index, ones, _shape(batch, subjects), check_invariants=True).coalesce()
    if len(sparse.values()) != len(voxel):
        raise ValueError("a voxel is listed twice in one frame")
    return sparse


def as_dense(batch: WindowBatch, subjects: Sequence[SubjectGrids]) -> Tensor:
    """The context as an image ``(window, frame, plane, 256, 128)`` uint8, 0 or 1."""
    shape = _shape(batch, subjects)
    image = torch.zeros(shape, dtype=torch.uint8)
    frame, voxel = _active(batch, subjects)
    image.view(-1)[frame * (shape[2] * PIXELS) + voxel] = 1
    return image


def _shape(batch: WindowBatch, subjects: Sequence[SubjectGrids]) -> tuple[int, ...]:
    return (*batch.counts.shape, max(s.planes for s in subjects), HEIGHT, WIDTH)


def _active(batch: WindowBatch, subjects: Sequence[SubjectGrids]) -> tuple[Tensor, Tensor]:
    """``(entry,)`` each: frame, counted through all windows, and voxel."""
    windows, frames = batch.counts.shape
    frame = torch.repeat_interleave(torch.arange(windows * frames), batch.counts.reshape(-1))
    voxel = torch.empty(len(batch.voxel_index), dtype=torch.int64)
    owner = batch.subject[frame // frames]
    for number in batch.subject.unique().tolist():
        mine = owner == number
        voxel[mine] = torch.from_numpy(subjects[number].voxels)[batch.voxel_index[mine].long()]
    return frame, voxel
