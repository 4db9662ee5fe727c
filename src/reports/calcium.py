"""Figures of a subject's grids: a page per neuron, and one page that shows the whole subject."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_TEST, _GUARD, _EDGE = "#dbe9f6", "#f3efe4", "#eeeeee"
_TRACES = ("black", "magenta", "red")
# No date in the file: the same input gives the same bytes.
_PDF = {"CreationDate": None, "ModDate": None}


@dataclass(frozen=True)
class FrameMarks:
    """What is known of every frame; each array is ``(time,)`` uint8. A frame that neither trains nor tests is a gap."""

    fs_hz: float
    is_train: np.ndarray
    is_test: np.ndarray
    is_valid: np.ndarray

    @property
    def frames(self) -> int:
        return len(self.is_valid)

    @property
    def time_s(self) -> np.ndarray:
        return np.arange(self.frames) / self.fs_hz

    def shaded(self) -> list[tuple[str, str, np.ndarray]]:
        """Name, colour and frames of every kind of stretch that is shaded."""
        gap = (self.is_train == 0) & (self.is_test == 0)
        kinds = [("test", _TEST, self.is_test == 1), ("gap", _GUARD, gap), ("no prediction", _EDGE, self.is_valid == 0)]
        return [kind for kind in kinds if kind[2].any()]


@dataclass(frozen=True)
class SubjectFigures:
    """What the page of one subject shows.

    Attributes
    ----------
    positions, noise_levels
        ``(cell, 3)`` and ``(cell,)``, all cells.
    available_levels
        Noise levels the inference has networks for.
    raster
        Binary spikes ``(neuron, time)`` of some cells.
    facts
        The counts printed on the page.
    """

    subject: str
    marks: FrameMarks
    positions: np.ndarray
    noise_levels: np.ndarray
    available_levels: tuple[float, ...]
    raster: np.ndarray
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class NeuronTraces:
    """Some neurons: ``dff``, ``expected`` and binary ``spikes`` are ``(neuron, time)``, the rest ``(neuron,)``.

    ``units`` labels the first panel.
    """

    subject: str
    marks: FrameMarks
    cell_ids: np.ndarray
    noise_levels: np.ndarray
    dff: np.ndarray
    expected: np.ndarray
    spikes: np.ndarray
    units: str


def draw_neurons(path: Path, neurons: NeuronTraces) -> None:
    """A page per neuron: ΔF/F, expected spikes, binary spikes."""
    time_s = neurons.marks.time_s
    figure = Figure(figsize=(8, 9))
    panels = figure.subplots(3, 1, sharex=True)
    figure.subplots_adjust(left=0.11, right=0.97, bottom=0.06, top=0.92, hspace=0.12)
    lines = [axes.plot([], [], color=colour, linewidth=0.7)[0] for axes, colour in zip(panels, _TRACES, strict=True)]
    for axes, label in zip(panels, (neurons.units, "expected spikes / frame", "binary spikes"), strict=True):
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        _shade(axes, neurons.marks)
    panels[2].set(ylim=(-0.05, 1.05), yticks=[0, 1], xlabel="time (s)", xlim=_span(time_s))
    _legend(panels[0], neurons.marks)
    with PdfPages(path, metadata=_PDF) as pdf:
        for row, cell in enumerate(neurons.cell_ids):
            spikes = neurons.spikes[row]
            lines[0].set_data(time_s, neurons.dff[row])
            lines[1].set_data(time_s, neurons.expected[row])
            lines[2].set_data(*_ticks(time_s[spikes], np.zeros(int(spikes.sum())), 1))
            for axes in panels[:2]:
                axes.relim()
                axes.autoscale_view(scalex=False)
            panels[1].set_ylim(bottom=0, auto=True)  # without auto, the next page keeps this scale
            title = f"cell {cell} · left out (cell_state says why)"
            if np.isfinite(neurons.expected[row]).any():
                level = f"noise level {neurons.noise_levels[row]:.1f} % / √Hz"
                title = f"cell {cell} · {level} · {int(spikes.sum())} sampled spikes"
            figure.suptitle(f"{neurons.subject} · {title}", fontsize=11)
            pdf.savefig(figure)
        if not len(neurons.cell_ids):
            figure.clear()
            figure.text(0.5, 0.5, "num_neurons=0: no neuron was asked for", ha="center")
            pdf.savefig(figure)


def draw_overview(path: Path, figures: SubjectFigures) -> None:
    """One page: cells from above and from the side, a raster, noise levels, density over planes and time."""
    figure = Figure(figsize=(11.7, 8.3))
    panels = figure.subplot_mosaic(
        [["above", "raster", "raster"], ["above", "rate", "rate"], ["side", "noise", "planes"]],
        height_ratios=[2.2, 0.8, 1.4],
        width_ratios=[1, 1, 1],
        gridspec_kw={"left": 0.06, "right": 0.94, "bottom": 0.07, "top": 0.88, "hspace": 0.42, "wspace": 0.28},
    )
    _cell_maps(panels["above"], panels["side"], figures)
    _raster(panels["raster"], panels["rate"], figures)
    _noise(panels["noise"], figures)
    _planes(panels["planes"], figures)
    facts, planes = figures.facts, len(np.unique(np.round(figures.positions[:, 2], 3)))
    figure.suptitle(
        f"{figures.subject}: {facts['num_cells']:,} cells on {facts['occupied_voxels']:,} voxels, "
        f"{figures.marks.frames:,} frames × {planes} plane{'s' * (planes != 1)} at {figures.marks.fs_hz:g} Hz\n"
        f"{facts['active_voxels']:,} active voxels ({facts['density_percent']:.2g} % of the grid), "
        f"{facts['train_frames']:,} training and {facts['test_frames']:,} test frames",
        fontsize=11,
    )
    with PdfPages(path, metadata=_PDF) as pdf:
        pdf.savefig(figure)


def _cell_maps(above: Axes, side: Axes, figures: SubjectFigures) -> None:
    row, column, z = figures.positions.T
    size = float(np.clip(6000 / len(row), 0.15, 8))
    style: dict[str, Any] = {"s": size, "c": z, "cmap": "viridis", "linewidths": 0}
    points = above.scatter(column, row, **style)
    above.set(xlabel="column (→ W)", ylabel="row (→ H)", title="cells from above")
    above.invert_yaxis()
    above.set_aspect("equal", adjustable="datalim")
    side.scatter(row, z, **style)
    if np.ptp(z):
        scale = above.inset_axes((0.04, 0.97, 0.3, 0.018))
        above.figure.colorbar(points, cax=scale, label="z", orientation="horizontal")
    else:
        side.set_ylim(z[0] - 1, z[0] + 1)
        side.set_yticks([z[0]])
    side.set(xlabel="row", ylabel="z", title="from the side")


def _raster(raster: Axes, rate: Axes, figures: SubjectFigures) -> None:
    neuron, frame = np.nonzero(figures.raster)
    time_s = figures.marks.time_s
    width = 0.35 if len(figures.raster) > 50 else 0.8
    raster.plot(*_ticks(time_s[frame], neuron - 0.4, 0.8), color="black", linewidth=width)
    raster.set(ylabel=f"{len(figures.raster)} cells in file order", title="binary spikes")
    raster.set_ylim(-1, len(figures.raster))
    raster.yaxis.set_major_locator(MaxNLocator(integer=True))
    raster.tick_params(labelbottom=False)
    rate.plot(time_s, 100 * figures.raster.mean(axis=0), color="black", linewidth=0.6)
    rate.set(xlabel="time (s)", ylabel="% of them\nactive", ylim=(0, None))
    for axes in (raster, rate):
        axes.set_xlim(_span(time_s))
        _shade(axes, figures.marks)
    _legend(rate, figures.marks)


def _noise(axes: Axes, figures: SubjectFigures) -> None:
    levels = figures.noise_levels[np.isfinite(figures.noise_levels)]
    if len(levels):
        top = float(max(np.percentile(levels, 99.5), *figures.available_levels, 1))
        axes.hist(np.clip(levels, 0, top), bins=60, range=(0, top), color="0.4")
    for level in figures.available_levels:
        axes.axvline(level, color="magenta", linewidth=0.7, linestyle=":")
    networks = " (dotted: networks)" if figures.available_levels else ""
    axes.set(xlabel=f"noise level, % / √Hz{networks}", ylabel="cells", title="noise")


def _planes(axes: Axes, figures: SubjectFigures) -> None:
    z, counts = np.unique(np.round(figures.positions[:, 2], 3), return_counts=True)
    axes.bar(np.arange(len(z)), counts, color="0.7", label="cells")
    axes.set(xlabel="plane", ylabel="cells", title="cells and activity per plane")
    axes.set_xlim(-1, len(z))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if "active_per_plane" in figures.facts:
        twin = axes.twinx()
        share = 100 * np.asarray(figures.facts["active_per_plane"]) / (figures.marks.frames * 256 * 128)
        twin.plot(np.arange(len(z)), share, color="red", marker=".", linewidth=0.8)
        twin.set_ylabel("active pixels (%)", color="red")
        twin.set_ylim(bottom=0)
        twin.ticklabel_format(axis="y", style="plain", useOffset=False)


def _ticks(x: np.ndarray, bottom: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertical strokes as one line with gaps, which a PDF stores a hundred times smaller than strokes."""
    gap = np.full(len(x), np.nan)
    return np.stack([x, x, gap], axis=1).ravel(), np.stack([bottom, bottom + height, gap], axis=1).ravel()


def _span(time_s: np.ndarray) -> tuple[float, float]:
    return 0.0, float(time_s[-1]) if len(time_s) > 1 else 1.0


def _shade(axes: Axes, marks: FrameMarks) -> None:
    for _, colour, mask in marks.shaded():
        edges = np.flatnonzero(np.diff(np.r_[False, mask.astype(bool), False].astype(np.int8))) / marks.fs_hz
        for first, last in edges.reshape(-1, 2):
            axes.axvspan(first, last, color=colour, zorder=0, linewidth=0)


def _legend(axes: Axes, marks: FrameMarks) -> None:
    for k, (name, colour, _) in enumerate(marks.shaded()):
        box = {"facecolor": colour, "edgecolor": "none", "pad": 2}
        axes.annotate(
            name, (1 - 0.12 * k, 1.02), xycoords="axes fraction", ha="right", va="bottom", fontsize=7, bbox=box
        )
