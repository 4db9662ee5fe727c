"""What a neuron's spikes look like and how they vary, fitted to a labelled recording."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.noise import grow
from src.recordings.extracellular.spike_trains import SpikeTrain

N_MODES = 3
"""Directions of variation kept per unit."""

TEMPLATE_BEFORE, TEMPLATE_AFTER = 10, 90
"""Samples of a fitted waveform around its onset."""

REACH = 60
"""Samples on either side by which the band-pass spreads a waveform."""

LONG_FFT = 4096
"""Samples of a segment from which a background's spectrum is measured at full resolution."""


@dataclass(frozen=True)
class WaveformModel:
    """Mean waveform of every unit and the directions in which its spikes differ from it.

    Attributes
    ----------
    templates
        ``(unit, time)`` in physical units; the onset is column ``onset``.
    modes
        ``(unit, mode, time)``: principal directions of variation, scaled by their standard deviation.
    onset
        Samples ahead of the onset.
    counts
        ``(unit,)`` spikes each unit was fitted to; a unit with none is never drawn.
    """

    templates: np.ndarray
    modes: np.ndarray
    onset: int
    counts: np.ndarray

    @property
    def n_units(self) -> int:
        return len(self.templates)


def fit_waveforms(
    trace: np.ndarray,
    train: SpikeTrain,
    n_units: int,
    *,
    before: int = TEMPLATE_BEFORE,
    after: int = TEMPLATE_AFTER,
    n_modes: int = N_MODES,
) -> WaveformModel:
    """Fit templates and their variation to a labelled trace.

    The templates come from least squares over all spikes (:func:`fit_templates`). What remains at the
    isolated spikes, beyond what the same recording shows where no spike is, is variation: the leading
    eigenvectors of the difference of the two covariances.

    Parameters
    ----------
    trace
        ``(time,)`` in physical units with the slow baseline removed.
    n_modes
        Directions kept per unit, at most; those no stronger than chance are zero.
    """
    templates = fit_templates(trace, train, n_units, before=before, after=after)
    residual = remove_spikes(trace, train, templates, before)
    length = before + after
    quiet = _windows_between(residual, train, length, before)
    floor = _covariance(quiet)
    modes = np.zeros((n_units, n_modes, length))
    gaps = np.diff(train.index, prepend=-length, append=train.index[-1] + 2 * length if len(train) else 0)
    isolated = (gaps[:-1] > length // 2) & (gaps[1:] > length // 2)
    counts = np.bincount(train.unit - 1, minlength=n_units)[:n_units]
    for unit in range(n_units):
        onsets = train.index[isolated & (train.unit == unit + 1)]
        onsets = onsets[(onsets >= before) & (onsets + after <= len(trace))]
        if len(onsets) < 4 * n_modes:
            continue
        own = residual[onsets[:, None] + np.arange(-before, after)]
        modes[unit] = _excess(own, floor, n_modes)
    return WaveformModel(templates, modes, before, counts)


def conditioned_waveforms(waveforms: WaveformModel, conditioning: Conditioning, *, reach: int = REACH) -> WaveformModel:
    """The waveforms as they look behind the band-pass, with ``reach`` samples more on either side."""

    def through(rows: np.ndarray) -> np.ndarray:
        wide = [(0, 0)] * (rows.ndim - 1) + [(reach, reach)]
        return conditioning.linear(np.pad(rows, wide)).astype(np.float64)

    return WaveformModel(
        through(waveforms.templates), through(waveforms.modes), waveforms.onset + reach, waveforms.counts
    )


def cut(trace: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """``(window, length)`` pieces; samples beyond either end of the trace are zero."""
    before = max(-int(starts.min(initial=0)), 0)
    after = max(int(starts.max(initial=0)) + length - len(trace), 0)
    padded = np.pad(trace, (before, after))
    windows: np.ndarray = padded[starts[:, None] + before + np.arange(length)]
    return windows


def cut_windows(traces: np.ndarray, at: np.ndarray, before: int, after: int) -> np.ndarray:
    """``(spike, channel, time)``."""
    return np.moveaxis(traces[:, at[:, None] + np.arange(-before, after)], 0, 1)


def mean_waveforms(bandpassed: np.ndarray, train: SpikeTrain, n_units: int, before: int, after: int) -> np.ndarray:
    """``(unit, channel, time)`` median waveforms around the spikes."""
    n_samples, means = bandpassed.shape[1], np.zeros((n_units, len(bandpassed), before + after))
    for unit in range(n_units):
        at = train.index[train.unit == unit + 1]
        at = at[(at >= before) & (at < n_samples - after)][:2000]
        if len(at):
            means[unit] = np.median(cut_windows(bandpassed, at, before, after), axis=0)
    return means


def remove_spikes(trace: np.ndarray, train: SpikeTrain, templates: np.ndarray, onset: int) -> np.ndarray:
    """The trace without the mean waveform of every spike."""
    residual = np.array(trace, np.float64)
    for index, unit in zip(train.index, train.unit, strict=True):
        subtract(residual, templates[unit - 1], index - onset)
    return residual


def fit_templates(
    trace: np.ndarray, train: SpikeTrain, n_units: int, *, before: int = TEMPLATE_BEFORE, after: int = TEMPLATE_AFTER
) -> np.ndarray:
    """Mean waveform of every unit, free of its neighbours' contributions.

    Least squares of the trace on all spike trains at once: where spikes overlap, each unit is given
    only its own part, which a plain average would not do. Samples outside the trace count as zero, so
    the trace must be free of any offset.

    Returns
    -------
    numpy.ndarray
        ``(unit, before + after)`` float64; the onset is column ``before``. A unit without spikes is zero.
    """
    length = before + after
    moments = np.zeros((n_units, length))
    overlap = np.zeros((n_units, length, n_units, length))
    onsets = [train.index[train.unit == u + 1] for u in range(n_units)]
    padded = np.concatenate((np.zeros(before), trace, np.zeros(after)))
    for u, own in enumerate(onsets):
        moments[u] = padded[own[:, None] + np.arange(length)].sum(axis=0)
        for v, other in enumerate(onsets):
            overlap[u, :, v, :] = _toeplitz(_lag_counts(own, other, length - 1))
    size = n_units * length
    gram = overlap.reshape(size, size)
    ridge = 1e-6 * max(len(train), 1)
    solution = np.linalg.solve(gram + ridge * np.eye(size), moments.reshape(size))
    return solution.reshape(n_units, length)


def _lag_counts(own: np.ndarray, other: np.ndarray, reach: int) -> np.ndarray:
    """How often ``other`` fires at each lag ``-reach…reach`` after ``own``."""
    first = np.searchsorted(other, own - reach, "left")
    count = np.searchsorted(other, own + reach, "right") - first
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    lags = other[np.repeat(first, count) + within] - np.repeat(own, count)
    return np.bincount(lags + reach, minlength=2 * reach + 1)


def _toeplitz(counts: np.ndarray) -> np.ndarray:
    # Sample i of one unit meets sample j of the other when their onsets are i - j apart.
    length = (len(counts) + 1) // 2
    i = np.arange(length)
    return counts[i[:, None] - i[None, :] + length - 1].astype(float)


def subtract(trace: np.ndarray, template: np.ndarray, start: int) -> None:
    """Take a template ``(…, time)`` off the trace in place; parts beyond the ends are dropped."""
    first, last = max(start, 0), min(start + template.shape[-1], trace.shape[-1])
    if first < last:
        trace[..., first:last] -= template[..., first - start : last - start]


def _windows_between(residual: np.ndarray, train: SpikeTrain, length: int, before: int) -> np.ndarray:
    busy = np.zeros(len(residual), bool)
    busy[train.index] = True
    free = ~grow(busy, length, length)
    starts = np.flatnonzero(free[:: length // 2]) * (length // 2)
    starts = starts[starts + length <= len(residual)]
    if len(starts) < 8:
        starts = np.arange(0, len(residual) - length + 1, length)
    return residual[starts[:, None] + np.arange(length)]


def _covariance(windows: np.ndarray) -> np.ndarray:
    # Outliers (a spike nobody labelled) are held to five robust deviations.
    centre = np.median(windows, axis=0)
    spread = 5 * 1.4826 * np.median(np.abs(windows - centre)) + 1e-12
    held = np.clip(windows - centre, -spread, spread)
    return held.T @ held / len(held)


def _excess(own: np.ndarray, floor: np.ndarray, n_modes: int) -> np.ndarray:
    extra = _covariance(own) - floor
    values, vectors = np.linalg.eigh(extra)
    order = np.argsort(values)[::-1][:n_modes]
    # The most negative eigenvalue shows how large one may become by chance alone.
    chance = max(-values.min(), 0.0)
    strength = np.sqrt(np.where(values[order] > 2 * chance, values[order], 0.0))
    return (vectors[:, order] * strength).T
