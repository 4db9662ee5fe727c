"""Levels as they are, relative to their night, or both side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from src.signals import BadInput

NIGHT_VIEW = "night_view"
"""Name of this step among a bundle's stages."""
VIEWS = ("absolute", "night", "both")


def night_view(features: NDArray[np.floating], usable: NDArray[np.bool_], view: str) -> NDArray[np.float32]:
    """What a network is given of a night's levels; no label is used.

    Parameters
    ----------
    features
        ``(epoch, channel, frequency, time)`` in dB.
    usable
        ``(epoch,)``; the others become NaN.
    view
        ``absolute``: the levels. ``night``: :func:`standardise_night`, which removes what is constant
        for a person, an amplifier and an electrode, but needs the whole night. ``both``: the two
        along the frequency axis.

    Returns
    -------
    ndarray
        ``(epoch, channel, frequency or 2 × frequency, time)`` float32.
    """
    if view not in VIEWS:
        raise BadInput("view", f"{view!r} is not known", f"choose from: {', '.join(VIEWS)}")
    levels = np.where(usable[:, None, None, None], features, np.nan).astype(np.float32)
    if view == "absolute":
        return levels
    relative = standardise_night(levels)
    return relative if view == "night" else np.concatenate([levels, relative], axis=2)


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
