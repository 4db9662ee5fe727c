"""Sort recordings with the neurons of one labelled recording: a filter bank, subtraction, joint naming.

Nothing is trained. The labelled recording gives the waveforms and how they vary, each recording gives its
own background, and the threshold of each neuron follows from the posterior probabilities of its spikes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from src.preprocess.spikes.bank import KERNEL_TAPS, SpikeBank, Whitening
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import Spectrum, background_spectrum, grow, quiet_mask
from src.preprocess.spikes.pursuit import SHIFT, Found, Pursuit, local_peaks
from src.preprocess.spikes.trace import (
    CEILING,
    Trace,
    check_clipping,
    check_rates,
    without_artefacts,
    without_hum,
    without_pulses,
)
from src.preprocess.spikes.waveforms import LabelledRecording, WaveformModel, subtracted
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.signals import BadInput

BLOCK = 1 << 21  # samples that are sorted at a time
MEASURED = 1 << 18  # samples from which the background is measured; more would not change it
LONG_FFT = 4096  # samples of a segment from which a background's spectrum is measured at full resolution
CLEAR_RATIO = 8.0  # log-likelihood ratio of the spikes that are subtracted before the background is measured
EDGE_SAMPLES = 64  # samples around what was not recorded in which no spike is reported
GAIN_SAMPLES = 1 << 17
FOREIGN_GAIN = 8.0
"""A recording is taken to be in another unit if it is so many times louder or quieter than the labelled one."""

GAIN_STEPS = 2.0 ** np.arange(-3, 3.001, 1 / 16)
TURNED, SCALED = 1.5, 1.02
"""How much more has to be explained with the other polarity, or with another unit."""

SHORT_S = 0.5  # length below which the background is known so badly that it costs more than 0.04 of F1
SEEN_RATIO = 12.5  # log-likelihood ratio of the spikes that gain is judged by

SHORTEST_REFRACTORY_MS, LONGEST_REFRACTORY_MS = 0.5, 2.0


@dataclass(frozen=True)
class Sorted:
    """Spikes of a recording and what is known of each.

    Attributes
    ----------
    train
        Onsets and neurons.
    strength
        ``(spike,)`` posterior probability that a spike is there.
    confidence
        ``(spike,)`` probability of the chosen neuron, given that a spike is there.
    facts, notes
        What the record of the sorting states, and what the user is told.
    """

    train: SpikeTrain
    strength: np.ndarray
    confidence: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def at(self, rows: np.ndarray) -> "Sorted":
        """The spikes of some rows."""
        train = SpikeTrain(self.train.index[rows], self.train.unit[rows])
        return replace(self, train=train, strength=self.strength[rows], confidence=self.confidence[rows])


@dataclass(frozen=True)
class BankSorter:
    """The neurons of a labelled recording, ready to be looked for in others.

    Attributes
    ----------
    waveforms
        Behind the band-pass.
    conditioning
        The band-pass.
    rate_hz
        Spikes per second of all neurons in the labelled recording.
    refractory
        Samples within which no neuron fired twice there.
    loudness
        99.9th percentile of its band-passed trace, without sign.
    notes
        What was repaired in it.
    gain
        Factor from a recording's unit to that of the labelled recording; ``None`` finds it.
    """

    waveforms: WaveformModel
    conditioning: Conditioning
    rate_hz: float
    refractory: int
    loudness: float
    notes: tuple[str, ...] = ()
    gain: float | None = None

    @classmethod
    def from_labelled(
        cls, labelled: LabelledRecording, conditioning: Conditioning, part: range | None = None
    ) -> "BankSorter":
        """Fit the waveforms to a labelled recording, or to one stretch of it."""
        part = range(len(labelled.bandpassed)) if part is None else part
        chain = conditioning.bandpass_only()
        waveforms = labelled.waveforms(part)
        train = labelled.train.between(part.start, part.stop)
        rate_hz = len(train) / (len(part) / chain.fs_hz)
        refractory = refractory_samples(train, chain.fs_hz)
        loudness = float(np.quantile(np.abs(labelled.bandpassed), 0.999))
        return cls(waveforms.bandpassed(chain), chain, rate_hz, refractory, loudness, labelled.notes)

    @property
    def n_units(self) -> int:
        return self.waveforms.n_units

    @property
    def largest(self) -> float:
        """Largest deflection of a mean waveform."""
        return float(np.abs(self.waveforms.templates).max())

    def sort(self, trace: Trace) -> Sorted:
        """Spikes of one recording, none of them beside samples that carry no signal.

        Raises
        ------
        BadInput
            If the recording is not plausible, see :mod:`src.preprocess.spikes.trace`.
        """
        trace, notes = self.prepared(trace)
        bandpassed = self.conditioning.bandpassed(trace.centred)
        bank = self.bank(self.measure(bandpassed, trace.usable))
        done = [
            pursue(bank, bandpassed[None, outer], self.refractory, inner, outer)
            for inner, outer in blocks(len(bandpassed), BLOCK, 4 * bank.length + KERNEL_TAPS)
        ]
        marginal = np.concatenate([ratios for _, ratios in done])
        spikes, _ = choose_spikes([found for found, _ in done], marginal, int(trace.usable.sum()), self.prior)
        spikes = spikes.at(~grow(~trace.usable, EDGE_SAMPLES, EDGE_SAMPLES)[spikes.train.index])
        check_rates(spikes.train, trace.usable.sum() / trace.fs_hz, trace.source)
        cut_off = check_clipping(trace.cut_off, CEILING * self.largest, len(spikes.train), trace.source)
        if trace.duration_s < SHORT_S:
            notes = (*notes, f"only {trace.duration_s:.3g} s long: spikes near the noise may be missed or invented")
        return replace(spikes, notes=(*self.notes, *notes, *cut_off))

    def prepared(self, trace: Trace) -> tuple[Trace, tuple[str, ...]]:
        """The recording without mains hum and artefacts, in the labelled recording's unit and polarity."""
        trace, pulses = without_pulses(trace)
        cleaned, hum = without_hum(trace.centred, trace.fs_hz)
        gain, scaling = self.find_gain(cleaned, trace)
        rails = tuple((height * abs(gain), count) for height, count in trace.cut_off)
        trace = replace(trace, centred=cleaned * np.float32(gain), cut_off=rails)
        trace, artefacts = without_artefacts(trace, self.largest, self.conditioning.low_hz or 0.0)
        return trace, (*pulses, *hum, *scaling, *artefacts)

    def find_gain(self, centred: np.ndarray, trace: Trace) -> tuple[float, tuple[str, ...]]:
        """The factor with which the known waveforms explain most of a recording, and what that means.

        Both polarities are tried, all sizes around 1, and those around the labelled recording's loudness if the
        recording is far louder or quieter (volts for microvolts, a converter's counts). A gain that the user gives is
        kept, but for its sign.

        Raises
        ------
        BadInput
            If it is far louder or quieter and no factor explains it.
        """
        start = _best_stretch(trace.usable, GAIN_SAMPLES)
        part, real = centred[start : start + GAIN_SAMPLES], trace.usable[start : start + GAIN_SAMPLES]
        bandpassed = self.conditioning.bandpassed(part)
        ratio = self.loudness / max(float(np.quantile(np.abs(bandpassed[real]), 0.999)), 1e-30)
        foreign = self.gain is None and not 1 / FOREIGN_GAIN < ratio < FOREIGN_GAIN
        usual = self.gain or 1.0
        sizes = usual * (GAIN_STEPS if self.gain is None else np.ones(1))
        sizes = np.union1d(sizes, ratio * GAIN_STEPS) if foreign else sizes
        sides = self._explained(bandpassed, real, sizes)
        straight, turned = (max(side, key=side.__getitem__) for side in sides)
        side, best, notes = sides[0], straight, []
        if sides[1][turned] > TURNED * sides[0][straight] + 10 * CLEAR_RATIO:
            side, best = sides[1], turned
            notes.append("its polarity is the opposite of the labelled recording's: it was turned over")
            if self.gain is not None:
                notes = [f"options.gain={self.gain:g} would turn it upside down: {-self.gain:g} was taken"]
        if foreign and side[best] < 10 * CLEAR_RATIO:
            factor = f"{1 / ratio:.3g} times those of the labelled recording"
            problem = f"its amplitudes are {factor}, and no spike is like its"
            raise BadInput(trace.source, problem, "give options.gain, the factor to the labelled recording's unit")
        same = np.copysign(usual, best)
        if side[best] < SCALED * side[same] + 5 * CLEAR_RATIO:
            return float(same), tuple(notes)
        notes.append(f"it was scaled by {abs(best):.3g} to the labelled recording's unit (options.gain=1: not)")
        return float(best), tuple(notes)

    def _explained(self, bandpassed: np.ndarray, real: np.ndarray, gains: np.ndarray) -> list[dict[float, float]]:
        """Log-likelihood ratio of all clear spikes of a trace ``(time,)`` by the gain on it, and by its opposite.

        Whitening takes a gain off, so that it divides the templates ``t`` instead: ``<t, w> / g - |t|² / 2 g²``. One
        correlation serves all gains; what is looked at are its peaks relative to ``|t|``.
        """
        quiet = quiet_mask(np.where(real, bandpassed, np.nan))
        bank = self.bank(background_spectrum(bandpassed, self.conditioning.fs_hz, quiet))
        energy, reach = bank.energy[~bank.absent, None].astype(np.float32), bank.length // 2
        white = bank.whitening.apply(bandpassed[None])
        straight, sides = bank.template_ratios(white)[~bank.absent] + energy / 2, []
        for sign in (1, -1):
            products = sign * np.sign(gains[0]) * straight
            size = (products / np.sqrt(energy)).max(axis=0)
            peaks = local_peaks(size, np.sqrt(2 * SEEN_RATIO), reach)
            peaks = peaks[(peaks > reach) & (peaks < len(bandpassed) - reach)]
            power = size[peaks] ** 2
            weight = np.minimum(1, CEILING**2 * np.median(power) / power) if len(peaks) else power  # for artefacts
            near = products[:, peaks[:, None] + np.arange(-SHIFT, SHIFT + 1)].max(axis=2)
            ratios = [(near / g - energy / (2 * g * g)).max(axis=0) for g in np.abs(gains).astype(np.float32)]
            sums = (float((weight * r)[r > SEEN_RATIO].sum()) for r in ratios)
            sides.append(dict(zip(sign * gains, sums, strict=True)))
        return sides

    @property
    def prior(self) -> np.ndarray:
        """``(unit,)`` spikes per sample in the labelled recording."""
        return self.rate_hz / self.conditioning.fs_hz * self.waveforms.counts / self.waveforms.counts.sum()

    def bank(self, noise: Spectrum) -> SpikeBank:
        """The filters for one background."""
        model = self.waveforms
        return SpikeBank(model.templates[:, None], model.modes[:, :, None], model.onset, Whitening.of([noise]))

    def measure(self, bandpassed: np.ndarray, usable: np.ndarray) -> Spectrum:
        """Spectrum of everything in a band-passed trace ``(time,)`` that is no clear spike of a known neuron.

        A first spectrum comes from stretches in which nothing sticks out. With it clear spikes are found and
        subtracted, each with its own deviation, and the rest is measured at full resolution: small spikes, slow
        drift and the spikes of other neurons count as background.
        """
        start = _best_stretch(usable, MEASURED)
        part, real = bandpassed[start : start + MEASURED], usable[start : start + MEASURED]
        fs_hz = self.conditioning.fs_hz
        quiet = quiet_mask(np.where(real, part, np.nan))
        first = background_spectrum(part, fs_hz, quiet)
        pursuit = Pursuit(self.bank(first), part[None], self.refractory)
        pursuit.take_clearest(CLEAR_RATIO)
        model, found = self.waveforms, pursuit.found
        shapes = model.templates[found.unit] + np.einsum("nm,nmt->nt", found.weights, model.modes[found.unit])
        residual = subtracted(part, found.index - pursuit.pad - model.onset, shapes)
        return background_spectrum(residual, fs_hz, real, n_fft=min(LONG_FFT, max(len(part) // 8, 256)))


def refractory_samples(train: SpikeTrain, fs_hz: float) -> int:
    """Shortest interval between two spikes of one neuron, rare exceptions aside, within bounds."""
    intervals = [np.diff(train.index[train.unit == unit]) for unit in np.unique(train.unit)]
    every = np.concatenate(intervals) if intervals else np.zeros(0)
    shortest = np.quantile(every, 0.002) if len(every) else 0.0
    low, high = (ms * fs_hz / 1000 for ms in (SHORTEST_REFRACTORY_MS, LONGEST_REFRACTORY_MS))
    return int(np.clip(0.9 * shortest, low, high))


def blocks(n_samples: int, size: int, margin: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of a recording: the samples whose result each block gives, and the samples that it reads."""
    for start in range(0, n_samples, size):
        stop = min(start + size, n_samples)
        yield slice(start, stop), slice(max(start - margin, 0), min(stop + margin, n_samples))


def pursue(
    bank: SpikeBank, traces: np.ndarray, refractory: int, inner: slice, outer: slice
) -> tuple[Found, np.ndarray]:
    """Candidates in one of :func:`blocks`, and their log-likelihood ratios ``(spike, unit)`` summed over onsets."""
    pursuit = Pursuit(bank, traces, refractory)
    found = pursuit.run()
    found.index = found.index + outer.start
    inside = (found.index >= inner.start) & (found.index < inner.stop)
    return found.at(inside), pursuit.marginal()[inside]


def choose_spikes(
    found: list[Found], marginal: np.ndarray, n_samples: int, prior: np.ndarray
) -> tuple[Sorted, np.ndarray]:
    """The candidates whose probability reaches the threshold of their neuron, and the mask of these.

    Parameters
    ----------
    found
        Candidates in ascending order.
    marginal
        ``(spike, unit)`` log-likelihood ratios summed over onsets.
    n_samples
        Usable samples of the recording.
    prior
        ``(unit,)`` expected spikes per sample; its sum is fitted to the recording, its shares are kept.
    """
    index, unit = (np.concatenate([getattr(f, name) for f in found]) for name in ("index", "unit"))
    with np.errstate(divide="ignore"):
        shares = np.log(prior / prior.sum())
    total = np.logaddexp.reduce(marginal + shares, axis=1) if len(index) else np.zeros(0)
    probability = posterior(total, n_samples, float(prior.sum()))
    confidence = np.exp(marginal[np.arange(len(index)), unit] + shares[unit] - total)
    keep = np.zeros(len(index), bool)
    for one in range(len(prior)):
        rows = np.flatnonzero(unit == one)
        expected = probability.sum() * prior[one] / prior.sum()
        keep[rows] = probability[rows] >= best_threshold(probability[rows], expected)
    return Sorted(SpikeTrain(index[keep], unit[keep] + 1), probability[keep], confidence[keep]), keep


def posterior(log_ratio: np.ndarray, n_samples: int, rate: float) -> np.ndarray:
    """Probabilities of candidates, the rate of spikes per sample being fitted to them (expectation maximisation)."""
    probability = np.zeros(len(log_ratio))
    for _ in range(30):
        probability = 1 / (1 + np.exp(-np.clip(log_ratio + np.log(rate), -60, 60)))
        rate = max(float(probability.sum()) / max(n_samples, 1), 1e-7)
    return probability


def best_threshold(probability: np.ndarray, expected: float) -> float:
    """The threshold with the largest expected F1 of one neuron, ``expected`` of whose spikes are thought to exist.

    If the ``k`` most probable candidates are reported, the expected number of hits is the sum of their
    probabilities, and F1 is twice the hits over reported plus existing spikes.
    """
    if len(probability) == 0:
        return 1.0
    ranked = np.sort(probability)[::-1]
    f1 = 2 * np.cumsum(ranked) / (np.arange(1, len(ranked) + 1) + max(float(ranked.sum()), expected))
    return float(ranked[f1.argmax()])


def _best_stretch(usable: np.ndarray, length: int) -> int:
    """Start of the stretch with the most usable samples, out of a few."""
    if len(usable) <= length:
        return 0
    starts = np.linspace(0, len(usable) - length, 9).astype(int)
    counted = np.concatenate(([0], np.cumsum(usable)))
    return int(starts[(counted[starts + length] - counted[starts]).argmax()])
