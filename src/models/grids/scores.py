"""Scores of a forecast per horizon step, from counts that add up over batches and processes."""

from __future__ import annotations

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
    """Counts of active and silent voxels by log-odds, and log-likelihoods, per horizon step."""

    full_state_update = False
    counts: Tensor
    gain: Tensor

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.add_state("counts", torch.zeros(horizon, 2, BINS, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("gain", torch.zeros(horizon, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, base: Tensor, truth: Tensor) -> None:
        """Count one subject's windows.

        Parameters
        ----------
        logits, truth
            ``(window, horizon, voxel)`` log-odds, and bool activity.
        base
            ``(voxel,)`` log-odds of the mean rate.
        """
        logits = logits.float()
        place = ((logits - LOWEST) * (BINS / (HIGHEST - LOWEST))).long().clamp_(0, BINS - 1)
        step = torch.arange(self.horizon, device=logits.device)[:, None]
        cell = ((step * 2 + truth.long()) * BINS + place).reshape(-1)
        counted = torch.bincount(cell, minlength=self.horizon * 2 * BINS)
        self.counts += counted.view(self.horizon, 2, BINS)
        gain = log_likelihood(logits, truth) - log_likelihood(base.float().expand_as(logits), truth)
        self.gain += gain.sum((0, 2), dtype=torch.float64)

    def compute(self) -> tuple[Tensor, Tensor]:
        return self.counts.clone(), self.gain.clone()

    def bits_per_spike(self) -> np.ndarray:
        """``(horizon,)`` log-likelihood gained over the mean rate, in bits per active voxel."""
        counts, gain = self.compute()
        spikes = counts[:, 1].sum(1).clamp_min(1)
        values: np.ndarray = (gain / spikes / math.log(2)).cpu().numpy()
        return values

    def average_precision(self) -> np.ndarray:
        """``(horizon,)`` area under the precision-recall curve, as a sum over thresholds."""
        silent, active = (part.flip(1).cumsum(1).cpu().numpy() for part in self.compute()[0].unbind(1))
        precision = active / np.maximum(active + silent, 1)
        recall = active / np.maximum(active[:, -1:], 1)
        values: np.ndarray = (precision * np.diff(recall, axis=1, prepend=0)).sum(axis=1)
        return values

    def f1(self, threshold: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """``(horizon,)`` F1 and log-odds thresholds: those given, or else the best ones."""
        silent, active = (part.flip(1).cumsum(1).cpu().numpy() for part in self.compute()[0].unbind(1))
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
    """Plain scores, per step and averaged over the steps."""
    f1, _ = scores.f1(threshold)
    precision, bits = scores.average_precision(), scores.bits_per_spike()
    return {"bits": bits.tolist(), "average_precision": precision.tolist(), "f1": f1.tolist()}
