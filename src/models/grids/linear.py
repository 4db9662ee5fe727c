"""Linear forecasts, fitted in closed form: what a network has to beat, and what it begins with.

The mean rate, persistence, the autoregression of every voxel, and a linear model of the whole population's past.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.models.grids.active_voxels import ActiveVoxels, Forecast, active_voxels, index_lists, of_subject
from src.preprocess.calcium.grid_windows import WindowFrames

LINEAR, MODEL = ("mean rate", "persistence", "autoregression", "linear population"), "model"
"""Names of the linear forecasts, and of the network among the forecasts.

What :func:`fit_linear` finds is kept in buffers of the network. Forecasts for a race alone are in ``benchmarks/``.
"""
Forecaster = Callable[[Any], list[Forecast]]
"""From a batch to log-odds of every subject in it."""
PSEUDO_FRAMES = (30.0, 100.0, 300.0, 1000.0, 1e5)
"""Frames as which the covariances of all voxels count beside a voxel's own 1000."""
FLOORS = (0.02, 0.1, 0.3, 0.6, 0.9)
CEILING = 0.99
"""Shares of the mean rate at which a forecast may be cut, and its greatest probability."""
KEPT = (4, 16, 64)
RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Principal components that may be used, and penalties as multiples of their mean variance."""
NEEDED = 0.01
"""Share of the validation frames' variance that has to be explained beyond the autoregression: less is chance."""

Population = tuple[Tensor, Tensor, Tensor]
"""``read`` and ``write (voxel, component)``: from activity to scores and back; ``readout (subject, context · component,
horizon · component)`` between them."""


def expected_activity(
    seen: ActiveVoxels, windows: int, rate: Tensor, weights: Tensor, population: Population | None = None
) -> Tensor:
    """``(window, horizon, voxel)`` probabilities: rate + Σ weight · (activity - rate), and what the population adds.

    Parameters
    ----------
    seen, windows
        Active voxels of one subject's windows, and how many windows there are.
    rate
        ``(voxel,)``.
    weights
        ``(voxel or 1, context, horizon)``, the first context frame first.
    population
        That of one subject: ``readout (context · component, horizon · component)``.
    """
    context, horizon = weights.shape[1:]
    own = weights.expand(len(rate), -1, -1)
    # rate + Σ w (a - rate) = Σ w a + rate (1 - Σ w): the first sum runs over active voxels alone, which are few.
    added = torch.zeros(windows * len(rate), horizon, device=rate.device, dtype=weights.dtype)
    added.index_add_(0, seen.window * len(rate) + seen.voxel_index, own[seen.voxel_index, seen.frame])
    constant = rate[:, None] * (1 - own.sum(1))
    chance = (added.view(windows, len(rate), horizon) + constant).transpose(1, 2)
    if population is None:
        return chance
    read, write, readout = population
    with torch.autocast(rate.device.type, enabled=False):  # in bfloat16 rare activity would be rounded away
        # Likewise the components' scores, Σ (a - rate) read, of every context frame.
        scores = (-rate @ read).repeat(windows * context, 1)
        scores.index_add_(0, seen.window * context + seen.frame, read[seen.voxel_index])
        ahead = scores.view(windows, -1) @ readout
        return chance + ahead.view(windows, horizon, -1) @ write.T


@dataclass(frozen=True)
class LinearForecast:
    """A linear forecast of every voxel of all subjects, cut at a share of the mean rate and at 0.99.

    The mean rate is this forecast with zero weights, persistence with equal weights of the last frames, shrunk towards
    the mean rate so that it has a likelihood.

    Attributes
    ----------
    rates, offsets
        Mean rate of every voxel, ``(voxel,)``, and where each subject begins.
    voxels
        ``(voxel,)`` their places in the grid.
    weights, population
        See :func:`expected_activity`; ``weights`` over all subjects' voxels.
    floor
        Share of the mean rate below which no forecast falls.
    """

    rates: Tensor
    offsets: list[int]
    voxels: Tensor
    weights: Tensor
    population: Population | None = None
    floor: float = FLOORS[0]

    def cut_at(self, floor: float) -> "LinearForecast":
        """The same forecast, cut at another share of the mean rate."""
        return replace(self, floor=floor)

    def __call__(self, batch: Any) -> list[Forecast]:
        """Log-odds of every subject of the batch, as a network gives them."""
        batch = index_lists(batch, self.voxels, self.offsets)
        seen = active_voxels(batch.voxel_index, batch.counts)
        found = []
        for subject in batch.subject.unique().tolist():
            span = slice(self.offsets[subject], self.offsets[subject + 1])
            rows, own = of_subject(seen, batch.subject, subject)
            rate, weights, population = self.rates[span], self.weights, None
            if len(weights) > 1:
                weights = weights[span]
            if self.population is not None:
                read, write, readout = self.population
                population = (read[span], write[span], readout[subject])
            chance = expected_activity(own, len(rows), rate, weights, population)
            chance = torch.maximum(chance, self.floor * rate).clamp(1e-6, CEILING)
            found.append(Forecast(subject, rows, torch.logit(chance)))
        return found


def linear_forecasts(network: Any) -> dict[str, LinearForecast]:
    """The four forecasts, by name, from what a network keeps of :func:`fit_linear` in its buffers."""

    def forecast(weights: Tensor, population: Population | None = None) -> LinearForecast:
        return LinearForecast(network.rates, network.offsets, network.voxels, weights, population)

    persistence = network.persistence[None]
    population = (network.read, network.write, network.readout_components) if network.components else None
    forms = (torch.zeros_like(persistence),), (persistence,), (network.linear,), (network.linear, population)
    return {name: forecast(*form) for name, form in zip(LINEAR, forms, strict=True)}


def all_forecasts(network: Any, decision: Mapping[str, Any]) -> dict[str, Forecaster]:
    """The linear forecasts, cut at the floors that validation chose, and the network, by name."""
    floors = {name: found["floor"] for name, found in decision["baselines"].items()}
    cut = {name: forecast.cut_at(floors[name]) for name, forecast in linear_forecasts(network).items()}
    return {**cut, MODEL: network}


def thresholds(decision: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """``(horizon,)`` log-odds above which a voxel counts as active, by forecast."""
    found = {name: decision["baselines"][name]["threshold"] for name in LINEAR} | {MODEL: decision["threshold"]}
    return {name: np.array(values) for name, values in found.items()}


def fit_linear(statistics: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The linear forecasts from :func:`~src.datamodules.grid_statistics.training_statistics`, as a network's buffers.

    The autoregression (``linear``) solves the Yule-Walker equations of every voxel for every horizon step. A voxel has
    too few spikes for as many weights as it has, so its covariances are joined with those of all voxels of
    its subject, counted as so many frames; how many is chosen on the validation frames' squared error.

    The linear population (``read``, ``write``, ``readout_components``) is a ridge regression of what the autoregression
    leaves, on the principal components of all voxels' context frames. How many components and how strong a penalty is
    chosen per subject by the squared error on validation frames, where the autoregression alone stays where they gain
    less than ``NEEDED``.
    """
    frames = WindowFrames(*(int(n) for n in statistics["frames"]))
    spans = [slice(*pair) for pair in itertools.pairwise(int(o) for o in statistics["offsets"])]
    fitted, checked = statistics["autocovariance"].astype(np.float64)
    weights = np.concatenate([_weights(fitted[span], checked[span], frames) for span in spans]).astype(np.float32)
    axes, rates = statistics["components"].astype(np.float64), statistics["rates"]
    scale = np.sqrt(np.maximum(rates * (1 - rates), 1e-6)).astype(np.float64)[:, None]
    products = statistics["score_products"].astype(np.float64)
    readouts = []
    for number, span in enumerate(spans):
        seen, held_out = products[:, number]
        readouts.append(_readout(seen, held_out, weights[span].mean(axis=0, dtype=np.float64), frames))
    found = {
        "rates": rates,
        "linear": weights,
        "persistence": _persistence(checked.sum(axis=0), frames),
        "read": axes / scale,
        "write": axes * scale,
        "readout_components": np.stack(readouts),
    }
    tensors = {name: torch.from_numpy(value).float() for name, value in found.items()}
    return tensors | {"voxels": torch.from_numpy(statistics["voxels"])}


def _persistence(covariance: np.ndarray, frames: WindowFrames) -> np.ndarray:
    """``(context, horizon)`` equal weights of the last frames, as many as explain most of the validation frames.

    The mean m of the last frames is shrunk towards the mean rate by the gain g = cov(m, x) / var(m), pooled over all
    voxels. ``covariance (lag,)`` is of validation frames about the rates of the training frames, because what this
    forecast knows is that a voxel's rate is not now what it was in the training.
    """
    best, most = np.zeros((frames.context, frames.horizon)), 0.0
    past, ahead = _toeplitz(covariance[None], frames.context)[0], _ahead(covariance[None], frames)[0]
    for count in sorted({*(2**k for k in range(frames.context.bit_length())), frames.context}):
        # Of the variance of x a forecast g·m explains 2g·cov(m, x) - g²·var(m).
        mean = np.where(np.arange(frames.context) >= frames.context - count, 1 / count, 0.0)
        variance, together = mean @ past @ mean, mean @ ahead
        gain = np.clip(together / max(variance, 1e-12), 0, 0.98)
        explained = float(np.sum(2 * gain * together - gain**2 * variance))
        if explained > most:
            best, most = mean[:, None] * gain, explained
    return best


def _weights(fitted: np.ndarray, checked: np.ndarray, frames: WindowFrames) -> np.ndarray:
    """``(voxel, context, horizon)``."""
    context = frames.context
    shared = fitted.mean(axis=0)
    best, least = np.zeros((len(fitted), context, frames.horizon)), np.inf
    for count in PSEUDO_FRAMES:
        joined = (1000 * fitted + count * shared) / (1000 + count)
        # Yule-Walker: C w = c, where C are the covariances of the context with itself and c those with the future.
        weights = np.linalg.solve(_toeplitz(joined, context), _ahead(joined, frames))
        # E (x - wᵀp)² = wᵀ C w - 2 wᵀ c + var(x), on the validation frames' covariances.
        quadratic = np.einsum("vch,vcd,vdh->", weights, _toeplitz(checked, context), weights, optimize=True)
        error = quadratic - 2 * np.einsum("vch,vch->", weights, _ahead(checked, frames))
        if error < least:
            best, least = weights, error
    return best


def _toeplitz(covariance: np.ndarray, context: int) -> np.ndarray:
    """``(voxel, context, context)`` covariances by lag; a thousandth of the variance is added, so that it inverts."""
    lag = np.abs(np.arange(context)[:, None] - np.arange(context))
    matrix: np.ndarray = covariance[:, lag] + np.eye(context) * 1e-9
    return matrix + np.eye(context) * (1e-3 * covariance[:, :1, None])


def _ahead(covariance: np.ndarray, frames: WindowFrames) -> np.ndarray:
    """Lag between context frame ``c`` and target frame ``h``: ``context + gap + h - c``."""
    lag = frames.target + np.arange(frames.horizon) - np.arange(frames.context)[:, None]
    ahead: np.ndarray = covariance[:, lag]
    return ahead


def _readout(fitted: np.ndarray, checked: np.ndarray, shared: np.ndarray, frames: WindowFrames) -> np.ndarray:
    """``(context · component, horizon · component)``; ``shared (context, horizon)`` is the mean autoregression."""
    context, _, horizon = frames
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
            # The squared error as in `_weights`: what is below 0 is explained beyond the autoregression.
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
    # <past, future - Σ shared · past> = <past, future> - Σ shared · <past, past>.
    ahead = blocks[:context, :, context:] - np.einsum("akcl,ch->akhl", past, shared)
    return past.reshape(context * kept, -1), ahead.reshape(context * kept, -1)
