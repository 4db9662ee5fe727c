"""Windows of sparse grids: index lists, as training and inference give them to a network, and images of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from src.preprocess.calcium.grid import HEIGHT, PIXELS, WIDTH, marker_mask
from src.preprocess.calcium.grid_index import SubjectGrids
from src.signals import BadInput


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


class GridImages:
    """Scatters the context of a batch to ``(window, frame, plane, row, column)`` float32.

    Parameters
    ----------
    subjects
        All subjects; the image has as many planes as the largest of them.
    coarsen
        Side of the square of pixels that is summed to one; 1 is the grid itself. Summing while scattering
        is what a first layer of sum pooling would do to the dense image, without making it.
    markers
        Whether the z-markers are put on; spikes under them disappear, as in the dense files.
    planes
        Planes of the image, where there are to be more than the largest subject has.
    """

    def __init__(
        self, subjects: Sequence[SubjectGrids], *, coarsen: int, markers: bool, planes: int | None = None
    ) -> None:
        if coarsen < 1 or HEIGHT % coarsen or WIDTH % coarsen:
            raise BadInput("coarsen", f"is {coarsen}", "give a power of two up to 128")
        self.coarsen, self.planes = coarsen, planes or max(s.planes for s in subjects)
        self.rows, self.columns = HEIGHT // coarsen, WIDTH // coarsen
        self.own_planes = [s.planes for s in subjects]
        self.mask = torch.from_numpy(marker_mask(self.planes).reshape(-1)) if markers else None
        self.cells = [self._cells(s) for s in subjects]
        self.buffer = torch.empty(0)
        self.written = torch.empty(0, dtype=torch.int64)

    def __call__(self, batch: WindowBatch) -> Tensor:
        """The image of a batch; it is valid until the next call."""
        windows, frames = batch.counts.shape
        device = batch.slots.device
        shape = (windows, frames, self.planes, self.rows, self.columns)
        size = windows * frames * self.planes * self.rows * self.columns
        if self.buffer.device != device or self.buffer.numel() < size:
            self.buffer = torch.zeros(size, device=device)
            self.cells = [c.to(device) for c in self.cells]
            self.mask = None if self.mask is None else self.mask.to(device)
        elif self.mask is None:
            self.buffer[self.written] = 0  # some thousand numbers, where the whole buffer has millions
        else:
            self.buffer.zero_()
        image = self.buffer[:size].view(windows * frames, -1)
        start = torch.arange(windows * frames, device=device) * image.shape[1]
        index = torch.repeat_interleave(start, batch.counts.reshape(-1))
        present = batch.subject.unique().tolist()
        if len(present) == 1:
            cell = self.cells[present[0]][batch.slots]
        else:
            owner = torch.repeat_interleave(batch.subject, batch.counts.sum(1))
            cell = torch.empty_like(index)
            for number in present:
                mine = owner == number
                cell[mine] = self.cells[number][batch.slots[mine]]
        index += cell
        if self.mask is not None:
            index = index[cell >= 0]
        if self.coarsen == 1:
            image.view(-1)[index] = 1.0
        else:
            image.view(-1).index_add_(0, index, torch.ones(len(index), device=device))
        self.written = index
        if self.mask is not None:
            self._mark(image.view(shape), batch.subject)
        return image.view(shape)

    def _cells(self, grids: SubjectGrids) -> Tensor:
        """``(slot,)`` place of every occupied voxel in a frame's image; -1 under a marker."""
        voxel = torch.from_numpy(grids.voxels)
        plane, pixel = torch.div(voxel, PIXELS, rounding_mode="floor"), voxel % PIXELS
        row = torch.div(pixel, WIDTH * self.coarsen, rounding_mode="floor")
        column = torch.div(pixel % WIDTH, self.coarsen, rounding_mode="floor")
        cell = (plane * self.rows + row) * self.columns + column
        return cell if self.mask is None else torch.where(self.mask[voxel], -1, cell)

    def _mark(self, image: Tensor, subject: Tensor) -> None:
        assert self.mask is not None
        side = self.coarsen
        blocks = self.mask.view(self.planes, self.rows, side, self.columns, side).float().sum((2, 4))
        for window, number in enumerate(subject.tolist()):
            own = self.own_planes[number]
            image[window, :, :own] += blocks[:own]
