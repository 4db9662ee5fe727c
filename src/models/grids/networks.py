"""Networks that forecast which occupied voxels will be active: index lists in, logits per voxel out.

Both networks add up a voxel's mean rate, a linear autoregression on its own past (fitted beforehand, trusted as
far as training finds it useful), a learned kernel over the same past, and what the rest of the brain says.
They differ in how they see the brain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.signals import BadInput

PIXELS, WIDTH = 256 * 128, 128
FLOOR = -12.0
LEAST, MOST = 0.3, 0.99
"""A linear forecast is cut at this share of the mean rate, and at this probability."""


class Forecast(NamedTuple):
    """Forecast of one subject's windows: ``logits (window, horizon, slot)``, ``rows`` their places in the batch."""

    subject: int
    rows: Tensor
    logits: Tensor


class Entries(NamedTuple):
    """Active voxels of some windows, one row each: place in the batch, frame, slot."""

    window: Tensor
    frame: Tensor
    slot: Tensor


def entries(slots: Tensor, counts: Tensor) -> Entries:
    """Index lists with the window and frame of every entry written out."""
    windows, frames = counts.shape
    flat = torch.repeat_interleave(torch.arange(windows * frames, device=slots.device), counts.reshape(-1))
    window = torch.div(flat, max(frames, 1), rounding_mode="floor")
    return Entries(window, flat - window * frames, slots.long())


def from_population(seen: Entries, frames: int, rates: Tensor, read: Tensor, readout: Tensor, write: Tensor) -> Tensor:
    """``(window, horizon, voxel)`` that a linear model of all voxels' past adds to their probabilities.

    Parameters
    ----------
    seen, frames
        Active voxels of one subject, and windows · context frames in all; ``seen.frame`` counts through them.
    rates
        ``(voxel,)``.
    read, write
        ``(voxel, component)``: from activity to scores, and from scores to probabilities.
    readout
        ``(context · component, horizon · component)``.
    """
    scores = (-rates @ read).repeat(frames, 1).index_add(0, seen.frame, read[seen.slot])
    ahead = scores.view(-1, readout.shape[0]) @ readout
    return ahead.view(len(ahead), -1, write.shape[1]) @ write.T


class VoxelForecaster(nn.Module):
    """What both networks share; a subclass says in :meth:`observe` and :meth:`drive` what the brain adds.

    Parameters
    ----------
    subjects, n_voxels, planes
        Name, number of occupied voxels and number of planes of every subject.
    context, horizon
        Frames seen and frames forecast.
    components
        Of the linear model of the population that the forecast begins with; 0 for none.
    """

    coarsen: int | None = None
    """By how much the image has to be coarsened that the network reads; ``None`` for none."""

    rates: Tensor
    voxels: Tensor
    linear: Tensor
    read: Tensor
    write: Tensor
    readout_components: Tensor

    def __init__(
        self,
        subjects: Sequence[str],
        n_voxels: Sequence[int],
        planes: Sequence[int],
        context: int,
        horizon: int,
        components: int,
    ) -> None:
        super().__init__()
        self.subjects, self.n_voxels, self.planes = list(subjects), list(n_voxels), list(planes)
        self.context, self.horizon = context, horizon
        self.offsets = [sum(self.n_voxels[:i]) for i in range(len(self.n_voxels) + 1)]
        self.register_buffer("rates", torch.full((self.offsets[-1],), 0.01))
        self.register_buffer("voxels", torch.zeros(self.offsets[-1], dtype=torch.int64))
        self.register_buffer("linear", torch.zeros(self.offsets[-1], context, horizon))
        self.register_buffer("read", torch.zeros(self.offsets[-1], components))
        self.register_buffer("write", torch.zeros(self.offsets[-1], components))
        products = (len(self.subjects), context * components, horizon * components)
        self.register_buffer("readout_components", torch.zeros(products))
        self.own_past = nn.Parameter(torch.zeros(context, horizon))
        self.trust = nn.Parameter(torch.ones(horizon))

    def adopt(self, rates: Tensor, voxels: Tensor, linear: Tensor) -> None:
        """Take over what was fitted on the training frames.

        Parameters
        ----------
        rates, voxels
            ``(voxel,)`` mean rates and places of the occupied voxels, over all subjects.
        linear
            ``(voxel, context, horizon)`` weights of a linear forecast from a voxel's own past.
        """
        self.rates.copy_(rates)
        self.voxels.copy_(voxels)
        self.linear.copy_(linear)

    def adopt_population(self, read: Tensor, write: Tensor, readout: Tensor) -> None:
        """Begin with a linear model of each population; see :func:`from_population`, ``readout`` one per subject."""
        self.read.copy_(read)
        self.write.copy_(write)
        self.readout_components.copy_(readout)

    def span(self, subject: int) -> slice:
        """Places of a subject's voxels among those of all."""
        return slice(self.offsets[subject], self.offsets[subject + 1])

    def base(self, subject: int) -> Tensor:
        """``(slot,)`` log-odds of the mean rate."""
        return torch.logit(self.rates[self.span(subject)], eps=1e-6).clamp_min(FLOOR)

    def forward(self, batch: Any) -> list[Forecast]:
        """One forecast per subject that is in the batch."""
        seen = entries(batch.slots, batch.counts)
        state = self.observe(batch, seen)
        found = []
        for subject in batch.subject.unique().tolist():
            chosen = batch.subject == subject
            rows = chosen.nonzero()[:, 0]
            drive = self.drive(state, rows, subject)
            place = torch.full_like(batch.subject, -1)
            place[rows] = torch.arange(len(rows), device=rows.device)
            mine = chosen[seen.window]
            own = Entries(place[seen.window[mine]], seen.frame[mine], seen.slot[mine])
            logits = drive + self.from_own_past(subject, len(rows), own)
            found.append(Forecast(subject, rows, logits))
        return found

    def from_own_past(self, subject: int, windows: int, seen: Entries) -> Tensor:
        """``(window, horizon, slot)`` log-odds from the voxels' own activity, in ``windows`` of one subject."""
        linear, rate = self.linear[self.span(subject)], self.rates[self.span(subject)]
        weights = torch.cat([linear[seen.slot, seen.frame], self.own_past[seen.frame]], dim=1)
        past = torch.zeros(windows * len(rate), 2 * self.horizon, device=rate.device, dtype=weights.dtype)
        past = past.index_add(0, seen.window * len(rate) + seen.slot, weights)
        past = past.view(windows, -1, 2 * self.horizon).transpose(1, 2)
        chance = past[:, : self.horizon] + (rate[:, None] * (1 - linear.sum(1))).T
        if self.read.shape[1]:
            through = seen._replace(frame=seen.window * self.context + seen.frame)
            place, readout = self.span(subject), self.readout_components[subject]
            frames = windows * self.context
            chance = chance + from_population(through, frames, rate, self.read[place], readout, self.write[place])
        chance = torch.maximum(chance, LEAST * rate).clamp_max(MOST)
        base = self.base(subject)
        linear = torch.logit(chance, eps=1e-6).clamp_min(FLOOR)
        return base + self.trust[:, None] * (linear - base) + past[:, self.horizon :]

    def observe(self, batch: Any, seen: Entries) -> Tensor:
        """What is read off the whole batch."""
        raise NotImplementedError

    def drive(self, state: Tensor, rows: Tensor, subject: int) -> Tensor:
        """``(window, horizon, slot)`` what the brain adds to the logits of a subject's windows."""
        raise NotImplementedError


class EmbeddingForecaster(VoxelForecaster):
    """Sum of learned vectors of the active voxels, a recurrent trunk, a learned read-out per voxel.

    The sum is a linear layer on the flattened grid that never sees a zero. Trunk weights are shared by all
    subjects; voxels have vectors of their own, so only subjects of the training can be forecast.

    Parameters
    ----------
    width
        Length of a voxel's vectors.
    hidden
        Units of the trunk.
    drop_voxels
        Share of active voxels that training hides, so that no forecast rests on one of them.
    """

    def __init__(
        self,
        subjects: Sequence[str],
        n_voxels: Sequence[int],
        planes: Sequence[int],
        context: int,
        horizon: int,
        components: int = 0,
        width: int = 24,
        hidden: int = 64,
        drop_voxels: float = 0.3,
    ) -> None:
        super().__init__(subjects, n_voxels, planes, context, horizon, components)
        self.width, self.hidden, self.drop_voxels = width, hidden, drop_voxels
        total = self.offsets[-1]
        self.vectors = nn.Parameter(torch.randn(total, width) * 0.3)
        self.readout = nn.Parameter(torch.zeros(total, width))
        self.trunk = nn.GRU(width, hidden, batch_first=True)
        self.ahead = nn.Linear(hidden, horizon * width)

    def observe(self, batch: Any, seen: Entries) -> Tensor:
        windows, frames = batch.counts.shape
        starts = torch.tensor(self.offsets, device=seen.slot.device)[batch.subject]
        offsets = torch.cumsum(batch.counts.reshape(-1), 0) - batch.counts.reshape(-1)
        weights = None
        if self.training and self.drop_voxels > 0:
            kept = torch.rand(len(seen.slot), device=seen.slot.device) >= self.drop_voxels
            weights = kept.to(self.vectors.dtype) / (1 - self.drop_voxels)
        summed = functional.embedding_bag(
            seen.slot + starts[seen.window], self.vectors, offsets, mode="sum", per_sample_weights=weights
        )
        mean, scale = self._expected()
        series = (summed.view(windows, frames, -1) - mean[batch.subject][:, None]) / scale[batch.subject][:, None, None]
        _, state = self.trunk(series)
        return self.ahead(state[-1]).view(windows, self.horizon, self.width)

    def _expected(self) -> tuple[Tensor, Tensor]:
        """Mean of the sum of each subject, and the root of its mean number of active voxels."""
        spans = [self.span(s) for s in range(len(self.subjects))]
        mean = torch.stack([self.rates[s] @ self.vectors[s] for s in spans])
        return mean, torch.stack([self.rates[s].sum().clamp_min(1e-3).sqrt() for s in spans])

    def drive(self, state: Tensor, rows: Tensor, subject: int) -> Tensor:
        return state[rows] @ self.readout[self.span(subject)].T


class PlaneForecaster(VoxelForecaster):
    """Convolutions over the planes of the image, read off where voxels are occupied.

    The context's frames are channels of each plane's image. A path over the coarsest image, averaged over the
    planes, tells every plane of the others. Weights do not belong to voxels, so any subject can be forecast.

    Parameters
    ----------
    coarsen
        Pixels per side that are summed to one before the first layer.
    channels
        Channels of every layer.
    """

    def __init__(
        self,
        subjects: Sequence[str],
        n_voxels: Sequence[int],
        planes: Sequence[int],
        context: int,
        horizon: int,
        components: int = 0,
        coarsen: int = 8,
        channels: int = 24,
    ) -> None:
        super().__init__(subjects, n_voxels, planes, context, horizon, components)
        self.coarsen, self.side, self.channels = coarsen, coarsen, channels
        self.rows, self.columns = PIXELS // WIDTH // coarsen, WIDTH // coarsen
        self.deepest = max(planes)
        self.stem = nn.Conv2d(context, channels, 5, padding=2)
        self.place = nn.Parameter(torch.zeros(self.deepest, channels, self.rows, self.columns))
        self.wide = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.brain = nn.Linear(self.deepest * channels, 64)
        self.back = nn.Linear(64, channels)
        self.body = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = nn.Conv2d(channels, horizon, 1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def observe(self, batch: Any, seen: Entries) -> Tensor:
        windows, frames, planes = batch.image.shape[:3]
        image = batch.image.transpose(1, 2).reshape(windows * planes, frames, self.rows, self.columns)
        first = functional.gelu(self.stem(image)).view(windows, planes, -1, self.rows, self.columns)
        first = (first + self.place[:planes]).flatten(0, 1)
        whole = functional.gelu(self.wide(first)).mean((2, 3)).view(windows, planes, -1)
        whole = functional.pad(whole, (0, 0, 0, self.deepest - planes)).flatten(1)
        told = self.back(functional.gelu(self.brain(whole))).repeat_interleave(planes, 0)
        mixed = first + functional.gelu(self.body(first) + told[:, :, None, None])
        out: Tensor = self.head(mixed).view(windows, planes, self.horizon, -1)
        return out

    def drive(self, state: Tensor, rows: Tensor, subject: int) -> Tensor:
        voxel = self.voxels[self.span(subject)]
        plane, pixel = torch.div(voxel, PIXELS, rounding_mode="floor"), voxel % PIXELS
        row = torch.div(pixel, WIDTH * self.side, rounding_mode="floor")
        column = torch.div(pixel % WIDTH, self.side, rounding_mode="floor")
        maps = state[rows].transpose(1, 2).flatten(2)
        return maps[:, :, (plane * self.rows + row) * self.columns + column]

    def for_subject(self, subject: str, planes: int, voxels: Tensor, rates: Tensor) -> PlaneForecaster:
        """The same weights for one subject that was not in the training."""
        if planes > self.deepest:
            raise BadInput(subject, f"has {planes} planes, the bundle knows {self.deepest}", "train on deeper volumes")
        twin = PlaneForecaster(
            [subject],
            [len(voxels)],
            [self.deepest],
            self.context,
            self.horizon,
            self.read.shape[1],
            self.side,
            self.channels,
        )
        linear = self.linear.mean(0).expand(len(voxels), -1, -1)
        own = {"rates": rates, "voxels": voxels, "linear": linear}
        # Who calls whom is known of the subjects of the training alone.
        own |= {name: getattr(twin, name) for name in ("read", "write", "readout_components")}
        twin.load_state_dict({name: own.get(name, value) for name, value in self.state_dict().items()})
        return twin.eval()
