"""Training examples for the spike networks: a labelled recording made as noisy as its targets, anew every time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import Spectrum
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


@dataclass(frozen=True)
class NoisyBatches(Dataset[tuple[Tensor, Tensor]]):
    """So many batches, drawn anew whenever they are asked for; they go round the targets, every other round is dense.

    Attributes
    ----------
    block
        What they are drawn from.
    batches
        How many there are.
    seed
        Of all draws, together with torch's global generator.
    same
        The first batch is the same one whenever it is asked for, and so is each other.
    """

    block: NoisyBlock
    batches: int
    seed: int = 0
    same: bool = False

    def __len__(self) -> int:
        return self.batches

    def statistics(self) -> dict[str, np.ndarray]:
        """Standard deviation of the training block."""
        return {"scale": np.asarray(self.block.bandpassed.std(), np.float32)}

    def drawn(self, batch: int, n_samples: int) -> tuple[np.ndarray, SpikeTrain, np.random.Generator]:
        """A noisy stretch, its spikes, and the generator for what else is random."""
        if not 0 <= batch < self.batches:
            raise IndexError(batch)
        fresh = 0 if self.same else int(torch.randint(2**62, ()))
        rng = np.random.default_rng((self.seed, fresh, batch))
        names = list(self.block.targets)
        turn, place = divmod(batch, len(names))
        return *self.block.draw(names[place], n_samples, rng, dense=turn % 2 == 1), rng


@dataclass(frozen=True)
class TraceWindows(NoisyBatches):
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

    after: Conditioning = field(default_factory=lambda: Conditioning(low_hz=None))
    windows: int = 64
    window: int = 120
    half_width: int = 3

    def __getitem__(self, batch: int) -> tuple[Tensor, Tensor]:
        noisy, train, _ = self.drawn(batch, self.windows * self.window)
        shape = (self.windows, self.window)
        samples = torch.from_numpy(self.after.apply(noisy).reshape(shape))[:, None]
        return samples, torch.from_numpy(onset_labels(train.index, len(noisy), self.half_width).reshape(shape))


@dataclass(frozen=True)
class SpikeWindows(NoisyBatches):
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

    samples: int = 50_000
    window: int = 64
    onset: int = 20
    jitter: float = 1.2

    def __getitem__(self, batch: int) -> tuple[Tensor, Tensor]:
        noisy, train, rng = self.drawn(batch, self.samples)
        late = np.rint(self.jitter * rng.standard_normal(len(train))).astype(np.int64)
        windows = cut(noisy, train.index + late - self.onset, self.window)
        return torch.from_numpy(np.ascontiguousarray(windows))[:, None], torch.from_numpy(train.unit - 1)


def onset_labels(index: np.ndarray, n_samples: int, half_width: int) -> np.ndarray:
    """``(time,)`` float32: 1 within ``half_width`` samples of an onset."""
    labels = np.zeros(n_samples, np.float32)
    for shift in range(-half_width, half_width + 1):
        at = index + shift
        labels[at[(at >= 0) & (at < n_samples)]] = 1
    return labels
