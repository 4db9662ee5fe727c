"""Figures of the LFP: a channel's spectrogram, an overview of a shank, coherence of a pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from src.reports.figures import BLUE, RED, saved
from src.signals import THETA_HZ, WIDE_HZ

DPI = 150
DELTA_HZ = (0.5, 4.0)
THETA_RATIO = "theta ratio P({:g}–{:g})/P({:g}–{:g})".format(*THETA_HZ, *WIDE_HZ)
_ROWS = 320
_GAP_COLOUR = "0.85"


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
    unit, caption
        Unit of the power in dB; what windows it was computed with.
    """

    channel: str
    power: NDArray[np.floating]
    freqs: NDArray[np.floating]
    times: NDArray[np.floating]
    unit: str
    caption: str

    @property
    def decibels(self) -> NDArray[np.floating]:
        return 10 * np.log10(np.maximum(self.power, 1e-30))

    def band(self, low_hz: float, high_hz: float) -> NDArray[np.floating]:
        """``(column,)`` power between two frequencies."""
        inside = (self.freqs >= low_hz) & (self.freqs < high_hz)
        return np.asarray(np.trapezoid(self.power[inside], self.freqs[inside], axis=0))

    def theta_ratio(self) -> NDArray[np.floating]:
        wide = self.band(*WIDE_HZ)
        return np.divide(self.band(*THETA_HZ), wide, out=np.full_like(wide, np.nan), where=wide > 0)


def draw_channel(page: Page, title: str) -> Figure:
    """Spectrogram, the same relative to each frequency's median, and delta against theta over time."""
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    grid = figure.add_gridspec(3, 3, width_ratios=(1, 0.014, 0.15), height_ratios=(1, 1, 0.5))
    top = figure.add_subplot(grid[0, 0])
    middle = figure.add_subplot(grid[1, 0], sharex=top, sharey=top)
    bottom = figure.add_subplot(grid[2, 0], sharex=top)
    times, unit = _clock(page.times)
    levels, median = page.decibels, median_spectrum(page.decibels)
    changes = levels - median[:, None]
    for row, axes, values, colours, label in (
        (0, top, levels, "magma", page.unit),
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
    top.set_title(page.caption + gaps, fontsize=9, color="0.35", loc="left")
    return figure


def draw_overview(
    title: str,
    page: Page,
    channels: Sequence[str],
    delta: Sequence[NDArray[np.floating]],
    ratio: Sequence[NDArray[np.floating]],
    spectra: Sequence[NDArray[np.floating]],
) -> Figure:
    """All channels in the order of the file (depth): delta power and theta ratio over time, median spectra.

    Parameters
    ----------
    page
        Of any channel; all have its axes and unit.
    delta, ratio
        ``(column,)`` of each channel.
    spectra
        ``(frequency,)`` dB of each channel.
    """
    figure = Figure(figsize=(13, 7), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 0.7))
    times, unit = _clock(page.times)
    rows = np.arange(len(channels)) - 0.5
    strength = 10 * np.log10(np.maximum(delta, 1e-30))
    for axes, values, colours, limits, label in (
        (left, strength, "viridis", _limits(strength, 2, 98), f"{DELTA_HZ[0]:g}–{DELTA_HZ[1]:g} Hz power (dB)"),
        (middle, np.asarray(ratio), "cividis", _limits(np.asarray(ratio), 2, 98), THETA_RATIO),
    ):
        drawn = _image(axes, values, times, np.append(rows, rows[-1] + 1), colours, *limits)
        figure.colorbar(drawn, ax=axes, label=label, location="top", shrink=0.8)
        axes.set_xlabel(f"time since the start of the recording ({unit})")
    right.set_facecolor(_GAP_COLOUR)
    image, octaves = _logarithmic(np.asarray(spectra).T, page.freqs)
    drawn = right.imshow(
        image.T,
        aspect="auto",
        origin="lower",
        extent=(octaves[0], octaves[-1], -0.5, len(channels) - 0.5),
        cmap="magma",
        interpolation="nearest",
    )
    figure.colorbar(drawn, ax=right, label=f"median {page.unit}", location="top", shrink=0.9)
    _octave_ticks(right, page.freqs, along="x")
    right.set_xlabel("frequency (Hz)")
    every = max(1, -(-len(channels) // 32))
    for axes in (left, middle, right):
        axes.set_yticks(np.arange(0, len(channels), every), channels[::every], fontsize=8)
        axes.set_ylim(len(channels) - 0.5, -0.5)
    left.set_ylabel("channel, in the order of the file")
    figure.suptitle(f"{title} · {len(channels)} channels", fontsize=14, fontweight="bold")
    return figure


def _draw_bands(axes: Axes, page: Page, times: NDArray[np.floating]) -> None:
    level = 10 * np.log10(np.maximum(page.band(*DELTA_HZ), 1e-30))
    axes.plot(times, level, color=BLUE, lw=0.9)
    axes.set_ylabel(f"delta {DELTA_HZ[0]:g}–{DELTA_HZ[1]:g} Hz\n(dB)", color=BLUE)
    axes.grid(axis="x", color="0.9")
    other = axes.twinx()
    other.plot(times, page.theta_ratio(), color=RED, lw=0.9, alpha=0.85)
    other.set_ylabel(THETA_RATIO.replace(" P", "\nP"), color=RED)
    other.set_ylim(0, 1)
    other.set_in_layout(False)  # its label may hang into the empty corner
    other.spines["top"].set_visible(False)
    axes.spines["top"].set_visible(False)


def _draw_spread(axes: Axes, levels: NDArray[np.floating], freqs: NDArray[np.floating], *, legend: bool) -> None:
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
    times: NDArray[np.floating],
    rows: NDArray[np.floating],
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


def _logarithmic(values: NDArray[np.floating], freqs: NDArray[np.floating]) -> tuple[NDArray, NDArray[np.floating]]:
    """Rows evenly spaced in octaves, interpolated between bins, and the octaves they span."""
    octaves = np.linspace(np.log2(freqs[0]), np.log2(freqs[-1]), _ROWS)
    upper = np.clip(np.searchsorted(freqs, 2**octaves), 1, len(freqs) - 1)
    share = ((2**octaves - freqs[upper - 1]) / (freqs[upper] - freqs[upper - 1])).clip(0, 1)[:, None]
    return (1 - share) * values[upper - 1] + share * values[upper], octaves


def _octave_ticks(axes: Axes, freqs: NDArray[np.floating], along: str = "y") -> None:
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


def median_spectrum(levels: NDArray[np.floating]) -> NDArray[np.floating]:
    whole = np.isfinite(levels).any(axis=0)
    return np.nanmedian(levels[:, whole], axis=1) if whole.any() else np.full(len(levels), np.nan)


def _clock(times: NDArray[np.floating]) -> tuple[NDArray[np.floating], str]:
    if times[-1] > 2 * 3600:
        return times / 3600, "h"
    return (times / 60, "min") if times[-1] > 180 else (times, "s")


def draw_coherence(
    path: Path,
    pair: tuple[str, str],
    freqs: NDArray[np.floating],
    times: NDArray[np.floating],
    squared: NDArray[np.floating],
    imaginary: NDArray[np.floating],
    levels: tuple[float, float],
    title: str,
) -> Path:
    """Coherence of a pair over time, and its mean over all windows beside its level of chance.

    Parameters
    ----------
    freqs, times
        ``(frequency,)`` Hz; ``(window,)`` s from the start of the recording.
    squared, imaginary
        ``(frequency, window)`` magnitude-squared coherence, imaginary part of the coherency.
    levels
        What unrelated channels stay below in 95 of 100 windows, of both.
    """
    figure = Figure(figsize=(13, 6.5), layout="constrained")
    panels = figure.subplots(2, 2, width_ratios=(1, 0.28), sharey=True)
    shown = freqs >= min(0.5, freqs[-1])
    freqs, when = freqs[shown], _clock(times)
    for row, (values, colours, limits, level, label) in enumerate(
        (
            (squared[shown], "viridis", (0.0, 1.0), levels[0], "coherence (magnitude squared)"),
            (imaginary[shown], "RdBu_r", (-1.0, 1.0), levels[1], "imaginary coherence"),
        )
    ):
        left, right = panels[row]
        image, octaves = _logarithmic(values, freqs)
        figure.colorbar(_image(left, image, when[0], octaves, colours, *limits), ax=left, label=label, pad=0.01)
        whole = np.isfinite(values).any(axis=0)
        mean = np.abs(values[:, whole]).mean(axis=1) if whole.any() else np.full(len(freqs), np.nan)
        right.plot(mean, np.log2(freqs), color="k", lw=1.2, label="mean size")
        right.axvline(level, color=RED, lw=1, ls="--", label="95 % of windows of\nunrelated channels")
        right.set_xlim(0, 1)
        right.legend(frameon=False, fontsize=7)
        left.set_ylabel("frequency (Hz)")
        _octave_ticks(left, freqs)
    panels[1][0].set_xlabel(f"time since the start of the recording ({when[1]})")
    figure.suptitle(f"{title} · {pair[0]} – {pair[1]}", fontsize=14, fontweight="bold")
    return saved(figure, path, DPI)


def draw_states(
    path: Path,
    level: NDArray[np.floating],
    freqs: NDArray[np.floating],
    times: NDArray[np.floating],
    states: Any,
    features: Mapping[str, NDArray[np.floating]],
) -> Path:
    """Spectrogram, hypnogram under it, and what the states were told apart by.

    Parameters
    ----------
    level
        ``(frequency, epoch)`` dB.
    times
        ``(epoch,)`` middle of each epoch in s.
    states
        ``stages`` and ``confidence`` of every epoch.
    features
        ``(epoch,)`` by name.
    """
    figure = Figure(figsize=(13, 5 + 1.2 * len(features)), layout="constrained")
    panels = figure.subplots(2 + len(features), 1, sharex=True, height_ratios=(2.4, 1, *(0.8 for _ in features)))
    when, unit = _clock(times)
    image, octaves = _logarithmic(level.astype(np.float64), freqs)
    _image(panels[0], image, when, octaves, "magma", *_limits(image, 2, 99.5))
    _octave_ticks(panels[0], freqs)
    panels[0].set_ylabel("frequency (Hz)")
    row = np.array([2, 0, 1, np.nan])[states.stages]  # from the bottom: NREM, REM, Wake; UNSCORED is -1
    panels[1].step(when, row, where="mid", color="k", lw=0.8)
    panels[1].scatter(when, row, c=states.confidence, cmap="viridis", vmin=1 / 3, vmax=1, s=6, zorder=3)
    panels[1].set_yticks([0, 1, 2], ["NREM", "REM", "Wake"])
    panels[1].set_title("colour: confidence, dark 1/3, yellow 1", fontsize=8, loc="right")
    for axes, (name, values) in zip(panels[2:], features.items(), strict=True):
        axes.plot(when, values, lw=0.7, color=BLUE)
        axes.set_ylabel(name)
    panels[-1].set_xlabel(f"time since the start of the recording ({unit})")
    return saved(figure, path, DPI)
