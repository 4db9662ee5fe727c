"""What a person looks at after a sweep: the ranking with its spread, learning curves, and the search."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from src.reports.figures import RED, saved

SHOWN = 20
"""Configurations in the ranking; the table has them all."""


def draw_ranking(
    path: Path,
    *,
    metric: str,
    labels: Sequence[str],
    scores: Sequence[Sequence[float]],
    curves: Sequence[tuple[int, Sequence[float]]],
) -> Path:
    """Write the figure of a sweep.

    Parameters
    ----------
    labels, scores
        One entry per configuration, best first: its name and the validation scores of its seeds.
    curves
        ``(place in the ranking, metric after each epoch)`` of every job.
    """
    colours = colormaps["viridis"](np.linspace(0, 0.9, max(2, len(labels))))
    shown = min(len(labels), SHOWN)
    figure = Figure(figsize=(12, max(3.2, 1.4 + 0.34 * shown)), layout="constrained")
    table, epochs = figure.subplots(1, 2)
    for place in range(shown):
        values = np.asarray(scores[place], dtype=float)
        if not len(values):
            continue
        table.plot(values, np.full(len(values), place), "o", color=colours[place], alpha=0.55, ms=5)
        spread = values.std(ddof=1) if len(values) > 1 else 0.0
        table.errorbar(values.mean(), place, xerr=spread, fmt="|", color="black", ms=12, capsize=3, lw=1)
    table.set_yticks(range(shown), [f"{place + 1}. {label}" for place, label in enumerate(labels[:shown])])
    table.invert_yaxis()
    table.set_xlabel(f"{metric}: every seed and fold, mean ± sd")
    table.set_title("configurations, best first", loc="left", fontsize=10)
    for place, curve in curves:
        epochs.plot(range(1, len(curve) + 1), curve, ".-", color=colours[place], lw=1, ms=4, alpha=0.8)
    epochs.set_xlabel("epoch")
    epochs.xaxis.get_major_locator().set_params(integer=True)
    epochs.set_ylabel(metric)
    epochs.set_title("every job, coloured by its configuration's place", loc="left", fontsize=10)
    for axes in (table, epochs):
        axes.spines[["top", "right"]].set_visible(False)
    return saved(figure, path)


def draw_search(
    path: Path,
    *,
    metric: str,
    better: str,
    history: Sequence[float | None],
    parameters: Mapping[str, Sequence[str]],
    scores: Sequence[float],
    importances: Mapping[str, float],
) -> Path:
    """Write history, importance (where known) and parallel coordinates of a search.

    Parameters
    ----------
    better
        ``"max"`` or ``"min"``.
    history
        Score of every job in the order they were started; ``None`` where one failed.
    parameters, scores
        For every configuration the value of each parameter and the mean score.
    """
    figure = Figure(figsize=(14, 4), layout="constrained")
    panels = figure.subplots(1, 3, width_ratios=(1, 0.8 if importances else 0.01, 1.6))
    _draw_history(panels[0], history, better, metric)
    _draw_importances(panels[1], importances)
    _draw_parallel(panels[2], parameters, np.asarray(scores, dtype=float), metric)
    return saved(figure, path)


def _draw_history(axes: Axes, history: Sequence[float | None], better: str, metric: str) -> None:
    values = np.array([np.nan if score is None else score for score in history], dtype=float)
    best = np.fmax.accumulate(values) if better == "max" else np.fmin.accumulate(values)
    axes.plot(values, "o", ms=4, color="0.55", label="job")
    axes.step(range(len(values)), best, where="post", color=RED, lw=1.5, label="best so far")
    axes.set_xlabel("job")
    axes.set_ylabel(metric)
    axes.set_title("history", loc="left", fontsize=10)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_importances(axes: Axes, importances: Mapping[str, float]) -> None:
    if not importances:
        axes.set_axis_off()
        return
    names = sorted(importances, key=lambda name: importances[name])
    axes.barh([_last(name) for name in names], [importances[name] for name in names], color="#4292c6")
    axes.set_xlabel("share of the decrease in impurity")
    axes.set_title("importance (random forest)", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_parallel(axes: Axes, parameters: Mapping[str, Sequence[str]], scores: np.ndarray, metric: str) -> None:
    columns = [_positions(list(values)) for values in parameters.values()]
    span = np.ptp(scores) or 1.0
    heights = (scores - scores.min()) / span
    lines = np.column_stack([*(column for column, _, _ in columns), heights])
    colours = colormaps["viridis_r"](heights)
    for line, colour in zip(lines, colours, strict=True):
        axes.plot(line, color=colour, lw=1.2, alpha=0.8)
    for place, (_, low, high) in enumerate([*columns, (heights, f"{scores.min():.3g}", f"{scores.max():.3g}")]):
        axes.axvline(place, color="0.3", lw=0.8)
        axes.text(place, -0.03, low, ha="center", va="top", fontsize=7)
        axes.text(place, 1.03, high, ha="center", va="bottom", fontsize=7)
    axes.set_xticks(range(len(columns) + 1), [*(_last(name) for name in parameters), metric])
    axes.tick_params(axis="x", pad=12)
    axes.set_yticks([])
    axes.set_ylim(-0.02, 1.02)
    axes.set_title("parallel coordinates", loc="left", fontsize=10, pad=16)
    axes.spines[:].set_visible(False)


def _positions(values: list[str]) -> tuple[np.ndarray, str, str]:
    """Heights between 0 and 1, and what stands below and above the axis; wide ranges are drawn as logarithms."""
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:
        names = sorted(set(values))
        return np.array([names.index(v) for v in values]) / max(1, len(names) - 1), names[0], names[-1]
    low, high = f"{numbers.min():.3g}", f"{numbers.max():.3g}"
    if numbers.min() > 0 and numbers.max() / numbers.min() > 20:
        numbers = np.log(numbers)
    return (numbers - numbers.min()) / (np.ptp(numbers) or 1.0), low, high


def _last(name: str) -> str:
    return name.rpartition(".")[2]
