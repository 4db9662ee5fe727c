"""Spikes without labels: the units of a group of channels are found, then the group is sorted with them.

1. Peaks of the band-passed traces, of the polarity that is larger, artefacts left out.
2. Waveforms around the peaks, aligned to a fraction of a sample, as principal components.
3. Clusters of these (ISO-SPLIT, as SpikeInterface has it), merged where their waveforms are the same.
4. The clusters' mean waveforms and how they vary make a filter bank; the group is sorted with it.
5. Units that only explain others or noise are dropped and the group is sorted again.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.signal

from src.preprocess.spikes.bank import SpikeBank, Whitening
from src.preprocess.spikes.filters import bandpass
from src.preprocess.spikes.noise import background_spectrum, grow, quiet_mask, robust_sigma
from src.preprocess.spikes.pursuit import Pursuit
from src.preprocess.spikes.sorting import Sorted, named
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.signals import BadInput

N_MODES = 2
MOST_VARIATION = 0.1
"""Largest standard deviation along one direction, as a share of the mean waveform."""


@dataclass
class DiscoverParams:
    """How units are found."""

    low_hz: float = 150.0  # Hz; corner of the high-pass
    high_hz: float = 6000.0  # Hz; corner of the low-pass, lowered where the rate asks for it
    threshold: float = 5.0  # robust standard deviations of the noise that a peak exceeds
    before_ms: float = 1.0  # ms of a waveform ahead of its peak
    after_ms: float = 2.0  # ms behind it
    refractory_ms: float = 1.0  # ms within which one unit does not fire twice
    least_spikes: int = 10  # a cluster with fewer is no unit
    most_peaks: int = 20_000  # peaks that are clustered; the others are found by the filter bank
    merge: float = 0.9  # clusters whose whitened waveforms overlap by more are one unit
    seed: int = 0  # of the clustering


@dataclass(frozen=True)
class Units:
    """The units of a group, and its sorting.

    Attributes
    ----------
    templates
        ``(unit, channel, time)`` mean waveforms behind the band-pass, in the recording's units.
    onset
        Column of the peak.
    found
        Spikes; ``train.index`` is the sample of the peak.
    bandpassed
        ``(channel, time)``.
    sign
        -1 for negative peaks, 1 for positive ones.
    usable
        ``(time,)`` samples outside artefacts and gaps.
    """

    templates: np.ndarray
    onset: int
    found: Sorted
    bandpassed: np.ndarray
    sign: int
    usable: np.ndarray
    noise: np.ndarray


def discover(traces: np.ndarray, fs_hz: float, params: DiscoverParams | None = None) -> Units:
    """Find the units of one group of channels ``(channel, time)`` and sort it.

    Raises
    ------
    BadInput
        If the rate is too low, or there are too few peaks for a unit.
    """
    p = params or DiscoverParams()
    missing = ~np.isfinite(traces).all(axis=0) | (traces == traces[:, :1]).all(axis=0)
    centred = np.where(np.isfinite(traces), traces - np.nanmedian(traces, axis=1, keepdims=True), 0).astype(np.float32)
    high = min(p.high_hz, 0.45 * fs_hz)
    bandpassed = bandpass(centred, fs_hz, p.low_hz, high, 2)
    noise = np.array([robust_sigma(row[~missing]) for row in bandpassed])
    noise = np.maximum(noise, 1e-9 * max(float(noise.max()), 1e-30))
    scaled = bandpassed / noise[:, None].astype(np.float32)
    sign, peaks, height, ceiling = find_peaks(scaled, fs_hz, p.threshold)
    usable = ~missing
    loud = (np.abs(scaled) > ceiling).any(axis=0)
    if loud.any():
        reach = round(2 * fs_hz / 1000)
        usable &= ~grow(loud, reach, reach)
        bandpassed = np.where(usable, bandpassed, 0)
        scaled = np.where(usable, scaled, 0)
    before, after = (round(ms * fs_hz / 1000) for ms in (p.before_ms, p.after_ms))
    margin = before + after
    inside = usable[peaks] & (peaks > margin) & (peaks < traces.shape[1] - margin)
    peaks, height = peaks[inside], height[inside]
    if len(peaks) < p.least_spikes:
        raise BadInput(
            "recording", f"{len(peaks)} peaks beyond {p.threshold:g} times the noise", "give a longer recording"
        )
    whitening = measure_whitening(bandpassed, usable, fs_hz)
    rng = np.random.default_rng(p.seed)
    some = np.sort(rng.choice(len(peaks), min(len(peaks), p.most_peaks), replace=False))
    white = np.where(usable, whitening.apply(bandpassed), 0).astype(np.float32)
    plain = Whitening(np.eye(len(white)), np.ones((len(white), 1)))
    labels = cluster(white, peaks[some], fs_hz, p)
    templates, modes = shapes(white, peaks[some], labels, before, after)
    if len(templates) == 0:
        raise BadInput("recording", "no cluster of peaks is large enough for a unit", "give a longer recording")
    counts = np.bincount(labels[labels >= 0], minlength=len(templates))
    templates, modes, counts = merge_similar(templates, modes, counts, before, plain, p.merge)
    refractory = round(p.refractory_ms * fs_hz / 1000)
    for _ in range(3):
        found = sort_with(templates, modes, before, plain, white, usable, refractory, counts)
        counts = np.bincount(found.train.unit - 1, minlength=len(templates))
        keep = counts >= p.least_spikes
        if keep.all():
            break
        templates, modes, counts = templates[keep], modes[keep], counts[keep]
        if not keep.any():
            raise BadInput("recording", "no unit has enough spikes", "give a longer recording")
    templates = mean_waveforms(bandpassed, found.train, len(templates), before, after)
    return Units(templates, before, found, bandpassed, sign, usable, noise)


def find_peaks(scaled: np.ndarray, fs_hz: float, threshold: float) -> tuple[int, np.ndarray, np.ndarray, float]:
    """Polarity, peaks, their heights, and the ceiling beyond which a deflection is an artefact."""
    distance = max(round(0.5 * fs_hz / 1000), 1)
    sides = {}
    for sign in (-1, 1):
        largest = (sign * scaled).max(axis=0)
        peaks, found = scipy.signal.find_peaks(largest, height=threshold, distance=distance)
        sides[sign] = (peaks, found["peak_heights"])
    ceiling = {s: max(3 * np.quantile(h, 0.98), 40.0) if len(h) else np.inf for s, (_, h) in sides.items()}
    total = {s: np.minimum(h[h < ceiling[s]], np.inf).sum() if len(h) else 0.0 for s, (_, h) in sides.items()}
    sign = -1 if total[-1] >= total[1] else 1
    return sign, *sides[sign], float(ceiling[sign])


def measure_whitening(bandpassed: np.ndarray, usable: np.ndarray, fs_hz: float, most: int = 1 << 19) -> Whitening:
    """Whitening from the quiet samples of a group: channels first, then a spectrum for each."""
    part, real = bandpassed[:, :most], usable[:most]
    quiet = np.logical_and.reduce([quiet_mask(np.where(real, row, np.nan), before=20, after=40) for row in part])
    if quiet.sum() < 1000:
        quiet = real
    n = len(part)
    spatial = np.eye(n)
    if n > 1:
        covariance = np.cov(part[:, quiet])
        values, vectors = np.linalg.eigh(covariance)
        values = np.maximum(values, 1e-3 * values.mean())
        spatial = vectors @ np.diag(values**-0.5) @ vectors.T
    mixed = (spatial @ part).astype(np.float32)
    spectra = [background_spectrum(row, fs_hz, quiet, n_fft=512) for row in mixed]
    return Whitening.of(spectra, spatial)


def cut_windows(traces: np.ndarray, at: np.ndarray, before: int, after: int) -> np.ndarray:
    """``(spike, channel, time)``."""
    return np.moveaxis(traces[:, at[:, None] + np.arange(-before, after)], 0, 1)


def cluster(white: np.ndarray, peaks: np.ndarray, fs_hz: float, p: DiscoverParams) -> np.ndarray:
    """Label ``(peak,)`` from 0 of every peak, -1 for those of no unit."""
    from spikeinterface.sortingcomponents.clustering.isosplit_isocut import isosplit

    windows = cut_windows(white, peaks, round(0.7 * fs_hz / 1000), round(1.3 * fs_hz / 1000))
    flat = windows.reshape(len(windows), -1)
    centre = np.median(flat, axis=0)
    _, _, basis = np.linalg.svd(np.clip(flat - centre, -50, 50)[:4000], full_matrices=False)
    n = min(len(basis), 5 + len(white) // 8)
    features = (flat - centre) @ basis[:n].T
    n_init = min(200, max(len(peaks) // p.least_spikes, 2))
    with warnings.catch_warnings():  # of numba, about types of its own
        warnings.simplefilter("ignore")
        labels = isosplit(features, min_cluster_size=p.least_spikes, n_init=n_init, seed=p.seed)
    values, labels = np.unique(labels, return_inverse=True)
    counts = np.bincount(labels)
    rank = np.full(len(values), -1)
    keep = np.flatnonzero((counts >= p.least_spikes) & (values >= 0))
    rank[keep] = np.arange(len(keep))
    return rank[labels]


def shapes(
    bandpassed: np.ndarray, peaks: np.ndarray, labels: np.ndarray, before: int, after: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean waveforms and directions of variation of the clusters."""
    n_units = int(labels.max(initial=-1)) + 1
    n_channels, length = len(bandpassed), before + after
    templates = np.zeros((n_units, n_channels, length))
    modes = np.zeros((n_units, N_MODES, n_channels, length))
    taper = np.ones(length)
    edge = max(length // 8, 2)
    taper[:edge] = np.linspace(0, 1, edge)
    taper[-edge:] = np.linspace(1, 0, edge)
    rng = np.random.default_rng(0)
    noise = cut_windows(
        bandpassed, np.sort(rng.integers(before, bandpassed.shape[1] - after, 2000)), before, after
    ).reshape(2000, -1)
    spread = 1.4826 * np.median(np.abs(noise), axis=1)
    noise = noise[spread <= np.quantile(spread, 0.7)]
    floor = noise.T @ noise / len(noise)
    for u in range(n_units):
        own = cut_windows(bandpassed, peaks[labels == u], before, after)
        templates[u] = np.median(own, axis=0) * taper
        rest = (own - np.median(own, axis=0)).reshape(len(own), -1)
        limit = 4 * 1.4826 * np.median(np.abs(rest)) + 1e-12
        held = np.clip(rest, -limit, limit)
        if len(own) < 20:
            continue
        _, vectors = np.linalg.eigh(held.T @ held / len(held) - floor)
        directions = vectors[:, ::-1][:, :N_MODES]
        # Robust spread along each direction: spikes that overlap with others are outliers, not variation.
        spread = 1.4826 * np.median(np.abs(rest @ directions), axis=0)
        excess = spread**2 - np.einsum("td,ts,sd->d", directions, floor, directions)
        most = MOST_VARIATION * np.linalg.norm(templates[u])
        strength = np.minimum(np.sqrt(np.where(excess > 0.1 * spread**2, excess, 0)), most)
        modes[u] = (directions * strength).T.reshape(N_MODES, n_channels, length) * taper
    return templates, modes


def mean_waveforms(bandpassed: np.ndarray, train: SpikeTrain, n_units: int, before: int, after: int) -> np.ndarray:
    """``(unit, channel, time)`` median waveforms around the spikes."""
    n_samples, means = bandpassed.shape[1], np.zeros((n_units, len(bandpassed), before + after))
    for unit in range(n_units):
        at = train.index[train.unit == unit + 1]
        at = at[(at >= before) & (at < n_samples - after)][:2000]
        if len(at):
            means[unit] = np.median(cut_windows(bandpassed, at, before, after), axis=0)
    return means


def merge_similar(
    templates: np.ndarray, modes: np.ndarray, counts: np.ndarray, onset: int, whitening: Whitening, limit: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join clusters whose waveforms are nearer than the noise and their variation could tell."""
    while len(templates) > 1:
        bank = SpikeBank(templates, modes, onset, whitening)
        n = bank.n_units
        middle = bank.length - 1
        reach = 6
        product = bank.cross[:, 0, :, 0, middle - reach : middle + reach + 1].astype(float)
        energy = bank.energy
        distance = energy[:, None] + energy[None] - 2 * product.max(axis=2)
        overlap = 2 * product.max(axis=2) / (energy[:, None] + energy[None])
        np.fill_diagonal(overlap, -1)
        np.fill_diagonal(distance, np.inf)
        # |t1 - t2| in standard deviations of the noise: below about 2.5 two spikes cannot be told apart.
        same = (distance < 2.5**2) | ((overlap > limit) & (distance < 5.0**2))
        if not same.any():
            break
        i, j = np.unravel_index(np.where(same, overlap, -1).argmax(), overlap.shape)
        a, b = (i, j) if counts[i] >= counts[j] else (j, i)
        counts = counts.copy()
        counts[a] += counts[b]
        keep = np.arange(n) != b
        templates, modes, counts = templates[keep], modes[keep], counts[keep]
    return templates, modes, counts


def sort_with(
    templates: np.ndarray,
    modes: np.ndarray,
    onset: int,
    whitening: Whitening,
    white: np.ndarray,
    usable: np.ndarray,
    refractory: int,
    counts: np.ndarray,
) -> Sorted:
    """Sort a whitened group with the units' waveforms; ``counts`` are the spikes that each is thought to have."""
    bank = SpikeBank(templates, modes, onset, whitening)
    pursuit = Pursuit(bank, white, refractory)
    found = pursuit.run()
    marginal = pursuit.marginal()
    ok = (found.index >= 0) & (found.index < white.shape[1])
    ok[ok] = usable[found.index[ok]]
    prior = np.maximum(counts, 1) / max(int(usable.sum()), 1)
    return named([found.at(ok)], marginal[ok], int(usable.sum()), prior)
