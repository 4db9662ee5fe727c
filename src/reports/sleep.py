"""What a person looks at after a night was staged: the figure, and the page that a sleep lab can print and send."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.reports import figures
from src.reports.figures import BLUE, RED, saved, titled
from src.signals import HUMAN_ACCURACY, HUMAN_KAPPA, UNSCORED

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGE_COLOURS = {
    "W": "#e9a23b",
    "Wake": "#e9a23b",
    "REM": RED,
    "N1": "#9ecae1",
    "N2": "#4292c6",
    "N3": "#08519c",
    "NREM": BLUE,
}
DISPLAY_ORDER = ("W", "Wake", "REM", "N1", "N2", "NREM", "N3")
"""Top to bottom, as hypnograms are drawn in clinics."""
_COLOURBAR = (1.012, 0.0, 0.012, 1.0)


@dataclass(frozen=True)
class Level:
    """The power of one channel over a night, for people."""

    decibels: np.ndarray  # (epoch, frequency); NaN where nothing was recorded
    freqs_hz: np.ndarray  # (frequency,) ascending
    units: str = ""  # what the decibels are relative to
    bands: Sequence[str] | None = None  # names of bands in the place of frequencies; drawn relative to their medians


def draw_night(
    path: Path,
    level: Level | None,
    *,
    titles: tuple[str, str],
    probabilities: np.ndarray,
    classes: Sequence[str],
    epoch_s: float,
    start: datetime | None = None,
    reference: np.ndarray | None = None,
) -> Path:
    """Write the figure of one night.

    Parameters
    ----------
    level
        Drawn above the rest; ``None`` draws the rest alone.
    titles
        What stands above and below everything.
    probabilities
        ``(epoch, class)``; NaN rows for epochs that could not be scored.
    epoch_s, start
        Length of an epoch; wall-clock time of the first, if known.
    reference
        ``(epoch,)`` a person's scoring, drawn behind the prediction.
    """
    # Loaded here, for the memory of what comes before. pyplot is slow to import and not needed.
    from matplotlib.figure import Figure

    hours = np.arange(len(probabilities) + 1) * epoch_s / 3600
    scored = np.isfinite(probabilities).all(axis=1)
    stages = np.where(scored, np.nan_to_num(probabilities).argmax(axis=1), UNSCORED)
    heights = (1, 1) if level is None else (1.2, 1, 1)
    height = 2.5 * len(heights)
    figure = Figure(figsize=(12, height))
    # Margins in inches are given: a layout that is found draws everything twice.
    margins = {
        "left": 0.8 / 12,
        "right": 1 - 1.0 / 12,
        "bottom": (1.3 if start else 0.85) / height,
        "top": 1 - 0.45 / height,
    }
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, gridspec_kw=margins)
    if level is not None and level.bands is None:
        _draw_spectrogram(figure, panels[0], level, hours)
    elif level is not None:
        _draw_bands(figure, panels[0], level, hours)
    _draw_hypnodensity(panels[-2], probabilities, classes, hours)
    _draw_hypnogram(panels[-1], stages, classes, hours, reference)
    panels[-1].set_xlim(0, max(hours[-1], epoch_s / 3600))
    panels[-1].set_xlabel("time from the start of the recording (h)")
    if start is not None:
        _label_clock(panels[-1], start)
    for panel in panels:
        panel.yaxis.set_label_coords(-0.055, 0.5)
    titled(figure, titles[0])
    figure.text(0.01, 0.08 / height, titles[1], fontsize=8, color="0.4", wrap=True)
    return saved(figure, path)


def draw_staging(path: Path, *, title: str, **scoring: Any) -> Path:
    """:func:`draw_night` of the scored epochs of a night, as a training shows them to a tracker."""
    return draw_night(path, None, titles=(title, "scored epochs only"), **scoring)


def _draw_spectrogram(figure: Figure, axes: Axes, level: Level, hours: np.ndarray) -> None:
    decibels, freqs_hz = level.decibels, level.freqs_hz
    low, high = np.nanpercentile(decibels, (2, 98)) if np.isfinite(decibels).any() else (0.0, 1.0)
    step = freqs_hz[1] - freqs_hz[0]
    edges = np.append(freqs_hz - step / 2, freqs_hz[-1] + step / 2).clip(0)
    picture = axes.pcolormesh(hours, edges, decibels.T, vmin=low, vmax=high, cmap="magma", rasterized=True)
    axes.set_ylabel("frequency (Hz)")
    axes.set_ylim(edges[0], min(edges[-1], 30))
    figure.colorbar(picture, cax=axes.inset_axes(_COLOURBAR), label=f"power (dB re {level.units})")


def _draw_bands(figure: Figure, axes: Axes, level: Level, hours: np.ndarray) -> None:
    names, levels = level.bands or (), level.decibels - np.nanmedian(level.decibels, axis=0)
    bound = float(np.nanpercentile(np.abs(levels), 95)) or 1.0
    edges = np.arange(len(names) + 1) - 0.5
    picture = axes.pcolormesh(hours, edges, levels.T, vmin=-bound, vmax=bound, cmap="RdBu_r", rasterized=True)
    axes.set_yticks(range(len(names)), list(names))
    figure.colorbar(picture, cax=axes.inset_axes(_COLOURBAR), label="dB re the median")


def _draw_hypnodensity(axes: Axes, probabilities: np.ndarray, classes: Sequence[str], hours: np.ndarray) -> None:
    order = [classes.index(c) for c in DISPLAY_ORDER if c in classes][::-1]
    bottom = np.zeros(len(probabilities) + 1)
    for index in order:
        column = np.nan_to_num(probabilities[:, index])
        top = bottom + np.append(column, column[-1:])
        axes.fill_between(
            hours, bottom, top, step="post", color=STAGE_COLOURS[classes[index]], lw=0, label=classes[index]
        )
        bottom = top
    axes.set_ylim(0, 1)
    axes.set_ylabel("probability")
    handles, labels = axes.get_legend_handles_labels()
    _legend_above(axes, handles[::-1], labels[::-1])


def _draw_hypnogram(
    axes: Axes, stages: np.ndarray, classes: Sequence[str], hours: np.ndarray, reference: np.ndarray | None
) -> None:
    shown = [c for c in DISPLAY_ORDER if c in classes]
    height = np.array([shown.index(c) for c in classes], dtype=float)
    for scored, color, lw, label in ((reference, "0.7", 3, "human"), (stages, "#222222", 0.9, "predicted")):
        if scored is not None:
            values = np.where(scored >= 0, height[np.maximum(scored, 0)], np.nan)
            axes.step(hours, np.append(values, values[-1:]), where="post", color=color, lw=lw, label=label)
    begins = np.flatnonzero(np.diff(stages, prepend=-2))  # bouts: lines of single epochs would look dashed
    ends = np.append(begins[1:], len(stages))[: len(begins)]
    for name in shown:
        some = stages[begins] == classes.index(name)
        axes.hlines(
            np.full(some.sum(), shown.index(name)),
            hours[begins[some]],
            hours[ends[some]],
            color=STAGE_COLOURS[name],
            lw=4,
        )
    axes.set_yticks(range(len(shown)), shown)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_ylabel("stage")
    if reference is not None:
        _legend_above(axes, *axes.get_legend_handles_labels())


def _legend_above(axes: Axes, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.98), "borderaxespad": 0.2}
    axes.legend(handles, labels, ncols=len(labels), frameon=False, handlelength=1.2, columnspacing=1.2, **place)


def _label_clock(axes: Axes, start: datetime) -> None:
    clock = axes.secondary_xaxis(-0.3)
    low, high = axes.get_xlim()
    step_min = next((step for step in (5, 15, 30, 60, 120) if (high - low) * 60 / step <= 14), 240)
    into_day = start.hour * 60 + start.minute + start.second / 60
    first = np.ceil((into_day + low * 60) / step_min) * step_min
    ticks = np.arange(first, into_day + high * 60 + 1e-6, step_min)  # minutes since midnight, at round times
    clock.set_xticks((ticks - into_day) / 60, [f"{int(t) // 60 % 24:02d}:{int(t) % 60:02d}" for t in ticks])
    clock.set_xlabel("clock time")


def reliability_picture(table: np.ndarray, ece: float) -> bytes:
    """PNG: share of right labels against confidence, with how many epochs there are of each.

    Parameters
    ----------
    table
        ``(bin, 3)``: mean confidence, share right, epochs; NaN in the first two of an empty bin.
    ece
        Expected calibration error.
    """
    from matplotlib.figure import Figure

    filled = table[:, 2] > 0
    figure = Figure(figsize=(3.4, 3.9), layout="constrained")
    curve, counts = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    curve.plot([0, 1], [0, 1], color="0.75", lw=1)
    curve.plot(table[filled, 0], table[filled, 1], "o-", color=BLUE, ms=4)
    curve.set_ylabel("share right")
    curve.set_ylim(0, 1)
    curve.set_title(f"expected calibration error {ece:.3f}", fontsize=9)
    bins = len(table)
    counts.bar((np.arange(bins) + 0.5) / bins, table[:, 2], width=0.9 / bins, color="#9ecae1")
    counts.set_xlabel("confidence")
    counts.set_ylabel("epochs")
    counts.set_xlim(0, 1)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()


def write_page(path: Path, page: Mapping[str, Any], figure: Path) -> Path:
    """Write the page of a night, one file that needs nothing beside it.

    Parameters
    ----------
    page
        What ``templates/sleep.html`` asks for; a value that is missing is an error.
    figure
        The PNG of :func:`draw_night`.
    """
    filters: dict[str, Callable[..., str]] = {"number": _number, "span": _span, "length": _length, "clock": _clock}
    known = {"human_kappa": HUMAN_KAPPA, "human_accuracy": HUMAN_ACCURACY, "colours": STAGE_COLOURS}
    return figures.write_page(path, {"template": "sleep", **known, **page, "figure": figure.read_bytes()}, filters)


def _number(value: float | tuple[float, float] | None, digits: int = 1, sign: str = "") -> str:
    """A number or an interval; a dash where there is none."""
    if isinstance(value, tuple):
        return " – ".join(_number(edge, digits, sign) for edge in value)
    return "–" if value is None else f"{value:{sign}.{digits}f}"


def _span(minutes: float | tuple[float, float] | None) -> str:
    """Minutes, or an interval of them, as people write them."""
    if isinstance(minutes, tuple):
        return " – ".join(map(_span, minutes))
    if minutes is None or minutes < 100:
        return "–" if minutes is None else f"{minutes:.0f} min"
    return f"{int(minutes // 60)} h {int(minutes % 60):02d}"


def _length(seconds: float | None) -> str:
    if seconds is None or seconds < 120:
        return "–" if seconds is None else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min"


def _clock(seconds: float, start: datetime | None) -> str:
    since = f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d}:{seconds % 60:02.0f}"
    return f"{start + timedelta(seconds=seconds):%H:%M:%S} ({since})" if start else since
