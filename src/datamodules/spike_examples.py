"""Endless examples for the spike networks: each batch a function of seed, epoch and step alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from src.preprocess.spikes.matched_filter import FilterBank
from src.preprocess.spikes.noise import Spectrum
from src.preprocess.spikes.waveforms import conditioned_waveforms, cut, remove_spikes
from src.preprocess.spikes.windows import detector_windows, hard_negatives, spike_windows
from src.recordings.extracellular.spike_trains import SpikeTrain, together
from src.simulate.spike_synthesis import Source, onset_mask

GUARD_ONSETS = 12
"""Samples around a true onset in which nothing counts as noise."""

SUSPECT_SAMPLES = 15
"""Samples around a suspect's label in which silence is not rewarded."""

Traces = tuple[Tensor, Tensor, Tensor, int]
Waveforms = tuple[Tensor, Tensor, int]


@dataclass(frozen=True)
class Background:
    """What was measured on one target.

    Attributes
    ----------
    noise, signature, level
        Spectrum behind the band-pass; what the target is recognised by; standard deviation of its trace.
    linear, suspects
        The band-passed target itself and where known neurons probably fire in it, if its background is
        more than Gaussian noise; else ``None`` and nothing.
    """

    name: str
    noise: Spectrum
    signature: np.ndarray
    level: float
    linear: np.ndarray | None = None
    suspects: SpikeTrain = field(default_factory=SpikeTrain.empty)

    def stretch(self, n_samples: int, rng: np.random.Generator) -> tuple[np.ndarray, SpikeTrain]:
        """A random stretch of the target and its suspects; a short target goes round."""
        assert self.linear is not None
        start = int(rng.integers(0, max(len(self.linear) - n_samples, 1)))
        if len(self.linear) < n_samples:
            return np.resize(self.linear, n_samples), self.suspects
        return self.linear[start : start + n_samples], self.suspects.between(start, start + n_samples)


class EpochSteps(Sampler[tuple[int, int]]):
    """``(epoch, step)`` pairs: all that an example depends on beside the seed."""

    def __init__(self, steps: int, rank: int = 0, world_size: int = 1) -> None:
        self.steps, self.rank, self.world_size, self.epoch = steps, rank, world_size, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, step * self.world_size + self.rank) for step in range(self.steps))


class TraceBatches(Dataset[Traces]):
    """Windows of a fresh trace: ``(window, 1, time)``, labels and weights ``(window, curve, time)``, expert.

    Windows have ``context`` more samples on either side than their labels, so that no label is judged
    at a border that inference does not have. The noise is synthetic, with the target's spectrum, or a
    stretch of the target itself; then the weights are zero where it probably holds spikes of its own.
    """

    def __init__(
        self,
        source: Source,
        backgrounds: Sequence[Background],
        *,
        windows: int,
        window: int,
        context: int,
        curves: int,
        half_width: int,
        offset: int,
        seed: int,
    ) -> None:
        self.source, self.backgrounds = source, backgrounds
        self.windows, self.window, self.context = windows, window, context
        self.curves, self.half_width, self.offset, self.seed = curves, half_width, offset, seed

    def __getitem__(self, at: tuple[int, int]) -> Traces:
        rng = np.random.default_rng((self.seed, *at))
        expert = at[1] % len(self.backgrounds)
        n = self.windows * self.window + 2 * self.context
        trace, train, suspects = fresh_trace(self.source, self.backgrounds[expert], n, rng)
        labels = onset_mask(train, n, self.curves, half_width=self.half_width, offset=self.offset)
        doubtful = onset_mask(suspects, n, 1, half_width=SUSPECT_SAMPLES, offset=self.offset)
        weights = np.maximum(1 - doubtful, labels)
        pieces, inner = detector_windows(trace, labels, window=self.window, context=self.context)
        _, trusted = detector_windows(trace, weights, window=self.window, context=self.context)
        return torch.from_numpy(pieces)[:, None], torch.from_numpy(inner), torch.from_numpy(trusted), expert


def fresh_trace(
    source: Source, background: Background, n_samples: int, rng: np.random.Generator
) -> tuple[np.ndarray, SpikeTrain, SpikeTrain]:
    """A conditioned trace in a target's background, the spikes put into it, and those suspected in it before."""
    if background.linear is None:
        return *source.trace(n_samples, background.noise, rng), SpikeTrain.empty()
    stretch, suspects = background.stretch(n_samples + 2 * source.margin, rng)
    trace, train = source.trace(n_samples, stretch, rng)
    return trace, train, suspects.between(source.margin, source.margin + n_samples)


class WaveformBatches(Dataset[Waveforms]):
    """Waveforms cut from a fresh synthetic trace: ``(spike, 1, time)``, neuron from 0 (the last: noise), expert.

    They are cut as inference cuts them: a sample or two off the onset, with neighbours subtracted that
    are sometimes missed or taken for another neuron. The noise class holds what a matched filter takes
    for spikes, and some random places.
    """

    def __init__(
        self,
        source: Source,
        backgrounds: Sequence[Background],
        *,
        samples: int,
        before: int,
        after: int,
        seed: int,
        jitter: float = 1.2,
        missed: float = 0.1,
        mistaken: float = 0.1,
        noise_share: float = 0.25,
    ) -> None:
        self.source, self.backgrounds, self.samples, self.seed = source, backgrounds, samples, seed
        self.before, self.after, self.jitter = before, after, jitter
        self.missed, self.mistaken, self.noise_share = missed, mistaken, noise_share
        self.seen = conditioned_waveforms(source.waveforms, source.conditioning)
        self.banks = [FilterBank(self.seen.templates, self.seen.onset, b.noise) for b in backgrounds]

    def __getitem__(self, at: tuple[int, int]) -> Waveforms:
        rng = np.random.default_rng((self.seed, 1, *at))
        expert = at[1] % len(self.backgrounds)
        source = replace(self.source, conditioning=self.source.conditioning.linear_only())
        trace, train, suspects = fresh_trace(source, self.backgrounds[expert], self.samples, rng)
        found, units = self._found(train, rng)
        both, own = together(found, suspects)
        templates, onset = self.seen.templates, self.seen.onset
        windows = spike_windows(trace, both, templates, onset, before=self.before, after=self.after)[own]
        residual = remove_spikes(trace, both, templates, onset).astype(np.float32)
        places = self._false(trace, together(train, suspects)[0], self.banks[expert], rng)
        false = cut(residual, places - self.before, self.before + self.after)
        inputs = np.concatenate((windows, false))
        labels = np.concatenate((units - 1, np.full(len(false), self.seen.n_units)))
        return torch.from_numpy(inputs)[:, None], torch.from_numpy(labels), expert

    def _found(self, train: SpikeTrain, rng: np.random.Generator) -> tuple[SpikeTrain, np.ndarray]:
        """What a detector would report of ``train``, and the true units of it."""
        known = rng.random(len(train)) >= self.missed
        late = np.rint(self.jitter * rng.standard_normal(len(train))).astype(np.int64)
        present = np.flatnonzero(self.seen.counts > 0) + 1
        wrong = rng.random(len(train)) < self.mistaken
        guess = np.where(wrong, rng.choice(present, len(train)), train.unit)
        return SpikeTrain((train.index + late)[known], guess[known]), train.unit[known]

    def _false(self, trace: np.ndarray, train: SpikeTrain, bank: FilterBank, rng: np.random.Generator) -> np.ndarray:
        count = max(int(self.noise_share * len(train)), 1)
        hard = hard_negatives(trace, train, bank, count)
        places = np.concatenate((hard, rng.integers(0, len(trace), max(count // 4, 1))))
        near = np.abs(places[:, None] - train.index[None]).min(axis=1, initial=len(trace)) <= GUARD_ONSETS
        return np.sort(places[~near])
