"""Windows of sparse grids as index lists, the one form in which training and inference hand them to a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.preprocess.calcium.grid import HEIGHT, PIXELS, WIDTH
from src.preprocess.calcium.grid_index import SubjectGrids


class WindowBatch(NamedTuple):
    """Windows of one or many subjects; nothing dense.

    Attributes
    ----------
    subject, first
        ``(window,)`` int64: number of the subject, first frame of the context.
    slots, counts
        Active slots of the context, window by window and frame by frame, int32; ``(window, frame)`` int64
        how many each frame has.
    target_slots, target_counts
        The same of the frames to forecast.
    image
        The context as an image, where the network asks for one; filled on the device.
    """

    subject: Tensor
    first: Tensor
    slots: Tensor
    counts: Tensor
    target_slots: Tensor
    target_counts: Tensor
    image: Tensor | None = None


def window_batch(subjects: Sequence[SubjectGrids], windows: np.ndarray, context: int, horizon: int) -> WindowBatch:
    """The batch of ``windows`` ``(window, 2)``: number of the subject, first frame of the context.

    Frames beyond the end of a recording, which a forecast may reach, have no entries.
    """
    where = torch.from_numpy(np.ascontiguousarray(windows))
    seen = _entries(subjects, windows, 0, context)
    return WindowBatch(where[:, 0], where[:, 1], *seen, *_entries(subjects, windows, context, context + horizon))


def _entries(subjects: Sequence[SubjectGrids], windows: np.ndarray, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Slots and counts of frames ``start`` to ``stop`` of every window; what is repeated is repeated once for all."""
    ranks, bases, sizes = [np.zeros(0, np.uint16)], [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
    counts = np.zeros((len(windows), stop - start), np.int64)
    tiled = {int(n): np.tile(subjects[n].starts, stop - start) for n in np.unique(windows[:, 0])}
    for place, (number, first) in enumerate(windows.tolist()):
        grids = subjects[number]
        last = min(first + stop, grids.frames)
        if last <= first + start:
            continue
        pointer = grids.indptr[(first + start) * grids.planes : last * grids.planes + 1]
        ranks.append(grids.rank[pointer[0] : pointer[-1]])
        sizes.append(np.diff(pointer))
        bases.append(tiled[number][: len(pointer) - 1])
        counts[place, : last - first - start] = np.diff(pointer[:: grids.planes])
    slots = np.repeat(np.concatenate(bases), np.concatenate(sizes))
    slots += np.concatenate(ranks)
    return torch.from_numpy(slots), torch.from_numpy(counts)


def as_sparse(batch: WindowBatch, subjects: Sequence[SubjectGrids]) -> Tensor:
    """The context as a coalesced sparse tensor ``(window, frame, plane, 256, 128)`` uint8, checked.

    Subjects with fewer planes than the largest one have nothing on the planes they lack.

    Raises
    ------
    ValueError
        If an entry occurs twice; ``coalesce`` would have summed it to 2.
    """
    windows, frames = batch.counts.shape
    planes = max(s.planes for s in subjects)
    frame = torch.repeat_interleave(torch.arange(windows * frames), batch.counts.reshape(-1))
    voxel = torch.empty(len(batch.slots), dtype=torch.int64)
    owner = batch.subject[frame // frames]
    for number in batch.subject.unique().tolist():
        mine = owner == number
        voxel[mine] = torch.from_numpy(subjects[number].voxels)[batch.slots[mine].long()]
    pixel = voxel % PIXELS
    index = torch.stack([frame // frames, frame % frames, voxel // PIXELS, pixel // WIDTH, pixel % WIDTH])
    shape = (windows, frames, planes, HEIGHT, WIDTH)
    ones = torch.ones(len(voxel), dtype=torch.uint8)
    sparse = torch.sparse_coo_tensor(index, ones, shape, check_invariants=True).coalesce()
    if len(sparse.values()) != len(voxel):
        raise ValueError("a voxel is listed twice in one frame")
    return sparse
