"""What a sleep lab reads off a hypnogram, and how far each number can be trusted.

Latencies and awakenings are first-event statistics: one wrong epoch moves them by an hour. Every statistic
therefore gets an interval from hypnograms that are drawn from the hypnodensity (:func:`draw_hypnograms`). Drawn
hypnograms alone know nothing of errors that a network makes all night long, so the interval is widened by margins
that were measured on held-back nights (``pretrained/make_sleep_human.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.signals import UNSCORED

WAKE_NAMES = ("W", "Wake")
LABELS: dict[str, str] = {
    "trt_min": "total recording time, lights off to lights on (min)",
    "tst_min": "total sleep time, TST (min)",
    "se_percent": "sleep efficiency, TST / recording time (%)",
    "sol_min": "sleep latency, first epoch of sleep (min)",
    "sol_three_min": "sleep latency, first of three consecutive epochs (min)",
    "sol_persistent_min": "latency to persistent sleep, 10 min without wake (min)",
    "rem_latency_min": "REM latency from sleep onset, first epoch (min)",
    "rem_latency_three_min": "REM latency, first of three consecutive epochs (min)",
    "rem_latency_persistent_min": "REM latency from persistent sleep (min)",
    "waso_min": "wake after sleep onset, WASO (min)",
    "awakenings": "awakenings after sleep onset",
    "transitions": "stage transitions",
    "unscored_min": "unscored (min)",
}
"""Name of a statistic → what it is, with its unit; stage minutes and shares come beside them."""
COUNTS = ("awakenings", "transitions")
"""Statistics that are counted."""
PERSISTENT_S = 600.0
"""Sleep without wake that counts as persistent."""
DRAWS, LEVEL = 500, 0.9
"""Hypnograms drawn for an interval; the share of nights whose true value lies inside."""
EMISSION_WEIGHT = 0.5
"""Exponent of the network's probabilities as evidence: they have seen the neighbours that the transitions count too."""
Interval = tuple[float, float] | None


def sleep_statistics(stages: NDArray[np.integer], classes: Sequence[str], epoch_s: float) -> dict[str, float | None]:
    """Statistics of one night by the definitions of the AASM manual (Berry et al., ch. 2).

    The night counts from its first epoch (lights off) to its last (lights on): cut the stages first where the
    lab notes other times.

    Parameters
    ----------
    stages
        ``(epoch,)`` indices into ``classes``, ``UNSCORED`` where there is none.
    classes
        Stage names; ``W`` or ``Wake`` is wake, every other one sleep.
    epoch_s
        Length of an epoch.

    Returns
    -------
    dict
        The keys of :data:`LABELS`, ``min_<stage>``, ``percent_<stage>`` of sleep time for sleep stages,
        ``latency_min_<stage>`` from the start. ``None`` where there is nothing to state, such as the
        latency of a stage that does not occur.
    """
    found = _statistics(np.asarray(stages)[None], classes, epoch_s)
    return {name: None if np.isnan(values[0]) else float(values[0]) for name, values in found.items()}


def _statistics(stages: NDArray[np.integer], classes: Sequence[str], epoch_s: float) -> dict[str, NDArray[np.floating]]:
    """Statistics of many hypnograms ``(hypnogram, epoch)``; each value is ``(hypnogram,)``, NaN if none."""
    minute, length = epoch_s / 60, stages.shape[1]
    wake = np.isin(stages, [i for i, name in enumerate(classes) if name in WAKE_NAMES])
    asleep = (stages != UNSCORED) & ~wake
    rem = stages == (list(classes).index("REM") if "REM" in classes else -2)
    persistent = max(1, round(PERSISTENT_S / epoch_s))
    onset, onset_three, onset_persistent = (_first(asleep, run) for run in (1, 3, persistent))
    after = np.arange(length) >= np.where(np.isnan(onset), length, onset)[:, None]
    tst = asleep.sum(axis=1) * minute
    both = (stages[:, 1:] != UNSCORED) & (stages[:, :-1] != UNSCORED)
    found = {
        "trt_min": np.full(len(stages), length * minute),
        "tst_min": tst,
        "se_percent": _share(tst, np.full(len(stages), length * minute)),
        "sol_min": onset * minute,
        "sol_three_min": onset_three * minute,
        "sol_persistent_min": onset_persistent * minute,
        "rem_latency_min": (_first(rem, 1) - onset) * minute,
        "rem_latency_three_min": (_first(rem, 3) - onset_three) * minute,
        "rem_latency_persistent_min": (_first(rem & _from(onset_persistent, length), 1) - onset_persistent) * minute,
        "waso_min": np.where(np.isnan(onset), np.nan, (wake & after).sum(axis=1) * minute),
        "awakenings": (wake[:, 1:] & asleep[:, :-1]).sum(axis=1).astype(float),
        "transitions": ((stages[:, 1:] != stages[:, :-1]) & both).sum(axis=1).astype(float),
        "unscored_min": (stages == UNSCORED).sum(axis=1) * minute,
    }
    for index, name in enumerate(classes):
        here = stages == index
        found[f"min_{name}"] = here.sum(axis=1) * minute
        if name not in WAKE_NAMES:
            found[f"percent_{name}"] = _share(here.sum(axis=1) * minute, tst)
            found[f"latency_min_{name}"] = _first(here, 1) * minute
    return found


def _first(events: NDArray[np.bool_], run: int) -> NDArray[np.floating]:
    """Where the first ``run`` consecutive true epochs of each row ``(row, epoch)`` begin; NaN where there are none."""
    if events.shape[1] < run:
        return np.full(len(events), np.nan)
    counts = np.concatenate([np.zeros((len(events), 1), int), np.cumsum(events, axis=1)], axis=1)
    begins = counts[:, run:] - counts[:, :-run] == run
    return np.where(begins.any(axis=1), begins.argmax(axis=1).astype(float), np.nan)


def _from(first: NDArray[np.floating], length: int) -> NDArray[np.bool_]:
    return np.arange(length) >= np.where(np.isnan(first), length, first)[:, None]


def _share(part: NDArray[np.floating], whole: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.where(whole > 0, 100 * part / np.maximum(whole, 1e-12), np.nan)


def draw_hypnograms(
    probabilities: NDArray[np.floating], transitions: NDArray[np.floating], *, draws: int = DRAWS, seed: int = 0
) -> NDArray[np.int64]:
    """Hypnograms that the hypnodensity allows, by forward filtering and backward sampling.

    Epoch ``t`` of a drawn hypnogram has stage ``k`` with a weight of ``(p[t, k] / s[k])`` to the power of
    :data:`EMISSION_WEIGHT`, the network's probability less what the stage's share ``s`` alone explains, and stages
    follow one another as in training (a hidden Markov model; Rabiner 1989, Proc. IEEE 77:257). Drawing every epoch
    for itself would fill the night with awakenings.

    Parameters
    ----------
    probabilities
        ``(epoch, class)``; rows of unscored epochs are NaN and stay ``UNSCORED``.
    transitions
        ``(from, to)`` counts of neighbouring epochs in training, the diagonal included.

    Returns
    -------
    ``(draw, epoch)`` stages.
    """
    rng = np.random.default_rng(seed)
    counts = np.asarray(transitions, float) + 0.5  # what was never seen is rare, not impossible
    follows, share = counts / counts.sum(axis=1, keepdims=True), counts.sum(axis=1) / counts.sum()
    known = np.isfinite(probabilities).all(axis=1)
    weight = np.where(known[:, None], np.nan_to_num(probabilities) / share + 1e-6, 1.0) ** EMISSION_WEIGHT
    # Forward: belief[t] is the stage at t given everything up to t.
    belief = np.empty_like(weight, dtype=float)
    before = share
    for epoch, row in enumerate(weight):
        ahead = before * row
        belief[epoch] = ahead / ahead.sum()
        before = belief[epoch] @ follows
    # Backward: draw the last stage, then each stage given the one after it.
    drawn = np.empty((draws, len(weight)), np.int64)
    chances = np.broadcast_to(belief[-1], (draws, len(share)))
    for epoch in range(len(weight) - 1, -1, -1):
        edges = np.cumsum(chances, axis=1)
        point = rng.random((draws, 1)) * edges[:, -1:]
        drawn[:, epoch] = np.minimum((edges < point).sum(axis=1), len(share) - 1)
        if epoch:
            chances = belief[epoch - 1] * follows[:, drawn[:, epoch]].T
    drawn[:, ~known] = UNSCORED
    return drawn


def statistic_intervals(
    probabilities: NDArray[np.floating],
    transitions: NDArray[np.floating],
    classes: Sequence[str],
    epoch_s: float,
    margins: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Interval]:
    """Where the true value of every statistic lies in :data:`LEVEL` of the nights.

    The central :data:`LEVEL` of the statistic over drawn hypnograms, widened by ``margins`` within what is possible;
    ``None`` where most hypnograms have no such value. Without margins the interval is far
    too narrow: it takes the errors of single epochs for independent.
    """
    found = _statistics(draw_hypnograms(probabilities, transitions), classes, epoch_s)
    edges = (50 * (1 - LEVEL), 50 * (1 + LEVEL))
    intervals: dict[str, Interval] = {}
    for name, values in found.items():
        known = values[np.isfinite(values)]
        if 2 * len(known) <= len(values):
            intervals[name] = None
            continue
        low, high = np.percentile(known, edges)
        below, above = (margins or {}).get(name, (0.0, 0.0))
        most = 100.0 if "percent" in name else len(probabilities) * (1.0 if name in COUNTS else epoch_s / 60)
        low, high = float(np.clip(low - below, 0, most)), float(np.clip(high + above, 0, most))
        intervals[name] = (min(low, high), max(low, high))
    return intervals


def bouts(stages: NDArray[np.integer], classes: Sequence[str], epoch_s: float) -> list[dict[str, Any]]:
    """Number, mean and longest length in seconds of the uninterrupted bouts of every stage."""
    edges = np.flatnonzero(np.diff(stages)) + 1
    first, last = np.r_[0, edges], np.r_[edges, len(stages)]
    lengths = (last - first) * epoch_s
    rows = []
    for index, name in enumerate(classes):
        mine = lengths[stages[first] == index] if len(stages) else np.empty(0)
        mean, longest = (float(mine.mean()), float(mine.max())) if len(mine) else (None, None)
        rows.append({"stage": name, "bouts": len(mine), "mean_s": mean, "longest_s": longest})
    return rows
