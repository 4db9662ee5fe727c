"""The pictures of a training: what it confuses, and one example of what it predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from src.reports.grids import draw_gain, draw_movie, draw_planes
from src.reports.sleep import draw_staging
from src.storage.atomic import atomic_file


def draw_confusion(path: Path, *, title: str, counts: np.ndarray, classes: Sequence[str]) -> Path:
    """Write a confusion matrix.

    Parameters
    ----------
    counts
        ``(true class, predicted class)`` numbers of examples; colours and percentages are shares of a true class.
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.8 + 0.62 * len(classes)
    figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(share):
        text = f"{100 * value:.0f} %\n{counts[row, column]:,}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if value > 0.55 else "black")
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, loc="left", fontsize=10)
    with atomic_file(path) as part:
        figure.savefig(part, dpi=130)
    plt.close(figure)
    return path


DRAWERS: dict[str, Callable[..., Path]] = {
    "confusion": draw_confusion,
    "staging": draw_staging,
    "forecast_gain": draw_gain,
    "forecast_planes": draw_planes,
    "forecast_movie": draw_movie,
}
"""Kinds of pictures that a module may ask for in its ``media()``."""


def draw_media(folder: Path, media: Mapping[str, Mapping[str, Any]]) -> dict[str, Path]:
    """Draw ``{kind: arguments}`` into ``<folder>/<kind>.png``; returns the files by kind."""
    return {kind: DRAWERS[kind](folder / f"{kind}.png", **arguments) for kind, arguments in media.items()}
