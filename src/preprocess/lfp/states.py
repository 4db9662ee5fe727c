"""States of a rodent from its LFP alone, without labels: Wake, NREM, REM with a confidence for every epoch.

The rule of the field (Watson et al. 2016, Neuron 90:839, and the original's): NREM where slow waves stand out against
high frequencies, REM where theta does without slow waves and without muscle activity, the rest is waking. Each
threshold lies between the two modes of its feature in this very recording, so nothing has to be trained. The whole
spectrum is then asked what the rule has seen in three features: a linear discriminant of the epochs that it is sure of.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.preprocess.lfp.spectrogram_file import FLOOR, SILENT_DB
from src.signals import STAGE_SETS, THETA_HZ, UNSCORED, WIDE_HZ, counted

WAKE, NREM, REM = range(3)
STATES, HYPNOGRAM = STAGE_SETS["rodent"], "hypnogram.csv"
SMOOTHING_S = 12.0  # states change more slowly than the features flicker
SHORTEST_S = 12.0  # bouts shorter than this become part of their neighbours
AFTER_NREM_S = 20.0
"""Without muscle activity REM sleep has to begin at most so long after NREM sleep; waking has theta too."""
SHORTEST_RECORDING_S = 600.0
MOST_THETA_IN_NREM = 0.5  # theta ratio above which slow waves do not dominate
LEVELS_HZ = (1.0, 4.0), (5.0, 10.0), (10.0, 16.0), (16.0, 30.0), (30.0, 60.0)
DELTA_HZ, FAST_HZ = (1.0, 4.0), (25.0, 60.0)
MOST_REM, LEAST_CONFIDENCE = 0.3, 0.75
"""Share of REM in sleep, and mean confidence, beyond which a scoring is not reliable."""
_ARTIFACT_SD, _STUCK_DB = 6.0, 60.0
_SURE = 0.9
_APART = 2.5  # distance in standard deviations at which two states are taken for two


class Features(NamedTuple):
    """What states are told apart by, one value per epoch; NaN where nothing usable was recorded.

    Attributes
    ----------
    slow
        z-score of log power at 1-4 Hz minus that at 25-60 Hz, median of the usable channels.
    theta
        P(5-10 Hz)/P(2-15 Hz) of the channel in which it varies most.
    levels
        ``(epoch, band)`` z-score of log power in :data:`LEVELS_HZ`, median of the usable channels.
    muscle
        High-frequency correlation of distant channels or an EMG's amplitude; ``None`` where there is none.
    empty
        Epochs without a sample in any channel; ``None`` if there is none.
    """

    slow: NDArray[np.float64]
    theta: NDArray[np.float64]
    levels: NDArray[np.float64]
    muscle: NDArray[np.float64] | None = None
    empty: NDArray[np.bool_] | None = None


class States(NamedTuple):
    """Attributes
    ----------
    stages
        ``(epoch,)`` 0 Wake, 1 NREM, 2 REM, ``UNSCORED`` where nothing was recorded.
    confidence
        ``(epoch,)`` probability of the stage given its features, 1/3 where artefacts hide them, NaN where unscored.
    warnings
        What stands in the way of believing them.
    """

    stages: NDArray[np.int8]
    confidence: NDArray[np.float64]
    warnings: tuple[str, ...]


def write_states(
    folder: Path, onset_s: Sequence[float], epoch_s: float, stages: NDArray, confidence: NDArray[np.float64]
) -> None:
    """Write ``hypnogram.csv``, a row per epoch, times in seconds; one that is ``unscored`` has no confidence.

    Nights of people have other columns: ``src/predict/sleep_night.py``.
    """
    names = [*STATES, "unscored"]  # UNSCORED is -1
    sure = ["" if stage == UNSCORED else f"{value:.3f}" for stage, value in zip(stages, confidence, strict=True)]
    rows = zip(onset_s, stages, sure, strict=True)
    lines = [f"{onset:.10g},{epoch_s:g},{names[stage]},{value}" for onset, stage, value in rows]
    (folder / HYPNOGRAM).write_text("\n".join(["onset,duration,stage,confidence", *lines]) + "\n")


def summary_of(stages: NDArray, confidence: NDArray[np.float64]) -> dict[str, Any]:
    """Share of each state in the scored epochs, their mean confidence and the number of the others, as facts."""
    scored = stages != UNSCORED
    total = max(1, int(scored.sum()))
    share = {name: round(float((stages == k).sum() / total), 4) for k, name in enumerate(STATES)}
    mean = float(confidence[scored].sum() / total)
    return {"share": share, "confidence": round(mean, 4), "unscored": int((~scored).sum())}


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
    power[decibel <= SILENT_DB] = np.nan
    level = quietly(np.nanmean, quietly(np.nanmedian, 10 * np.log10(np.maximum(power, FLOOR)), axis=3), axis=2)
    usual = quietly(np.nanmedian, level, axis=0)
    # A converter that is stuck leaves the rounding of the filter that brought it to a lower rate.
    power[level < usual - _STUCK_DB] = np.nan
    empty = np.asarray(np.isnan(power).all(axis=(1, 2, 3)))
    artefact = level > usual + _ARTIFACT_SD * np.maximum(_spread(level), 1.5)
    power[artefact] = np.nan
    bands = [_band(power, freqs, band) for band in (DELTA_HZ, FAST_HZ, THETA_HZ, WIDE_HZ)]
    delta, fast, theta, wide = bands
    slow = quietly(np.nanmedian, robust_scores(np.log10(delta)) - robust_scores(np.log10(fast)), axis=1)
    ratio = theta / wide
    high, low = (quietly(partial(np.nanquantile, q=q), ratio, axis=0) for q in (0.9, 0.3))
    best = int(np.argmax(np.nan_to_num(high - low, nan=-1)))
    levels = [quietly(np.nanmedian, robust_scores(np.log10(_band(power, freqs, band))), axis=1) for band in LEVELS_HZ]
    levels = [level for level in levels if np.isfinite(level).any()]  # bands that the rows do not reach
    share = artefact.any(axis=1).mean()
    said = (f"{share:.1%} of the epochs have artefacts in at least one channel: masked there",) if share > 0.002 else ()
    return Features(slow, ratio[:, best], np.stack(levels, axis=1), muscle, empty), said


def score(features: Features, epoch_s: float, examples: NDArray[np.int8] | None = None) -> States:
    """Wake, NREM and REM of every epoch.

    Parameters
    ----------
    examples
        ``(epoch,)`` stages of some epochs scored by hand, -1 for all others: they keep their stages, and thresholds
        lie between their means.
    """
    width, shortest, said = max(1, round(SMOOTHING_S / epoch_s)), max(1, round(SHORTEST_S / epoch_s)), list[str]()
    slow, theta = _smoothed(features.slow, width), _smoothed(features.theta, width)
    levels = np.stack([_smoothed(level, width) for level in features.levels.T], axis=1)
    muscle = None if features.muscle is None else _smoothed(features.muscle, width)
    labels = np.full(len(slow), -1, np.int8) if examples is None else examples
    empty = np.zeros(len(slow), bool) if features.empty is None else features.empty & (labels < 0)
    awake, asleep, dreaming = (labels == stage for stage in (WAKE, NREM, REM))
    nrem, separated = two_modes(slow, asleep, awake | dreaming)
    if np.ptp(nrem) > 0:
        x = levels if muscle is None else np.column_stack([levels, robust_scores(muscle[:, None])])
        nrem, separated = _by_whole_spectrum((nrem, separated), x, asleep, awake | dreaming)
        # Quiet waking has slow waves, too: where what is taken for NREM sleep has two modes of delta, the higher is it.
        deep, two = two_modes(levels[:, 0], asleep, awake | dreaming, within=nrem > 0.5)
        if two and not asleep.any():
            first = np.where(nrem > 0.5, nrem * deep, nrem), separated
            nrem, separated = _by_whole_spectrum(first, x, asleep, awake | dreaming)
    if not separated:
        said.append("slow waves do not come in two modes: is there NREM sleep in the recording, and waking?")
    high_theta, _ = two_modes(theta, dreaming, awake, within=nrem < 0.5)
    gap = round(AFTER_NREM_S / epoch_s)
    if muscle is None:
        said.append(
            "no muscle activity is known (it needs two channels at 1000 Hz or more): REM sleep is looked for after "
            "NREM sleep only, and waking with theta right after it may be scored as REM sleep"
        )
        rem = (1 - nrem) * high_theta
        candidates = _states(nrem, rem, shortest, empty)
        late = (candidates == REM) & ~_after_nrem(candidates, gap)
        y = np.column_stack([levels, robust_scores(theta[:, None])])
        rem = _rem_among_theta(np.where(late, 0, rem), y, ((candidates == REM) & ~late) | dreaming, late | awake)
        rem = np.minimum(rem, 1 - nrem)
    else:
        rem = (1 - nrem) * high_theta * (1 - two_modes(muscle, awake, asleep | dreaming)[0])
    probabilities = np.stack([np.maximum(1 - nrem - rem, 0), nrem, rem], axis=1)
    stages = _states(nrem, rem, shortest, empty)
    if muscle is None:
        stages[(stages == REM) & ~_after_nrem(stages, gap)] = WAKE
    confidence = probabilities[np.arange(len(stages)), stages]
    said += _doubts(features, stages, confidence, epoch_s)
    confidence[~np.isfinite(features.slow)] = 1 / 3
    confidence[empty] = np.nan
    stages[labels >= 0], confidence[labels >= 0] = labels[labels >= 0], 1.0
    return States(stages, confidence, tuple(said))


def _doubts(
    features: Features, stages: NDArray[np.int8], confidence: NDArray[np.float64], epoch_s: float
) -> Iterator[str]:
    """What stands in the way of believing a scoring."""
    scored = stages != UNSCORED
    if not scored.all():
        yield f"{counted((~scored).sum(), 'epoch')} unscored: no channel has data there"
    if (recorded_s := scored.sum() * epoch_s) < SHORTEST_RECORDING_S:
        yield f"{recorded_s:g} s are too short to find thresholds in: do not rely on these states"
    if (stages == NREM).any() and np.nanmedian(features.theta[stages == NREM]) > MOST_THETA_IN_NREM:
        yield "what was scored as NREM sleep has more theta than slow waves: it may be waking or REM sleep"
    n_rem, n_sleep = int((stages == REM).sum()), int((stages > WAKE).sum())
    if n_rem > MOST_REM * n_sleep:
        yield f"REM sleep is {n_rem / n_sleep:.0%} of sleep, rodents have 5 to 20 %: it may be waking with theta"
    if scored.any() and (mean := np.nanmean(confidence[scored])) < LEAST_CONFIDENCE:
        yield f"mean confidence is {mean:.2f}: the states of this recording are not distinct"


def _states(
    nrem: NDArray[np.float64], rem: NDArray[np.float64], shortest: int, empty: NDArray[np.bool_]
) -> NDArray[np.int8]:
    """The likeliest state of every epoch, without short bouts; ``UNSCORED`` where it is empty."""
    likeliest = np.stack([1 - nrem - rem, nrem, rem], axis=1).argmax(axis=1).astype(np.int8)
    return np.where(empty, UNSCORED, _without_short_bouts(likeliest, shortest)).astype(np.int8)


def _by_whole_spectrum(
    first: tuple[NDArray[np.float64], bool], levels: NDArray, high: NDArray[np.bool_], low: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], bool]:
    """NREM told from the rest by a linear discriminant of the epochs that are sure, fitted three times over.

    ``levels`` are ``(epoch, feature)``; ``first`` and the result are what :func:`two_modes` gives.
    """
    known, (nrem, separated) = np.isfinite(levels).all(axis=1), first
    for _ in range(3):
        asleep, rest = (known & ((nrem > _SURE) | high) & ~low), (known & ((nrem < 1 - _SURE) | low) & ~high)
        if min(asleep.sum(), rest.sum()) < 2 * levels.shape[1]:
            break
        inner = np.concatenate([levels[group] - levels[group].mean(axis=0) for group in (asleep, rest)])
        direction = np.linalg.solve(_covariance(inner), levels[asleep].mean(axis=0) - levels[rest].mean(axis=0))
        nrem, separated = two_modes(levels @ direction, high, low)
    # A discriminant that has found two other states than slow waves did is not followed.
    return (nrem, separated) if np.mean((nrem > 0.5) == (first[0] > 0.5)) > 0.75 else first


def _rem_among_theta(
    rem: NDArray[np.float64], x: NDArray[np.float64], candidates: NDArray[np.bool_], waking: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Probability of REM sleep where active waking has theta, too.

    Theta long after NREM sleep is waking for certain. Two normal distributions of one covariance are fitted to these
    epochs and to the candidates, of which any share may be waking (expectation maximisation with known members).
    """
    used = (candidates | waking) & np.isfinite(x).all(axis=1)
    y, awake = x[used], waking[used]
    if min(awake.sum(), (~awake).sum()) < 8:
        return rem
    member, distance = np.where(awake, 0.0, 0.8), 0.0
    for _ in range(60):
        weight = np.stack([1 - member, member])
        means = weight @ y / weight.sum(axis=1, keepdims=True)
        scatter = np.concatenate([np.sqrt(w)[:, None] * (y - mean) for w, mean in zip(weight, means, strict=True)])
        direction = np.linalg.solve(_covariance(scatter, len(y)), means[1] - means[0])
        distance = float(np.sqrt(max((means[1] - means[0]) @ direction, 0)))
        share = np.clip(member[~awake].mean(), 0.05, 0.95)
        odds = (y - means.mean(axis=0)) @ direction + np.log(share / (1 - share))
        member = np.where(awake, 0, 1 / (1 + np.exp(-np.clip(odds, -50, 50))))
    if distance < _APART:
        return rem
    found = rem.copy()
    found[used] = member
    return found


def _covariance(centred: NDArray[np.float64], count: int | None = None) -> NDArray[np.float64]:
    """Drawn a little towards a sphere, so that few epochs suffice."""
    covariance = centred.T @ centred / (count or len(centred))
    return 0.95 * covariance + 0.05 * np.eye(len(covariance)) * np.trace(covariance) / len(covariance)


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
    alone = means[1] - means[0] < sizes.mean() or shares.min() < 0.05
    if alone:  # the mixture ran off with one mode
        shares = np.array([1 - upper.mean(), upper.mean()])
        means, sizes = np.array([x[~upper].mean(), x[upper].mean()]), np.array([x[~upper].std(), x[upper].std()])
    between = np.linspace(means[0], means[1], 400)
    sizes = np.maximum(sizes, 1e-9)
    odds = np.log(shares / sizes) - (between[:, None] - means) ** 2 / (2 * sizes**2)
    threshold = between[int(np.argmin(np.abs(odds[:, 1] - odds[:, 0])))]
    distance, variance = means[1] - means[0], float((sizes**2 * shares).sum())
    steps = np.clip(distance * (np.nan_to_num(values) - threshold) / variance, -50, 50)
    separated = not alone and distance > 2 * np.sqrt(variance)  # Ashman's D
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


def robust_scores(values: NDArray) -> NDArray:
    """z-scores over the first axis by median and median absolute deviation, which artefacts do not move."""
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
    kernel, known = np.ones(width), np.isfinite(values)
    centre = slice((width - 1) // 2, (width - 1) // 2 + len(values))  # NumPy's "same" is as long as the longer of both
    sums = np.convolve(np.where(known, values, 0), kernel)[centre]
    counts = np.convolve(known.astype(float), kernel)[centre]
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


def _after_nrem(stages: NDArray[np.int8], gap: int) -> NDArray[np.bool_]:
    """Epochs of REM sleep that began at most ``gap`` epochs after NREM sleep."""
    after, last = np.zeros(len(stages), bool), -(10**9)
    for epoch, stage in enumerate(stages):
        after[epoch] = stage == REM and epoch - last <= gap
        if stage == NREM or after[epoch]:
            last = epoch
    return after
