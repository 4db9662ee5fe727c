"""Decision parameters of the detector: threshold and refractory period by grid search on held-out recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np

from src.models.spike_scoring import detection
from src.models.spikes.events import Bumps, in_order, merge
from src.recordings.extracellular.spike_trains import SpikeTrain

THRESHOLDS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
REFRACTORY_MS = (0.6, 1.0, 1.6, 2.4)
SECOND = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TOLERANCE, STRICT = 50, 10
FEWEST = 20
TIE = 1e-9

T = TypeVar("T", int, float)


class Trial(NamedTuple):
    """A recording to tune on.

    ``curves`` are the probabilities of the labelled recording with spikes ``truth``. Where its noise is a
    stretch of an unlabelled recording, ``alone`` are the probabilities of that stretch by itself.
    """

    curves: np.ndarray
    truth: SpikeTrain
    alone: np.ndarray | None


@dataclass(frozen=True)
class Decision:
    """What turns curves into spikes for one background.

    Attributes
    ----------
    threshold, refractory
        See :class:`~src.models.spikes.events.EventStream`.
    second
        Threshold for what is found once the first spikes are subtracted; ``None`` for no second look.
    merit
        What :func:`merit` gave these settings when they were tuned.
    on_edge
        Whether no interior optimum was found even after the grid was widened.
    """

    threshold: float
    refractory: int
    second: float | None = None
    merit: float | None = None
    on_edge: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def merit(truths: Sequence[np.ndarray], found: Sequence[np.ndarray], alone: Sequence[np.ndarray | None]) -> float:
    """How good detections are, whether or not everything in the recordings is labelled.

    With fully labelled recordings, F1 within ±50 samples of all of them together. With recordings made
    by adding labelled spikes to an unlabelled one, recall squared over the number of spikes found in
    that one alone, which is proportional to precision times recall on it (Lee and Liu 2003).

    Parameters
    ----------
    truths, found
        Onsets that are labelled, and that were found.
    alone
        Onsets found where no labelled spike was added; ``None`` for fully labelled recordings.
    """
    labelled = sum(len(t) for t in truths)
    if any(a is None for a in alone):
        matched = sum(detection(t, f, TOLERANCE).n_matched for t, f in zip(truths, found, strict=True))
        total = labelled + sum(len(f) for f in found)
        return 2 * matched / total if total else 0.0
    recall = sum(detection(t, f, STRICT).n_matched for t, f in zip(truths, found, strict=True)) / max(labelled, 1)
    return recall**2 * labelled / max(sum(len(a) for a in alone if a is not None), FEWEST)


def tune_detection(trials: Sequence[Trial], *, width: int, fs_hz: float) -> Decision:
    """The threshold and refractory period of most merit over recordings of one background.

    Among equally good settings the one in the middle is taken. A grid whose best point lies on its edge
    is widened: thresholds towards 0 and 1, refractory periods by factors.
    """
    bumps = [(_bumps(t.curves, width), _bumps(t.alone, width)) for t in trials]
    thresholds = list(THRESHOLDS)
    periods = [max(round(ms * fs_hz / 1000), 1) for ms in REFRACTORY_MS]
    scores: dict[tuple[float, int], float] = {}
    on_edge = True
    for _ in range(4):
        for threshold in thresholds:
            for period in periods:
                if (threshold, period) not in scores:
                    scores[threshold, period] = _merit(trials, bumps, threshold, period)
        threshold, period = _middle_of_best(scores)
        tied = {t for (t, _), value in scores.items() if value >= scores[threshold, period] - TIE}
        low, high = (thresholds[0] / 2, (1 + thresholds[-1]) / 2)
        wider_t = _widened(min(tied), _widened(max(tied), thresholds, (low, high)), (low, high))
        wider_p = _widened(period, periods, (max(periods[0] // 2, 1), periods[-1] * 2))
        on_edge = wider_t != thresholds or wider_p != periods
        if not on_edge:
            break
        thresholds, periods = wider_t, wider_p
    return Decision(threshold, period, None, scores[threshold, period], on_edge)


def _bumps(curves: np.ndarray | None, width: int) -> Bumps | None:
    return None if curves is None else Bumps.of(curves, width=width)


def _merit(
    trials: Sequence[Trial], bumps: Sequence[tuple[Bumps | None, Bumps | None]], threshold: float, period: int
) -> float:
    def onsets(found: Bumps | None) -> np.ndarray | None:
        return None if found is None else in_order(found.spikes(threshold, period), period)[0].index

    found = [onsets(labelled) for labelled, _ in bumps]
    return merit(
        [t.truth.index for t in trials], [f for f in found if f is not None], [onsets(alone) for _, alone in bumps]
    )


Look = tuple[SpikeTrain, np.ndarray]
"""Spikes found in a recording, and their strengths."""


def tune_second(
    first: Sequence[tuple[Look, Look | None]], trials: Sequence[Trial], decision: Decision, *, width: int
) -> Decision:
    """The decision with the best threshold for a second look, or none where looking again does not pay.

    Parameters
    ----------
    first
        What ``decision`` finds in each recording, and in its background alone where that is a recording.
    trials
        The same recordings with those spikes subtracted.
    """

    def merged(look: Look | None, bumps: Bumps | None, second: float) -> np.ndarray | None:
        if look is None or bumps is None:
            return None
        more = in_order(bumps.spikes(second, decision.refractory), decision.refractory)
        return merge(look, more, decision.refractory)[0].index

    best, chosen = decision.merit or 0.0, decision
    truths = [t.truth.index for t in trials]
    bumps = [(_bumps(t.curves, width), _bumps(t.alone, width)) for t in trials]
    for second in SECOND:
        found = [merged(look, labelled, second) for (look, _), (labelled, _) in zip(first, bumps, strict=True)]
        alone = [merged(look, background, second) for (_, look), (_, background) in zip(first, bumps, strict=True)]
        value = merit(truths, [f for f in found if f is not None], alone)
        if value > best:
            best, chosen = value, replace(decision, second=second, merit=value)
    return chosen


def _middle_of_best(scores: dict[tuple[float, int], float]) -> tuple[float, int]:
    best = max(scores.values())
    good = sorted(key for key, value in scores.items() if value >= best - TIE)
    thresholds = sorted({t for t, _ in good})
    threshold = thresholds[len(thresholds) // 2]
    periods = sorted(p for t, p in good if t == threshold)
    return threshold, periods[len(periods) // 2]


def _widened(best: T, grid: list[T], ends: tuple[T, T]) -> list[T]:
    if best == grid[0] and ends[0] < grid[0]:
        first: list[T] = [ends[0]]
        return first + grid
    if best == grid[-1] and ends[1] > grid[-1]:
        last: list[T] = [ends[1]]
        return grid + last
    return grid
