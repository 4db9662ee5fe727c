"""Endless examples for the spike networks: each batch a function of seed, epoch and step alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from src.preprocess.spikes.matched_filter import FilterBank
from src.preprocess.spikes.noise import Spectrum
from src.preprocess.spikes.recording import SpikeTrain
from src.preprocess.spikes.synthesis import Source, conditioned_waveforms, onset_mask
from src.preprocess.spikes.waveforms import cut, remove_spikes
from src.preprocess.spikes.windows import detector_windows, hard_negatives, spike_windows

GUARD_ONSETS = 12
"""Samples around a true onset in which nothing counts as noise."""

Batch = tuple[Tensor, Tensor, int]


@dataclass(frozen=True)
class Background:
    """What was measured on one target: its noise, its signature, and the standard deviation of its trace."""

    name: str
    noise: Spectrum
    signature: np.ndarray
    level: float


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


class TraceBatches(Dataset[Batch]):
    """Windows of a fresh synthetic trace: ``(window, 1, time)``, labels ``(window, curve, time)``, expert.

    Windows have ``context`` more samples on either side than their labels, so that no label is judged
    at a border that inference does not have.
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

    def __getitem__(self, at: tuple[int, int]) -> Batch:
        rng = np.random.default_rng((self.seed, *at))
        expert = at[1] % len(self.backgrounds)
        n = self.windows * self.window + 2 * self.context
        trace, train = self.source.trace(n, self.backgrounds[expert].noise, rng)
        labels = onset_mask(train, n, self.curves, half_width=self.half_width, offset=self.offset)
        pieces, inner = detector_windows(trace, labels, window=self.window, context=self.context)
        return torch.from_numpy(pieces)[:, None], torch.from_numpy(inner), expert


class WaveformBatches(Dataset[Batch]):
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

    def __getitem__(self, at: tuple[int, int]) -> Batch:
        rng = np.random.default_rng((self.seed, 1, *at))
        expert = at[1] % len(self.backgrounds)
        source = Source(
            self.source.waveforms, self.source.rate_hz, self.source.conditioning.linear_only(), self.source.grafting
        )
        trace, train = source.trace(self.samples, self.backgrounds[expert].noise, rng)
        found, units = self._found(train, rng)
        templates, onset = self.seen.templates, self.seen.onset
        windows = spike_windows(trace, found, templates, onset, before=self.before, after=self.after)
        places = self._false(trace, train, self.banks[expert], rng)
        residual = remove_spikes(trace, found, templates, onset).astype(np.float32)
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
