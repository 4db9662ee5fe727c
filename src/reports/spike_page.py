"""The units of a recording on one page: a self-contained HTML file with a figure and a table."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from src.reports.sleep import TEMPLATES
from src.reports.spikes import colour

MOST_DRAWN = 40
LONGEST_MS = 50.0


class DrawnUnit(NamedTuple):
    """What is drawn of a unit.

    Attributes
    ----------
    waveform
        ``(channel, time)`` mean waveform.
    times_s, amplitude
        ``(spike,)``.
    """

    unit: int
    label: str
    waveform: np.ndarray
    times_s: np.ndarray
    amplitude: np.ndarray


def draw_units(path: Path, units: Sequence[DrawnUnit], fs_hz: float, onset: int) -> Path:
    """A row per unit: mean waveform on every channel of its group, intervals between spikes, amplitude over time."""
    drawn = units[:MOST_DRAWN]
    size = (11, 1.6 * len(drawn) + 0.6)
    figure, rows = plt.subplots(len(drawn), 3, figsize=size, squeeze=False, layout="constrained")
    for (shape, intervals, course), unit in zip(rows, drawn, strict=True):
        step = 1.1 * max(float(np.ptp(unit.waveform)), 1e-12)
        ms = (np.arange(unit.waveform.shape[1]) - onset) / fs_hz * 1000
        for channel, trace in enumerate(unit.waveform):
            shape.plot(ms, trace - channel * step * 0.5, color=colour(unit.unit), lw=1.2)
        shape.set_ylabel(f"unit {unit.unit}\n{unit.label}", rotation=0, ha="right", va="center")
        shape.set_yticks([])
        gaps = np.diff(unit.times_s) * 1000
        intervals.hist(gaps[gaps < LONGEST_MS], np.arange(0, LONGEST_MS + 0.5, 0.5), color=colour(unit.unit))
        intervals.axvspan(0, 1.5, color="#b3261e", alpha=0.15, lw=0)
        course.plot(unit.times_s, unit.amplitude, ".", ms=1.5, color=colour(unit.unit), rasterized=True)
    for axes, label in zip(rows[-1], ("ms from the peak", "interval (ms)", "time (s)"), strict=True):
        axes.set_xlabel(label)
    for axes, title in zip(rows[0], ("mean waveform", "intervals below 50 ms", "amplitude"), strict=True):
        axes.set_title(title, fontsize=10)
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return path


def write_spike_page(
    path: Path, title: str, rows: Sequence[dict[str, Any]], notes: Sequence[str], figure: Path
) -> Path:
    """Write the page: ``rows`` are the columns of the table by name, ``notes`` what was found on the way."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    values = {"title": title, "head": list(rows[0]), "rows": cells, "notes": notes, "drawn": MOST_DRAWN}
    page = environment.get_template("spikes.html").render(
        values, picture=base64.b64encode(figure.read_bytes()).decode()
    )
    path.write_text(page + "\n", encoding="utf-8")
    return path
