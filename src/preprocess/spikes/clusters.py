"""Units without labels: clusters of whitened waveforms, and what becomes of clusters that are no units."""

import warnings
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
import scipy.signal
import scipy.stats
from scipy.sparse.csgraph import connected_components

from src.preprocess.spikes.bank import SpikeBank, Whitening
from src.recordings.extracellular.spike_trains import SpikeTrain

N_MODES = 2
MOST_VARIATION = 0.1
"""Largest standard deviation along one direction, as a share of the mean waveform."""

COMPONENTS = 8
MOST_VIOLATIONS = 0.005
"""Share of intervals in the refractory period above which a cluster is not one neuron."""

LEAST_VARIANCE, SEPARATE = 0.5, 5.0
"""Of the parts of such a cluster: variance beyond that of the noise, and standard deviations between them."""

ALIKE = 0.8
"""Overlap of two waveforms above which their spike times say whether they are of one neuron."""

LEAST_EXPECTED, CHANCE = 5.0, 1e-6
"""Coincidences expected by chance below which spike times say nothing, and the probability of too few by chance."""

APART = 2.5
"""Standard deviations of the noise between two mean waveforms below which two spikes cannot be told apart."""


@dataclass(frozen=True)
class Shapes:
    """Whitened waveforms of units.

    Attributes
    ----------
    templates, modes
        ``(unit, channel, time)`` and ``(unit, mode, channel, time)``; see :class:`SpikeBank`.
    times
        Of every unit, the samples in ascending order of the spikes it was learned from.
    onset
        Column of the peak.
    """

    templates: np.ndarray
    modes: np.ndarray
    times: list[np.ndarray]
    onset: int

    @property
    def counts(self) -> np.ndarray:
        """``(unit,)`` spikes they were learned from."""
        return np.array([len(own) for own in self.times], int)

    def at(self, rows: np.ndarray) -> "Shapes":
        """The shapes of the units that a mask chooses."""
        times = [self.times[row] for row in np.flatnonzero(rows)]
        return replace(self, templates=self.templates[rows], modes=self.modes[rows], times=times)

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


def shapes_of(windows: np.ndarray, times: np.ndarray, labels: np.ndarray, onset: int) -> Shapes:
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
        directions = _principal(held, N_MODES)
        # Robust spread along each direction: spikes that overlap with others are outliers, not variation.
        spread = 1.4826 * np.median(np.abs(rest @ directions), axis=0)
        excess = np.where(spread**2 > 1.1, spread**2 - 1, 0)  # the noise is white and of unit variance
        strength = np.minimum(np.sqrt(excess), MOST_VARIATION * np.linalg.norm(templates[unit]))
        modes[unit] = (directions * strength).T.reshape(N_MODES, channels, length) * taper
    return Shapes(templates, modes, [np.sort(times[labels == unit]) for unit in range(n_units)], onset)


class Refractory(NamedTuple):
    """Lags in samples, from ``first`` to ``last``, at which one neuron does not fire twice, and samples recorded."""

    first: int
    last: int
    n_samples: int

    def coincidences(self, one: np.ndarray, two: np.ndarray) -> tuple[int, float]:
        """Coincidences of two sorted trains at these lags, in both directions: found, and expected by chance."""
        edges = ((self.first, self.last), (-self.last, -self.first))
        near = sum(
            int((np.searchsorted(two, one + b, "right") - np.searchsorted(two, one + a)).sum()) for a, b in edges
        )
        return near, 2 * len(one) * len(two) * (self.last - self.first + 1) / self.n_samples

    def violated(self, train: np.ndarray) -> bool:
        """Whether a sorted train has more intervals of these lengths than one neuron and a few errors."""
        near = self.coincidences(train, train)[0] / 2
        return near >= 2 and near > MOST_VIOLATIONS * len(train)

    def independent(self, one: np.ndarray, two: np.ndarray) -> bool:
        """Whether two trains coincide about as often as those of two neurons."""
        near, expected = self.coincidences(one, two)
        return expected >= LEAST_EXPECTED and near > expected / 2

    def exclusive(self, one: np.ndarray, two: np.ndarray) -> bool:
        """Whether two trains avoid each other as the spikes of one neuron do."""
        near, expected = self.coincidences(one, two)
        return expected >= LEAST_EXPECTED and scipy.stats.poisson.cdf(near, expected) < CHANCE


def split_mixed(
    flat: np.ndarray, times: np.ndarray, labels: np.ndarray, least: int, refractory: Refractory, most_parts: int = 1
) -> np.ndarray:
    """Labels in which a cluster whose spikes violate the refractory period is taken apart, -1 for what is left over.

    Two neurons of two sizes are two Gaussians along one direction, where the whitened noise has unit variance; that
    their spikes coincide confirms it. Else Gaussians in the plane of the largest variations say what belongs together.
    """
    labels, todo = labels.copy(), list(range(int(labels.max(initial=-1)) + 1))
    while todo:
        rows = np.flatnonzero(labels == (unit := todo.pop()))
        if len(rows) < 2 * least or not refractory.violated(np.sort(times[rows])):
            continue
        middle = np.median(flat[rows], axis=0)
        directions = _principal(flat[rows] - middle, min(COMPONENTS, flat.shape[1]))
        for direction in (middle / max(np.linalg.norm(middle), 1e-9), directions[:, 0]):
            parts = _mixture(flat[rows] @ direction[:, None], 2, "tied")
            trains = [np.sort(times[rows[parts == part]]) for part in (0, 1)]
            if min(map(len, trains)) >= least and refractory.independent(*trains):
                new = int(labels.max()) + 1
                labels[rows[parts == 1]] = new
                todo += [unit, new]
                break
        else:
            parts = large(_mixture((flat[rows] - middle) @ directions, most_parts, "spherical"), least)
            labels[rows] = np.where(parts > 0, int(labels.max()) + parts, np.where(parts == 0, unit, -1))
    return labels


def _mixture(values: np.ndarray, most: int, kind: Any) -> np.ndarray:
    """The Gaussian of each row of ``(row, direction)``; the information criterion chooses their number."""
    from sklearn.mixture import GaussianMixture

    distance = np.abs(values - np.median(values, axis=0))
    inner = values[(distance < 8 * np.median(distance, axis=0) + 1e-9).all(axis=1)][:4000]
    # Parts of many spikes in several directions have to be wider and further apart than two along one direction.
    added = LEAST_VARIANCE if most > 2 else 1e-6
    fits = [
        GaussianMixture(k, covariance_type=kind, reg_covar=added, random_state=0).fit(inner)
        for k in range(1, min(most, len(inner)) + 1)
    ]
    best = min(fits, key=lambda fit: fit.bic(inner))
    apart = np.linalg.norm(best.means_[:, None] - best.means_, axis=2)
    _, part = connected_components(apart < (SEPARATE if most > 2 else APART))
    return np.asarray(part[best.predict(values)])


def _principal(rows: np.ndarray, count: int) -> np.ndarray:
    """``(feature, count)`` directions in which ``(row, feature)`` vary most, the largest first."""
    last = rows.shape[1] - 1
    return np.asarray(scipy.linalg.eigh(rows.T @ rows, subset_by_index=(last - count + 1, last))[1][:, ::-1])


def merge_similar(shapes: Shapes, reach: int, refractory: Refractory) -> Shapes:
    """Join units of one neuron: waveforms, moved by up to ``reach`` samples, are alike, and spike times allow it."""
    while len(shapes.times) > 1:
        bank = shapes.bank()
        middle, counts = bank.length - 1, shapes.counts
        reach = min(reach, middle)
        product = bank.cross[:, 0, :, 0, middle - reach : middle + reach + 1].astype(float).max(axis=2)
        total = bank.energy[:, None] + bank.energy
        distance, overlap = np.sqrt(np.maximum(total - 2 * product, 0)), 2 * product / total
        rare = np.minimum(counts[:, None], counts) < 0.1 * np.maximum(counts[:, None], counts)
        same = distance < APART
        # Alike: one neuron, unless their spikes coincide as those of two. Less alike: only if their spikes never do.
        near = ((overlap > 0.95) & (distance < 7)) | ((overlap > 0.9) & rare)
        for one, two in np.argwhere(np.triu((near | (overlap > ALIKE)) & ~same, 1)):
            pair = shapes.times[one], shapes.times[two]
            same[one, two] = not refractory.independent(*pair) if near[one, two] else refractory.exclusive(*pair)
        same = np.triu(same, 1)
        if not same.any():
            break
        one, two = np.unravel_index(np.where(same, overlap, -1).argmax(), overlap.shape)
        kept, lost = (one, two) if counts[one] >= counts[two] else (two, one)
        times = list(shapes.times)
        times[kept] = np.sort(np.concatenate((times[kept], times[lost])))
        shapes = replace(shapes, times=times).at(np.arange(len(counts)) != lost)
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
