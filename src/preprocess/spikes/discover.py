"""Spikes without labels: the units of a group of channels are learned from an excerpt, then the group is sorted.

1. Peaks of the band-passed traces, of the polarity that is larger, artefacts left out.
2. Clusters of their whitened waveforms (ISO-SPLIT, as SpikeInterface has it), joined where they are the same.
3. The clusters' mean waveforms and how they vary make a filter bank. It finds spikes, each is aligned and freed of its
   neighbours, and what is left holds spikes that were too small for step 1. All of them are clustered anew, twice.
4. Units that are too small, too rare, or only follow another one are dropped.
5. The whole recording is sorted with the bank, block by block.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.signal

from src.preprocess.spikes.bank import KERNEL_TAPS, Whitening
from src.preprocess.spikes.clusters import (
    Refractory,
    Shapes,
    cluster,
    followers,
    large,
    merge_similar,
    shapes_of,
    split_mixed,
)
from src.preprocess.spikes.filters import background_spectrum, bandpass, bandpass_kernel, grow, quiet_mask, robust_sigma
from src.preprocess.spikes.pursuit import Pursuit
from src.preprocess.spikes.sorting import Sorted, blocks, choose_spikes, pursue
from src.preprocess.spikes.trace import artefact_ceiling, bridged, without_hum
from src.preprocess.spikes.waveforms import cut_windows, median_waveforms
from src.recordings.extracellular.recording import require_rate
from src.recordings.extracellular.spike_trains import SpikeTrain, held
from src.signals import BadInput

ReadGroup = Callable[[int, int], np.ndarray]
"""Samples ``[first, last)`` of a group as ``(channel, time)``, NaN where nothing was recorded."""

CLEAR_RATIO = 8.0
"""Log-likelihood ratio of the spikes that waveforms are learned from."""

CLUSTER_MS = (0.7, 1.3)
SAME_WITHIN_MS = 1.0
SILENT_MS = (0.8, 2.0)
"""Lags at which a neuron does not fire a second time; nearer spikes are not found reliably."""

LEARNED_VALUES = 1 << 25
"""Samples times channels of the excerpt that units are learned from: five minutes of a tetrode at 25 kHz."""


@dataclass
class DiscoverParams:
    """How units are found."""

    low_hz: float = 150.0  # Hz; corner of the high-pass
    high_hz: float = 6000.0  # Hz; corner of the low-pass, lowered where the rate asks for it
    threshold: float = 4.5  # standard deviations of the noise that a peak exceeds
    before_ms: float = 2.0  # ms of a waveform ahead of its peak, the ringing of the whitening included
    after_ms: float = 5.0  # ms behind it
    refractory_ms: float = 1.0  # ms within which one unit does not fire twice
    least_spikes: int = 10  # a cluster with fewer is no unit
    smallest: float = 5.0  # standard deviations of the noise behind a unit's own matched filter
    most_peaks: int = 20_000  # peaks that are clustered; the others are found by the filter bank
    rounds: int = 2  # times that all spikes found are clustered anew
    seed: int = 0  # of the clustering
    block: int = 1 << 21  # samples that are sorted at a time


@dataclass
class Group:
    """Channels that see the same neurons, read and band-passed in pieces.

    Attributes
    ----------
    centre
        ``(channel,)`` taken off before filtering.
    ceiling
        ``(channel,)`` deflections beyond it are artefacts.
    notes
        What was repaired, and what could not be used.
    """

    read: ReadGroup
    n_samples: int
    fs_hz: float
    params: DiscoverParams
    centre: np.ndarray | None = None
    ceiling: np.ndarray | None = None
    notes: set[str] = field(default_factory=set)

    def samples(self, ms: float) -> int:
        return round(ms * self.fs_hz / 1000)

    def bandpassed(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """``(channel, time)`` float32, zero where there is no signal, and the mask ``(time,)`` of where there is."""
        p, high = self.params, min(self.params.high_hz, 0.45 * self.fs_hz)
        reach = len(bandpass_kernel(self.fs_hz, p.low_hz, high, 2)) // 2 + self.samples(10)
        start, stop = max(first - reach, 0), min(last + reach, self.n_samples)
        inside = slice(first - start, last - start)
        raw = np.asarray(self.read(start, stop), np.float32)
        missing = ~np.isfinite(raw).all(axis=0) | (len(raw) > 1) & (raw == raw[:1]).all(axis=0) | held(raw)
        if missing.all():
            return np.zeros_like(raw)[:, inside], ~missing[inside]
        if self.centre is None:
            self.centre = np.median(raw[:, ~missing], axis=1, keepdims=True)
        centred = np.where(np.isfinite(raw) & ~missing, raw - self.centre, np.float32(0))
        for channel, trace in enumerate(centred):
            centred[channel], said = without_hum(trace, self.fs_hz)
            self.notes.update(said)
        traces = bandpass(centred, self.fs_hz, p.low_hz, high, 2)
        if self.ceiling is not None:
            loud = (np.abs(traces) > self.ceiling).any(axis=0)
            if loud.any():  # a straight line in place of the pulse, so that the filter does not ring
                missing |= grow(loud, self.samples(2), self.samples(4))
                if not missing.all():
                    centred = np.stack([bridged(row, ~missing) for row in centred])
                    traces = bandpass(centred, self.fs_hz, p.low_hz, high, 2)
        traces[:, missing] = 0
        return traces[:, inside], ~missing[inside]

    def recorded(self) -> np.ndarray:
        """``(channel,)`` whether a channel has a finite sample."""
        found = np.zeros(len(self.read(0, 1)), bool)
        for first in range(0, self.n_samples, self.params.block):
            found |= np.isfinite(self.read(first, min(first + self.params.block, self.n_samples))).any(axis=1)
            if found.all():
                break
        return found

    def excerpt(self) -> tuple[np.ndarray, np.ndarray]:
        """The whole group if it is short, else eight stretches of it, evenly spread; see :meth:`bandpassed`."""
        channels = len(self.read(0, 1))
        most = LEARNED_VALUES // channels
        if self.n_samples <= most:
            return self.bandpassed(0, self.n_samples)
        starts = np.linspace(0, self.n_samples - most // 8, 8).astype(int)
        pieces = [self.bandpassed(s, s + most // 8) for s in starts]
        edge = self.samples(self.params.before_ms + self.params.after_ms)
        for _, usable in pieces:
            usable[:edge] = usable[-edge:] = False
        return np.concatenate([t for t, _ in pieces], axis=1), np.concatenate([u for _, u in pieces])


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
    amplitude
        ``(spike,)`` band-passed trace at the peak, on the channel where the unit is largest.
    sign
        -1 for negative peaks, 1 for positive ones.
    noise
        ``(channel,)`` standard deviation.
    usable
        Samples outside artefacts and gaps.
    group
        What was sorted.
    channels
        ``(channel,)`` the rows of the group given that were sorted, from 0; the others have no finite sample.
    """

    templates: np.ndarray
    onset: int
    found: Sorted
    amplitude: np.ndarray
    sign: int
    noise: np.ndarray
    usable: int
    group: Group
    channels: np.ndarray


def discover(traces: np.ndarray, fs_hz: float, params: DiscoverParams | None = None) -> Units:
    """Find the units of one group of channels ``(channel, time)`` and sort it.

    Raises
    ------
    BadInput
        If the rate is too low, or there are too few peaks for a unit.
    """
    group = Group(lambda first, last: traces[:, first:last], traces.shape[1], fs_hz, params or DiscoverParams())
    return discover_group(group)


def discover_group(group: Group) -> Units:
    """Find the units of a group that need not fit into memory, and sort it; see :func:`discover`."""
    require_rate("recording", group.fs_hz, "spikes")
    p, recorded, read = group.params, group.recorded(), group.read
    channels = np.flatnonzero(recorded)
    if len(channels) == 0:
        raise BadInput("recording", "no channel has a finite sample", "give a recording with samples")
    group = replace(group, read=lambda first, last: read(first, last)[channels])
    for absent in np.flatnonzero(~recorded):
        group.notes.add(f"channel {absent} of the group (counted from 0) has no finite sample and was not used")
    bandpassed, usable = group.excerpt()
    noise = noise_levels(bandpassed, usable)
    sign, peaks, ceiling = find_peaks(bandpassed / noise[:, None].astype(np.float32), group.fs_hz, p.threshold)
    group.ceiling = (ceiling * noise)[:, None]
    if np.isfinite(ceiling):
        bandpassed, usable = group.excerpt()
        sign, peaks, _ = find_peaks(bandpassed / noise[:, None].astype(np.float32), group.fs_hz, p.threshold)
    before, after = group.samples(p.before_ms), group.samples(p.after_ms)
    peaks = peaks[usable[peaks] & (peaks > before + after) & (peaks < len(usable) - before - after)]
    if len(peaks) < p.least_spikes:
        problem = f"{len(peaks)} peaks beyond {p.threshold:g} times the noise"
        raise BadInput("recording", problem, "give a longer recording")
    whitening, shapes = learn(bandpassed, usable, peaks, group)
    if len(shapes.times) == 0:
        raise BadInput("recording", "no cluster of peaks is large enough for a unit", "give a longer recording")
    shapes, train = _checked(shapes, np.where(usable, whitening.apply(bandpassed), 0), usable, group)
    templates = median_waveforms(bandpassed, train, len(shapes.times), before, after)
    found, amplitude, count = _sort(group, whitening, shapes, np.abs(templates).max(axis=2).argmax(axis=1))
    if count < group.n_samples:
        group.notes.add(
            f"{1 - count / group.n_samples:.2%} of the samples are NaN, stuck or artefacts: no spike is reported there"
        )
    return Units(templates, before, found, amplitude, sign, noise, count, group, channels)


def noise_levels(bandpassed: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """``(channel,)`` standard deviations of the background."""
    levels = []
    for row in bandpassed:
        quiet = usable & quiet_mask(np.where(usable, row, np.nan), before=20, after=40)
        levels.append(float(row[quiet].std()) if quiet.sum() > 1000 else robust_sigma(row[usable]))
    return np.maximum(levels, 1e-9 * max(*levels, 1e-30))


def find_peaks(scaled: np.ndarray, fs_hz: float, threshold: float) -> tuple[int, np.ndarray, float]:
    """Polarity, peaks, and the ceiling beyond which a deflection is an artefact, of traces in units of the noise."""
    distance = max(round(0.5 * fs_hz / 1000), 1)
    size = np.abs(scaled).max(axis=0)
    apart, _ = scipy.signal.find_peaks(size, height=threshold, distance=20 * distance)  # filters ring
    ceiling = artefact_ceiling(size[apart])
    sides, totals = {}, {}
    for sign in (-1, 1):
        peaks, found = scipy.signal.find_peaks((sign * scaled).max(axis=0), height=threshold, distance=distance)
        sides[sign], totals[sign] = peaks, found["peak_heights"][found["peak_heights"] < ceiling].sum()
    sign = -1 if totals[-1] >= totals[1] else 1
    return sign, sides[sign], ceiling


def measure_whitening(background: np.ndarray, quiet: np.ndarray, fs_hz: float) -> Whitening:
    """Whitening from the samples of a group at which ``quiet (time,)``: channels first, then a spectrum for each."""
    n = len(background)
    spatial = np.eye(n)
    if n > 1:
        values, vectors = np.linalg.eigh(np.cov(background[:, quiet]))
        values = np.maximum(values, 1e-3 * values.mean())
        spatial = vectors @ np.diag(values**-0.5) @ vectors.T
    mixed = (spatial @ background).astype(np.float32)
    return Whitening.of([background_spectrum(row, fs_hz, quiet) for row in mixed], spatial)


def learn(bandpassed: np.ndarray, usable: np.ndarray, peaks: np.ndarray, group: Group) -> tuple[Whitening, Shapes]:
    """Waveforms of the units in an excerpt ``(channel, time)``, and the whitening that they were learned behind."""
    p, fs_hz, n_samples = group.params, group.fs_hz, bandpassed.shape[1]
    before, after, refractory = (group.samples(ms) for ms in (p.before_ms, p.after_ms, p.refractory_ms))
    quiet = np.logical_and.reduce([quiet_mask(np.where(usable, r, np.nan), before=20, after=40) for r in bandpassed])
    whitening = measure_whitening(bandpassed, quiet if quiet.sum() > 1000 else usable, fs_hz)
    white = np.where(usable, whitening.apply(bandpassed), 0).astype(np.float32)
    rng = np.random.default_rng(p.seed)
    some = np.sort(rng.choice(peaks, min(len(peaks), p.most_peaks), replace=False))
    windows, times = cut_windows(white, some, before, after), some
    for turn in range(p.rounds + 1):
        shapes = _clustered(windows, times, n_samples, group)
        if turn == p.rounds or len(shapes.times) == 0:
            break
        pursuit = Pursuit(shapes.bank(), white, refractory)
        found = pursuit.run()
        if turn == 0:  # measure the background again, now that the spikes are known
            found = found.at((found.ratio > CLEAR_RATIO) & (found.index > before) & (found.index < n_samples - after))
            whitening = _whitening_without(bandpassed, usable, SpikeTrain(found.index, found.unit + 1), group)
            white = np.where(usable, whitening.apply(bandpassed), 0).astype(np.float32)
            windows = cut_windows(white, found.index, before, after)
            shapes = shapes_of(windows, found.index, large(found.unit, p.least_spikes), before)
            if len(shapes.times) == 0:
                break
            pursuit = Pursuit(shapes.bank(), white, refractory)
            pursuit.run()
        windows, times = _cleaned(pursuit, shapes, usable, group)
        if len(windows) > p.most_peaks:
            some = np.sort(rng.choice(len(windows), p.most_peaks, replace=False))
            windows, times = windows[some], times[some]
    return whitening, shapes


def _whitening_without(bandpassed: np.ndarray, usable: np.ndarray, train: SpikeTrain, group: Group) -> Whitening:
    """Whitening from what the mean waveforms do not explain, away from spikes where enough is left."""
    before, after = group.samples(group.params.before_ms), group.samples(group.params.after_ms)
    means = median_waveforms(bandpassed, train, int(train.unit.max(initial=0)), before, after)
    means *= scipy.signal.windows.tukey(before + after, 0.25)
    background = bandpassed.copy()
    for index, unit in zip(train.index.tolist(), train.unit.tolist(), strict=True):
        background[:, index - before : index + after] -= means[unit - 1]
    busy = np.zeros(len(usable), bool)
    busy[train.index] = True
    away = usable & ~grow(busy, before, after)
    return measure_whitening(background, away if away.mean() > 0.15 else usable, group.fs_hz)


def _cleaned(pursuit: Pursuit, shapes: Shapes, usable: np.ndarray, group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Windows ``(spike, channel, time)`` of the spikes found, without their neighbours, of those left over, and times.

    What is left over is looked at with the units' shapes at any amplitude.
    """
    p, bank, n_samples = group.params, pursuit.bank, len(usable)
    before, after, near = group.samples(p.before_ms), group.samples(p.after_ms), group.samples(0.5)
    residual = pursuit.residual[:, pursuit.pad : pursuit.pad + n_samples]
    index = pursuit.found.index - pursuit.pad
    inside = (index > before) & (index < n_samples - after) & (pursuit.found.ratio > CLEAR_RATIO)
    found, index = pursuit.found.at(inside), index[inside]
    windows = cut_windows(residual, index, before, after).copy()
    first = before - bank.onset
    windows[:, :, first : first + bank.length] += bank.waves(found.unit, found.weights)
    unit_length = replace(shapes, templates=shapes.templates / shapes.norms()[:, None, None], modes=0 * shapes.modes)
    strength = (unit_length.bank().template_ratios(residual) + 0.5).max(axis=0)
    others, _ = scipy.signal.find_peaks(strength, height=p.threshold, distance=max(near, 1))
    busy = ~usable
    busy[index] = True
    free = ~grow(busy, near, near)[others] & (others > before) & (others < n_samples - after)
    others = others[free]
    return np.concatenate((windows, cut_windows(residual, others, before, after))), np.concatenate((index, others))


def _clustered(windows: np.ndarray, times: np.ndarray, n_samples: int, group: Group) -> Shapes:
    """Shapes of the clusters of whitened windows, those that are the same joined and small ones left out."""
    p, before = group.params, group.samples(group.params.before_ms)
    first, last = before - group.samples(CLUSTER_MS[0]), before + group.samples(CLUSTER_MS[1])
    flat = windows[:, :, max(first, 0) : last].reshape(len(windows), -1)
    first_silent, last_silent = (group.samples(ms) for ms in SILENT_MS)
    refractory = Refractory(first_silent, last_silent, n_samples)
    labels = cluster(flat, p.least_spikes, p.seed)
    labels = split_mixed(flat, times, labels, p.least_spikes, refractory, 6 if windows.shape[1] > 1 else 1)
    shapes = merge_similar(shapes_of(windows, times, labels, before), group.samples(SAME_WITHIN_MS), refractory)
    return shapes.at(shapes.norms() >= p.smallest)


def _checked(shapes: Shapes, white: np.ndarray, usable: np.ndarray, group: Group) -> tuple[Shapes, SpikeTrain]:
    """The units that are left after sorting an excerpt with all of them, and their spikes there.

    Raises
    ------
    BadInput
        If none is left.
    """
    p = group.params
    while True:
        bank = shapes.bank()
        pursuit = Pursuit(bank, white, group.samples(p.refractory_ms))
        found = pursuit.run()
        ok = (found.index >= 0) & (found.index < len(usable))
        prior = np.maximum(shapes.counts, 1) / max(int(usable.sum()), 1)
        train = choose_spikes([found.at(ok)], pursuit.marginal()[ok], int(usable.sum()), prior)[0].train
        shapes = replace(shapes, times=[train.index[train.unit == u + 1] for u in range(bank.n_units)])
        counts = shapes.counts
        keep = (counts >= p.least_spikes) & ~followers(train, shapes.norms(), group.samples(6))
        if not keep.any():
            raise BadInput("recording", "no unit has enough spikes", "give a longer recording")
        if keep.all():
            return shapes, train
        shapes = shapes.at(keep)


def _sort(group: Group, whitening: Whitening, shapes: Shapes, largest: np.ndarray) -> tuple[Sorted, np.ndarray, int]:
    """Sort the whole group block by block: spikes, their amplitudes on channels ``largest``, usable samples."""
    bank, refractory = shapes.bank(), group.samples(group.params.refractory_ms)
    found, marginal, amplitude, n_usable = [], [], [], 0
    for inner, outer in blocks(group.n_samples, group.params.block, 4 * bank.length + KERNEL_TAPS):
        traces, usable = group.bandpassed(outer.start, outer.stop)
        white = np.where(usable, whitening.apply(traces), 0).astype(np.float32)
        block, ratios = pursue(bank, white, refractory, inner, outer)
        ok = usable[block.index - outer.start]
        found.append(block.at(ok))
        marginal.append(ratios[ok])
        amplitude.append(traces[largest[block.unit[ok]], block.index[ok] - outer.start])
        n_usable += int(usable[inner.start - outer.start : inner.stop - outer.start].sum())
    prior = np.maximum(shapes.counts, 1) / max(n_usable, 1)
    spikes, kept = choose_spikes(found, np.concatenate(marginal), n_usable, prior)
    return spikes, np.concatenate(amplitude)[kept], n_usable
