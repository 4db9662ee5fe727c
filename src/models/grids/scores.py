"""Scores of a forecast per horizon step, from counts that add up over batches and processes."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric

LOWEST, HIGHEST, BINS = -12.0, 6.0, 3600
"""Log-odds are counted in bins of 0.005: ties inside a bin are one threshold."""


class ForecastScores(Metric):
    """Counts of active and silent voxels by log-odds, log-likelihoods and errors, per horizon step."""

    full_state_update = False
    counts: Tensor
    gain: Tensor
    errors: Tensor

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.add_state("counts", torch.zeros(horizon, 2, BINS, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("gain", torch.zeros(horizon, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("errors", torch.zeros(3, horizon, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, base: Tensor, truth: Tensor, last: Tensor) -> None:
        """Count one subject's windows.

        Parameters
        ----------
        logits, truth
            ``(window, horizon, voxel)`` log-odds, and bool activity.
        base
            ``(voxel,)`` log-odds of the mean rate.
        last
            ``(window, voxel)`` bool activity of the last context frame.
        """
        logits = logits.float()
        place = ((logits - LOWEST) * (BINS / (HIGHEST - LOWEST))).long().clamp_(0, BINS - 1)
        step = torch.arange(self.horizon, device=logits.device)[:, None]
        cell = ((step * 2 + truth.long()) * BINS + place).reshape(-1)
        counted = torch.bincount(cell, minlength=self.horizon * 2 * BINS)
        self.counts += counted.view(self.horizon, 2, BINS)
        gain = log_likelihood(logits, truth) - log_likelihood(base.float().expand_as(logits), truth)
        self.gain += gain.sum((0, 2), dtype=torch.float64)
        chance = torch.sigmoid(logits)
        error = torch.where(truth, 1 - chance, chance)
        copied = (truth != last[:, None]).sum((0, 2), dtype=torch.float64)
        self.errors += torch.stack([*(e.sum((0, 2), dtype=torch.float64) for e in (error, error**2)), copied])

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.counts.clone(), self.gain.clone(), self.errors.clone()

    def bits_per_spike(self) -> np.ndarray:
        """``(horizon,)`` log-likelihood gained over the mean rate, in bits per active voxel."""
        counts, gain, _ = self.compute()
        spikes = counts[:, 1].sum(1).clamp_min(1)
        values: np.ndarray = (gain / spikes / math.log(2)).cpu().numpy()
        return values

    def average_precision(self) -> np.ndarray:
        """``(horizon,)`` area under the precision-recall curve, as a sum over thresholds."""
        # From the highest threshold down: voxels above it that are silent, and active.
        silent, active = (part.flip(1).cumsum(1).cpu().numpy() for part in self.compute()[0].unbind(1))
        precision = active / np.maximum(active + silent, 1)
        recall = active / np.maximum(active[:, -1:], 1)
        values: np.ndarray = (precision * np.diff(recall, axis=1, prepend=0)).sum(axis=1)
        return values

    def field_scores(self) -> dict[str, np.ndarray]:
        """Mean absolute error of the probability and gain over copying the last context frame, ``(horizon,)`` each.

        The gain is 1 − E / E(copy) of the absolute (``mae_over_copy``) and of the squared error (``mse_over_copy``).
        A copy is wrong by 0 or 1, so both its errors are the share of voxels that it misses. The absolute error of a
        rare event is least at probability 0 and says little of a forecast; the squared error is proper.
        """
        counts, _, errors = self.compute()
        mae, mse, copy = (errors / counts.sum((1, 2)).clamp_min(1)).cpu().numpy()
        copy = np.maximum(copy, 1e-12)
        return {"mae": mae, "mae_over_copy": 1 - mae / copy, "mse_over_copy": 1 - mse / copy}

    def f1(self, threshold: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """``(horizon,)`` F1 and log-odds thresholds: those given, or else the best ones."""
        silent, active = (part.flip(1).cumsum(1).cpu().numpy() for part in self.compute()[0].unbind(1))
        # F1 = 2·hits / (reported + existing).
        curve = 2 * active / np.maximum(active + silent + active[:, -1:], 1)
        step = (HIGHEST - LOWEST) / BINS
        if threshold is None:
            at = curve.argmax(axis=1)
        else:
            at = BINS - 1 - np.clip(np.round((threshold - LOWEST) / step), 0, BINS - 1).astype(int)
        return curve[np.arange(self.horizon), at], LOWEST + (BINS - 1 - at) * step


def log_likelihood(logits: Tensor, truth: Tensor) -> Tensor:
    """Natural log-likelihood of every voxel's activity under its log-odds."""
    return -functional.softplus(torch.where(truth, -logits, logits))


def row(scores: ForecastScores, threshold: np.ndarray) -> dict[str, Any]:
    """Plain scores, each a list over the horizon."""
    f1, _ = scores.f1(threshold)
    precision, bits = scores.average_precision(), scores.bits_per_spike()
    found = {"bits": bits, "average_precision": precision, "f1": f1, **scores.field_scores()}
    return {name: values.tolist() for name, values in found.items()}
