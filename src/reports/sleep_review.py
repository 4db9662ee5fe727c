"""Which stretches of a scored night a person should look at first, and how far the confidence can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from src.signals import UNSCORED

_DOUBT = 0.25
"""Epochs whose stage is wrong with at least this probability are worth a look."""
_VISIT_EPOCHS = 2.0
"""What it costs to go to a place in the night, in epochs read."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive doubtful epochs ``[first, last)`` of one label; ``expected_errors`` of them are wrong."""

    first: int
    last: int
    stage: int
    alternative: int
    expected_errors: float

    @property
    def benefit(self) -> float:
        """Expected corrections per epoch's worth of work."""
        return self.expected_errors / (self.last - self.first + _VISIT_EPOCHS)


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
    return sorted(found, key=lambda s: (-s.benefit, s.first))


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
