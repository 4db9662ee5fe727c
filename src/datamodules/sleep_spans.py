"""Training windows whose levels are relative to a random span of the night.

A network that only ever sees levels relative to a whole night fails on excerpts and on recordings with hours of
wake around. Here the span is drawn anew for every example: twenty minutes to the whole night, with or without
further wake on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.preprocess.sleep.night_normalization import night_view
from src.signals import UNSCORED

VIEWS = ("relative", "night")


@dataclass(frozen=True)
class SpanOptions:
    """How spans, windows and their variation are drawn.

    Attributes
    ----------
    window_epochs, windows
        Epochs of a window; windows taken of one span.
    share
        Share of examples with a random span; the others take the whole night.
    least_epochs
        Of the shortest span. Lengths are log-uniform up to the night's.
    wake_share, wake_epochs
        Share of the random spans with the night's own wake repeated around them, and the least and greatest number of
        those epochs, log-uniform.
    jitter_db, tilt_db, jitter_scatter
        Another amplifier, montage or filter: standard deviation of a constant per window, channel and band, and of
        one that grows by as much from band to band, added to the ``relative`` levels; and of one added to the
        ``night`` levels, in units of their scatter.
    one_channel, other_channel, with_eog
        Share of windows that lose all channels but one EEG channel; of these, the share with the second EEG channel
        in place of the first, and with the EOG kept.
    lost_channel
        Share of windows that lose one channel.
    """

    window_epochs: int = 60
    windows: int = 4
    share: float = 0.67
    least_epochs: int = 40
    wake_share: float = 0.3
    wake_epochs: tuple[int, int] = (50, 1440)
    jitter_db: float = 1.75
    tilt_db: float = 1.0
    jitter_scatter: float = 0.2
    one_channel: float = 0.225
    other_channel: float = 0.4
    with_eog: float = 0.3
    lost_channel: float = 0.075


def draw_windows(
    rng: np.random.Generator, levels: NDArray[np.floating], stages: NDArray[np.integer], options: SpanOptions
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Windows of one span of a night.

    Parameters
    ----------
    levels
        ``(epoch, channel, band, 1)`` in dB, NaN where unusable.
    stages
        ``(epoch,)``.

    Returns
    -------
    levels
        ``(window, epoch, channel, 2 × band, 1)`` float32: both :data:`VIEWS` over the span, varied.
    stages
        ``(window, epoch)``; a window that is longer than the span ends in absent, unscored epochs.
    """
    chosen, core = _span(rng, levels, stages, options)
    span = levels[chosen]
    usable = np.isfinite(span).any(axis=(1, 2, 3))
    seen, known = night_view(span, usable, VIEWS), stages[chosen]
    length = options.window_epochs
    windows = np.full((options.windows, length, *seen.shape[1:]), np.nan, np.float32)
    scored = np.full((options.windows, length), UNSCORED, np.int64)
    for row in range(options.windows):
        # Most windows lie over the span itself, some over the wake around it.
        inside = rng.random() < 0.85
        low, high = (core[0] - length // 2, core[1] - length // 2) if inside else (0, len(known) - length)
        low, high = (int(np.clip(edge, 0, max(0, len(known) - length))) for edge in (low, max(low, high)))
        first = int(rng.integers(low, high + 1))
        part = slice(first, first + length)
        windows[row, : len(known[part])], scored[row, : len(known[part])] = seen[part], known[part]
    return vary(rng, windows, options), scored


def _span(
    rng: np.random.Generator, levels: NDArray[np.floating], stages: NDArray[np.integer], options: SpanOptions
) -> tuple[NDArray[np.int64], tuple[int, int]]:
    """Indices of the night's epochs in a span, wake around it included, and where the span itself lies in them."""
    whole = np.arange(len(stages))
    if rng.random() >= options.share or len(stages) <= options.least_epochs:
        return whole, (0, len(stages))
    length = int(np.exp(rng.uniform(np.log(options.least_epochs), np.log(len(stages)))))
    first = int(rng.integers(len(stages) - length + 1))
    chosen = whole[first : first + length]
    wake = np.flatnonzero((stages == 0) & np.isfinite(levels).all(axis=(1, 2, 3)))
    if rng.random() >= options.wake_share or len(wake) < 20:
        return chosen, (0, length)
    amount = int(np.exp(rng.uniform(*np.log(options.wake_epochs))))
    before = int(rng.integers(amount + 1))
    around = wake[(int(rng.integers(len(wake))) + np.arange(amount)) % len(wake)]
    return np.concatenate([around[:before], chosen, around[before:]]), (before, before + length)


def vary(rng: np.random.Generator, windows: NDArray[np.float32], options: SpanOptions) -> NDArray[np.float32]:
    """Windows as another amplifier and another montage would give them; the input is changed in place."""
    count, _, channels, rows = windows.shape[:4]
    bands = rows // len(VIEWS)
    constant = rng.normal(0, options.jitter_db, (count, 1, channels, bands, 1))
    slope = np.arange(bands) - (bands - 1) / 2
    constant += rng.normal(0, options.tilt_db, (count, 1, channels, 1, 1)) * slope[:, None]
    windows[..., :bands, :] += constant
    windows[..., bands:, :] += rng.normal(0, options.jitter_scatter, (count, 1, channels, bands, 1))
    draws = rng.random((count,))
    for window, draw in zip(windows, draws, strict=True):
        if draw < options.one_channel and channels == 3:
            kept = window[:, int(rng.random() < options.other_channel)].copy()
            window[:, 0], window[:, 1] = kept, np.nan
            if rng.random() >= options.with_eog:
                window[:, 2] = np.nan
        elif draw < options.one_channel + options.lost_channel and channels > 1:
            window[:, int(rng.integers(channels))] = np.nan
    return windows
