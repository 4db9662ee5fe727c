"""What a forecast has to beat: the mean rate, persistence, linear autoregression, all through one call.

The fourth, a linear model of the whole population, is in ``population.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.models.grids.networks import Entries, Forecast, entries

PSEUDO_FRAMES = (30.0, 100.0, 300.0, 1000.0, 1e5)
FLOORS = (0.02, 0.1, 0.3, 0.6, 0.9)
CEILING = 0.99


class Autoregression:
    """Linear forecast of a voxel from its own last frames: rate + Σ weight · (activity - rate).

    Probabilities are cut at a share of the mean rate and at 0.99. The mean rate is this forecast with zero
    weights, persistence with one weight on the last frame, shrunk by the pooled autocorrelation so that it
    has a likelihood.

    Parameters
    ----------
    rates, offsets
        Mean rate of every voxel, ``(voxel,)``, and where each subject begins.
    weights
        ``(voxel or 1, context, horizon)``; the first context frame first.
    """

    def __init__(self, rates: Tensor, offsets: list[int], weights: Tensor, floor: float = 0.02) -> None:
        self.rates, self.offsets, self.weights, self.floor = rates, offsets, weights, floor

    def cut_at(self, floor: float) -> Autoregression:
        """The same forecast, cut at another share of the mean rate."""
        return Autoregression(self.rates, self.offsets, self.weights, floor)

    def from_others(self, subject: int, windows: int, seen: Entries) -> Tensor | None:
        """``(window, voxel, horizon)`` that other voxels' past adds to the probabilities: nothing."""
        return None

    def __call__(self, batch: Any) -> list[Forecast]:
        """Log-odds of every subject of the batch, as a network gives them."""
        seen = entries(batch.slots, batch.counts)
        found = []
        for subject in batch.subject.unique().tolist():
            span = slice(self.offsets[subject], self.offsets[subject + 1])
            chosen = batch.subject == subject
            rows = chosen.nonzero()[:, 0]
            place = torch.full_like(batch.subject, -1)
            place[rows] = torch.arange(len(rows))
            mine = chosen[seen.window]
            rate = self.rates[span]
            own = self.weights[span] if len(self.weights) > 1 else self.weights.expand(len(rate), -1, -1)
            at = place[seen.window[mine]] * len(rate) + seen.slot[mine]
            added = torch.zeros(len(rows) * len(rate), own.shape[2])
            added.index_add_(0, at, own[seen.slot[mine], seen.frame[mine]])
            chance = added.view(len(rows), len(rate), -1) + (rate[:, None] - rate[:, None] * own.sum(1))
            others = self.from_others(
                subject, len(rows), Entries(place[seen.window[mine]], *(e[mine] for e in seen[1:]))
            )
            if others is not None:
                chance = chance + others
            chance = torch.maximum(chance, self.floor * rate[:, None]).clamp(1e-6, CEILING)
            found.append(Forecast(subject, rows, torch.logit(chance).transpose(1, 2)))
        return found


def make_baselines(statistics: Mapping[str, np.ndarray]) -> dict[str, Autoregression]:
    """The three baselines from the training statistics of :class:`~src.datamodules.grids.GridData`.

    The autoregression solves the Yule-Walker equations of every voxel for every horizon step. A voxel has
    too few spikes for as many weights as it has, so its covariances are joined with those of all voxels of
    its subject, counted as so many frames; how many is chosen on the validation frames' squared error.
    """
    context, horizon = int(statistics["context"]), int(statistics["horizon"])
    offsets = [int(o) for o in statistics["offsets"]]
    rates = torch.from_numpy(statistics["rates"])
    fitted, checked = statistics["autocovariance"].astype(np.float64)
    per_voxel, persistence = [], np.zeros((context, horizon))
    for first, last in itertools.pairwise(offsets):
        per_voxel.append(_weights(fitted[first:last], checked[first:last], context, horizon))
    pooled = fitted.sum(axis=0)
    persistence[-1] = np.clip(pooled[1 : horizon + 1] / max(pooled[0], 1e-12), 0, 0.98)
    zero = torch.zeros(1, context, horizon)
    return {
        "mean rate": Autoregression(rates, offsets, zero),
        "persistence": Autoregression(rates, offsets, torch.from_numpy(persistence).float()[None]),
        "autoregression": Autoregression(rates, offsets, torch.from_numpy(np.concatenate(per_voxel)).float()),
    }


def _weights(fitted: np.ndarray, checked: np.ndarray, context: int, horizon: int) -> np.ndarray:
    """``(voxel, context, horizon)``."""
    shared = fitted.mean(axis=0)
    best, least = np.zeros((len(fitted), context, horizon)), np.inf
    for frames in PSEUDO_FRAMES:
        joined = (1000 * fitted + frames * shared) / (1000 + frames)
        weights = np.linalg.solve(_toeplitz(joined, context), _ahead(joined, context, horizon))
        quadratic = np.einsum("vch,vcd,vdh->", weights, _toeplitz(checked, context), weights, optimize=True)
        error = quadratic - 2 * np.einsum("vch,vch->", weights, _ahead(checked, context, horizon))
        if error < least:
            best, least = weights, error
    return best


def _toeplitz(covariance: np.ndarray, context: int) -> np.ndarray:
    lag = np.abs(np.arange(context)[:, None] - np.arange(context))
    matrix: np.ndarray = covariance[:, lag] + np.eye(context) * 1e-9
    return matrix + np.eye(context) * (1e-3 * covariance[:, :1, None])


def _ahead(covariance: np.ndarray, context: int, horizon: int) -> np.ndarray:
    """Lag between context frame ``c`` and target frame ``h``: ``context - c + h``."""
    lag = context - np.arange(context)[:, None] + np.arange(horizon)
    ahead: np.ndarray = covariance[:, lag]
    return ahead
