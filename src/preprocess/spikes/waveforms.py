"""The recording whose spikes are known: what each neuron's spikes look like and how they vary."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.linalg

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import grow, mean_template, slow_baseline
from src.preprocess.spikes.trace import (
    CEILING,
    Trace,
    checked_labels,
    load_trace,
    pulse_ceiling,
    without_artefacts,
    without_hum,
)
from src.recordings.extracellular.spike_trains import SpikeTrain, checked_train, read_sorting, read_spikes
from src.signals import BadInput, SourceOptions

N_MODES = 3  # directions of variation kept per unit
BEFORE, AFTER = 10, 90  # samples of a fitted waveform ahead of its onset and from it on
REACH = 60  # samples on either side by which the band-pass spreads a waveform
FAINTEST = 1.5  # noise levels that the median waveform of a labelled neuron reaches at least
PEAK_BEFORE_MS = 1.2  # how long before its peak a spike may begin: sorters count peaks


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

    def bandpassed(self, conditioning: Conditioning) -> "WaveformModel":
        """The waveforms as they look behind the band-pass, with some samples more on either side."""
        through = [
            conditioning.bandpassed(np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(REACH, REACH)])).astype(np.float64)
            for rows in (self.templates, self.modes)
        ]
        return WaveformModel(through[0], through[1], self.onset + REACH, self.counts)

    def matched_chain(self, conditioning: Conditioning) -> Conditioning:
        """The chain with the mean waveform of all units as its matched filter."""
        template = tuple(mean_template(self.templates[self.counts > 0]).tolist())
        return replace(conditioning, template=template, template_onset=self.onset)


def fit_waveforms(trace: np.ndarray, train: SpikeTrain, n_units: int, *, before: int = BEFORE) -> WaveformModel:
    """Fit templates and their variation to a labelled trace.

    The templates come from least squares over all spikes (:func:`fit_templates`). What remains at the
    isolated spikes, beyond what the same recording shows where no spike is, is variation: the leading
    eigenvectors of the difference of the two covariances; those no stronger than chance are zero.

    Parameters
    ----------
    trace
        ``(time,)`` in physical units with the slow baseline removed.
    before
        Samples ahead of a label.
    """
    templates = fit_templates(trace, train, n_units, before=before)
    residual = subtracted(trace, train.index - before, templates[train.unit - 1])
    length = before + AFTER
    floor = _covariance(_windows_between(residual, train, length))
    modes = np.zeros((n_units, N_MODES, length))
    gaps = np.diff(train.index, prepend=-length, append=train.index[-1] + 2 * length if len(train) else 0)
    isolated = (gaps[:-1] > length // 2) & (gaps[1:] > length // 2)
    counts = np.bincount(train.unit - 1, minlength=n_units)[:n_units]
    for unit in range(n_units):
        onsets = train.index[isolated & (train.unit == unit + 1)]
        onsets = onsets[(onsets >= before) & (onsets + AFTER <= len(trace))]
        if len(onsets) >= 4 * N_MODES:
            modes[unit] = _excess(residual[onsets[:, None] + np.arange(-before, AFTER)], floor)
    return WaveformModel(templates, modes, before, counts)


def cut_windows(traces: np.ndarray, at: np.ndarray, before: int, after: int) -> np.ndarray:
    """``(spike, …, time)`` windows around the samples ``at`` of ``(…, time)``; zero beyond either end."""
    left = max(before - int(at.min(initial=before)), 0)
    right = max(int(at.max(initial=0)) + after - traces.shape[-1], 0)
    if left or right:
        traces = np.pad(traces, [(0, 0)] * (traces.ndim - 1) + [(left, right)])
    return np.moveaxis(traces[..., at[:, None] + left + np.arange(-before, after)], -2, 0)


def median_waveforms(bandpassed: np.ndarray, train: SpikeTrain, n_units: int, before: int, after: int) -> np.ndarray:
    """``(unit, channel, time)`` median waveforms around the spikes."""
    n_samples, means = bandpassed.shape[1], np.zeros((n_units, len(bandpassed), before + after))
    for unit in range(n_units):
        at = train.index[train.unit == unit + 1]
        at = at[(at >= before) & (at < n_samples - after)][:2000]
        if len(at):
            means[unit] = np.median(cut_windows(bandpassed, at, before, after), axis=0)
    return means


def subtracted(trace: np.ndarray, starts: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """The trace in double precision without ``shapes (spike, time)`` from ``starts`` on; beyond the ends they count 0.

    A shape begins at most its own length ahead of the trace.
    """
    length = shapes.shape[1]
    padded = np.pad(trace.astype(np.float64), length)
    np.subtract.at(padded, starts[:, None] + length + np.arange(length), shapes)
    return padded[length : length + len(trace)]


def fit_templates(trace: np.ndarray, train: SpikeTrain, n_units: int, *, before: int = BEFORE) -> np.ndarray:
    """Mean waveform of every unit, free of its neighbours' contributions.

    Least squares of the trace on all spike trains at once: where spikes overlap, each unit is given
    only its own part, which a plain average would not do. Samples outside the trace count as zero, so
    the trace must be free of any offset.

    Returns
    -------
    numpy.ndarray
        ``(unit, time)`` float64; the onset is column ``before``. A unit without spikes is zero.
    """
    length = before + AFTER
    moments = np.zeros((n_units, length))
    overlap = np.zeros((n_units, length, n_units, length))
    onsets = [train.index[train.unit == u + 1] for u in range(n_units)]
    padded = np.concatenate((np.zeros(before), trace, np.zeros(AFTER)))
    for u, own in enumerate(onsets):
        moments[u] = padded[own[:, None] + np.arange(length)].sum(axis=0)
        for v, other in enumerate(onsets):
            # Sample i of one unit meets sample j of the other when their onsets are i - j apart.
            counts = _lag_counts(own, other, length - 1).astype(float)
            overlap[u, :, v, :] = scipy.linalg.toeplitz(counts[length - 1 :], counts[length - 1 :: -1])
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


def _windows_between(residual: np.ndarray, train: SpikeTrain, length: int) -> np.ndarray:
    """Windows without a spike, of half-overlapping ones; all there are where these are too few."""
    busy = np.zeros(len(residual), bool)
    busy[train.index] = True
    starts = np.flatnonzero(~grow(busy, length, length)[:: length // 2]) * (length // 2)
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


def _excess(own: np.ndarray, floor: np.ndarray) -> np.ndarray:
    extra = _covariance(own) - floor
    values, vectors = np.linalg.eigh(extra)
    order = np.argsort(values)[::-1][:N_MODES]
    # The most negative eigenvalue shows how large one may become by chance alone.
    chance = max(-values.min(), 0.0)
    strength = np.sqrt(np.where(values[order] > 2 * chance, values[order], 0.0))
    return (vectors[:, order] * strength).T


@dataclass(frozen=True)
class LabelledRecording:
    """A recording with known spikes.

    Attributes
    ----------
    detrended, bandpassed
        ``(time,)`` the trace without its slow baseline, and behind the band-pass.
    notes
        What was repaired.
    before
        Samples of a waveform ahead of a label: more where labels are peaks and not onsets.
    """

    trace: Trace
    train: SpikeTrain
    detrended: np.ndarray
    bandpassed: np.ndarray
    notes: tuple[str, ...] = ()
    before: int = BEFORE

    def waveforms(self, part: range, n_units: int | None = None) -> WaveformModel:
        """Waveforms fitted to one stretch alone, of as many neurons as the labels name unless given."""
        n_units = int(self.train.unit.max()) if n_units is None else n_units
        detrended, train = self.detrended[part.start : part.stop], self.train.between(part.start, part.stop)
        return fit_waveforms(detrended, train, n_units, before=self.before)


def load_labelled(
    path: Path,
    conditioning: Conditioning,
    *,
    options: SourceOptions | None = None,
    n_units: int | None = None,
    sorting: Path | None = None,
) -> LabelledRecording:
    """Read a recording and its spikes; ``n_units`` limits the names of neurons, ``None`` allows any.

    Parameters
    ----------
    sorting
        Where the spikes are, if not in ``Index`` and ``Class`` of the file: what :func:`read_sorting` reads.

    Raises
    ------
    BadInput
        A recording or labels that cannot be used.
    """
    trace = load_trace(path, fs_hz=conditioning.fs_hz, options=options)
    if sorting is None:
        train = read_spikes(path, n_samples=len(trace.centred), n_units=n_units)
        return labelled_recording(trace, train, conditioning)
    train, said = read_sorting(sorting, conditioning.fs_hz)
    train = checked_train(sorting, {"spikes": train.index, "units": train.unit}, n_samples=len(trace.centred))
    before = round(PEAK_BEFORE_MS * trace.fs_hz / 1000)
    return labelled_recording(trace, train, conditioning, said=said, before=before)


def labelled_recording(
    trace: Trace, train: SpikeTrain, conditioning: Conditioning, *, said: Sequence[str] = (), before: int = BEFORE
) -> LabelledRecording:
    """A recording in memory with its spikes, checked and conditioned.

    Raises
    ------
    BadInput
        Labels that cannot be used.
    """
    if len(train) == 0:
        raise BadInput(trace.source, "holds no labelled spike", "a labelled recording needs spikes in Index and Class")
    train, twice = checked_labels(train, trace.fs_hz, len(trace.centred), trace.source)
    cleaned, hum = without_hum(trace.centred, trace.fs_hz)
    largest = _largest_peak(trace.source, conditioning.bandpassed(cleaned), train, before)
    largest = max(largest, pulse_ceiling(cleaned, trace.fs_hz) / CEILING)  # neurons without labels are no pulses
    calm, pulses = without_artefacts(replace(trace, centred=cleaned), largest, conditioning.low_hz or 0.0)
    kept = ~grow(trace.usable & ~calm.usable, AFTER, before)[train.index]  # a waveform that is blanked in part is none
    if len(lost := np.setdiff1d(train.unit, train.unit[kept])):
        problem = f"every spike of neuron {lost[0]} lies beside an artefact ({pulses[0]})"
        raise BadInput(trace.source, problem, "label a recording without stimulation")
    train = SpikeTrain(train.index[kept], train.unit[kept])
    detrended = calm.centred - slow_baseline(calm.centred)
    notes = tuple(f"labelled recording: {note}" for note in (*said, *twice, *hum, *pulses))
    return LabelledRecording(calm, train, detrended, conditioning.bandpassed(calm.centred), notes, before)


def _largest_peak(source: str, bandpassed: np.ndarray, train: SpikeTrain, before: int) -> float:
    """Of all median waveforms; refused are labels most of which belong to neurons without a waveform."""
    n_units = int(train.unit.max())
    peaks = np.abs(median_waveforms(bandpassed[None], train, n_units, before, AFTER)).max(axis=(1, 2))
    noise = np.median(np.abs(bandpassed)) / 0.6745
    faint = np.flatnonzero(peaks < FAINTEST * noise) + 1
    if np.isin(train.unit, faint).mean() > 0.5:
        names = ", ".join(map(str, faint[np.isin(faint, train.unit)][:5]))
        problem = f"has labels that do not lie on spikes: the median waveform of neuron {names} is below the noise"
        raise BadInput(source, problem, "give the sample of each spike (not ms), counted from the recording's start")
    return float(peaks.max())
