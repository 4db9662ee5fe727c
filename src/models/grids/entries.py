"""Active voxels of a batch as index lists, whatever layout the batch came in, and a forecast's form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from src.preprocess.calcium.grid import HEIGHT, WIDTH


class Forecast(NamedTuple):
    """Forecast of one subject's windows: ``logits (window, horizon, voxel)``, ``rows`` their places in the batch."""

    subject: int
    rows: Tensor
    logits: Tensor


class Entries(NamedTuple):
    """Active voxels of some windows, one row each: place in the batch, frame, number among the occupied voxels."""

    window: Tensor
    frame: Tensor
    voxel_index: Tensor


def entries(indices: Tensor, counts: Tensor) -> Entries:
    """Index lists with the window and frame of every entry written out; ``counts (window, frame)``."""
    windows, frames = counts.shape
    flat = torch.repeat_interleave(torch.arange(windows * frames, device=indices.device), counts.reshape(-1))
    window = torch.div(flat, max(frames, 1), rounding_mode="floor")
    return Entries(window, flat - window * frames, indices.long())


def of_subject(found: Entries, subject: Tensor, number: int) -> tuple[Tensor, Entries]:
    """Rows of the batch that show subject ``number``, and the entries of these windows, numbered from 0."""
    rows = (subject == number).nonzero()[:, 0]
    place = torch.full_like(subject, -1)
    place[rows] = torch.arange(len(rows), device=rows.device)
    window = place[found.window]
    mine = window >= 0
    return rows, Entries(window[mine], found.frame[mine], found.voxel_index[mine])


def index_lists(batch: Any, voxels: Tensor, offsets: Sequence[int]) -> Any:
    """The batch with index lists of its context, made of the sparse or dense tensor where it has none.

    Parameters
    ----------
    voxels, offsets
        ``(voxel,)`` places of the occupied voxels of all subjects, ascending for each, and where each subject begins.
        What is active elsewhere, such as a z-marker, is left out.
    """
    if batch.image is None:
        return batch
    image = batch.image
    where = image.coalesce().indices() if image.is_sparse else image.nonzero().T
    window, frame, plane, row, column = where
    place = (plane * HEIGHT + row) * WIDTH + column
    windows, frames = image.shape[:2]
    index, known = torch.zeros_like(place), torch.zeros_like(place, dtype=torch.bool)
    for number in batch.subject.unique().tolist():
        own = voxels[offsets[number] : offsets[number + 1]]
        mine = batch.subject[window] == number
        at = torch.searchsorted(own, place[mine]).clamp_max(len(own) - 1)
        index[mine], known[mine] = at, own[at] == place[mine]
    counts = torch.bincount((window * frames + frame)[known], minlength=windows * frames)
    return batch._replace(voxel_index=index[known], counts=counts.view(windows, frames), image=None)
