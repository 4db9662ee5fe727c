"""What a person looks at after a recording was sorted: spikes on the trace, waveforms, and how right it all was."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from src.recordings.extracellular.spike_trains import SpikeTrain
from src.reports.figures import saved, titled, write_page

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d00", "#56b4e9", "#7f3c8d", "#444444")
"""One per neuron, told apart by the colour-blind; more neurons go round again."""

SHOWN_S = 0.2  # length of the stretch that is drawn with every spike
MOST_WAVEFORMS = 150  # spikes of each neuron that are drawn
MOST_DRAWN, LONGEST_MS = 40, 50.0  # units, and intervals between spikes, on the page


def colour(unit: int) -> str:
    """The colour of a neuron, counted from 1."""
    return COLOURS[(unit - 1) % len(COLOURS)]


class DrawnSorting(NamedTuple):
    """A band-passed trace ``(time,)``, its spikes, its sampling rate, the number of neurons, and a title."""

    title: str
    bandpassed: np.ndarray
    train: SpikeTrain
    fs_hz: float
    n_units: int


def draw_trace(path: Path, shown: DrawnSorting, raw: np.ndarray, truth: SpikeTrain | None = None) -> Path:
    """The whole recording in little, and its busiest stretch raw and band-passed with every spike found in it."""
    title, bandpassed, train, fs_hz, n_units = shown
    length = round(SHOWN_S * fs_hz)
    start = length * _busy_block(np.histogram(train.index, np.arange(0, len(raw) + 1, length))[0])
    stop = min(start + length, len(raw))
    figure = Figure(figsize=(12, 7), layout="constrained")
    overview, above, below = figure.subplots(3, 1, height_ratios=(0.8, 1, 1.3))
    _draw_overview(overview, shown, (start, stop))
    ms = np.arange(start, stop) / fs_hz * 1000
    above.plot(ms, raw[start:stop], color="#888888", lw=0.6)
    above.set_ylabel("recorded\n(a.u.)")
    above.tick_params(labelbottom=False)
    below.plot(ms, bandpassed[start:stop], color="#888888", lw=0.6, zorder=1)
    below.set_ylabel("band-passed\n(a.u.)")
    below.set_xlabel("time (ms)")
    low, high = below.get_ylim()
    for number, (name, spikes) in enumerate({"found": train, "true": truth}.items()):
        if spikes is None:
            continue
        height = high + (0.08 + 0.12 * number) * (high - low)
        below.annotate(
            name, (1, height), (6, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center"
        )
        inside = spikes.between(start, stop)
        for unit in range(1, n_units + 1):
            onsets, own = ms[inside.index[inside.unit == unit]], colour(unit)
            marks = {"marker": "o", "mfc": "none"} if name == "true" else {"marker": "v", "label": f"neuron {unit}"}
            below.plot(onsets, np.full(len(onsets), height), ls="", ms=6, color=own, **marks)
            if name == "found":
                across = below.get_xaxis_transform()
                below.vlines(onsets, 0, 0.78, transform=across, color=own, lw=0.8, alpha=0.4, zorder=0)
    below.set_ylim(low, height + 0.08 * (high - low))
    below.legend(loc="lower left", bbox_to_anchor=(1.0, 0.0), frameon=False, fontsize=9)
    for axes in (above, below):
        axes.set_xlim(ms[0], ms[-1])
    titled(figure, title)
    return saved(figure, path)


def _busy_block(sizes: np.ndarray) -> int:
    """Number of the block whose size ``(block,)`` is the upper quartile of all: busy, not exceptional."""
    return int(np.argsort(sizes, kind="stable")[len(sizes) * 3 // 4]) if len(sizes) else 0


def _draw_overview(axes: Axes, shown: DrawnSorting, stretch: tuple[int, int]) -> None:
    seconds, train = len(shown.bandpassed) / shown.fs_hz, shown.train
    edges = np.linspace(0, seconds, max(min(round(seconds * 2), 240), 2))
    for unit in range(1, shown.n_units + 1):
        counts = np.histogram(train.index[train.unit == unit] / shown.fs_hz, edges)[0]
        axes.stairs(counts / np.diff(edges), edges, color=colour(unit), lw=1.1)
    axes.axvspan(stretch[0] / shown.fs_hz, stretch[1] / shown.fs_hz, color="#000000", alpha=0.12, lw=0)
    axes.set_xlim(0, seconds)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time (s)")
    axes.set_ylabel("firing rate\n(spikes/s)")


def draw_waveforms(path: Path, shown: DrawnSorting, before: int = 20, after: int = 60) -> Path:
    """Waveforms of every neuron on one amplitude scale: some spikes, their median, and how many there are."""
    title, bandpassed, train, fs_hz, n_units = shown
    figure = Figure(figsize=(2.6 * n_units, 3), layout="constrained")
    panels = figure.subplots(1, n_units, sharex=True, sharey=True, squeeze=False)
    ms = np.arange(-before, after) / fs_hz * 1000
    rng, padded = np.random.default_rng(0), np.pad(bandpassed, (before, after))
    for unit, axes in enumerate(panels[0], start=1):
        onsets = train.index[train.unit == unit]
        some = rng.choice(onsets, min(len(onsets), MOST_WAVEFORMS), replace=False) if len(onsets) else onsets
        windows = padded[np.sort(some)[:, None] + np.arange(before + after)]
        axes.axvline(0, color="#bbbbbb", lw=0.8)
        if len(some):
            lines = [np.column_stack((ms, window)) for window in windows]
            axes.add_collection(LineCollection(lines, colors=colour(unit), linewidths=0.4, alpha=0.15))
            axes.plot(ms, np.median(windows, axis=0), color="black", lw=1.6)
        axes.set_title(f"neuron {unit}: {len(onsets):,}".replace(",", "\u202f"), fontsize=10, color=colour(unit))
        axes.set_xlabel("ms after onset")
    panels[0, 0].set_ylabel("band-passed (a.u.)")
    titled(figure, title)
    return saved(figure, path)


def draw_precision_recall(
    path: Path,
    *,
    title: str,
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    chosen: Mapping[str, tuple[float, float]],
) -> Path:
    """Precision against recall as the least certain spikes are left out one by one; a dot where none is left out."""
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    axes = figure.subplots()
    for f1 in (0.5, 0.6, 0.7, 0.8, 0.9):
        recall = np.linspace(f1 / 2 + 1e-3, 1, 200)
        precision = f1 * recall / (2 * recall - f1)
        shown = (precision > 0) & (precision <= 1)
        axes.plot(recall[shown], precision[shown], color="#dddddd", lw=0.8, zorder=0)
        if f1 / (2 - f1) >= 0.4:  # where the line leaves the axes at the right
            axes.text(1.004, f1 / (2 - f1), f"F1 {f1}", fontsize=7, color="#777777", va="center")
    shades = colormaps["viridis"](np.linspace(0, 0.9, len(curves)))
    for (name, (recall, precision)), shade in zip(curves.items(), shades, strict=True):
        axes.plot(recall, precision, color=shade, lw=1.8, label=name)
        axes.plot(*chosen[name], "o", color=shade, ms=7, mec="white")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0.4, 1.0), ylim=(0.4, 1.01))
    axes.legend(loc="lower left", frameon=False, title="dot: all spikes; line: without\nthe least certain ones")
    titled(figure, title)
    return saved(figure, path)


def draw_scores(path: Path, *, title: str, rows: Sequence[Mapping[str, str | float]], loose_ms: float) -> Path:
    """Detection F1 and class accuracy of every method over the recordings, from the cleanest to the noisiest.

    Each row has ``recording``, ``method``, ``f1_loose`` (within ``loose_ms``), ``class_accuracy``, ``chance_random``.
    """
    names = list(dict.fromkeys(str(row["recording"]) for row in rows))
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    columns = {"f1_loose": f"detection F1 (±{loose_ms:g} ms)", "class_accuracy": "class accuracy of matched spikes"}
    for axes, (column, label) in zip(panels, columns.items(), strict=True):
        for number, method in enumerate(methods):
            values = [
                next((float(r[column]) for r in rows if r["recording"] == n and r["method"] == method), np.nan)
                for n in names
            ]
            style = {"lw": 2.6, "ms": 7} if number == 0 else {"lw": 1.2, "ms": 4}
            axes.plot(names, values, "o-", color=COLOURS[number % len(COLOURS)], label=method, **style)
        axes.set_ylim(0, 1.02)
        axes.set_ylabel(label)
        axes.grid(axis="y", color="#eeeeee")
    chance = [next(float(r["chance_random"]) for r in rows if r["recording"] == n) for n in names]
    panels[0].plot(names, chance, ":", color="#888888", label="random points")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    titled(figure, title)
    return saved(figure, path)


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


def draw_units(path: Path, units: Sequence[DrawnUnit], fs_hz: float, onset: int, violation_ms: float) -> Path:
    """A row per unit: mean waveform on every channel of its group, intervals between spikes, amplitude over time.

    ``onset`` is the column of the waveforms' peak; intervals below ``violation_ms`` are marked.
    """
    drawn = units[:MOST_DRAWN]
    size = (11, 1.6 * len(drawn) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subplots(len(drawn), 3, squeeze=False)
    for (shape, intervals, course), unit in zip(rows, drawn, strict=True):
        step = 1.1 * max(float(np.ptp(unit.waveform)), 1e-12)
        ms = (np.arange(unit.waveform.shape[1]) - onset) / fs_hz * 1000
        for channel, trace in enumerate(unit.waveform):
            shape.plot(ms, trace - channel * step * 0.5, color=colour(unit.unit), lw=1.2)
        shape.set_ylabel(f"unit {unit.unit}\n{unit.label}", rotation=0, ha="right", va="center")
        shape.set_yticks([])
        gaps = np.diff(unit.times_s) * 1000
        intervals.hist(gaps[gaps < LONGEST_MS], np.arange(0, LONGEST_MS + 0.5, 0.5), color=colour(unit.unit))
        intervals.axvspan(0, violation_ms, color="#b3261e", alpha=0.15, lw=0)
        course.plot(unit.times_s, unit.amplitude, ".", ms=1.5, color=colour(unit.unit), rasterized=True)
    for axes, label in zip(rows[-1], ("ms from the peak", "interval (ms)", "time (s)"), strict=True):
        axes.set_xlabel(label)
    for axes, title in zip(rows[0], ("mean waveform", f"intervals below {LONGEST_MS:g} ms", "amplitude"), strict=True):
        axes.set_title(title, fontsize=10)
    return saved(figure, path, dpi=80)


def write_spike_page(
    path: Path, title: str, rows: Sequence[dict[str, Any]], notes: Sequence[str], meaning: str, figure: Path
) -> Path:
    """Write the page: ``rows`` are the columns of the table by name, ``notes`` what was found on the way.

    ``meaning`` explains the columns.
    """
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    values = {"title": title, "head": list(rows[0]), "rows": cells, "notes": notes, "meaning": meaning}
    return write_page(path, values | {"template": "spikes", "drawn": MOST_DRAWN, "picture": figure.read_bytes()})


def draw_conditioning(
    path: Path, *, title: str, steps: Mapping[str, np.ndarray], fs_hz: float, shown_s: float = 0.1
) -> Path:
    """A stretch of a recording before and after every step of the chain."""
    figure = Figure(figsize=(12, 1.7 * len(steps) + 0.6), layout="constrained")
    panels = figure.subplots(len(steps), 1, sharex=True, squeeze=False)
    length, first = round(shown_s * fs_hz), next(iter(steps.values()))
    blocks = first[: len(first) // length * length].reshape(-1, length)
    start = length * _busy_block(np.ptp(blocks, axis=1))
    for axes, (name, trace) in zip(panels[:, 0], steps.items(), strict=True):
        shown = trace[start : start + length]
        axes.plot(np.arange(len(shown)) / fs_hz * 1000, shown, color="#333333", lw=0.7)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.margins(x=0)
    panels[-1, 0].set_xlabel("time (ms)")
    titled(figure, title)
    return saved(figure, path)
