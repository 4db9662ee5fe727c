"""The three networks of the original sleep CNN, with its faults of preprocessing left out.

Layer sizes follow ``eeg-spectrogram-sleep-cnn``; they read the same standardised log spectrograms as
the house's own network instead of 8-bit pictures, and any geometry instead of 51 × 59 alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.models.sleep.networks import Standardize


def _conv(n_in: int, n_out: int, kernel: int, padding: int, pool: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, padding=padding), nn.BatchNorm2d(n_out), nn.LeakyReLU(), nn.MaxPool2d(pool)
    )


def _dense(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.LeakyReLU())


def _flat_size(layers: nn.Module, shape: tuple[int, ...]) -> int:
    with torch.no_grad():
        return int(layers.eval()(torch.zeros(1, *shape)).numel())


class DeepCNN(nn.Module):
    """Attempt 1: convolutions 512–512–128, dense 1024–256. ``(batch, channel, freq, time)`` dB → logits."""

    def __init__(self, n_channels: int, n_freqs: int, n_frames: int, n_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.standardize = Standardize(n_channels, n_freqs)
        self.convolutions = nn.Sequential(
            _conv(n_channels, 512, 3, 0, 2), _conv(512, 512, 1, 1, 2), _conv(512, 128, 3, 1, 2), nn.Flatten()
        )
        flat = _flat_size(self.convolutions, (n_channels, n_freqs, n_frames))
        self.head = nn.Sequential(_dense(flat, 1024), _dense(1024, 256), nn.Dropout(dropout), nn.Linear(256, n_classes))

    def forward(self, decibels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.convolutions(self.standardize(decibels)))
        return logits


class LinearNet(nn.Module):
    """Attempt 2: dense layers 1024–1024–256 on the flattened spectrogram."""

    def __init__(self, n_channels: int, n_freqs: int, n_frames: int, n_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.standardize = Standardize(n_channels, n_freqs)
        flat = n_channels * n_freqs * n_frames
        self.head = nn.Sequential(
            nn.Flatten(),
            _dense(flat, 1024),
            _dense(1024, 1024),
            _dense(1024, 256),
            nn.Dropout(dropout),
            nn.Linear(256, n_classes),
        )

    def forward(self, decibels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.standardize(decibels))
        return logits


class SimpleCNN(nn.Module):
    """Attempt 3, the original's best: convolutions 512–128, dense 512, on a 40 × 80 picture."""

    picture = (40, 80)

    def __init__(self, n_channels: int, n_freqs: int, n_frames: int, n_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.standardize = Standardize(n_channels, n_freqs)
        self.convolutions = nn.Sequential(_conv(n_channels, 512, 3, 0, 3), _conv(512, 128, 1, 0, 3), nn.Flatten())
        flat = _flat_size(self.convolutions, (n_channels, *self.picture))
        self.head = nn.Sequential(
            nn.Dropout(dropout), _dense(flat, 512), nn.Dropout(dropout), nn.Linear(512, n_classes)
        )

    def forward(self, decibels: Tensor) -> Tensor:
        picture = functional.interpolate(self.standardize(decibels), self.picture, mode="bilinear", align_corners=False)
        logits: Tensor = self.head(self.convolutions(picture))
        return logits
