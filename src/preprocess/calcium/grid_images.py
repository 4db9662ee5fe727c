"""Index lists to images on the device, into one buffer that every batch reuses."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from src.preprocess.calcium.grid import HEIGHT, PIXELS, WIDTH, marker_mask
from src.preprocess.calcium.grid_index import SubjectGrids
from src.preprocess.calcium.grid_windows import WindowBatch
from src.signals import BadInput


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
