"""Decision parameters of the detector: threshold and refractory period by grid search on held-out recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np

from src.models.spike_scoring import detection
from src.models.spikes.events import extract_events, merge
from src.preprocess.spikes.recording import SpikeTrain

THRESHOLDS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
REFRACTORY_MS = (0.6, 1.0, 1.6, 2.4)
SECOND = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TOLERANCE = 50
TIE = 1e-9

T = TypeVar("T", int, float)


@dataclass(frozen=True)
class Decision:
    """What turns curves into spikes for one background, and the F1 (±50 samples) it reached when tuned.

    Attributes
    ----------
    threshold, refractory
        See :class:`~src.models.spikes.events.EventStream`.
    second
        Threshold for what is found once the first spikes are subtracted; ``None`` for no second look.
    on_edge
        Whether no interior optimum was found even after the grid was widened.
    """

    threshold: float
    refractory: int
    second: float | None = None
    f1: float | None = None
    on_edge: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def tune_detection(
    probabilities: Sequence[np.ndarray], truths: Sequence[SpikeTrain], *, width: int, fs_hz: float
) -> Decision:
    """The threshold and refractory period with the best F1 over labelled recordings of one background.

    F1 is that of all recordings together. Among equally good settings the one in the middle is taken.
    A grid whose best point lies on its edge is widened: thresholds towards 0 and 1, refractory periods
    by factors.
    """
    thresholds = list(THRESHOLDS)
    periods = [max(round(ms * fs_hz / 1000), 1) for ms in REFRACTORY_MS]
    scores: dict[tuple[float, int], float] = {}
    on_edge = True
    for _ in range(4):
        for threshold in thresholds:
            for period in periods:
                if (threshold, period) not in scores:
                    scores[threshold, period] = _f1(probabilities, truths, threshold, period, width)
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


def tune_second(
    first: Sequence[tuple[SpikeTrain, np.ndarray]],
    probabilities: Sequence[np.ndarray],
    truths: Sequence[SpikeTrain],
    decision: Decision,
    *,
    width: int,
) -> Decision:
    """The decision with the best threshold for a second look, or none where looking again does not pay.

    Parameters
    ----------
    first
        Spikes and strengths that ``decision`` yields.
    probabilities
        ``(curve, time)`` of the recordings with those spikes subtracted.
    """
    best, chosen = decision.f1 or 0.0, decision
    for second in SECOND:
        matched = total = 0
        for found, probability, truth in zip(first, probabilities, truths, strict=True):
            more = extract_events(probability, threshold=second, refractory=decision.refractory, width=width)
            merged, _ = merge(found, more, decision.refractory)
            counts = detection(truth.index, merged.index, TOLERANCE)
            matched, total = matched + counts.n_matched, total + counts.n_truth + counts.n_found
        if total and 2 * matched / total > best:
            best = 2 * matched / total
            chosen = replace(decision, second=second, f1=best)
    return chosen


def _f1(
    probabilities: Sequence[np.ndarray], truths: Sequence[SpikeTrain], threshold: float, period: int, width: int
) -> float:
    matched = total = 0
    for probability, truth in zip(probabilities, truths, strict=True):
        found, _ = extract_events(probability, threshold=threshold, refractory=period, width=width)
        counts = detection(truth.index, found.index, TOLERANCE)
        matched, total = matched + counts.n_matched, total + counts.n_truth + counts.n_found
    return 2 * matched / total if total else 0.0


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
