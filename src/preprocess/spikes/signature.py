"""What a recording's background is like in a handful of numbers, to find the network made for it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from src.preprocess.spikes.noise import background_spectrum, centre_and_sigma, quiet_mask

BANDS = 16
FEATURES = BANDS + 2
"""Log power in each band, then log level (robust sigma) and log spikiness (how far the spikes stick out)."""

SAME_RECORDING = 0.06
"""Distance, regardless of scale, up to which two traces count as the same recording or parts of it."""

SAME_SCALE = 0.1
"""Difference of log level up to which no change of scale is assumed."""

UNLIKE = 0.7
"""Distance to the nearest background beyond which nothing is known of how right a sorting is: a factor of two."""


def signature(linear: np.ndarray, fs_hz: float, usable: np.ndarray | None = None) -> np.ndarray:
    """``(FEATURES,)`` natural logarithms: band powers relative to the level, the level, the spikiness.

    All but the level are the same when a recording is multiplied by a constant. Samples outside the mask
    ``usable`` do not count: silence in their place would make the background look quieter than it is.
    """
    if usable is not None and not usable.all():
        linear = np.where(usable, linear, np.nan)
    spread = centre_and_sigma(linear)
    level = max(spread[1], 1e-12)
    spectrum = background_spectrum(linear, fs_hz, quiet_mask(linear, spread=spread))
    edges = np.geomspace(fs_hz / 250, 0.45 * fs_hz, BANDS + 1)
    bands = [spectrum.sigma(low, high) for low, high in pairwise(edges)]
    spikiness = np.nanquantile(np.abs(linear), 0.995) / level
    return np.log(np.maximum([*(np.array(bands) / level), level, spikiness], 1e-12)).astype(np.float32)


@dataclass(frozen=True)
class Choice:
    """The expert chosen, the factor that brings the recording to its scale, and how near the two are."""

    expert: int
    gain: float
    distance: float


def choose_expert(found: np.ndarray, known: np.ndarray, gain: float | None = None) -> Choice:
    """The background most like a recording's.

    A recording that is one of the known ones up to a factor (another unit, another amplifier setting)
    is brought back to its scale. Any other is taken in its own units, and the level counts.

    Parameters
    ----------
    found
        :func:`signature` of the recording.
    known
        ``(expert, FEATURES)`` signatures of the targets.
    gain
        Factor to apply in any case; ``None`` decides as above.
    """
    if gain is not None:
        found = found.copy()
        found[BANDS] += np.log(gain)
    difference = known - found
    shape = np.sqrt(np.mean(np.delete(difference, BANDS, axis=1) ** 2, axis=1))
    nearest = int(shape.argmin())
    level = float(difference[nearest, BANDS])
    if gain is None and shape[nearest] < SAME_RECORDING and abs(level) > SAME_SCALE:
        return Choice(nearest, float(np.exp(level)), float(shape[nearest]))
    overall = np.sqrt(shape**2 + difference[:, BANDS] ** 2)
    best = int(overall.argmin())
    return Choice(best, 1.0 if gain is None else gain, float(overall[best]))
