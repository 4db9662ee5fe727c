"""The pictures of a training: what it confuses, and one example of what it predicts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from src.reports.figures import saved, titled
from src.reports.grids import ForecastExample, draw_gain, draw_movie, draw_planes
from src.reports.sleep import draw_staging


def draw_confusion(
    path: Path,
    *,
    tables: Mapping[str, np.ndarray],
    classes: Sequence[str] | None = None,
    title: str = "",
    axis_names: tuple[str, str] = ("true", "predicted"),
) -> Path:
    """Write confusion matrices side by side: numbers of examples, and their share of a true class as colour and text.

    Parameters
    ----------
    tables
        ``(true class, predicted class)`` numbers of examples, by the name that stands above them.
    classes
        Names of the classes; ``None`` numbers them from 1.
    axis_names
        What a row and what a column is.
    """
    side = 1.8 + 0.62 * max(map(len, tables.values()))
    figure = Figure(figsize=(side * len(tables), side), layout="constrained")
    panels = figure.subplots(1, len(tables), squeeze=False)
    for axes, (name, counts) in zip(panels[0], tables.items(), strict=True):
        share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), value in np.ndenumerate(share):
            text = f"{100 * value:.0f} %\n{counts[row, column]:,}"
            shade = "white" if value > 0.55 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=shade)
        names = classes or [str(number + 1) for number in range(len(counts))]
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.set_title(f"{name} (n = {int(counts.sum()):,})", loc="left", fontsize=10)
        axes.set_xlabel(axis_names[1])
    panels[0, 0].set_ylabel(axis_names[0])
    if title:
        titled(figure, title)
    return saved(figure, path)


DRAWERS: dict[str, Callable[..., Path]] = {
    "confusion": draw_confusion,
    "staging": draw_staging,
    "forecast_gain": draw_gain,
    "forecast_planes": lambda path, **fields: draw_planes(path, ForecastExample(**fields)),
    "forecast_movie": lambda path, **fields: draw_movie(path, ForecastExample(**fields)),
}
"""Kinds of pictures that a module may ask for in its ``media()``."""


def draw_media(folder: Path, media: Mapping[str, Mapping[str, Any]]) -> dict[str, Path]:
    """Draw ``{kind: arguments}`` into ``<folder>/<kind>.png``; returns the files by kind."""
    return {kind: DRAWERS[kind](folder / f"{kind}.png", **arguments) for kind, arguments in media.items()}
