"""Losses over occupied voxels that never make a dense target: sums over all voxels plus a few picked entries."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from src.models.grids.entries import Entries, Forecast, entries, of_subject

LOSSES = ("bernoulli", "poisson")
CEILING = 1 - 1e-4


def sparse_loss(forecasts: list[Forecast], batch: Any, *, kind: str, positive_weight: float) -> tuple[Tensor, int]:
    """Summed loss of a batch and the number of voxels it is a sum over.

    Parameters
    ----------
    kind
        ``bernoulli``: a voxel is active with probability σ(logit). ``poisson``: exp(logit) events are expected.
    positive_weight
        How much more an active voxel counts than a silent one (``bernoulli``). The network's logits stay those
        of the unweighted probability: the weighted loss is given ``logit + log(weight)``, whose minimum is there.
    """
    total, count = torch.zeros((), device=batch.subject.device), 0
    for forecast in forecasts:
        logits = forecast.logits.float()
        active = logits[future(forecast, batch)]
        if kind == "poisson":
            total = total + logits.clamp_max(10).exp().sum() - active.sum()
        else:
            shift = math.log(positive_weight)
            silent = functional.softplus(logits + shift).sum() - functional.softplus(active + shift).sum()
            total = total + silent + positive_weight * functional.softplus(-active - shift).sum()
        count += logits.numel()
    return total, count


def future(forecast: Forecast, batch: Any) -> Entries:
    """The voxels that were active in the forecast frames of a subject's windows."""
    return of_subject(entries(batch.target_voxel_index, batch.target_counts), batch.subject, forecast.subject)[1]


def true_activity(forecast: Forecast, batch: Any) -> Tensor:
    """``(window, horizon, voxel)`` bool: what happened."""
    truth = torch.zeros_like(forecast.logits, dtype=torch.bool)
    truth[future(forecast, batch)] = True
    return truth


def as_log_odds(logits: Tensor, kind: str) -> Tensor:
    """The network's output as log-odds of activity; a Poisson network's expectation is its probability.

    Activity is 0 or 1, so the expectation that minimises the Poisson loss is the probability of 1.
    """
    return logits if kind == "bernoulli" else torch.logit(logits.exp().clamp(1e-6, CEILING))
