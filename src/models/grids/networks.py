"""Networks that forecast which occupied voxels will be active: batches of grids in, logits per voxel out.

Both networks add up a voxel's mean rate, a linear forecast (of the voxel's own past and of its population, fitted
beforehand; see ``linear.py``) with a learned gain, a learned kernel over the same past, and what the rest of the brain
says. They differ in how they read the brain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.models.grids.entries import Entries, Forecast, entries, index_lists, of_subject
from src.models.grids.linear import LinearForecast, expected_activity
from src.preprocess.calcium.grid import HEIGHT, PIXELS, WIDTH
from src.preprocess.calcium.grid_windows import WindowFrames
from src.signals import BadInput

FLOOR = -12.0
LEAST, MOST = 0.3, 0.99
"""A linear forecast is cut at this share of the mean rate, and at this probability."""


@dataclass(frozen=True)
class Brains:
    """The subjects of a network.

    Attributes
    ----------
    subjects, n_voxels, planes
        Name, number of occupied voxels and number of planes of every subject.
    components
        Of the linear model of the population that the forecast begins with; 0 for none.
    """

    subjects: Sequence[str]
    n_voxels: Sequence[int]
    planes: Sequence[int]
    components: int = 0


class VoxelForecaster(nn.Module):
    """What both networks share; a subclass says in :meth:`encode` and :meth:`decode` what the brain adds.

    Parameters
    ----------
    brains
        Arguments of :class:`Brains`.
    frames
        Frames seen, passed over and forecast: see :class:`~src.preprocess.calcium.grid_windows.WindowFrames`.
    """

    rates: Tensor
    voxels: Tensor
    linear: Tensor
    persistence: Tensor
    read: Tensor
    write: Tensor
    readout_components: Tensor

    def __init__(self, brains: dict[str, Any], frames: Sequence[int]) -> None:
        super().__init__()
        self.brains = Brains(**brains)
        self.subjects, self.planes = list(self.brains.subjects), list(self.brains.planes)
        self.frames = WindowFrames(*frames)
        context, _, horizon = self.frames
        self.horizon = horizon
        self.offsets = [sum(self.brains.n_voxels[:i]) for i in range(len(self.subjects) + 1)]
        total, components = self.offsets[-1], self.brains.components
        self.register_buffer("rates", torch.full((total,), 0.01))
        self.register_buffer("voxels", torch.zeros(total, dtype=torch.int64))
        self.register_buffer("linear", torch.zeros(total, context, horizon))
        self.register_buffer("persistence", torch.zeros(horizon))
        self.register_buffer("read", torch.zeros(total, components))
        self.register_buffer("write", torch.zeros(total, components))
        products = (len(self.subjects), context * components, horizon * components)
        self.register_buffer("readout_components", torch.zeros(products))
        self.own_past = nn.Parameter(torch.zeros(context, horizon))
        self.linear_gain = nn.Parameter(torch.ones(horizon))

    def set_statistics(self, fitted: Mapping[str, LinearForecast]) -> None:
        """Take over the linear forecasts that were fitted on the training frames."""
        whole = fitted["linear population"]
        self.voxels.copy_(whole.voxels)
        self.rates.copy_(whole.rates)
        self.linear.copy_(whole.weights)
        self.persistence.copy_(fitted["persistence"].weights[0, -1])
        if whole.population is not None:
            read, write, readout = whole.population
            self.read.copy_(read)
            self.write.copy_(write)
            self.readout_components.copy_(readout)

    def span(self, subject: int) -> slice:
        """Places of a subject's voxels among those of all."""
        return slice(self.offsets[subject], self.offsets[subject + 1])

    def base(self, subject: int) -> Tensor:
        """``(voxel,)`` log-odds of the mean rate."""
        return torch.logit(self.rates[self.span(subject)], eps=1e-6).clamp_min(FLOOR)

    def forward(self, batch: Any) -> list[Forecast]:
        """One forecast per subject that is in the batch, whatever the batch's layout."""
        batch = index_lists(batch, self.voxels, self.offsets)
        seen = entries(batch.voxel_index, batch.counts)
        state = self.encode(batch, seen)
        found = []
        for subject in batch.subject.unique().tolist():
            rows, own = of_subject(seen, batch.subject, subject)
            logits = self.decode(state, rows, subject) + self.from_own_past(subject, len(rows), own)
            found.append(Forecast(subject, rows, logits))
        return found

    def from_own_past(self, subject: int, windows: int, seen: Entries) -> Tensor:
        """``(window, horizon, voxel)`` log-odds from the linear forecast and a kernel over the voxels' own past."""
        span, base = self.span(subject), self.base(subject)
        rate = self.rates[span]
        population = None
        if self.brains.components:
            population = (self.read[span], self.write[span], self.readout_components[subject])
        chance = expected_activity(seen, windows, rate, self.linear[span], population)
        chance = torch.maximum(chance, LEAST * rate).clamp_max(MOST)
        linear = torch.logit(chance, eps=1e-6).clamp_min(FLOOR)
        kernel = torch.zeros(windows * len(rate), self.horizon, device=rate.device, dtype=self.own_past.dtype)
        kernel = kernel.index_add(0, seen.window * len(rate) + seen.voxel_index, self.own_past[seen.frame])
        past = kernel.view(windows, len(rate), self.horizon).transpose(1, 2)
        return base + self.linear_gain[:, None] * (linear - base) + past

    def encode(self, batch: Any, seen: Entries) -> Any:
        """What is read off the whole batch."""
        return None

    def decode(self, state: Any, rows: Tensor, subject: int) -> Tensor:
        """``(window, horizon, voxel)`` what the brain adds to the logits of a subject's windows; nothing here."""
        return torch.zeros((), device=rows.device)


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
        brains: dict[str, Any],
        frames: Sequence[int],
        width: int = 24,
        hidden: int = 64,
        drop_voxels: float = 0.3,
    ) -> None:
        super().__init__(brains, frames)
        self.width, self.hidden, self.drop_voxels = width, hidden, drop_voxels
        total = self.offsets[-1]
        self.vectors = nn.Parameter(torch.randn(total, width) * 0.3)
        self.readout = nn.Parameter(torch.zeros(total, width))
        self.trunk = nn.GRU(width, hidden, batch_first=True)
        self.ahead = nn.Linear(hidden, self.horizon * width)

    def encode(self, batch: Any, seen: Entries) -> Tensor:
        windows, frames = batch.counts.shape
        starts = torch.tensor(self.offsets, device=seen.voxel_index.device)[batch.subject]
        offsets = torch.cumsum(batch.counts.reshape(-1), 0) - batch.counts.reshape(-1)
        weights = None
        if self.training and self.drop_voxels > 0:
            kept = torch.rand(len(seen.voxel_index), device=seen.voxel_index.device) >= self.drop_voxels
            weights = kept.to(self.vectors.dtype) / (1 - self.drop_voxels)
        summed = functional.embedding_bag(
            seen.voxel_index + starts[seen.window], self.vectors, offsets, mode="sum", per_sample_weights=weights
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

    def decode(self, state: Tensor, rows: Tensor, subject: int) -> Tensor:
        return state[rows] @ self.readout[self.span(subject)].T


class PlaneForecaster(VoxelForecaster):
    """Convolutions over the planes of the image, read off where voxels are occupied.

    The context's frames are channels of each plane's image. A path over the coarsest image, averaged over the
    planes, gives every plane the global context. Weights do not belong to voxels, so any subject can be forecast.

    Parameters
    ----------
    coarsen
        Side of the square of pixels that is summed to one before the first layer.
    channels
        Channels of every layer.
    """

    def __init__(self, brains: dict[str, Any], frames: Sequence[int], coarsen: int = 8, channels: int = 24) -> None:
        super().__init__(brains, frames)
        if coarsen < 1 or HEIGHT % coarsen or WIDTH % coarsen:
            raise BadInput("model.network_args.coarsen", f"is {coarsen}", "give a power of two up to 128")
        self.coarsen, self.channels = coarsen, channels
        self.rows, self.columns = HEIGHT // coarsen, WIDTH // coarsen
        self.deepest = max(self.planes)
        self.stem = nn.Conv2d(self.frames.context, channels, 5, padding=2)
        self.place = nn.Parameter(torch.zeros(self.deepest, channels, self.rows, self.columns))
        self.wide = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.brain = nn.Linear(self.deepest * channels, 64)
        self.back = nn.Linear(64, channels)
        self.body = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = nn.Conv2d(channels, self.horizon, 1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def image(self, batch: Any, seen: Entries) -> Tensor:
        """``(window · plane, frame, row, column)`` numbers of active voxels in each square of pixels.

        Summing while scattering is what a sum pooling of the dense grid would do, without making it.
        """
        windows, frames = batch.counts.shape
        starts = torch.tensor(self.offsets, device=seen.voxel_index.device)[batch.subject]
        plane, square = self._squares(self.voxels[seen.voxel_index + starts[seen.window]])
        area = self.rows * self.columns
        index = ((seen.window * self.deepest + plane) * frames + seen.frame) * area + square
        image = torch.zeros(windows * self.deepest * frames * area, device=index.device)
        image.index_add_(0, index, torch.ones(len(index), device=index.device))
        return image.view(windows * self.deepest, frames, self.rows, self.columns)

    def _squares(self, voxel: Tensor) -> tuple[Tensor, Tensor]:
        """Plane of every voxel, and the square of pixels in which it lies."""
        plane, pixel = torch.div(voxel, PIXELS, rounding_mode="floor"), voxel % PIXELS
        row = torch.div(pixel, WIDTH * self.coarsen, rounding_mode="floor")
        return plane, row * self.columns + torch.div(pixel % WIDTH, self.coarsen, rounding_mode="floor")

    def encode(self, batch: Any, seen: Entries) -> Tensor:
        windows, planes = len(batch.counts), self.deepest
        image = self.image(batch, seen)
        first = functional.gelu(self.stem(image)).view(windows, planes, -1, self.rows, self.columns)
        first = (first + self.place).flatten(0, 1)
        whole = functional.gelu(self.wide(first)).mean((2, 3)).view(windows, -1)
        global_context = self.back(functional.gelu(self.brain(whole))).repeat_interleave(planes, 0)
        mixed = first + functional.gelu(self.body(first) + global_context[:, :, None, None])
        out: Tensor = self.head(mixed).view(windows, planes, self.horizon, -1)
        return out

    def decode(self, state: Tensor, rows: Tensor, subject: int) -> Tensor:
        plane, square = self._squares(self.voxels[self.span(subject)])
        maps = state[rows].transpose(1, 2).flatten(2)
        return maps[:, :, plane * self.rows * self.columns + square]

    def for_subject(self, subject: str, planes: int, voxels: Tensor, rates: Tensor) -> PlaneForecaster:
        """The same weights for one subject that was not in the training."""
        if planes > self.deepest:
            raise BadInput(subject, f"has {planes} planes, the bundle knows {self.deepest}", "train on deeper volumes")
        brains: dict[str, Any] = {"subjects": [subject], "n_voxels": [len(voxels)], "planes": [self.deepest]}
        brains["components"] = self.brains.components
        twin = PlaneForecaster(brains, self.frames, self.coarsen, self.channels)
        linear = self.linear.mean(0).expand(len(voxels), -1, -1)
        own = {"rates": rates, "voxels": voxels, "linear": linear}
        # The linear model of a population belongs to the subjects of the training.
        own |= {name: getattr(twin, name) for name in ("read", "write", "readout_components")}
        twin.load_state_dict({name: own.get(name, value) for name, value in self.state_dict().items()})
        return twin.eval()
