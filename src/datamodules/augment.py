"""Augmentation on the device: of the training batch, never of what is evaluated.

The training dataset says how its examples are varied, and the LightningModule does it in its training step, with
torch's global generator.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from src.signals import require_range


@dataclass(frozen=True)
class SpectrogramAugment:
    """Time warp, gain, frequency and time masks for ``(batch, channel, freq, time)`` in dB.

    Every sample draws its own parameters. Masked cells take the training mean of their channel and
    frequency: 0 dB would be a loud sound, not silence. Masks: Park et al. 2019 (SpecAugment), through torchaudio.

    Parameters
    ----------
    time_warp_frames
        The warped centre moves by at most this many frames; 0 switches the warp off. Keep it small:
        the length of a spindle is diagnostic.
    freq_mask_bins, time_mask_frames
        Greatest widths of the masks; 0 switches a mask off.
    gain_db
        Standard deviation of a level shift of a whole sample; 0 switches it off.
    """

    time_warp_frames: int = 0
    freq_mask_bins: int = 0
    time_mask_frames: int = 0
    gain_db: float = 0.0

    def __post_init__(self) -> None:
        require_range("datamodule.augment", 0, **vars(self))

    def __call__(self, decibels: Tensor, mean_db: Tensor, std_db: Tensor) -> Tensor:
        """Augment a batch; ``mean_db`` is the training mean ``(channel, freq)``, the deviation is not needed."""
        if self.time_warp_frames:
            decibels = warp_time(decibels, self.time_warp_frames)
        if self.gain_db:
            shape = (decibels.shape[0], decibels.shape[1], 1, 1)
            decibels = decibels + self.gain_db * torch.randn(shape, device=decibels.device)
        if self.freq_mask_bins or self.time_mask_frames:
            decibels = self._mask(decibels, mean_db)
        return decibels

    def _mask(self, decibels: Tensor, mean_db: Tensor) -> Tensor:
        from torchaudio.functional import mask_along_axis_iid

        centre = mean_db[None, :, :, None].to(decibels)
        centred = decibels - centre
        for axis, width in ((2, self.freq_mask_bins), (3, self.time_mask_frames)):
            if width:
                centred = mask_along_axis_iid(centred, width, 0.0, axis)
        return centred + centre


def warp_time(decibels: Tensor, most: int) -> Tensor:
    """Stretch one side of every sample and squeeze the other, piecewise linearly about a random centre.

    A centre column ``c`` of each sample moves to ``c + s`` with ``|s| ≤ most``; first and last column
    stay, and columns between are interpolated linearly.
    """
    batch, _, _, frames = decibels.shape
    most = min(most, (frames - 1) // 3)
    if most < 1:
        return decibels
    device = decibels.device
    centre = most + 1 + torch.rand(batch, 1, device=device) * (frames - 3 - 2 * most)
    moved = centre + (2 * torch.rand(batch, 1, device=device) - 1) * most
    column = torch.arange(frames, device=device, dtype=decibels.dtype).expand(batch, -1)
    left = column * centre / moved
    right = centre + (column - moved) * (frames - 1 - centre) / (frames - 1 - moved)
    source = torch.where(column <= moved, left, right).clamp(0, frames - 1)
    below = source.floor().long().clamp(max=frames - 2)
    weight = (source - below)[:, None, None, :]
    index = below[:, None, None, :].expand_as(decibels)
    return decibels.gather(3, index) * (1 - weight) + decibels.gather(3, index + 1) * weight


@dataclass(frozen=True)
class LevelAugment:
    """Noise, level shifts and lost channels for ``(batch, epoch, channel, freq, time)``.

    It imitates what differs between people and amplifiers, not between stages. Every window draws its own numbers.
    Sizes are in standard deviations of the training epochs, per channel and frequency.

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

    noise: float = 0.0
    shift: float = 0.0
    channel_dropout: float = 0.0

    def __post_init__(self) -> None:
        require_range("datamodule.augment", 0, **vars(self))
        require_range("datamodule.augment", 0, 1, channel_dropout=self.channel_dropout)

    def __call__(self, levels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Augment a batch; ``mean`` and ``std`` are ``(channel, freq)`` over the training epochs."""
        spread = std[None, None, :, :, None].to(levels)
        if self.noise:
            levels = levels + self.noise * spread * torch.randn_like(levels)
        if self.shift:
            shape = (levels.shape[0], 1, *levels.shape[2:4], 1)
            levels = levels + self.shift * spread * torch.randn(shape, device=levels.device)
        if self.channel_dropout:
            batch, _, channels = levels.shape[:3]
            draw = torch.rand(batch, channels, device=levels.device)
            kept = torch.arange(channels, device=levels.device) == draw.argmax(1, keepdim=True)
            lost = (draw < self.channel_dropout) & ~kept
            levels = levels.masked_fill(lost[:, None, :, None, None], torch.nan)
        return levels
