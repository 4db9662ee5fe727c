"""States of a rodent from its LFP alone, without labels: Wake, NREM, REM with a confidence for every epoch.

The rule of the field (Watson et al. 2016, Neuron 90:839, and the original's): NREM where slow waves stand out against
high frequencies, REM where theta does without slow waves and without muscle activity, the rest is waking. Each
threshold lies between the two modes of its feature in this very recording, so nothing has to be trained.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

WAKE, NREM, REM = range(3)
SMOOTHING_S = 12.0
"""States change more slowly than the features flicker."""
SHORTEST_S = 12.0
"""Bouts shorter than this become part of their neighbours."""
AFTER_NREM_S = 40.0
"""Without muscle activity REM sleep has to begin at most so long after NREM sleep; waking has theta too."""
SHORTEST_RECORDING_S = 600.0
MOST_THETA_IN_NREM = 0.5
"""Theta ratio above which slow waves do not dominate."""
DELTA_HZ, FAST_HZ, THETA_HZ, WIDE_HZ = (1.0, 4.0), (25.0, 60.0), (5.0, 10.0), (2.0, 15.0)
_ARTIFACT_SD = 6.0


class Features(NamedTuple):
    """What states are told apart by, one value per epoch; NaN where nothing usable was recorded.

    Attributes
    ----------
    slow
        z-score of log power at 1-4 Hz minus that at 25-60 Hz, median of the usable channels.
    theta
        P(5-10 Hz)/P(2-15 Hz) of the channel in which it varies most.
    muscle
        High-frequency correlation of distant channels or an EMG's amplitude; ``None`` where there is none.
    """

    slow: NDArray[np.float64]
    theta: NDArray[np.float64]
    muscle: NDArray[np.float64] | None = None


class States(NamedTuple):
    """Attributes
    ----------
    stages
        ``(epoch,)`` 0 Wake, 1 NREM, 2 REM.
    confidence
        ``(epoch,)`` probability of the stage given its features, 1/3 where they are missing.
    warnings
        What stands in the way of believing them.
    """

    stages: NDArray[np.int8]
    confidence: NDArray[np.float64]
    warnings: tuple[str, ...]


def epoch_features(
    decibel: NDArray, freqs: NDArray[np.float64], muscle: NDArray[np.float64] | None = None
) -> tuple[Features, tuple[str, ...]]:
    """Features of epochs cut from a spectrogram.

    Parameters
    ----------
    decibel
        ``(epoch, channel, frequency, time)`` dB; NaN where samples are missing or a channel is dead.
    muscle
        ``(epoch,)`` muscle activity, if it is known.

    Returns
    -------
    The features, and what was left out.
    """
    power = 10 ** (decibel.astype(np.float64) / 10)
    power[decibel <= -250] = np.nan  # silence
    level = quietly(np.nanmean, quietly(np.nanmedian, 10 * np.log10(np.maximum(power, 1e-30)), axis=3), axis=2)
    artifact = level > quietly(np.nanmedian, level, axis=0) + _ARTIFACT_SD * np.maximum(_spread(level), 1.5)
    power[artifact] = np.nan
    bands = [_band(power, freqs, band) for band in (DELTA_HZ, FAST_HZ, THETA_HZ, WIDE_HZ)]
    delta, fast, theta, wide = bands
    slow = quietly(np.nanmedian, _scores(np.log10(delta)) - _scores(np.log10(fast)), axis=1)
    ratio = theta / wide
    high, low = (quietly(partial(np.nanquantile, q=q), ratio, axis=0) for q in (0.9, 0.3))
    best = int(np.argmax(np.nan_to_num(high - low, nan=-1)))
    share = artifact.any(axis=1).mean()
    said = (f"{share:.1%} of the epochs have artefacts in at least one channel: masked there",) if share > 0.002 else ()
    return Features(slow, ratio[:, best], muscle), said


def score(features: Features, epoch_s: float, examples: NDArray[np.int8] | None = None) -> States:
    """Wake, NREM and REM of every epoch.

    Parameters
    ----------
    examples
        ``(epoch,)`` stages of some epochs scored by hand, -1 for all others; thresholds then lie between their means.
    """
    width, said = max(1, round(SMOOTHING_S / epoch_s)), list[str]()
    slow, theta = _smoothed(features.slow, width), _smoothed(features.theta, width)
    muscle = None if features.muscle is None else _smoothed(features.muscle, width)
    labels = np.full(len(slow), -1, np.int8) if examples is None else examples
    nrem, separated = two_modes(slow, labels == NREM, (labels == WAKE) | (labels == REM))
    if not separated:
        said.append("slow waves do not come in two modes: is there NREM sleep in the recording, and waking?")
    awake_or_rem = nrem < 0.5
    high_theta, _ = two_modes(theta, labels == REM, labels == WAKE, within=awake_or_rem)
    if muscle is None:
        relaxed = np.ones(len(slow))
        said.append(
            "no muscle activity is known (it needs two channels at 1000 Hz or more): REM sleep is looked for after "
            "NREM sleep only, and waking with theta right after it may be scored as REM sleep"
        )
    else:
        relaxed = 1 - two_modes(muscle, labels == WAKE, (labels == NREM) | (labels == REM))[0]
    rem = (1 - nrem) * high_theta * relaxed
    probabilities = np.stack([np.maximum(1 - nrem - rem, 0), nrem, rem], axis=1)
    stages = probabilities.argmax(axis=1).astype(np.int8)
    stages = _without_short_bouts(stages, max(1, round(SHORTEST_S / epoch_s)))
    if muscle is None:
        stages = _rem_after_nrem(stages, round(AFTER_NREM_S / epoch_s))
    if len(stages) * epoch_s < SHORTEST_RECORDING_S:
        said.append(f"{len(stages) * epoch_s:g} s are too short to find thresholds in: do not rely on these states")
    if (stages == NREM).any() and np.nanmedian(features.theta[stages == NREM]) > MOST_THETA_IN_NREM:
        said.append("what was scored as NREM sleep has more theta than slow waves: it may be waking or REM sleep")
    confidence = probabilities[np.arange(len(stages)), stages]
    confidence[~np.isfinite(features.slow)] = 1 / 3
    return States(stages, confidence, tuple(said))


def two_modes(
    values: NDArray[np.float64],
    high: NDArray[np.bool_],
    low: NDArray[np.bool_],
    *,
    within: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float64], bool]:
    """Probability that each value belongs to the higher of two modes, and whether there are two.

    A mixture of two normal distributions is fitted, starting from the split with the largest variance between its
    halves (Otsu 1979), or from values known to be ``high`` and ``low``. The threshold is where the two are as likely.

    Parameters
    ----------
    within
        Values to fit to; ``None`` for all.
    """
    used = np.isfinite(values) & (True if within is None else within)
    x = values[used]
    if len(x) < 10 or np.ptp(x) < 1e-9:
        return np.zeros(len(values)), False
    if high.any() and low.any():
        upper = np.abs(x - np.nanmean(values[high])) < np.abs(x - np.nanmean(values[low]))
    else:
        upper = x > _otsu(x)
    if upper.all() or not upper.any():
        return np.zeros(len(values)), False
    means, sizes, shares = _mixture(x, upper)
    if means[1] - means[0] < sizes.mean() or shares.min() < 0.05:  # it ran off with one mode alone
        shares = np.array([1 - upper.mean(), upper.mean()])
        means, sizes = np.array([x[~upper].mean(), x[upper].mean()]), np.array([x[~upper].std(), x[upper].std()])
    between = np.linspace(means[0], means[1], 400)
    sizes = np.maximum(sizes, 1e-9)
    odds = np.log(shares / sizes) - (between[:, None] - means) ** 2 / (2 * sizes**2)
    threshold = between[int(np.argmin(np.abs(odds[:, 1] - odds[:, 0])))]
    distance, variance = means[1] - means[0], float((sizes**2 * shares).sum())
    steps = np.clip(distance * (np.nan_to_num(values) - threshold) / variance, -50, 50)
    separated = distance > 2 * np.sqrt(variance)  # Ashman's D
    return np.where(np.isfinite(values), 1 / (1 + np.exp(-steps)), 0.5), bool(separated)


def _otsu(x: NDArray[np.float64]) -> float:
    """Where to cut values so that the variance between the halves is largest."""
    cuts = np.quantile(x, np.linspace(0.03, 0.97, 95))[:-1]
    return float(max(cuts, key=lambda c: (x > c).mean() * (x <= c).mean() * (x[x > c].mean() - x[x <= c].mean()) ** 2))


def _mixture(x: NDArray[np.float64], upper: NDArray[np.bool_]) -> tuple[NDArray, NDArray, NDArray]:
    """Means, widths and shares of two normal distributions, by expectation maximisation."""
    member, floor = np.clip(upper.astype(float), 0.02, 0.98), 0.1 * x.std()
    for _ in range(100):
        weight = np.stack([1 - member, member])
        shares = np.clip(weight.mean(axis=1), 0.02, 0.98)
        means = (weight * x).sum(1) / weight.sum(1)
        sizes = np.maximum(np.sqrt((weight * (x - means[:, None]) ** 2).sum(1) / weight.sum(1)), floor)
        odds = np.log(shares / sizes)[:, None] - (x - means[:, None]) ** 2 / (2 * sizes[:, None] ** 2)
        member = 1 / (1 + np.exp(np.clip(odds[0] - odds[1], -50, 50)))
    return means, sizes, shares


def _band(power: NDArray, freqs: NDArray[np.float64], band: tuple[float, float]) -> NDArray[np.float64]:
    inside = (freqs >= band[0]) & (freqs < min(band[1], freqs[-1] + 1e-9))
    mean = quietly(np.nanmean, power[:, :, inside], axis=2)
    return quietly(np.nanmedian, mean, axis=2) * inside.sum()


def _scores(values: NDArray) -> NDArray:
    return (values - quietly(np.nanmedian, values, axis=0)) / np.maximum(_spread(values), 1e-9)


def _spread(values: NDArray) -> NDArray:
    return 1.4826 * quietly(np.nanmedian, np.abs(values - quietly(np.nanmedian, values, axis=0)), axis=0)


def quietly(function: Callable[..., Any], values: NDArray, axis: int) -> NDArray:
    """NumPy warns of every slice that is NaN throughout."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(function(values, axis=axis))


def _smoothed(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Running mean that skips missing values, and fills them from their neighbours."""
    kernel = np.ones(width)
    known = np.isfinite(values)
    sums = np.convolve(np.where(known, values, 0), kernel, "same")
    counts = np.convolve(known.astype(float), kernel, "same")
    return np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)


def _without_short_bouts(stages: NDArray[np.int8], shortest: int) -> NDArray[np.int8]:
    """Bouts that are too short become the longer of their neighbours, the shortest first."""
    stages = stages.copy()
    while True:
        edges = np.flatnonzero(np.diff(stages)) + 1
        starts, stops = np.r_[0, edges], np.r_[edges, len(stages)]
        lengths = stops - starts
        if len(lengths) < 2 or lengths.min() >= shortest:
            return stages
        bout = int(lengths.argmin())
        around = [b for b in (bout - 1, bout + 1) if 0 <= b < len(lengths)]
        stages[starts[bout] : stops[bout]] = stages[starts[max(around, key=lambda b: lengths[b])]]


def _rem_after_nrem(stages: NDArray[np.int8], gap: int) -> NDArray[np.int8]:
    stages, last = stages.copy(), -(10**9)
    for epoch, stage in enumerate(stages):
        if stage == NREM or (stage == REM and epoch - last <= gap):
            last = epoch
        elif stage == REM:
            stages[epoch] = WAKE
    return stages
