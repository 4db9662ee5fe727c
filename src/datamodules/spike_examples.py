"""Training examples for the spike networks: a labelled recording made as noisy as its targets, anew every time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.noise import Spectrum
from src.preprocess.spikes.waveforms import cut
from src.recordings.extracellular.spike_trains import SpikeTrain


@dataclass(frozen=True)
class NoisyBlock:
    """A stretch of the labelled recording, and the noise it lacks to be like each target.

    Attributes
    ----------
    bandpassed, train
        ``(time,)`` band-passed trace and its spikes.
    own
        Spectrum of its own noise.
    targets
        Spectrum of each target's background, by name.
    """

    bandpassed: np.ndarray
    train: SpikeTrain
    own: Spectrum
    targets: Mapping[str, Spectrum]

    def draw(
        self, target: str, n_samples: int, rng: np.random.Generator, *, dense: bool
    ) -> tuple[np.ndarray, SpikeTrain]:
        """A stretch ``(n_samples,)`` in the noise of a target, and its spikes.

        Noise is added where the target's spectrum exceeds that of the stretch; the sum has the target's.

        Parameters
        ----------
        dense
            Add another stretch on top: targets fire up to twice as fast as the labelled recording.
        """
        trace, index, unit, length = np.zeros(n_samples), [], [], len(self.bandpassed)
        for _ in range(1 + dense):
            start = int(rng.integers(0, length))  # past its end the block goes on at its start
            trace += self.bandpassed[(start + np.arange(n_samples)) % length]
            for turn in range(-1, n_samples // length + 1):
                spikes = self.train.index + turn * length - start
                inside = (spikes >= 0) & (spikes < n_samples)
                index.append(spikes[inside])
                unit.append(self.train.unit[inside])
        noise = self.targets[target]
        present = np.interp(noise.frequencies, self.own.frequencies, self.own.power) * (1 + dense)
        missing = Spectrum(np.maximum(noise.power - present, 0), noise.fs_hz)
        noisy = (trace + missing.synthesise(n_samples, rng)).astype(np.float32)
        return noisy, SpikeTrain.sorted(np.concatenate(index), np.concatenate(unit))


class EpochSteps(Sampler[tuple[int, int]]):
    """``(epoch, step)`` pairs: all that an example depends on beside the seed."""

    def __init__(self, steps: int, rank: int = 0, processes: int = 1, *, same: bool = False) -> None:
        self.steps, self.rank, self.processes, self.same, self.epoch = steps, rank, processes, same, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before every epoch."""
        self.epoch = 0 if self.same else epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, step * self.processes + self.rank) for step in range(self.steps))


@dataclass(frozen=True)
class TraceWindows(Dataset[tuple[Tensor, Tensor]]):
    """Batches of consecutive windows ``(window, 1, samples)`` with onset labels ``(window, samples)``.

    Attributes
    ----------
    after
        What follows the band-pass before the detector.
    windows, window
        Windows per batch and samples of each.
    half_width
        A label covers so many samples on either side of an onset.
    """

    block: NoisyBlock
    after: Conditioning
    windows: int = 64
    window: int = 120
    half_width: int = 3
    seed: int = 0

    def __getitem__(self, at: tuple[int, int]) -> tuple[Tensor, Tensor]:
        noisy, train = _drawn(self.block, self.windows * self.window, (self.seed, *at))
        labels = onset_labels(train.index, len(noisy), self.half_width)
        shape = (self.windows, self.window)
        return torch.from_numpy(self.after.apply(noisy).reshape(shape))[:, None], torch.from_numpy(
            labels.reshape(shape)
        )


@dataclass(frozen=True)
class SpikeWindows(Dataset[tuple[Tensor, Tensor]]):
    """Batches of the waveforms ``(spike, 1, window)`` in a stretch, and their neurons ``(spike,)`` from 0.

    Attributes
    ----------
    samples
        Length of the stretch.
    window, onset
        Samples of a waveform, and those ahead of its onset.
    jitter
        Standard deviation of the onset in samples: a detector does not find it exactly.
    """

    block: NoisyBlock
    samples: int = 50_000
    window: int = 64
    onset: int = 20
    jitter: float = 1.2
    seed: int = 0

    def __getitem__(self, at: tuple[int, int]) -> tuple[Tensor, Tensor]:
        noisy, train = _drawn(self.block, self.samples, (self.seed, 1, *at))
        rng = np.random.default_rng((self.seed, 2, *at))
        late = np.rint(self.jitter * rng.standard_normal(len(train))).astype(np.int64)
        windows = cut(noisy, train.index + late - self.onset, self.window)
        return torch.from_numpy(np.ascontiguousarray(windows))[:, None], torch.from_numpy(train.unit - 1)


def _drawn(block: NoisyBlock, n_samples: int, at: Sequence[int]) -> tuple[np.ndarray, SpikeTrain]:
    """A stretch for step ``at[-1]``: the steps go round the targets, every other round is dense."""
    names = list(block.targets)
    turn, place = divmod(at[-1], len(names))
    return block.draw(names[place], n_samples, np.random.default_rng(tuple(at)), dense=turn % 2 == 1)


def onset_labels(index: np.ndarray, n_samples: int, half_width: int) -> np.ndarray:
    """``(time,)`` float32: 1 within ``half_width`` samples of an onset."""
    labels = np.zeros(n_samples, np.float32)
    for shift in range(-half_width, half_width + 1):
        at = index + shift
        labels[at[(at >= 0) & (at < n_samples)]] = 1
    return labels
