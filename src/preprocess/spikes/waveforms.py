"""What a neuron's spikes look like and how they vary: fitted to a labelled recording, drawn at will."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.matched_filter import fit_templates, subtract
from src.preprocess.spikes.noise import Spectrum, grow
from src.recordings.extracellular.spike_trains import SpikeTrain

N_MODES = 3
"""Directions of variation kept per unit."""

TEMPLATE_BEFORE, TEMPLATE_AFTER = 10, 90
"""Samples of a fitted waveform around its onset."""

REACH = 60
"""Samples on either side by which the band-pass spreads a waveform."""

LONG_FFT = 4096
"""Samples of a segment from which a background's spectrum is measured at full resolution."""

CROWDED = 40
"""Samples within which spikes are taken to explain the same part of a trace."""


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

    def draw(self, units: np.ndarray, rng: np.random.Generator, *, variation: float = 1.0) -> np.ndarray:
        """Random spikes ``(spike, time)`` float32 of the given units (from 1), noise-free."""
        weights = variation * rng.standard_normal((len(units), self.modes.shape[1]))
        rows = units - 1
        return (self.templates[rows] + np.einsum("sm,smt->st", weights, self.modes[rows])).astype(np.float32)

    def scaled(self, gain: float) -> WaveformModel:
        """The same spikes recorded with another gain."""
        return WaveformModel(self.templates * gain, self.modes * gain, self.onset, self.counts)


def fit_waveforms(
    trace: np.ndarray, train: SpikeTrain, n_units: int, *, before: int = 10, after: int = 90, n_modes: int = N_MODES
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


def remove_spikes(trace: np.ndarray, train: SpikeTrain, templates: np.ndarray, onset: int) -> np.ndarray:
    """The trace without the mean waveform of every spike."""
    residual = np.array(trace, np.float64)
    for index, unit in zip(train.index, train.unit, strict=True):
        subtract(residual, templates[unit - 1], index - onset)
    return residual


@dataclass(frozen=True)
class SpikeRemover:
    """Takes spikes off a trace as each of them most probably was, not as the mean of its unit.

    Given the background's spectrum, a spike's deviation from its unit's mean is estimated along the
    fitted directions of variation (posterior mean under Gaussian noise). Crowded spikes share what is
    left to explain. Every sample depends on the spikes within one waveform of it and on no others.
    """

    model: WaveformModel
    estimators: np.ndarray
    """``(unit, mode, time)``: applied to a window of what the means leave, they give the deviations."""

    @classmethod
    def for_noise(cls, model: WaveformModel, noise: Spectrum) -> SpikeRemover:
        """The remover for one background."""
        length = model.templates.shape[1]
        covariance = noise.autocovariance(length)
        covariance[0] *= 1.001  # the estimate of a spectrum need not be positive definite to the last digit
        whitened = np.linalg.solve(scipy.linalg.toeplitz(covariance), model.modes.reshape(-1, length).T).T
        whitened = whitened.reshape(model.modes.shape)
        information = np.einsum("umt,unt->umn", whitened, model.modes) + np.eye(model.modes.shape[1])
        return cls(model, np.linalg.solve(information, whitened))

    def remove(self, trace: np.ndarray, train: SpikeTrain) -> np.ndarray:
        """The trace ``(time,)`` without the spikes of ``train``."""
        residual = remove_spikes(trace, train, self.model.templates, self.model.onset)
        if len(train) == 0:
            return residual
        length, rows = self.model.templates.shape[1], train.unit - 1
        starts = train.index - self.model.onset
        left = cut(residual, starts, length)
        weights = np.einsum("smt,st->sm", self.estimators[rows], left)
        near = np.searchsorted(train.index, train.index + CROWDED, "right") - np.searchsorted(
            train.index, train.index - CROWDED, "left"
        )
        deviations = np.einsum("sm,smt->st", weights / near[:, None], self.model.modes[rows])
        for start, deviation in zip(starts, deviations, strict=True):
            subtract(residual, deviation, int(start))
        return residual


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
