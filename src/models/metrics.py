"""Classification scores, all computed from confusion counts so that every phase and process agrees."""

from typing import Any

import numpy as np


def accuracy(confusion: np.ndarray) -> float:
    """Share of examples on the diagonal; NaN without examples."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")


def cohen_kappa(confusion: np.ndarray) -> float:
    """Cohen's κ, agreement beyond chance (Cohen 1960); NaN where chance agreement is complete."""
    total = confusion.sum()
    if not total:
        return float("nan")
    observed = np.trace(confusion) / total
    expected = float(confusion.sum(0) @ confusion.sum(1)) / float(total) ** 2
    return float((observed - expected) / (1 - expected)) if expected < 1 else float("nan")


def f1_per_class(confusion: np.ndarray) -> np.ndarray:
    """F1 of every class; NaN for a class that neither occurs nor is predicted."""
    true_positive = np.diag(confusion).astype(float)
    denominator = confusion.sum(0) + confusion.sum(1)
    with np.errstate(invalid="ignore"):
        return np.where(denominator > 0, 2 * true_positive / np.maximum(denominator, 1), np.nan)


def macro_f1(confusion: np.ndarray) -> float:
    """Mean F1 over the classes that occur or are predicted; NaN without examples."""
    scores = f1_per_class(confusion)
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def scores(confusion: np.ndarray, classes: list[str]) -> dict[str, float]:
    """Accuracy, macro-F1, κ, F1 of every class, and the number of examples."""
    named = {f"f1_{name}": float(value) for name, value in zip(classes, f1_per_class(confusion), strict=True)}
    summary: dict[str, Any] = {
        "accuracy": accuracy(confusion),
        "macro_f1": macro_f1(confusion),
        "kappa": cohen_kappa(confusion),
        **named,
        "n": float(confusion.sum()),
    }
    return summary
