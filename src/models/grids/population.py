"""A linear model of a whole population's past: what every voxel's own past leaves, from all voxels at once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from src.models.grids.baselines import Autoregression
from src.models.grids.networks import Entries, from_population

KEPT = (4, 16, 64)
RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Principal components that may be used, and penalties as multiples of their mean variance."""
NEEDED = 0.01
"""Share of the validation frames' variance that has to be explained beyond the autoregression: less is chance."""


class PopulationRegression(Autoregression):
    """An autoregression plus a ridge regression on the principal components of all voxels' context frames.

    Parameters
    ----------
    read, write
        ``(voxel, component)``: from activity to scores, and from scores to probability.
    readout
        ``(subject, context · component, horizon · component)``.
    """

    def __init__(
        self,
        rates: Tensor,
        offsets: list[int],
        weights: Tensor,
        floor: float,
        read: Tensor,
        write: Tensor,
        readout: Tensor,
    ) -> None:
        super().__init__(rates, offsets, weights, floor)
        self.read, self.write, self.readout = read, write, readout

    def cut_at(self, floor: float) -> PopulationRegression:
        return PopulationRegression(self.rates, self.offsets, self.weights, floor, self.read, self.write, self.readout)

    def from_others(self, subject: int, windows: int, seen: Entries) -> Tensor:
        span, context = slice(self.offsets[subject], self.offsets[subject + 1]), self.weights.shape[1]
        through = seen._replace(frame=seen.window * context + seen.frame)
        rates, read, write = (of[span] for of in (self.rates, self.read, self.write))
        return from_population(through, windows * context, rates, read, self.readout[subject], write).transpose(1, 2)


def fit_population(own: Autoregression, statistics: Mapping[str, np.ndarray]) -> PopulationRegression:
    """Ridge regression of what ``own`` leaves, in the space of the training activity's principal components.

    How many components and how strong a penalty is chosen per subject by the squared error on validation frames, where
    the autoregression alone stays where they gain less than ``NEEDED``.
    """
    context, horizon = own.weights.shape[1:]
    axes = statistics["components"].astype(np.float64)
    scale = np.sqrt(np.maximum(statistics["rates"] * (1 - statistics["rates"]), 1e-6)).astype(np.float64)[:, None]
    readout = []
    for number, (first, last) in enumerate(itertools.pairwise(own.offsets)):
        shared = own.weights[first:last].double().mean(0).numpy()
        fitted, checked = statistics["score_products"][:, number].astype(np.float64)
        readout.append(torch.from_numpy(_readout(fitted, checked, shared, context, horizon)).float())
    read, write = (torch.from_numpy(found).float() for found in (axes / scale, axes * scale))
    return PopulationRegression(own.rates, own.offsets, own.weights, own.floor, read, write, torch.stack(readout))


def _readout(fitted: np.ndarray, checked: np.ndarray, shared: np.ndarray, context: int, horizon: int) -> np.ndarray:
    count = len(fitted) // (context + horizon)
    best, least = np.zeros((context, count, horizon, count)), 0.0
    variance = np.trace(checked[context * count :, context * count :])
    for kept in KEPT:
        (inputs, crossed), (seen, wanted) = (
            _normal(products, shared, context, horizon, kept) for products in (fitted, checked)
        )
        for ridge in RIDGES:
            penalty = ridge * np.trace(inputs) / len(inputs) * np.eye(len(inputs)) + 1e-9 * np.eye(len(inputs))
            weights = np.linalg.solve(inputs + penalty, crossed)
            error = float(np.sum(weights * (seen @ weights)) - 2 * np.sum(weights * wanted))
            if error < min(least, -NEEDED * variance):
                best, least = np.zeros_like(best), error
                best[:, :kept, :, :kept] = weights.reshape(context, kept, horizon, kept)
    return best.reshape(context * count, horizon * count)


def _normal(
    products: np.ndarray, shared: np.ndarray, context: int, horizon: int, kept: int
) -> tuple[np.ndarray, np.ndarray]:
    """Products of the context's scores with one another, and with what the autoregression leaves of the future's."""
    count = len(products) // (context + horizon)
    kept = min(kept, count)
    blocks = products.reshape(context + horizon, count, context + horizon, count)[:, :kept, :, :kept]
    past = blocks[:context, :, :context]
    ahead = blocks[:context, :, context:] - np.einsum("akcl,ch->akhl", past, shared)
    return past.reshape(context * kept, -1), ahead.reshape(context * kept, -1)
