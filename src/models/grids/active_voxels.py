"""Active voxels of a batch as index lists, whatever layout the batch came in; a forecast, and its loss."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from src.preprocess.calcium.grid import HEIGHT, WIDTH


class Forecast(NamedTuple):
    """Forecast of one subject's windows: ``logits (window, horizon, voxel)``, ``rows`` their places in the batch."""

    subject: int
    rows: Tensor
    logits: Tensor


class ActiveVoxels(NamedTuple):
    """Active voxels of some windows, one row each: place in the batch, frame, number among the occupied voxels."""

    window: Tensor
    frame: Tensor
    voxel_index: Tensor


def active_voxels(indices: Tensor, counts: Tensor) -> ActiveVoxels:
    """Index lists with the window and frame of every entry written out; ``counts (window, frame)``."""
    windows, frames = counts.shape
    flat = torch.repeat_interleave(torch.arange(windows * frames, device=indices.device), counts.reshape(-1))
    window = torch.div(flat, max(frames, 1), rounding_mode="floor")
    return ActiveVoxels(window, flat - window * frames, indices.long())


def of_subject(found: ActiveVoxels, subject: Tensor, number: int) -> tuple[Tensor, ActiveVoxels]:
    """Rows of the batch that show subject ``number``, and the active voxels of these windows, numbered from 0."""
    rows = (subject == number).nonzero()[:, 0]
    place = torch.full_like(subject, -1)
    place[rows] = torch.arange(len(rows), device=rows.device)
    window = place[found.window]
    mine = window >= 0
    return rows, ActiveVoxels(window[mine], found.frame[mine], found.voxel_index[mine])


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


def future(forecast: Forecast, batch: Any) -> ActiveVoxels:
    """The voxels that were active in the forecast frames of a subject's windows."""
    return of_subject(active_voxels(batch.target_voxel_index, batch.target_counts), batch.subject, forecast.subject)[1]


def true_activity(forecast: Forecast, batch: Any) -> Tensor:
    """``(window, horizon, voxel)`` bool: what happened."""
    truth = torch.zeros_like(forecast.logits, dtype=torch.bool)
    truth[future(forecast, batch)] = True
    return truth


def last_activity(forecast: Forecast, batch: Any) -> Tensor:
    """``(window, voxel)`` bool: the last context frame of a subject's windows, from a batch of index lists."""
    last = torch.zeros_like(forecast.logits[:, 0], dtype=torch.bool)
    seen = of_subject(active_voxels(batch.voxel_index, batch.counts), batch.subject, forecast.subject)[1]
    shown = seen.frame == batch.counts.shape[1] - 1
    last[seen.window[shown], seen.voxel_index[shown]] = True
    return last


def sparse_loss(forecasts: Sequence[Forecast], batch: Any) -> tuple[Tensor, int]:
    """Negative log-likelihood of a batch, summed over all occupied voxels, and how many these are.

    A voxel is active with probability σ(logit). The sum runs over all voxels as if they were silent, plus what the
    active ones change, so that no dense target is made: softplus(x) − x = −log σ(x).
    """
    total, count = torch.zeros((), device=batch.subject.device), 0
    for forecast in forecasts:
        logits = forecast.logits.float()
        total = total + functional.softplus(logits).sum() - logits[future(forecast, batch)].sum()
        count += logits.numel()
    return total, count
