"""Augmentation of sequences of epochs: what differs between people and amplifiers, not between stages."""

from __future__ import annotations

import torch
from torch import Tensor


class LevelAugment:
    """Noise, level shifts and lost channels for ``(batch, epoch, channel, freq, time)``.

    Every window draws its own numbers from torch's global generator, which the trainer reseeds at each
    epoch. Sizes are in standard deviations of the training epochs, per channel and frequency.

    Parameters
    ----------
    noise
        Standard deviation of independent noise on every level; 0 switches it off.
    shift
        Standard deviation of a shift per window, channel and frequency, the same for all its epochs:
        another person, another amplifier.
    channel_dropout
        Probability that a window loses a channel (it becomes NaN); one channel always stays. With it a
        network can score recordings that lack channels.
    """

    def __init__(self, noise: float = 0.0, shift: float = 0.0, channel_dropout: float = 0.0) -> None:
        self.noise, self.shift, self.channel_dropout = noise, shift, channel_dropout

    def __call__(self, levels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Augment a batch; ``mean`` and ``std`` are ``(channel, freq)`` over the training epochs."""
        spread = std[None, None, :, :, None].to(levels)
        if self.noise:
            levels = levels + self.noise * spread * torch.randn_like(levels)
        if self.shift:
            shape = (levels.shape[0], 1, *levels.shape[2:4], 1)
            levels = levels + self.shift * spread * torch.randn(shape, device=levels.device)
        if self.channel_dropout:
            levels = levels.masked_fill(self._lost(levels)[:, None, :, None, None], torch.nan)
        return levels

    def _lost(self, levels: Tensor) -> Tensor:
        batch, _, channels = levels.shape[:3]
        draw = torch.rand(batch, channels, device=levels.device)
        kept = torch.arange(channels, device=levels.device) == draw.argmax(1, keepdim=True)
        return (draw < self.channel_dropout) & ~kept
