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
        self.voxels = [torch.from_numpy(s.voxels) for s in subjects]
        self.own_planes = [s.planes for s in subjects]
        self.mask = torch.from_numpy(marker_mask(self.planes).reshape(-1)) if markers else None
        self.buffer = torch.empty(0)

    def __call__(self, batch: WindowBatch) -> Tensor:
        """The image of a batch; it is valid until the next call."""
        windows, frames = batch.counts.shape
        device = batch.slots.device
        shape = (windows, frames, self.planes, self.rows, self.columns)
        size = windows * frames * self.planes * self.rows * self.columns
        if self.buffer.device != device or self.buffer.numel() < size:
            self.buffer = torch.empty(size, device=device)
            self.voxels = [v.to(device) for v in self.voxels]
            self.mask = None if self.mask is None else self.mask.to(device)
        image = self.buffer[:size].zero_().view(windows * frames, -1)
        frame = torch.repeat_interleave(torch.arange(windows * frames, device=device), batch.counts.reshape(-1))
        owner = batch.subject[torch.div(frame, frames, rounding_mode="floor")]
        for number in batch.subject.unique().tolist():
            mine = owner == number
            self._scatter(image, frame[mine], self.voxels[number][batch.slots[mine].long()])
        if self.mask is not None:
            self._mark(image.view(shape), batch.subject)
        return image.view(shape)

    def _scatter(self, image: Tensor, frame: Tensor, voxel: Tensor) -> None:
        if self.mask is not None:
            shown = ~self.mask[voxel]
            frame, voxel = frame[shown], voxel[shown]
        plane, pixel = torch.div(voxel, PIXELS, rounding_mode="floor"), voxel % PIXELS
        row = torch.div(pixel, WIDTH * self.coarsen, rounding_mode="floor")
        column = torch.div(pixel % WIDTH, self.coarsen, rounding_mode="floor")
        index = (plane * self.rows + row) * self.columns + column
        ones = torch.ones(len(index), device=image.device)
        image.view(-1).index_add_(0, frame * image.shape[1] + index, ones)

    def _mark(self, image: Tensor, subject: Tensor) -> None:
        assert self.mask is not None
        side = self.coarsen
        blocks = self.mask.view(self.planes, self.rows, side, self.columns, side).float().sum((2, 4))
        for window, number in enumerate(subject.tolist()):
            own = self.own_planes[number]
            image[window, :, :own] += blocks[:own]
