"""Levels relative to the recording itself: what is constant for a person, an amplifier and an electrode goes.

The statistics are taken over a *span* of the recording. In training the span is drawn at random
(``src.datamodules.sleep_sequences``), so that a network can score an excerpt as well as a night. In prediction it is
the whole recording or, where hours of wake lie around it, the sleep period that a first pass has found.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from src.signals import BadInput

NIGHT_VIEW = "night_view"
"""Name of this step among a bundle's steps."""
NIGHT_VIEW_VERSION = 3
WHOLE = slice(None)
_LEAST_SCATTER_DB = 0.3
_AROUND, _LONGEST_GAP, _MARGIN, _LEAST_SHARE = 11, 120, 60, 0.25  # epochs of 30 s, but for the share


def known_views(views: Sequence[str] | str) -> list[str]:
    """The names of one or several views; ``BadInput`` for others."""
    names = [views] if isinstance(views, str) else list(views)
    if unknown := [name for name in names if name not in VIEWS] or (not names and ["none"]):
        raise BadInput("views", f"{', '.join(unknown)}: not known", f"choose from: {', '.join(VIEWS)}")
    return names


def night_view(
    features: NDArray[np.floating], usable: NDArray[np.bool_], views: Sequence[str] | str, span: slice = WHOLE
) -> NDArray[np.float32]:
    """What a network is given of a recording's levels; no label is used.

    ``features`` are ``(epoch, channel, frequency, time)`` in dB; epochs that are not ``usable (epoch,)`` become NaN.
    ``views`` are one or several of :data:`VIEWS`, ``span`` the epochs over which levels are taken relative. Returns
    ``(epoch, channel, views × frequency, time)`` float32, view after view.
    """
    names = known_views(views)
    levels = np.where(usable[:, None, None, None], features, np.nan).astype(np.float32)
    return np.concatenate([VIEWS[name](levels, span) for name in names], axis=2)


def standardise_night(features: NDArray[np.floating], span: slice = WHOLE) -> NDArray[np.float32]:
    """Median 0 and scatter 1 per channel and frequency over the epochs of a span.

    The scatter is the interquartile range divided by the 1.349 of a normal distribution, at least 0.3 dB: an hour
    of artefacts moves neither. NaN, where nothing was recorded, stays NaN.

    Shapes: ``(epoch, channel, frequency, time)``.
    """
    low, middle, high = _percentiles(features[span], (25, 50, 75))
    scatter = np.maximum((high - low) / 1.349, _LEAST_SCATTER_DB)
    return ((features - middle[:, :, None]) / scatter[:, :, None]).astype(np.float32)


def percentile_levels(features: NDArray[np.floating], span: slice = WHOLE, *, percent: float) -> NDArray[np.float32]:
    """Levels less a percentile of the span's, per channel and frequency.

    A window of the night does not show how far the deepest sleep and the calmest epochs of the recording lie from
    the middle; these levels do.

    Shapes: ``(epoch, channel, frequency, time)`` in dB.
    """
    return (features - _percentiles(features[span], (percent,))[0][:, :, None]).astype(np.float32)


def relative_levels(features: NDArray[np.floating], span: slice = WHOLE) -> NDArray[np.float32]:
    """Levels less that of the span's mean total power, per channel: whatever the gain, they are the same.

    Shapes: ``(epoch, channel, frequency, time)`` in dB.
    """
    total = np.power(10, features[span].astype(np.float64) / 10).sum(axis=2).mean(axis=2)
    mean = _by_channel(total[:, :, None], lambda rows: rows.mean(axis=0, keepdims=True), 1)[0, :, 0]
    return (features - 10 * np.log10(np.maximum(mean, 1e-30))[:, None, None]).astype(np.float32)


def _percentiles(levels: NDArray[np.floating], percents: Sequence[float]) -> NDArray[np.float64]:
    pooled = np.moveaxis(levels.astype(np.float64), 3, 1).reshape(-1, *levels.shape[1:3])
    return _by_channel(pooled, lambda rows: np.percentile(rows, percents, axis=0), len(percents))


def _by_channel(
    pooled: NDArray[np.floating], statistic: Callable[[NDArray[np.floating]], NDArray[np.floating]], values: int
) -> NDArray[np.float64]:
    """``(value, channel, frequency)`` of ``(row, channel, frequency)``, over the rows where a channel was recorded."""
    found = np.zeros((values, *pooled.shape[1:]))
    for channel in range(pooled.shape[1]):
        rows = pooled[np.isfinite(pooled[:, channel]).all(axis=1), channel]
        if len(rows):
            found[:, channel] = statistic(rows)
    return found


def sleep_period(asleep: NDArray[np.floating]) -> slice:
    """Epochs from half an hour before somebody sleeps to half an hour after, whatever wake lies around.

    Parameters
    ----------
    asleep
        ``(epoch,)`` probability of sleep, NaN where unscored. It is averaged over eleven epochs; stretches that are
        less than an hour apart belong together, and stretches of less than a quarter of the longest one's sleep are
        naps outside the period.
    """
    near = np.convolve(np.nan_to_num(asleep), np.ones(_AROUND) / _AROUND, "same") > 0.5
    index = np.flatnonzero(near)
    if not len(index):
        return WHOLE
    gaps = np.flatnonzero(np.diff(index) > _LONGEST_GAP)
    first, last = index[np.r_[0, gaps + 1]], index[np.r_[gaps, -1]] + 1
    amount = np.array([near[a:b].sum() for a, b in zip(first, last, strict=True)])
    kept = np.flatnonzero(amount >= _LEAST_SHARE * amount.max())
    return slice(max(0, int(first[kept[0]]) - _MARGIN), min(len(near), int(last[kept[-1]]) + _MARGIN))


VIEWS: dict[str, Callable[[NDArray[np.float32], slice], NDArray[np.float32]]] = {
    "absolute": lambda features, span: features,
    "relative": relative_levels,
    "night": standardise_night,
    "low": partial(percentile_levels, percent=5),
    "high": partial(percentile_levels, percent=95),
}
