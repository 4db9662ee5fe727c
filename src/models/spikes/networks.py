"""The networks of the coursework: a detector of spike onsets and a classifier of waveforms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SpikeDetector(nn.Module):
    """Convolutions that answer ``(batch, 1, time)`` with onset logits ``(batch, time)``.

    The defaults are the coursework's network: it sees 11 samples. Larger dilations let it see a whole spike.

    Parameters
    ----------
    channels, taps, dilations
        One entry per layer, each followed by a ReLU; padding keeps the length.
    """

    scale: Tensor

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64),
        taps: Sequence[int] = (5, 5, 3),
        dilations: Sequence[int] = (1, 1, 1),
    ) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))  # units of the recording per unit of network input
        layers: list[nn.Module] = []
        before = 1
        for width, size, dilation in zip(channels, taps, dilations, strict=True):
            layers += [nn.Conv1d(before, width, size, padding=size // 2 * dilation, dilation=dilation), nn.ReLU()]
            before = width
        self.layers = nn.Sequential(*layers, nn.Conv1d(before, 1, 1))
        self.receptive_field = 1 + sum((size - 1) * dilation for size, dilation in zip(taps, dilations, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of "a spike starts at this sample"."""
        logits: Tensor = self.layers(x / self.scale)[:, 0]
        return logits


class SpikeClassifier(nn.Module):
    """The coursework's classifier: waveforms ``(batch, 1, window)`` to logits ``(batch, neuron)``.

    Parameters
    ----------
    neurons
        Number of neurons.
    window, onset
        Samples of a waveform, and those ahead of its onset.
    """

    scale: Tensor

    def __init__(self, neurons: int, window: int = 64, onset: int = 20) -> None:
        super().__init__()
        self.neurons, self.window, self.onset = neurons, window, onset
        self.register_buffer("scale", torch.ones(()))
        self.layers = nn.Sequential(
            nn.Conv1d(1, 32, 5),
            nn.ReLU(),
            nn.BatchNorm1d(32),
            nn.Conv1d(32, 64, 5),
            nn.ReLU(),
            nn.BatchNorm1d(64),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(64, 64),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(64, neurons),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the neurons."""
        logits: Tensor = self.layers(x / self.scale)
        return logits
