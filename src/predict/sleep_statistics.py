"""What a sleep lab reads off a hypnogram, how far it agrees with a person's, and how far each number can be trusted.

Latencies and awakenings are first-event statistics: one wrong epoch moves them by an hour. Every statistic
therefore gets an interval from hypnograms that are drawn from the hypnodensity (:func:`draw_hypnograms`). Drawn
hypnograms alone know nothing of errors that a network makes all night long, so the interval is widened by margins
that were measured on held-back nights (``pretrained/make_sleep_human.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.models.metrics import scores
from src.signals import HUMAN_KAPPA, UNSCORED, BadInput, is_human_scoring

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
"""Name of a statistic → what it is, with its unit; stage minutes and shares come beside them.

The interval of a new one is too narrow until ``pretrained/make_sleep_human.py`` has measured its margins.
"""
COUNTS = ("awakenings", "transitions")
"""Statistics that are counted."""
PERSISTENT_S = 600.0
"""Sleep without wake that counts as persistent."""
DRAWS, LEVEL = 500, 0.9
"""Hypnograms drawn for an interval; the share of nights whose true value lies inside."""
EMISSION_WEIGHT = 0.5
"""Exponent of the network's probabilities as evidence: they have seen the neighbours that the transitions count too."""
_COMPARED = ("tst_min", "se_percent", "sol_min", "rem_latency_min", "waso_min", "awakenings", "transitions")
_DOUBT = 0.25
"""Epochs whose stage is wrong with at least this probability are worth a look."""
_VISIT_EPOCHS = 2.0
"""What it costs to go to a place in the night, in epochs read."""
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
    after, after_persistent = (np.arange(length) >= first[:, None] for first in (onset, onset_persistent))  # NaN: never
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
        "rem_latency_persistent_min": (_first(rem & after_persistent, 1) - onset_persistent) * minute,
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


def _share(part: NDArray[np.floating], whole: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.where(whole > 0, 100 * part / np.maximum(whole, 1e-12), np.nan)


def mean_vote(votes: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
    """The mean of ``(epoch, class)`` probabilities over those that scored the epoch, NaN where none did."""
    known = np.isfinite(votes).all(axis=2, keepdims=True)
    count, total = known.sum(axis=0), np.where(known, votes, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


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


def agreement(
    reference: NDArray[np.integer],
    stages: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    epoch_s: float,
) -> dict[str, Any]:
    """Compare two scorings of the same epochs; epochs that either leaves unscored do not count.

    Returns
    -------
    dict
        ``scores`` (accuracy, κ, macro-F1 over the stages that occur, F1 by stage, ``None`` where
        undefined), ``confusion`` (rows: reference), ``ece``, ``statistics`` (reference, this scoring,
        difference, over the compared epochs), ``lines`` for the console.

    Raises
    ------
    BadInput
        If the two have no scored epoch in common or different lengths.
    """
    if len(reference) != len(stages):
        raise BadInput("reference", f"has {len(reference)} epochs, the recording {len(stages)}", "give its hypnogram")
    both = (reference != UNSCORED) & (stages != UNSCORED)
    if not both.any():
        raise BadInput("reference", "has no scored epoch in common with the recording", "give its hypnogram")
    confusion, found = _compare(reference, stages, classes)
    mine, theirs = (sleep_statistics(np.where(both, s, UNSCORED), classes, epoch_s) for s in (stages, reference))
    compared = [*_COMPARED, *(f"min_{name}" for name in classes)]
    statistics = {
        name: {"reference": b, "scored": a, "difference": None if a is None or b is None else a - b}
        for name, a, b in ((name, mine[name], theirs[name]) for name in compared)
    }
    by_stage = "  ".join(f"{name} {_text(found[f'f1_{name}'])}" for name in classes)
    shown = {"TST": "tst_min", "SOL": "sol_min", "WASO": "waso_min", "REM latency": "rem_latency_min"}
    differences = "  ".join(f"{name} {_text(statistics[key]['difference'], '+.1f')}" for name, key in shown.items())
    human = f" (human scorers among themselves: κ {HUMAN_KAPPA})" if is_human_scoring(classes, epoch_s) else ""
    return {
        "scores": found,
        "confusion": confusion.tolist(),
        "classes": list(classes),
        "ece": reliability(probabilities, np.where(both, reference, UNSCORED))[1],
        "statistics": statistics,
        "lines": [
            f"κ {_text(found['kappa'])}  accuracy {_text(found['accuracy'])}  macro-F1 {_text(found['macro_f1'])}"
            f"  over {int(both.sum())} epochs{human}",
            f"F1  {by_stage}",
            f"minutes more than the reference  {differences}",
        ],
    }


def beside(
    other: NDArray[np.integer],
    stages: NDArray[np.integer],
    reference: NDArray[np.integer] | None,
    classes: Sequence[str],
) -> list[str]:
    """Lines on how a second scoring agrees with this one and, where there is one, with the reference."""
    pairs = [("with this scoring", stages)] + ([] if reference is None else [("with the reference", reference)])
    lines = []
    for words, scoring in pairs:
        _, found = _compare(scoring, other, classes)
        by_stage = "  ".join(f"{name} {_text(found[f'f1_{name}'])}" for name in classes)
        lines.append(
            f"{words}: κ {_text(found['kappa'])}  accuracy {_text(found['accuracy'])}"
            f"  macro-F1 {_text(found['macro_f1'])}  ({by_stage})"
        )
    return lines


def _compare(
    reference: NDArray[np.integer], stages: NDArray[np.integer], classes: Sequence[str]
) -> tuple[NDArray[np.int64], dict[str, float | None]]:
    """Confusion ``(reference, scored)`` of the epochs that both scored, and its scores."""
    both = (reference != UNSCORED) & (stages != UNSCORED)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (reference[both], stages[both]), 1)
    return confusion, {k: None if np.isnan(v) else v for k, v in scores(confusion, list(classes)).items()}


def _text(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else f"{value:{form}}"


@dataclass(frozen=True)
class Stretch:
    """Consecutive doubtful epochs ``[first, last)`` of one label; ``expected_errors`` of them are wrong."""

    first: int
    last: int
    stage: int
    alternative: int
    expected_errors: float


def review_list(probabilities: NDArray[np.floating], stages: NDArray[np.integer]) -> list[Stretch]:
    """Doubtful stretches, the most rewarding first.

    With calibrated probabilities an epoch's label is wrong with probability ``1 - p``: reviewing it
    corrects that many labels on average. Neighbouring doubtful epochs of one label are read together.

    Parameters
    ----------
    probabilities
        ``(epoch, class)``, NaN where unscored.
    stages
        ``(epoch,)``, ``UNSCORED`` where there is none.
    """
    scored = stages != UNSCORED
    wrong = np.where(scored, 1 - np.nan_to_num(probabilities).max(axis=1), 0.0)
    doubtful = scored & (wrong >= _DOUBT)
    found = []
    start = 0
    for end in range(1, len(stages) + 1):
        if end < len(stages) and doubtful[end] == doubtful[start] and stages[end] == stages[start]:
            continue
        if doubtful[start]:
            total = probabilities[start:end].sum(axis=0)
            stage = int(stages[start])
            other = int(np.argmax(np.where(np.arange(len(total)) == stage, -1.0, total)))
            found.append(Stretch(start, end, stage, other, float(wrong[start:end].sum())))
        start = end
    # By expected corrections per epoch's worth of work.
    return sorted(found, key=lambda s: (-s.expected_errors / (s.last - s.first + _VISIT_EPOCHS), s.first))


def expected_accuracy(probabilities: NDArray[np.floating], reviewed: float = 0.0) -> float | None:
    """Expected share of right labels when the least certain ``reviewed`` share of epochs is corrected by a person."""
    sure = np.sort(probabilities.max(axis=1)[np.isfinite(probabilities).all(axis=1)])
    if not len(sure):
        return None
    sure[: round(reviewed * len(sure))] = 1.0
    return float(sure.mean())


def reliability(
    probabilities: NDArray[np.floating], stages: NDArray[np.integer], bins: int = 10
) -> tuple[NDArray[np.float64], float]:
    """How often labels of a given confidence are right (Guo et al. 2017).

    Parameters
    ----------
    probabilities, stages
        ``(epoch, class)`` predicted and ``(epoch,)`` true; unscored epochs are left out.
    bins
        Equal steps of confidence.

    Returns
    -------
    table
        ``(bin, 3)``: mean confidence, share right, epochs; NaN in the first two of an empty bin.
    ece
        Expected calibration error: mean distance of the two, weighted by epochs.
    """
    known = (stages != UNSCORED) & np.isfinite(probabilities).all(axis=1)
    confidence, right = probabilities[known].max(axis=1), probabilities[known].argmax(axis=1) == stages[known]
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    table = np.full((bins, 3), np.nan)
    for index in range(bins):
        here = place == index
        table[index, 2] = here.sum()
        if here.any():
            table[index, :2] = confidence[here].mean(), right[here].mean()
    filled = table[:, 2] > 0
    gaps = np.abs(table[filled, 0] - table[filled, 1])
    ece = float((gaps * table[filled, 2]).sum() / max(1, known.sum()))
    return table, ece
