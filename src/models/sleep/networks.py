"""Networks that name the stage of an epoch (``SleepEpochCNN``), or of every epoch of a night (``SleepSequenceNet``)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from src.signals import BadInput

CONTEXTS = ("gru", "none")
_WINDOWS = 16
"""Windows read at a time."""


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
        levels = self.standardize(decibels)
        levels = levels.masked_fill(levels.isnan(), 0.0)  # an absent channel is read as the training mean
        bands = torch.einsum("bcft,cgf->bcgt", levels, self.filterbank)
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


class BandEncoder(nn.Module):
    """Band powers of one epoch to one vector: ``(batch, channel, band, 1)`` standardised → ``(batch, width)``.

    Absent channels are NaN; they enter as the mean, with a flag that says so.
    """

    def __init__(self, n_channels: int, n_freqs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.n_features = width
        self.layers = nn.Sequential(
            nn.Linear(n_channels * (n_freqs + 1), width), nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout)
        )

    def forward(self, levels: Tensor) -> Tensor:
        absent = levels.isnan().flatten(2).any(2)
        known = levels.masked_fill(absent[..., None, None], 0.0)
        features: Tensor = self.layers(torch.cat([known.flatten(1), absent.to(known)], dim=1))
        return features


@dataclass(frozen=True)
class SequenceSettings:
    """What a :class:`SleepSequenceNet` is made of: the ``network_args`` of a ``sleep_sequence``."""

    # Size of an epoch's image and number of stages. One frame means band powers (BandEncoder), more a spectrogram
    # (SleepEpochEncoder).
    n_channels: int
    n_freqs: int
    n_frames: int
    n_classes: int
    window_epochs: int = 100  # read at a time by score_night; as long as the windows of the training, or longer
    context: str = "gru"  # recurrent layers over the epochs; none: every epoch for itself, for comparison
    causal: bool = False  # no epoch sees a later one
    width: int = 64  # features of an epoch (band powers), or width of the encoder's convolutions (spectrograms)
    hidden: int = 64  # units of a recurrent layer and direction
    layers: int = 2
    dropout: float = 0.4
    filters: int = 32  # of the spectrogram encoder, as the blocks
    blocks: int = 2
    # Several networks as one (SequenceMean): of each, how many of the n_freqs rows it reads.
    members: Sequence[int] = ()

    def network(self) -> "SleepSequenceNet | SequenceMean":
        """The network with fresh weights."""
        return SequenceMean(self) if self.members else SleepSequenceNet(self)


class SleepSequenceNet(nn.Module):
    """Stages of all epochs of a sequence, many to many.

    An encoder turns every epoch into a vector, recurrent layers run over the epochs in both directions, and a linear
    read-out sees both their output and the epoch's own vector. An epoch without any channel keeps its place: a
    learned vector stands for it.
    """

    def __init__(self, settings: SequenceSettings) -> None:
        super().__init__()
        s = settings
        if s.context not in CONTEXTS:
            raise BadInput("model.context", f"{s.context!r} is not known", f"choose from: {', '.join(CONTEXTS)}")
        self.window_epochs, self.causal = s.window_epochs, s.causal
        self.standardize = Standardize(s.n_channels, s.n_freqs)
        self.encoder: nn.Module
        if s.n_frames == 1:
            self.encoder, n_features = BandEncoder(s.n_channels, s.n_freqs, s.width, s.dropout / 2), s.width
        else:
            self.encoder = SleepEpochEncoder(s.n_channels, s.n_freqs, s.filters, s.width, s.blocks, s.dropout / 2)
            n_features = 3 * s.width
        self.unknown = nn.Parameter(torch.zeros(n_features))
        self.context: nn.Module
        if s.context == "gru":
            between, both = s.dropout if s.layers > 1 else 0.0, not s.causal
            self.context = nn.GRU(n_features, s.hidden, s.layers, batch_first=True, bidirectional=both, dropout=between)
            around = 2 * s.hidden if both else s.hidden
        else:
            around = s.hidden
            self.context = nn.Sequential(nn.Linear(n_features, around), nn.GELU(), nn.Dropout(s.dropout))
        self.dropout = nn.Dropout(s.dropout)
        self.head = nn.Linear(around + n_features, s.n_classes)

    def forward(self, levels: Tensor) -> Tensor:
        """``(batch, epoch, channel, freq, time)``, NaN where absent → logits ``(batch, epoch, class)``."""
        batch, length = levels.shape[:2]
        epochs = self.standardize(levels.flatten(0, 1))
        present = ~epochs.isnan().flatten(2).any(2).all(1)
        encoded = self.unknown.expand(len(epochs), -1).clone()
        if present.any():
            encoded = encoded.index_put((present.nonzero()[:, 0],), self.encoder(epochs[present]).to(encoded.dtype))
        encoded = encoded.view(batch, length, -1)
        around = self.context(encoded)
        if isinstance(around, tuple):  # a GRU returns its last state too
            around = around[0]
        logits: Tensor = self.head(self.dropout(torch.cat([around, encoded], dim=-1)))
        return logits

    @torch.no_grad()
    def score_night(self, levels: Tensor) -> Tensor:
        """``(epoch, channel, freq, time)`` of a whole night → log probabilities ``(epoch, class)``.

        The night is read in half-overlapping windows; where they overlap their probabilities are averaged
        with weights that fall towards a window's ends, where there is less context. A causal network
        reads the night once.
        """
        n_epochs, length = len(levels), self.window_epochs
        if self.causal or n_epochs <= length:
            return torch.log_softmax(self(levels.unsqueeze(0))[0], dim=-1)
        # Triangular weights: a window's middle epochs have context on both sides.
        starts = [*range(0, n_epochs - length, max(1, length // 2)), n_epochs - length]
        ramp = torch.arange(1.0, length + 1, device=levels.device)
        weight = torch.minimum(ramp, ramp.flip(0)).unsqueeze(-1)
        total = torch.zeros(n_epochs, 1, device=levels.device)
        summed = torch.zeros(n_epochs, self.head.out_features, device=levels.device)
        for first in range(0, len(starts), _WINDOWS):
            some = starts[first : first + _WINDOWS]
            chances = torch.softmax(self(torch.stack([levels[s : s + length] for s in some])), dim=-1)
            for start, window in zip(some, chances, strict=True):
                summed[start : start + length] += window * weight
                total[start : start + length] += weight
        return (summed / total).log()


class SequenceMean(nn.Module):
    """Several :class:`SleepSequenceNet` as one: the geometric mean of their probabilities.

    A member reads the first rows of an epoch's image, as many as its views have (``settings.members``).
    """

    def __init__(self, settings: SequenceSettings) -> None:
        super().__init__()
        self.causal, self.rows = settings.causal, list(settings.members)
        if not all(0 < rows <= settings.n_freqs for rows in self.rows):
            problem = f"are {self.rows} where an epoch has {settings.n_freqs} rows"
            raise BadInput("model.network_args.members", problem, "give each member as many rows or fewer")
        # Members that were trained apart have statistics of their own, and these stay 0 and 1.
        self.standardize = Standardize(settings.n_channels, settings.n_freqs, limit=math.inf)
        alone = (replace(settings, n_freqs=rows, members=()) for rows in self.rows)
        self.members = nn.ModuleList(SleepSequenceNet(one) for one in alone)

    def forward(self, levels: Tensor) -> Tensor:
        """``(batch, epoch, channel, freq, time)``, NaN where absent → log probabilities ``(batch, epoch, class)``."""
        return self._mean(self.standardize(levels), "forward")

    @torch.no_grad()
    def score_night(self, levels: Tensor) -> Tensor:
        """``(epoch, channel, freq, time)`` of a whole night → log probabilities ``(epoch, class)``."""
        return self._mean(self.standardize(levels), "score_night")

    def _mean(self, levels: Tensor, method: str) -> Tensor:
        found = [getattr(m, method)(levels[..., :n, :]) for m, n in zip(self.members, self.rows, strict=True)]
        return torch.log_softmax(torch.stack(found).log_softmax(-1).mean(0), -1)
