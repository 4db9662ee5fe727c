"""Datasets of sparse grids: windows to forecast from, and the original's sequences of plane-frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from src.preprocess.calcium.grid import HEIGHT, PIXELS, WIDTH
from src.preprocess.calcium.grid_index import SubjectGrids
from src.preprocess.calcium.grid_windows import WindowBatch, WindowFrames, as_dense, as_sparse, window_batch

LAYOUTS = ("indices", "sparse_coo", "dense")
"""How a batch may hold the frames that are seen."""


class GridWindows(Dataset[WindowBatch]):
    """All windows inside the stretches of one part. A DataLoader needs ``collate_fn=as_is``: batches are made here.

    Parameters
    ----------
    subjects, stretches
        The subjects, and of each its usable stretches.
    frames
        Frames that are seen, passed over and forecast.
    stride
        Frames between the beginnings of two windows.

    Attributes
    ----------
    layout
        One of :data:`LAYOUTS`. But for ``indices`` a batch has ``image`` in place of ``voxel_index`` and ``counts``.
    recordings
        Names of the subjects, in the order in which batches count them.
    statistics
        Gives what was fitted on the training frames; the datamodule fills it in.
    """

    def __init__(
        self,
        subjects: Sequence[SubjectGrids],
        stretches: Sequence[Sequence[range]],
        frames: WindowFrames,
        stride: int = 1,
    ) -> None:
        self.subjects, self.frames = list(subjects), frames
        self.layout = LAYOUTS[0]
        self.recordings = [grids.subject for grids in subjects]
        self.statistics: Callable[[], Mapping[str, np.ndarray]] = dict
        pairs = [
            (number, first)
            for number, runs in enumerate(stretches)
            for run in runs
            for first in range(run.start, run.stop - frames.length + 1, stride)
        ]
        self.windows = np.array(pairs, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> WindowBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> WindowBatch:
        batch = window_batch(self.subjects, self.windows[indices], self.frames)
        if self.layout == "indices":
            return batch
        image = (as_dense if self.layout == "dense" else as_sparse)(batch, self.subjects)
        return batch._replace(voxel_index=batch.voxel_index[:0], counts=batch.counts[:0], image=image)


class PlaneSequences(Dataset[tuple[Tensor, Tensor]]):
    """The original's examples: ``length`` plane-frames in a row, time-major and z-minor, of one stretch.

    An example is ``(pixel, counts)``: int32 pixel numbers, plane-frame by plane-frame, and how many each has. It
    is made from one slice of the subject's arrays. :meth:`dense` is its image stack.
    """

    def __init__(
        self,
        subjects: Sequence[SubjectGrids],
        stretches: Sequence[Sequence[range]],
        *,
        length: int = 330,
        stride: int = 330,
    ) -> None:
        self.subjects, self.length = list(subjects), length
        pairs = [
            (number, first)
            for number, (subject, runs) in enumerate(zip(subjects, stretches, strict=True))
            for run in runs
            for first in range(run.start * subject.planes, run.stop * subject.planes - length + 1, stride)
        ]
        self.sequences = np.array(pairs, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixel, sizes = self._pixels(index)
        return torch.from_numpy(pixel.astype(np.int32)), torch.from_numpy(sizes)

    def dense(self, index: int, *, markers: bool, out: Tensor | None = None) -> Tensor:
        """``(plane-frame, 256, 128)`` uint8; ``out`` is filled and returned where given."""
        pixel, sizes = self._pixels(index)
        out = torch.empty(self.length, HEIGHT, WIDTH, dtype=torch.uint8) if out is None else out
        image = out.numpy().reshape(-1)
        image.fill(0)
        image[np.repeat(np.arange(self.length) * PIXELS, sizes) + pixel] = 1
        if markers:
            number, first = self.sequences[index]
            for place in range(self.length):
                plane = int(first + place) % self.subjects[number].planes
                out[place, :2, WIDTH - min(plane + 2, WIDTH) :] = 1
        return out

    def _pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        number, first = self.sequences[index]
        subject = self.subjects[number]
        pointer = subject.indptr[first : first + self.length + 1]
        sizes = np.diff(pointer)
        base = np.resize(np.roll(subject.starts, -int(first % subject.planes)), self.length)
        return subject.places[np.repeat(base, sizes) + subject.rank[pointer[0] : pointer[-1]]], sizes
