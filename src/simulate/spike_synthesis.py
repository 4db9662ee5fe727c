"""Training traces without end: spikes of the labelled recording in noise like the target's.

A target's background is measured without labels, its spectrum given random phases, and spikes drawn
from the labelled recording's waveforms are added at random times, overlaps included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.noise import Spectrum
from src.preprocess.spikes.waveforms import (
    WaveformModel,
)
from src.recordings.extracellular.spike_trains import SpikeTrain


@dataclass(frozen=True)
class Grafting:
    """How synthetic traces are populated.

    Attributes
    ----------
    slowest, fastest
        Range of firing rates, as multiples of the labelled recording's.
    dead_samples
        Shortest interval between two spikes of one unit.
    variation
        Factor on the fitted variation of the waveforms.
    """

    slowest: float = 0.7
    fastest: float = 3.5
    dead_samples: int = 25
    variation: float = 1.0


@dataclass(frozen=True)
class Source:
    """What synthetic traces are made from: waveforms, their rate, and the chain the traces go through."""

    waveforms: WaveformModel
    rate_hz: float
    conditioning: Conditioning
    grafting: Grafting = Grafting()

    @property
    def margin(self) -> int:
        """Samples beyond either end that a trace is made from, so that it is complete to both ends."""
        return self.conditioning.reach + self.waveforms.templates.shape[1]

    def trace(
        self, n_samples: int, noise: Spectrum | np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, SpikeTrain]:
        """A conditioned trace ``(n_samples,)`` and its spikes, complete to both ends.

        Parameters
        ----------
        noise
            Spectrum of the band-passed target, or a stretch of it ``(n_samples + 2 · margin,)``. Spikes
            are band-passed before they are added.
        """
        total = n_samples + 2 * self.margin
        train = self.firing(total, rng)
        clean = self.conditioning.linear(self.spikes(train, total, rng))
        mixed = clean + (noise.synthesise(total, rng) if isinstance(noise, Spectrum) else noise)
        trace = self.conditioning.enhance(mixed)[self.margin : self.margin + n_samples]
        return trace, train.between(self.margin, self.margin + n_samples)

    def firing(self, total: int, rng: np.random.Generator) -> SpikeTrain:
        """Random spikes of the neurons seen, at a rate drawn from the range, over ``total`` samples."""
        factor = rng.uniform(self.grafting.slowest, self.grafting.fastest)
        expected = factor * self.rate_hz * total / self.conditioning.fs_hz
        present = np.flatnonzero(self.waveforms.counts > 0)
        index, unit = [], []
        for u in present:
            count = rng.poisson(expected / len(present))
            onsets = np.sort(rng.integers(0, max(total - count * self.grafting.dead_samples, 1), count))
            index.append(onsets + np.arange(count) * self.grafting.dead_samples)
            unit.append(np.full(count, u + 1))
        joined = SpikeTrain.sorted(np.concatenate(index), np.concatenate(unit))
        return joined.between(0, total)

    def spikes(self, train: SpikeTrain, total: int, rng: np.random.Generator) -> np.ndarray:
        """A trace ``(total,)`` of random spikes at the given times and nothing else, before any filter."""
        return add_spikes(train, self.waveforms, total, rng, variation=self.grafting.variation)


def add_spikes(
    train: SpikeTrain, waveforms: WaveformModel, n_samples: int, rng: np.random.Generator, *, variation: float = 1.0
) -> np.ndarray:
    """A trace ``(n_samples,)`` float32 of random spikes at the given times and nothing else."""
    length = waveforms.templates.shape[1]
    padded = np.zeros(n_samples + 2 * length, np.float32)
    shapes = waveforms.draw(train.unit, rng, variation=variation)
    starts = train.index - waveforms.onset + length
    np.add.at(padded, (starts[:, None] + np.arange(length)).reshape(-1), shapes.reshape(-1))
    return padded[length : length + n_samples]


def grafted(linear: np.ndarray, own: Spectrum, target: Spectrum, rng: np.random.Generator) -> np.ndarray:
    """A labelled, band-passed trace made as noisy as the target.

    Noise is added where the target's spectrum exceeds the recording's own; the sum has the target's.
    """
    f = target.frequencies
    missing = np.maximum(target.power - np.interp(f, own.frequencies, own.power), 0)
    return (linear + Spectrum(missing, target.fs_hz).synthesise(len(linear), rng)).astype(np.float32)


def overlaid(
    linear: np.ndarray, train: SpikeTrain, dead_samples: int, rng: np.random.Generator, *, tries: int = 40
) -> tuple[np.ndarray, SpikeTrain]:
    """A labelled trace added to itself, moved by a random lag and wrapped round: twice the spikes and noise power.

    Of some lags the one is taken at which the fewest spikes of one unit fall within ``dead_samples``.
    """
    n = len(linear)
    best: tuple[int, np.ndarray, SpikeTrain] | None = None
    for lag in rng.integers(n // 8, max(n - n // 8, n // 8 + 1), tries):
        both = SpikeTrain.sorted(
            np.concatenate((train.index, (train.index + lag) % n)), np.concatenate((train.unit, train.unit))
        )
        order = np.argsort(both.unit, kind="stable")
        near = (np.diff(both.index[order]) <= dead_samples) & (np.diff(both.unit[order]) == 0)
        if best is None or near.sum() < best[0]:
            best = int(near.sum()), np.roll(linear, lag), both
    assert best is not None
    return (linear + best[1]).astype(np.float32), best[2]


def onset_mask(train: SpikeTrain, n_samples: int, n_units: int, *, half_width: int, offset: int) -> np.ndarray:
    """Label ``(unit, time)`` float32: 1 within ``half_width`` samples of ``onset + offset``.

    With ``n_units=1`` every unit counts as the same.
    """
    mask = np.zeros((n_units, n_samples), np.float32)
    row = train.unit - 1 if n_units > 1 else np.zeros(len(train), np.int64)
    for shift in range(-half_width, half_width + 1):
        at = train.index + offset + shift
        inside = (at >= 0) & (at < n_samples)
        mask[row[inside], at[inside]] = 1
    return mask
