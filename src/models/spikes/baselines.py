"""What the learned sorter is measured against: threshold and clusters, template matching, the oracle bank.

Every baseline gets what the learned one gets: the labelled recording, the target's background
spectrum, and thresholds tuned on labelled recordings of the same noise level. The oracle alone is
given true templates and the true spectrum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import scipy.signal

from src.models.spikes.decision import merit
from src.preprocess.spikes.filters import bandpass
from src.preprocess.spikes.matched_filter import FilterBank, matched_filter, mean_template
from src.preprocess.spikes.noise import Spectrum, robust_sigma
from src.preprocess.spikes.waveforms import cut
from src.recordings.extracellular.spike_trains import SpikeTrain

LOWEST = 2.0
"""Log-likelihood ratio below which the bank does not look."""

T = TypeVar("T")


class Labelled(NamedTuple):
    """A band-passed trace ``(time,)``, its labelled spikes, and its background alone where that is a recording."""

    trace: np.ndarray
    train: SpikeTrain
    alone: np.ndarray | None = None


class Baseline(Protocol):
    """Anything that sorts a band-passed trace once its one threshold is tuned."""

    threshold: float

    def tune(self, recordings: Sequence[Labelled]) -> None: ...

    def sort(self, trace: np.ndarray) -> SpikeTrain: ...


def best_threshold(
    recordings: Sequence[Labelled], candidates: Sequence[float], onsets: Callable[[np.ndarray, float], np.ndarray]
) -> float:
    """The candidate of most :func:`~src.models.spikes.decision.merit`; ``onsets(trace, threshold)`` finds spikes."""

    def value(threshold: float) -> float:
        found = [onsets(r.trace, threshold) for r in recordings]
        alone = [None if r.alone is None else onsets(r.alone, threshold) for r in recordings]
        return merit([r.train.index for r in recordings], found, alone)

    return max(candidates, key=value)


def remembered(work: Callable[[np.ndarray], T]) -> Callable[[np.ndarray], T]:
    """``work`` that is done once per array, however many thresholds look at its result."""
    results: dict[int, T] = {}

    def recall(array: np.ndarray) -> T:
        if id(array) not in results:
            results[id(array)] = work(array)
        return results[id(array)]

    return recall


def above(peaks: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Callable[[np.ndarray, float], np.ndarray]:
    """Onsets at or above a threshold, from those at the lowest: a low peak never keeps a higher one from counting."""

    def onsets(trace: np.ndarray, threshold: float) -> np.ndarray:
        index, height = peaks(trace)
        return np.asarray(index[height >= threshold])

    return onsets


@dataclass
class ThresholdSorter:
    """Band-pass, threshold at a multiple of the MAD noise estimate, PCA and Gaussian mixture.

    Detection follows Quian Quiroga et al. 2004; the sign of the peak is that of the mean template. A
    mixture with as many components as neurons is fitted to the recording itself, without labels; each
    component is named after the template nearest to its mean waveform. ``cluster=False`` gives every
    spike the nearest template's name instead. Waveforms and templates are compared peak upon peak, and
    the name decides how long before the peak the onset was. ``threshold`` is in robust standard deviations.
    """

    templates: np.ndarray
    onset: int
    fs_hz: float
    threshold: float = 4.0
    cluster: bool = True
    low_hz: float = 150.0
    high_hz: float = 4000.0
    refractory: int = 25

    def __post_init__(self) -> None:
        self.high_hz = min(self.high_hz, 0.45 * self.fs_hz)
        pad = 200
        filtered = self._filter(np.pad(self.templates, ((0, 0), (pad, pad))))
        self.sign = float(np.sign(np.sum(self.templates[np.arange(len(self.templates)), self._extreme()])) or 1.0)
        peaks = (self.sign * filtered).argmax(axis=1) - pad - self.onset
        present = np.abs(self.templates).max(axis=1) > 0
        self.delay = int(np.median(peaks[present])) if present.any() else 0
        self.delays = np.where(present, peaks, self.delay)
        length = self.templates.shape[1]
        starts = pad + self.delays - self.delay
        aligned = filtered[np.arange(len(filtered))[:, None], starts[:, None] + np.arange(length)]
        self.shapes = np.where(present[:, None], aligned, np.inf)

    def _extreme(self) -> np.ndarray:
        return np.asarray(np.abs(self.templates).argmax(axis=1))

    def _filter(self, rows: np.ndarray) -> np.ndarray:
        return bandpass(rows.astype(np.float64), self.fs_hz, self.low_hz, self.high_hz, 2)

    def _peaks(self, filtered: np.ndarray, sigmas: float) -> tuple[np.ndarray, np.ndarray]:
        """Onsets and heights, in robust standard deviations, of peaks at least ``sigmas`` high."""
        sigma = robust_sigma(filtered)
        peaks, found = scipy.signal.find_peaks(self.sign * filtered, height=sigmas * sigma, distance=self.refractory)
        return np.clip(peaks - self.delay, 0, None), found["peak_heights"] / max(sigma, 1e-12)

    def tune(self, recordings: Sequence[Labelled]) -> None:
        candidates = list(np.arange(1.5, 8.1, 0.25))
        peaks = remembered(lambda trace: self._peaks(self._filter(trace), candidates[0]))
        self.threshold = best_threshold(recordings, candidates, above(peaks))

    def sort(self, trace: np.ndarray) -> SpikeTrain:
        filtered = self._filter(trace)
        onsets, _ = self._peaks(filtered, self.threshold)
        if len(onsets) == 0:
            return SpikeTrain.empty()
        windows = cut(filtered, onsets - self.onset, self.templates.shape[1])
        nearest = _nearest(windows, self.shapes)
        n_units = int(np.isfinite(self.shapes[:, 0]).sum())
        if not self.cluster or len(onsets) < 10 * n_units:
            return self._named(onsets, nearest)
        from sklearn.decomposition import PCA  # takes a second and a half to import
        from sklearn.mixture import GaussianMixture

        features = PCA(3, random_state=0).fit_transform(windows)
        label = GaussianMixture(n_units, n_init=3, random_state=0, reg_covar=1e-3).fit(features).predict(features)
        means = np.stack(
            [windows[label == k].mean(axis=0) if (label == k).any() else windows[0] for k in range(n_units)]
        )
        return self._named(onsets, _nearest(means, self.shapes)[label])

    def _named(self, onsets: np.ndarray, rows: np.ndarray) -> SpikeTrain:
        return SpikeTrain.sorted(np.clip(onsets + self.delay - self.delays[rows], 0, None), rows + 1)


def _nearest(windows: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    finite = np.isfinite(shapes[:, 0])
    usable = np.where(finite[:, None], shapes, 0)
    distance = (usable**2).sum(axis=1) - 2 * windows @ usable.T
    return np.asarray(np.where(finite, distance, np.inf).argmin(axis=1))


@dataclass
class TemplateMatcher:
    """One matched filter (the mean template), a tuned threshold, and the nearest template's name for each spike."""

    templates: np.ndarray
    onset: int
    threshold: float = 0.0
    refractory: int = 25

    def __post_init__(self) -> None:
        self.mean = mean_template(self.templates)

    def _peaks(self, output: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        peaks, found = scipy.signal.find_peaks(output, height=threshold, distance=self.refractory)
        return peaks, found["peak_heights"]

    def tune(self, recordings: Sequence[Labelled]) -> None:
        output = remembered(lambda trace: matched_filter(trace, self.mean, self.onset))
        sigma = float(np.median([robust_sigma(output(r.trace)) for r in recordings]))
        candidates = list(sigma * np.arange(1.0, 10.1, 0.25))
        peaks = remembered(lambda trace: self._peaks(output(trace), candidates[0]))
        self.threshold = best_threshold(recordings, candidates, above(peaks))

    def sort(self, trace: np.ndarray) -> SpikeTrain:
        onsets, _ = self._peaks(matched_filter(trace, self.mean, self.onset), self.threshold)
        if len(onsets) == 0:
            return SpikeTrain.empty()
        shapes = np.where(np.abs(self.templates).max(axis=1, keepdims=True) > 0, self.templates, np.inf)
        return SpikeTrain.sorted(onsets, _nearest(cut(trace, onsets - self.onset, shapes.shape[1]), shapes) + 1)


@dataclass
class BankSorter:
    """Whitened filter bank with greedy subtraction (Franke et al. 2015); with true templates and noise, the oracle."""

    templates: np.ndarray
    onset: int
    noise: Spectrum
    threshold: float = 5.0
    taps: int = 2048

    def __post_init__(self) -> None:
        self.bank = FilterBank(self.templates, self.onset, self.noise, length=self.taps)

    def tune(self, recordings: Sequence[Labelled]) -> None:
        # What is taken late in the pursuit does not change what was taken before, so one run serves all thresholds.
        def found(trace: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            train, value = self.bank.detect(trace, LOWEST)
            return train.index, value

        candidates = list(np.geomspace(LOWEST, 100 * LOWEST, 60))
        self.threshold = best_threshold(recordings, candidates, above(remembered(found)))

    def sort(self, trace: np.ndarray) -> SpikeTrain:
        train, value = self.bank.detect(trace, LOWEST)
        keep = value >= self.threshold
        return SpikeTrain(train.index[keep], train.unit[keep])


BEFORE, AFTER = 20, 44
"""Samples of a template around the onset that the simpler baselines use."""


def baselines(templates: np.ndarray, onset: int, noise: Spectrum) -> dict[str, Baseline]:
    """The baselines for one background, untuned, by the names that tables give them.

    Parameters
    ----------
    templates
        ``(unit, time)`` behind the band-pass, as fitted to the labelled recording; empty for units without spikes.
    noise
        Spectrum of the background behind the band-pass, as measured without labels.
    """
    short = templates[:, onset - BEFORE : onset + AFTER]
    return {
        "threshold + PCA + mixture": ThresholdSorter(short, BEFORE, noise.fs_hz),
        "threshold + nearest template": ThresholdSorter(short, BEFORE, noise.fs_hz, cluster=False),
        "template matching": TemplateMatcher(short, BEFORE),
        "filter bank + subtraction": BankSorter(templates, onset, noise),
    }
