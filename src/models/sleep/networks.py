"""The house's own epoch network: log spectrogram in, stage logits out."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """Per-channel, per-frequency z-score with statistics of the training epochs, kept as buffers.

    Parameters
    ----------
    n_channels, n_freqs
        Size of the ``(channel, freq)`` statistics.
    limit
        Standardised values are clipped to ±``limit``, so that an artefact cannot decide for an epoch.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_channels: int, n_freqs: int, limit: float = 6.0) -> None:
        super().__init__()
        self.limit = limit
        self.register_buffer("mean", torch.zeros(n_channels, n_freqs, 1))
        self.register_buffer("std", torch.ones(n_channels, n_freqs, 1))

    def adopt(self, mean: Tensor, std: Tensor) -> None:
        """Take over ``(channel, freq)`` statistics in dB."""
        self.mean.copy_(mean.unsqueeze(-1))
        self.std.copy_(std.clamp_min(1e-3).unsqueeze(-1))

    def forward(self, decibels: Tensor) -> Tensor:
        return ((decibels - self.mean) / self.std).clamp(-self.limit, self.limit)


class AttentionPool(nn.Module):
    """Weighted mean over time with learned weights: ``(batch, width, time)`` → ``(batch, width)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Conv1d(width, 1, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        return (features * torch.softmax(self.score(features), dim=-1)).sum(-1)


class ResidualBlock(nn.Module):
    """Convolution over time, batch norm, GELU, dropout, added to its input."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(width, width, kernel, padding="same", bias=False),
            nn.BatchNorm1d(width),
            nn.GELU(),
            nn.Dropout(dropout),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features)


class SleepEpochEncoder(nn.Module):
    """One epoch's log spectrogram to one vector.

    A learned filterbank first compresses the frequency axis of every channel (on the same data a
    learned 129 → 30 reduction is worth about .05 κ over raw bins; Guillot et al. 2020), then residual
    convolutions run over time, then attention, mean and maximum pool it.

    Shapes: ``(batch, channel, freq, time)`` in dB → ``(batch, n_features)``.
    """

    def __init__(
        self, n_channels: int, n_freqs: int, filters: int = 32, width: int = 64, blocks: int = 2, dropout: float = 0.25
    ) -> None:
        super().__init__()
        self.standardize = Standardize(n_channels, n_freqs)
        self.filterbank = nn.Parameter(torch.randn(n_channels, filters, n_freqs) * n_freqs**-0.5)
        self.stem = nn.Sequential(
            nn.BatchNorm1d(n_channels * filters),
            nn.Conv1d(n_channels * filters, width, 5, padding="same", bias=False),
            nn.BatchNorm1d(width),
            nn.GELU(),
            nn.Dropout(dropout),
        )
        self.blocks = nn.Sequential(*(ResidualBlock(width, 5, dropout) for _ in range(blocks)))
        self.pool = AttentionPool(width)
        self.n_features = 3 * width

    def forward(self, decibels: Tensor) -> Tensor:
        bands = torch.einsum("bcft,cgf->bcgt", self.standardize(decibels), self.filterbank)
        features = self.blocks(self.stem(bands.flatten(1, 2)))
        return torch.cat([self.pool(features), features.mean(-1), features.amax(-1)], dim=1)


class SleepEpochCNN(nn.Module):
    """Stage logits of single epochs; the default network of ``experiment=sleep_cnn``.

    Shapes: ``(batch, channel, freq, time)`` in dB → ``(batch, n_classes)``; any number of frames.
    """

    def __init__(
        self,
        n_channels: int,
        n_freqs: int,
        n_frames: int,
        n_classes: int,
        filters: int = 32,
        width: int = 64,
        blocks: int = 2,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        self.encoder = SleepEpochEncoder(n_channels, n_freqs, filters, width, blocks, dropout)
        self.head = nn.Sequential(nn.Dropout(2 * dropout), nn.Linear(self.encoder.n_features, n_classes))

    @property
    def standardize(self) -> Standardize:
        return self.encoder.standardize

    def forward(self, decibels: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(decibels))
        return logits
