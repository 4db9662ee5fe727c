"""Units without labels: clusters of whitened waveforms, and what becomes of clusters that are no units."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType

import numpy as np
import scipy.signal

from src.preprocess.spikes.bank import SpikeBank, Whitening
from src.recordings.extracellular.spike_trains import SpikeTrain

N_MODES = 2
MOST_VARIATION = 0.1
"""Largest standard deviation along one direction, as a share of the mean waveform."""

COMPONENTS = 8


@dataclass(frozen=True)
class Shapes:
    """Whitened waveforms of units.

    Attributes
    ----------
    templates, modes
        ``(unit, channel, time)`` and ``(unit, mode, channel, time)``; see :class:`SpikeBank`.
    counts
        ``(unit,)`` spikes they were learned from.
    onset
        Column of the peak.
    """

    templates: np.ndarray
    modes: np.ndarray
    counts: np.ndarray
    onset: int

    def at(self, rows: np.ndarray) -> Shapes:
        """The shapes of some units."""
        return replace(self, templates=self.templates[rows], modes=self.modes[rows], counts=self.counts[rows])

    def bank(self) -> SpikeBank:
        """Filters for traces that are white already."""
        channels = self.templates.shape[1]
        return SpikeBank(self.templates, self.modes, self.onset, Whitening(np.eye(channels), np.ones((channels, 1))))

    def norms(self) -> np.ndarray:
        """``(unit,)`` length of the mean waveforms: standard deviations of the noise behind the matched filter."""
        return np.sqrt((self.templates**2).sum(axis=(1, 2)))


def cluster(flat: np.ndarray, least: int, seed: int) -> np.ndarray:
    """Label from 0 of every row of ``(window, feature)``, -1 for those of no unit."""
    if len(flat) < 2 * least:
        return np.full(len(flat), 0 if len(flat) >= least else -1)
    centre = np.median(flat, axis=0)
    some = np.random.default_rng(seed).permutation(len(flat))[:4000]
    _, _, basis = np.linalg.svd(np.clip(flat[some] - centre, -50, 50), full_matrices=False)
    features = ((flat - centre) @ basis[:COMPONENTS].T).astype(np.float64)
    n_init = min(200, max(len(flat) // least, 2))
    with warnings.catch_warnings():  # of numba, about types of its own
        warnings.simplefilter("ignore")
        labels = _isosplit().isosplit(features, min_cluster_size=least, n_init=n_init, seed=seed)
    return large(labels, least)


@cache
def _isosplit() -> ModuleType:
    """SpikeInterface's module, whose functions numba compiles once per machine and not once per process."""
    import spikeinterface.sortingcomponents.clustering.isosplit_isocut as module

    for function in vars(module).values():
        if hasattr(function, "enable_caching"):
            function.enable_caching()
    return module


def large(labels: np.ndarray, least: int) -> np.ndarray:
    """Labels numbered anew from 0, -1 for those that occur less often than ``least`` times or are negative."""
    values, labels = np.unique(labels, return_inverse=True)
    keep = np.flatnonzero((np.bincount(labels, minlength=len(values)) >= least) & (values >= 0))
    rank = np.full(len(values), -1)
    rank[keep] = np.arange(len(keep))
    return rank[labels] if len(values) else labels


def shapes_of(windows: np.ndarray, labels: np.ndarray, onset: int) -> Shapes:
    """Median waveform and directions of variation of every label, from whitened windows ``(spike, channel, time)``."""
    n_units, (channels, length) = int(labels.max(initial=-1)) + 1, windows.shape[1:]
    templates, modes = np.zeros((n_units, channels, length)), np.zeros((n_units, N_MODES, channels, length))
    taper = scipy.signal.windows.tukey(length, 0.25)
    for unit in range(n_units):
        own = windows[labels == unit]
        middle = np.median(own, axis=0)
        templates[unit] = middle * taper
        if len(own) < 20:
            continue
        rest = (own - middle).reshape(len(own), -1)
        limit = 4 * 1.4826 * np.median(np.abs(rest)) + 1e-12
        held = np.clip(rest, -limit, limit)
        _, vectors = np.linalg.eigh(held.T @ held)
        directions = vectors[:, ::-1][:, :N_MODES]
        # Robust spread along each direction: spikes that overlap with others are outliers, not variation.
        spread = 1.4826 * np.median(np.abs(rest @ directions), axis=0)
        excess = np.where(spread**2 > 1.1, spread**2 - 1, 0)  # the noise is white and of unit variance
        strength = np.minimum(np.sqrt(excess), MOST_VARIATION * np.linalg.norm(templates[unit]))
        modes[unit] = (directions * strength).T.reshape(N_MODES, channels, length) * taper
    return Shapes(templates, modes, np.bincount(labels[labels >= 0], minlength=n_units), onset)


def merge_similar(shapes: Shapes, reach: int) -> Shapes:
    """Join units whose waveforms, moved by up to ``reach`` samples, are nearer than noise and variation could tell."""
    while len(shapes.counts) > 1:
        bank = shapes.bank()
        middle, counts = bank.length - 1, shapes.counts
        reach = min(reach, middle)
        product = bank.cross[:, 0, :, 0, middle - reach : middle + reach + 1].astype(float).max(axis=2)
        total = bank.energy[:, None] + bank.energy
        distance, overlap = np.sqrt(np.maximum(total - 2 * product, 0)), 2 * product / total
        rare = np.minimum(counts[:, None], counts) < 0.1 * np.maximum(counts[:, None], counts)
        # |t1 - t2| in standard deviations of the noise: below about 2.5 two spikes cannot be told apart.
        same = (distance < 2.5) | ((overlap > 0.95) & (distance < 7)) | ((overlap > 0.9) & rare)
        np.fill_diagonal(same, False)
        if not same.any():
            break
        one, two = np.unravel_index(np.where(same, overlap, -1).argmax(), overlap.shape)
        kept, lost = (one, two) if counts[one] >= counts[two] else (two, one)
        counts = counts.copy()
        counts[kept] += counts[lost]
        shapes = replace(shapes, counts=counts).at(np.arange(len(counts)) != lost)
    return shapes


def followers(train: SpikeTrain, size: np.ndarray, reach: int) -> np.ndarray:
    """Mask ``(unit,)`` of units most of whose spikes stand at one lag from those of a larger unit: parts of these."""
    follows = np.zeros(len(size), bool)
    times = [train.index[train.unit == unit + 1] for unit in range(len(size))]
    for unit, own in enumerate(times):
        for other in np.flatnonzero(size > size[unit]):
            first, last = (np.searchsorted(times[other], own + step) for step in (-reach, reach + 1))
            near = [times[other][a:b] - t for a, b, t in zip(first, last, own, strict=True) if b > a]
            if near and not follows[other]:
                counts = np.bincount(np.concatenate(near) + reach, minlength=2 * reach + 1)
                follows[unit] |= np.convolve(counts, np.ones(5), "same").max() > 0.5 * len(own)
    return follows
