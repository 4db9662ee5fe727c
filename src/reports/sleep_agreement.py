"""How far a scoring agrees with a person's: epochs, stages, and the statistics a lab reads off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.models.metrics import scores
from src.reports.sleep_review import reliability
from src.reports.sleep_statistics import sleep_statistics
from src.signals import HUMAN_STAGES, UNSCORED, BadInput

_COMPARED = ("tst_min", "se_percent", "sol_min", "rem_latency_min", "waso_min", "awakenings", "transitions")


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
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (reference[both], stages[both]), 1)
    found = {k: None if np.isnan(v) else v for k, v in scores(confusion, list(classes)).items()}
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
    human = " (human scorers among themselves: κ 0.76)" if len(classes) == len(HUMAN_STAGES) else ""
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
        both = (other != UNSCORED) & (scoring != UNSCORED)
        confusion = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(confusion, (scoring[both], other[both]), 1)
        found = {k: None if np.isnan(v) else v for k, v in scores(confusion, list(classes)).items()}
        by_stage = "  ".join(f"{name} {_two(found[f'f1_{name}'])}" for name in classes)
        lines.append(
            f"{words}: κ {_two(found['kappa'])}  accuracy {_two(found['accuracy'])}"
            f"  macro-F1 {_two(found['macro_f1'])}  ({by_stage})"
        )
    return lines


def _difference(mine: float | None, theirs: float | None) -> float | None:
    return None if mine is None or theirs is None else mine - theirs


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1f}"
