"""Losses over occupied voxels that never make a dense target: sums over all voxels plus a few picked entries."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from src.models.grids.networks import Forecast, entries

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
    target = entries(batch.target_slots, batch.target_counts)
    total, count = torch.zeros((), device=batch.slots.device), 0
    for forecast in forecasts:
        logits = forecast.logits.float()
        active = pick(logits, forecast, batch, target)
        if kind == "poisson":
            total = total + logits.clamp_max(10).exp().sum() - active.sum()
        else:
            shift = math.log(positive_weight)
            silent = functional.softplus(logits + shift).sum() - functional.softplus(active + shift).sum()
            total = total + silent + positive_weight * functional.softplus(-active - shift).sum()
        count += logits.numel()
    return total, count


def pick(logits: Tensor, forecast: Forecast, batch: Any, target: Any) -> Tensor:
    """Logits of the voxels that were active."""
    place = torch.full_like(batch.subject, -1)
    place[forecast.rows] = torch.arange(len(forecast.rows), device=place.device)
    window = place[target.window]
    mine = window >= 0
    picked: Tensor = logits[window[mine], target.frame[mine], target.slot[mine]]
    return picked


def true_activity(forecast: Forecast, batch: Any) -> Tensor:
    """``(window, horizon, slot)`` bool: what happened."""
    target = entries(batch.target_slots, batch.target_counts)
    truth = torch.zeros_like(forecast.logits, dtype=torch.bool)
    place = torch.full_like(batch.subject, -1)
    place[forecast.rows] = torch.arange(len(forecast.rows), device=place.device)
    window = place[target.window]
    mine = window >= 0
    truth[window[mine], target.frame[mine], target.slot[mine]] = True
    return truth


def as_log_odds(logits: Tensor, kind: str) -> Tensor:
    """The network's output as log-odds of activity; a Poisson network's expectation is its probability.

    Activity is 0 or 1, so the expectation that minimises the Poisson loss is the probability of 1.
    """
    return logits if kind == "bernoulli" else torch.logit(logits.exp().clamp(1e-6, CEILING))
