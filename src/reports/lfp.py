"""What a person looks at after ``preprocess=spectrogram``: a page per channel, and one for the shank."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from src.preprocess.lfp.artifact import Spectrograms, open_spectrograms

COLUMNS = 1200
"""Points in time of a page: more than a page has pixels would be averaged by the eye."""

DPI = 150
LOWEST_HZ = 0.5
DELTA_HZ, SIGMA_HZ, THETA_HZ, WIDE_HZ = (0.5, 4.0), (10.0, 16.0), (5.0, 10.0), (2.0, 15.0)
_ROWS = 320
_GAP_COLOUR = "0.85"

Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


@dataclass(frozen=True)
class Page:
    """One channel's spectrogram, averaged to what fits on a page.

    Attributes
    ----------
    channel
        Its id.
    power
        ``(frequency, column)``; NaN where nothing was recorded.
    freqs, times
        Hz; seconds from the start of the recording to the middle of each column.
    """

    channel: str
    power: NDArray[np.float64]
    freqs: NDArray[np.float64]
    times: NDArray[np.float64]

    @property
    def decibels(self) -> NDArray[np.float64]:
        return 10 * np.log10(np.maximum(self.power, 1e-30))

    def band(self, low_hz: float, high_hz: float) -> NDArray[np.float64]:
        """``(column,)`` power between two frequencies."""
        inside = (self.freqs >= low_hz) & (self.freqs < high_hz)
        return np.asarray(np.trapezoid(self.power[inside], self.freqs[inside], axis=0))

    def theta_ratio(self) -> NDArray[np.float64]:
        wide = self.band(*WIDE_HZ)
        return np.divide(self.band(*THETA_HZ), wide, out=np.full_like(wide, np.nan), where=wide > 0)


def draw_shank(
    artifact: Path,
    out_dir: Path,
    *,
    title: str,
    suffix: str = "png",
    channels: Sequence[str] | None = None,
    progress: Progress = lambda name, total: nullcontext(lambda: None),
) -> list[Path]:
    """Draw a page per channel and an overview of them.

    Parameters
    ----------
    artifact
        A spectrogram file or the folder of a shank.
    out_dir
        Where the pages go: ``<file's label>_ch<id>.<suffix>`` and ``<label>_overview.<suffix>``.
    title
        Name of the session and shank.
    suffix
        ``png`` or ``pdf``.
    channels
        Ids; ``None`` for all.
    progress
        Opens a progress line, given a name and the number of pages.

    Raises
    ------
    BadInput
        If a channel is not in the file.
    """
    source = open_spectrograms(artifact)
    label = source.path.name.rpartition("_")[0]
    places = source.places(channels)
    files, delta, ratio, spectra = [], [], [], []
    with progress(f"{title} figures", len(places) + 1) as advance:
        for page in pages(source, places):
            name = re.sub(r"[^\w.+-]", "_", page.channel)
            files.append(_save(draw_channel(page, source, title), out_dir / f"{label}_ch{name}.{suffix}"))
            delta.append(page.band(*DELTA_HZ))
            ratio.append(page.theta_ratio())
            spectra.append(_median(page.decibels))
            advance()
        overview = draw_overview(source, title, [source.channel_ids[p] for p in sorted(places)], delta, ratio, spectra)
        files.append(_save(overview, out_dir / f"{label}_overview.{suffix}"))
        advance()
    return files


def pages(source: Spectrograms, places: Sequence[int]) -> Iterator[Page]:
    """Every channel averaged in time to at most :data:`COLUMNS` columns, one channel in memory at a time."""
    n_columns = min(COLUMNS, len(source.times))
    edges = np.linspace(0, len(source.times), n_columns + 1).astype(int)
    column_of = np.repeat(np.arange(n_columns), np.diff(edges))
    centres = np.array([source.times[a:b].mean() for a, b in pairwise(edges)])
    shown = source.freqs >= min(LOWEST_HZ, source.freqs[-1])
    current = -1
    sums, counts = (np.zeros((len(source.freqs), n_columns)) for _ in range(2))
    for tile in source.tiles(places):
        if tile.channel != current:
            if current >= 0:
                yield _page(source, current, sums, counts, shown, centres)
            current = tile.channel
            sums, counts = (np.zeros((len(source.freqs), n_columns)) for _ in range(2))
        power = (10 ** (tile.values / 10) if source.decibel else tile.values).astype(np.float64)
        whole = np.isfinite(power)
        columns = column_of[tile.times]
        starts = np.flatnonzero(np.diff(columns, prepend=-1))
        sums[tile.rows, columns[starts]] += np.add.reduceat(np.where(whole, power, 0), starts, axis=1)
        counts[tile.rows, columns[starts]] += np.add.reduceat(whole.astype(float), starts, axis=1)
    yield _page(source, current, sums, counts, shown, centres)


def _page(
    source: Spectrograms,
    place: int,
    sums: NDArray[np.float64],
    counts: NDArray[np.float64],
    shown: NDArray[np.bool_],
    times: NDArray[np.float64],
) -> Page:
    power = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return Page(source.channel_ids[place], power[shown], source.freqs[shown], times)


def draw_channel(page: Page, source: Spectrograms, title: str) -> Figure:
    """Spectrogram, the same relative to each frequency's median, and delta against theta over time."""
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    grid = figure.add_gridspec(3, 3, width_ratios=(1, 0.014, 0.15), height_ratios=(1, 1, 0.5))
    top = figure.add_subplot(grid[0, 0])
    middle = figure.add_subplot(grid[1, 0], sharex=top, sharey=top)
    bottom = figure.add_subplot(grid[2, 0], sharex=top)
    times, unit = _clock(page.times)
    levels, median = page.decibels, _median(page.decibels)
    changes = levels - median[:, None]
    for row, axes, values, colours, label in (
        (0, top, levels, "magma", _unit_label(source)),
        (1, middle, changes, "RdBu_r", "dB re median\nof each frequency"),
    ):
        image, octaves = _logarithmic(values, page.freqs)
        limits = _limits(image, 2, 99.5) if row == 0 else _symmetric(image)
        drawn = _image(axes, image, times, octaves, colours, *limits)
        figure.colorbar(drawn, cax=figure.add_subplot(grid[row, 1]), label=label)
        axes.set_ylabel("frequency (Hz)")
        axes.tick_params(labelbottom=False)
        _draw_spread(figure.add_subplot(grid[row, 2], sharey=top), values, page.freqs, legend=row == 0)
    _octave_ticks(top, page.freqs)
    _draw_bands(bottom, page, times)
    bottom.set_xlabel(f"time since the start of the recording ({unit})")
    figure.suptitle(f"{title} · channel {page.channel}", fontsize=14, fontweight="bold")
    gaps = "; grey: no samples" if np.isnan(page.power).any() else ""
    top.set_title(_caption(source) + gaps, fontsize=9, color="0.35", loc="left")
    return figure


def draw_overview(
    source: Spectrograms,
    title: str,
    channels: Sequence[str],
    delta: Sequence[NDArray[np.float64]],
    ratio: Sequence[NDArray[np.float64]],
    spectra: Sequence[NDArray[np.float64]],
) -> Figure:
    """All channels in the order of the file (depth): delta power and theta ratio over time, median spectra."""
    figure = Figure(figsize=(13, 7), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 0.7))
    n_columns = len(delta[0])
    edges = np.linspace(0, len(source.times), n_columns + 1).astype(int)
    times, unit = _clock(source.times[(edges[:-1] + edges[1:]) // 2])
    rows = np.arange(len(channels)) - 0.5
    shown = source.freqs >= min(LOWEST_HZ, source.freqs[-1])
    strength = 10 * np.log10(np.maximum(delta, 1e-30))
    for axes, values, colours, limits, label in (
        (left, strength, "viridis", _limits(strength, 2, 98), f"{DELTA_HZ[0]:g}–{DELTA_HZ[1]:g} Hz power (dB)"),
        (middle, np.asarray(ratio), "cividis", _limits(np.asarray(ratio), 2, 98), "theta ratio P(5–10)/P(2–15)"),
    ):
        drawn = _image(axes, values, times, np.append(rows, rows[-1] + 1), colours, *limits)
        figure.colorbar(drawn, ax=axes, label=label, location="top", shrink=0.8)
        axes.set_xlabel(f"time since the start of the recording ({unit})")
    right.set_facecolor(_GAP_COLOUR)
    image, octaves = _logarithmic(np.asarray(spectra).T, source.freqs[shown])
    drawn = right.imshow(
        image.T,
        aspect="auto",
        origin="lower",
        extent=(octaves[0], octaves[-1], -0.5, len(channels) - 0.5),
        cmap="magma",
        interpolation="nearest",
    )
    figure.colorbar(drawn, ax=right, label=f"median {_unit_label(source)}", location="top", shrink=0.9)
    _octave_ticks(right, source.freqs[shown], along="x")
    right.set_xlabel("frequency (Hz)")
    every = max(1, -(-len(channels) // 32))
    for axes in (left, middle, right):
        axes.set_yticks(np.arange(0, len(channels), every), channels[::every], fontsize=8)
        axes.set_ylim(len(channels) - 0.5, -0.5)
    left.set_ylabel("channel, in the order of the file")
    figure.suptitle(f"{title} · {len(channels)} channels", fontsize=14, fontweight="bold")
    return figure


def _draw_bands(axes: Axes, page: Page, times: NDArray[np.float64]) -> None:
    level = 10 * np.log10(np.maximum(page.band(*DELTA_HZ), 1e-30))
    axes.plot(times, level, color="#2171b5", lw=0.9)
    axes.set_ylabel(f"delta {DELTA_HZ[0]:g}–{DELTA_HZ[1]:g} Hz\n(dB)", color="#2171b5")
    axes.grid(axis="x", color="0.9")
    other = axes.twinx()
    other.plot(times, page.theta_ratio(), color="#c0392b", lw=0.9, alpha=0.85)
    other.set_ylabel("theta ratio\nP(5–10)/P(2–15)", color="#c0392b")
    other.set_ylim(0, 1)
    other.set_in_layout(False)  # its label may hang into the empty corner
    other.spines["top"].set_visible(False)
    axes.spines["top"].set_visible(False)


def _draw_spread(axes: Axes, levels: NDArray[np.float64], freqs: NDArray[np.float64], *, legend: bool) -> None:
    """Median and 10-90 % range over time, beside a spectrogram whose frequency axis it shares."""
    octaves, whole = np.log2(freqs), np.isfinite(levels).any(axis=0)
    if whole.any():
        low, middle, high = np.nanpercentile(levels[:, whole], (10, 50, 90), axis=1)
        axes.fill_betweenx(octaves, low, high, color="0.8", lw=0, label="10–90 %")
        axes.plot(middle, octaves, color="k", lw=1.2, label="median")
        if legend:
            axes.legend(frameon=False, fontsize=7, loc="upper right", handlelength=1.2)
    axes.set_xlabel("dB", labelpad=1)
    axes.tick_params(labelleft=False)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)


def _image(
    axes: Axes,
    values: NDArray,
    times: NDArray[np.float64],
    rows: NDArray[np.float64],
    colours: str,
    low: float,
    high: float,
) -> Any:
    half = (times[1] - times[0]) / 2 if len(times) > 1 else 0.5
    axes.set_facecolor(_GAP_COLOUR)
    return axes.imshow(
        np.ma.masked_invalid(values),
        aspect="auto",
        origin="lower",
        extent=(times[0] - half, times[-1] + half, rows[0], rows[-1]),
        cmap=colours,
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )


def _logarithmic(values: NDArray[np.float64], freqs: NDArray[np.float64]) -> tuple[NDArray, NDArray[np.float64]]:
    """Rows evenly spaced in octaves, interpolated between bins, and the octaves they span."""
    octaves = np.linspace(np.log2(freqs[0]), np.log2(freqs[-1]), _ROWS)
    upper = np.clip(np.searchsorted(freqs, 2**octaves), 1, len(freqs) - 1)
    share = ((2**octaves - freqs[upper - 1]) / (freqs[upper] - freqs[upper - 1])).clip(0, 1)[:, None]
    return (1 - share) * values[upper - 1] + share * values[upper], octaves


def _octave_ticks(axes: Axes, freqs: NDArray[np.float64], along: str = "y") -> None:
    ticks = 2.0 ** np.arange(np.ceil(np.log2(freqs[0])), np.floor(np.log2(freqs[-1])) + 1)
    setter = axes.set_yticks if along == "y" else axes.set_xticks
    setter(np.log2(ticks), [f"{tick:g}" for tick in ticks])


def _symmetric(values: NDArray) -> tuple[float, float]:
    finite = np.abs(values[np.isfinite(values)])
    reach = float(np.ceil(max(3.0, np.percentile(finite, 97)))) if finite.size else 3.0
    return -reach, reach


def _limits(values: NDArray, low: float, high: float) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    bottom, top = np.percentile(finite, (low, high))
    return float(bottom), float(max(top, bottom + 1e-6))


def _median(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = np.isfinite(levels).any(axis=0)
    return np.nanmedian(levels[:, whole], axis=1) if whole.any() else np.full(len(levels), np.nan)


def _clock(times: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    if times[-1] > 2 * 3600:
        return times / 3600, "h"
    return (times / 60, "min") if times[-1] > 180 else (times, "s")


def _unit_label(source: Spectrograms) -> str:
    unit = source.params["units"].removeprefix("dB re 1 ").replace("^2", "²")
    return f"dB re 1 {re.sub('^uV', 'µV', unit).replace('(unit of the traces)', 'a.u.')}"


def _caption(source: Spectrograms) -> str:
    p = source.params
    name = p["window"] if isinstance(p["window"], str) else " ".join(map(str, p["window"]))
    spacing = f"{p['bin_spacing_hz']:.2g} Hz bins, true resolution {p['resolution_hz']:.2g} Hz"
    return f"{p['window_s']:.3g}-s {name} windows every {p['hop_s']:.3g} s; {spacing}"


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=DPI, metadata={"CreationDate": None} if path.suffix == ".pdf" else None)
    return path
