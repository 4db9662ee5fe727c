"""How far a scoring agrees with a person's, how far its confidence can be trusted, and what to look at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.models.metrics import scores
from src.predict.sleep_statistics import sleep_statistics
from src.signals import HUMAN_KAPPA, UNSCORED, BadInput, is_human_scoring

_COMPARED = ("tst_min", "se_percent", "sol_min", "rem_latency_min", "waso_min", "awakenings", "transitions")
_DOUBT = 0.25
"""Epochs whose stage is wrong with at least this probability are worth a look."""
_VISIT_EPOCHS = 2.0
"""What it costs to go to a place in the night, in epochs read."""


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
        name: {"reference": theirs[name], "scored": mine[name], "difference": _difference(mine[name], theirs[name])}
        for name in compared
    }
    by_stage = "  ".join(f"{name} {_two(found[f'f1_{name}'])}" for name in classes)
    differences = "  ".join(
        f"{name} {_signed(statistics[key]['difference'])}"
        for name, key in (
            ("TST", "tst_min"),
            ("SOL", "sol_min"),
            ("WASO", "waso_min"),
            ("REM latency", "rem_latency_min"),
        )
    )
    human = f" (human scorers among themselves: κ {HUMAN_KAPPA})" if is_human_scoring(classes, epoch_s) else ""
    return {
        "scores": found,
        "confusion": confusion.tolist(),
        "classes": list(classes),
        "ece": reliability(probabilities, np.where(both, reference, UNSCORED))[1],
        "statistics": statistics,
        "lines": [
            f"κ {_two(found['kappa'])}  accuracy {_two(found['accuracy'])}  macro-F1 {_two(found['macro_f1'])}"
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
        by_stage = "  ".join(f"{name} {_two(found[f'f1_{name}'])}" for name in classes)
        lines.append(
            f"{words}: κ {_two(found['kappa'])}  accuracy {_two(found['accuracy'])}"
            f"  macro-F1 {_two(found['macro_f1'])}  ({by_stage})"
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


def _difference(mine: float | None, theirs: float | None) -> float | None:
    return None if mine is None or theirs is None else mine - theirs


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}"


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
