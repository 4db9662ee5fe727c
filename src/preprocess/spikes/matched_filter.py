"""Matched filters: spike templates, whitened by the background, and their likelihood ratios."""

from __future__ import annotations

import numpy as np
import scipy.signal

from src.preprocess.spikes.noise import Spectrum, robust_sigma
from src.recordings.extracellular.spike_trains import SpikeTrain


def fit_templates(
    trace: np.ndarray, train: SpikeTrain, n_units: int, *, before: int = 10, after: int = 90
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


def mean_template(templates: np.ndarray) -> np.ndarray:
    """One template for all units: their mean, zero-mean and of unit energy."""
    template = templates.mean(axis=0)
    template = template - template.mean()
    energy = np.linalg.norm(template)
    return template / energy if energy > 0 else template


def matched_filter(trace: np.ndarray, template: np.ndarray, onset: int) -> np.ndarray:
    """Correlation of the trace with a template; a spike with onset at ``t`` peaks at ``t``."""
    return align(scipy.signal.oaconvolve(trace, template[::-1].astype(trace.dtype)), len(template), onset, len(trace))


def align(full: np.ndarray, length: int, onset: int, n_samples: int) -> np.ndarray:
    """Cut a full correlation with a ``length``-sample template so that it reads at the onset."""
    start = length - 1 - onset
    return np.pad(full, ((0, onset + 1)))[start : start + n_samples]


FLOOR = 0.03
"""Smallest power, relative to the mean, that whitening believes in: a hole in the spectrum is no licence to amplify."""


class FilterBank:
    """Log-likelihood ratio of "unit u starts here" against background alone, for Gaussian noise.

    The linear filter of a unit is its template divided by the noise spectrum; the ratio is the
    filter's output less half the template's whitened energy (Franke et al. 2015).

    Parameters
    ----------
    templates
        ``(unit, length)`` in physical units.
    onset
        Column of the templates at which the spike starts.
    noise
        Spectrum of the background.
    length
        Taps of the whitened filters; longer than the templates because whitening spreads them.
    """

    def __init__(self, templates: np.ndarray, onset: int, noise: Spectrum, *, length: int = 256) -> None:
        self.templates, self.onset = templates, onset
        lead = (length - templates.shape[1]) // 2
        size = 4 * length
        f = np.fft.rfftfreq(size, 1 / noise.fs_hz)
        power = np.interp(f, noise.frequencies, noise.power) * noise.fs_hz / 2
        power = np.maximum(power, FLOOR * power.mean())
        padded = np.zeros((len(templates), size))
        padded[:, lead : lead + templates.shape[1]] = templates
        whitened = np.fft.irfft(np.fft.rfft(padded, axis=1) / power, size, axis=1)
        self.filters = whitened[:, :length] * scipy.signal.windows.tukey(length, 0.2)
        self.lead = lead
        self.energy = np.einsum("ut,ut->u", self.filters[:, lead : lead + templates.shape[1]], templates)

    def outputs(self, trace: np.ndarray) -> np.ndarray:
        """Log-likelihood ratios ``(unit, time)`` in the trace's precision, aligned on onsets."""
        return self._correlated(trace) - self.energy[:, None].astype(trace.dtype) / 2

    def _correlated(self, trace: np.ndarray) -> np.ndarray:
        full = scipy.signal.oaconvolve(trace[None], self.filters[:, ::-1].astype(trace.dtype), axes=-1)
        start = self.filters.shape[1] - 1 - self.lead - self.onset
        padded = np.pad(full, ((0, 0), (0, max(start + len(trace) - full.shape[1], 0))))
        return np.asarray(padded[:, start : start + len(trace)])

    def detect(
        self,
        trace: np.ndarray,
        threshold: float,
        *,
        separation: int = 12,
        passes: int = 12,
        misfit: float | None = None,
    ) -> tuple[SpikeTrain, np.ndarray]:
        """Greedy matching pursuit: take the clearest spikes, subtract them, look again.

        Spikes that beat ``threshold`` and everything within half a template length are taken together;
        their templates are subtracted and the next pass sees what is left. One unit never fires
        twice within ``separation`` samples.

        Parameters
        ----------
        misfit
            Largest share of a template's energy that may be left when it is subtracted, noise aside.
            Turns away what is loud but of another shape, such as neurons that no template stands for;
            ``None`` takes everything that is loud enough.

        Returns
        -------
        SpikeTrain, numpy.ndarray
            The spikes, and the log-likelihood ratio each had when it was taken.
        """
        residual = np.array(trace, np.float64)
        taken: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        ratio = self.outputs(residual)
        reach = self.filters.shape[1]
        response = [self._correlated(np.pad(t, reach)) for t in self.templates]
        for _ in range(passes):
            best = ratio.max(axis=0)
            peaks = local_peaks(best, threshold, self.templates.shape[1] // 2)
            if len(peaks) == 0:
                break
            units = ratio[:, peaks].argmax(axis=0)
            for peak, unit in zip(peaks, units, strict=True):
                ratio[unit, max(peak - separation, 0) : peak + separation + 1] = -np.inf
            if misfit is not None:
                fits = self._fits(residual, peaks, units, misfit)
                peaks, units = peaks[fits], units[fits]
            for peak, unit in zip(peaks, units, strict=True):
                start, template = peak - self.onset, self.templates[unit]
                subtract(residual, template, start)
                # Filtering is linear: what the filters made of the template goes, the rest stays.
                answer, over = response[unit], start + len(template) - len(residual)
                if start < 0 or over > 0:
                    inside = np.pad(
                        template[max(-start, 0) : len(template) - max(over, 0)], (max(-start, 0), max(over, 0))
                    )
                    answer = self._correlated(np.pad(inside, reach))
                subtract(ratio, answer, start - reach)
            taken.append((peaks, units + 1, best[peaks]))
        if not taken:
            return SpikeTrain.empty(), np.zeros(0)
        index, unit, value = (np.concatenate(parts) for parts in zip(*taken, strict=True))
        order = np.lexsort((unit, index))
        return SpikeTrain(index[order].astype(np.int64), unit[order].astype(np.int64)), value[order]

    def _fits(self, residual: np.ndarray, peaks: np.ndarray, units: np.ndarray, misfit: float) -> np.ndarray:
        core = slice(max(self.onset - 10, 0), min(self.onset + 60, self.templates.shape[1]))
        rows = peaks[:, None] - self.onset + np.arange(core.start, core.stop)
        windows = residual[np.clip(rows, 0, len(residual) - 1)]
        shapes = self.templates[units][:, core]
        left, energy = ((windows - shapes) ** 2).sum(axis=1), (shapes**2).sum(axis=1)
        allowance = 2 * windows.shape[1] * robust_sigma(residual) ** 2
        return np.asarray(left <= misfit * energy + allowance)


def local_peaks(values: np.ndarray, threshold: float, reach: int) -> np.ndarray:
    """Positions of maxima at or above ``threshold``, no two of them within ``reach`` samples of each other."""
    peaks, _ = scipy.signal.find_peaks(values, height=threshold, distance=max(reach, 1))
    return peaks


def subtract(trace: np.ndarray, template: np.ndarray, start: int) -> None:
    """Take a template ``(…, time)`` off the trace in place; parts beyond the ends are dropped."""
    first, last = max(start, 0), min(start + template.shape[-1], trace.shape[-1])
    if first < last:
        trace[..., first:last] -= template[..., first - start : last - start]
