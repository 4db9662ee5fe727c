"""Views of a night's levels: as they are, and four ways to take them relative to the night itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from src.signals import BadInput

NIGHT_VIEW = "night_view"
"""Name of this step among a bundle's stages."""
NIGHT_VIEW_VERSION = 2
_AROUND, _ENOUGH = 9, 60
"""Epochs that say together whether somebody sleeps; epochs of sleep that a scatter can be taken of."""


def night_view(
    features: NDArray[np.floating], usable: NDArray[np.bool_], views: Sequence[str] | str
) -> NDArray[np.float32]:
    """What a network is given of a night's levels; no label is used.

    Parameters
    ----------
    features
        ``(epoch, channel, frequency, time)`` in dB.
    usable
        ``(epoch,)``; the others become NaN.
    views
        One or several of: ``absolute``, the levels; ``night``, :func:`standardise_night`, which removes what
        is constant for a person, an amplifier and an electrode; ``rank``, :func:`rank_night`, which removes
        the shape of their distribution too; ``shape``, :func:`shape_night`, the form of the spectrum whatever
        its level; ``asleep``, :func:`standardise_sleep`, relative to the night's sleep however long it lay awake.
        All but the first need the whole night.

    Returns
    -------
    ndarray
        ``(epoch, channel, views × frequency, time)`` float32, view after view.

    Raises
    ------
    BadInput
        If a view is not known.
    """
    names = [views] if isinstance(views, str) else list(views)
    if unknown := [name for name in names if name not in VIEWS] or (not names and ["none"]):
        raise BadInput("views", f"{', '.join(unknown)}: not known", f"choose from: {', '.join(VIEWS)}")
    levels = np.where(usable[:, None, None, None], features, np.nan).astype(np.float32)
    return np.concatenate([VIEWS[name](levels) for name in names], axis=2)


def standardise_night(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Median 0 and scatter 1 per channel and frequency over the epochs of a night.

    The scatter is the interquartile range divided by the 1.349 of a normal distribution: an hour of
    artefacts moves neither. NaN, where nothing was recorded, stays NaN.

    Shapes: ``(epoch, channel, frequency, time)``.
    """
    pooled = np.moveaxis(features.astype(np.float64), 3, 1).reshape(-1, *features.shape[1:3])
    absent = ~np.isfinite(pooled).any(axis=0)
    low, middle, high = np.nanpercentile(np.where(absent, 0.0, pooled), (25, 50, 75), axis=0)
    scatter = np.maximum((high - low) / 1.349, 1e-2)
    return ((features - middle[:, :, None]) / scatter[:, :, None]).astype(np.float32)


def rank_night(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Every level as the normal quantile of its rank in the night, per channel and frequency.

    Two nights that differ by any monotone change of their levels look the same. NaN stays NaN.

    Shapes: ``(epoch, channel, frequency, time)``.
    """
    from scipy.stats import norm, rankdata

    pooled = np.moveaxis(features, 3, 1).reshape(-1, *features.shape[1:3])
    ranks = rankdata(pooled, axis=0, nan_policy="omit")
    quantiles = norm.ppf((ranks - 0.5) / np.maximum(np.isfinite(pooled).sum(axis=0), 1))
    unfolded = quantiles.reshape(features.shape[0], features.shape[3], *features.shape[1:3])
    return np.moveaxis(unfolded, 1, 3).astype(np.float32)


def shape_night(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Levels relative to the power of all frequencies at the same time, standardised over the night.

    Shapes: ``(epoch, channel, frequency, time)`` in dB; the result has no unit.
    """
    total_db = 10 * np.log10(np.power(10, features.astype(np.float64) / 10).sum(axis=2, keepdims=True))
    return standardise_night(features - total_db)


def standardise_sleep(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Median 0 and scatter 1 over the epochs that look asleep: two nights of unlike shares of wake look alike.

    An epoch looks asleep where the highest fifth of the frequencies, over all channels and nine epochs
    around it, is on the lower side of the cut that divides the night best in two (Otsu 1979). No label is
    used. A night that cannot be divided, or of fewer than 60 such epochs, is taken as a whole.

    Shapes: ``(epoch, channel, frequency, time)`` in dB. The scatter is at least 0.3 dB; NaN stays NaN.
    """
    fast = standardise_night(features)[:, :, -max(1, features.shape[2] // 5) :].reshape(len(features), -1)
    known = np.isfinite(fast)
    pooled = np.stack([np.where(known, fast, 0.0).sum(1), known.sum(1)])
    near = np.stack([np.convolve(row, np.ones(_AROUND))[_AROUND // 2 :][: len(row)] for row in pooled])
    score = np.divide(near[0], near[1], out=np.full(len(fast), np.nan), where=near[1] > 0)
    asleep = score < _cut(score[np.isfinite(score)])
    some = features[asleep] if asleep.sum() >= _ENOUGH else features
    by_row = np.moveaxis(some.astype(np.float64), 3, 1).reshape(-1, *features.shape[1:3])
    absent = ~np.isfinite(by_row).any(axis=0)
    low, middle, high = np.nanpercentile(np.where(absent, 0.0, by_row), (25, 50, 75), axis=0)
    scatter = np.maximum((high - low) / 1.349, 0.3)
    return ((features - middle[:, :, None]) / scatter[:, :, None]).astype(np.float32)


def _cut(score: NDArray[np.floating]) -> float:
    """Where two classes differ most in their means, weighed by their shares."""
    if not len(score):
        return np.inf
    cuts = np.quantile(score, np.linspace(0.1, 0.95, 60))
    below = score[None] < cuts[:, None]
    share = below.mean(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        lower = (below * score).mean(1) / share
        upper = (~below * score).mean(1) / (1 - share)
        between = np.nan_to_num(share * (1 - share) * (upper - lower) ** 2)
    return float(cuts[between.argmax()]) if between.any() else np.inf


def _as_they_are(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features


VIEWS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "absolute": _as_they_are,
    "night": standardise_night,
    "rank": rank_night,
    "shape": shape_night,
    "asleep": standardise_sleep,
}
