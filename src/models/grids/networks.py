"""The network that forecasts which occupied voxels will be active: batches of grids in, log-odds per voxel out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from src.models.grids.active_voxels import ActiveVoxels, Forecast, active_voxels, index_lists, of_subject
from src.models.grids.linear import linear_forecasts
from src.preprocess.calcium.grid import HEIGHT, PIXELS, WIDTH
from src.preprocess.calcium.grid_windows import WindowFrames
from src.signals import BadInput

FLOOR = -12.0
LEAST = 0.3
"""Share of the mean rate at which the linear forecast is cut."""
_GLOBAL_UNITS = 64


class PlaneForecaster(nn.Module):
    """Log-odds of the mean rate, of a linear forecast, of the voxel's own past and of the brain around it, summed.

    The linear forecast (of the voxel's past and its population, see ``linear.py``) is fitted beforehand and enters
    with a learned gain; a learned kernel weighs the voxel's own past. The brain around it is read by convolutions over
    the images of the planes, whose channels are the context frames; a path over the coarsest image, averaged over the
    planes, gives every plane the global context. Learned weights belong to no voxel, so any subject can be forecast.

    Parameters
    ----------
    brains
        ``subjects``, ``n_voxels`` and ``planes``: name, number of occupied voxels and number of planes of every
        subject; ``components`` of the linear model of the population, 0 for none.
    frames
        Frames seen, passed over and forecast: see :class:`~src.preprocess.calcium.grid_windows.WindowFrames`.
    coarsen
        Side of the square of pixels that is summed to one before the first layer.
    channels
        Channels of every layer.
    """

    rates: Tensor
    voxels: Tensor
    linear: Tensor
    persistence: Tensor
    read: Tensor
    write: Tensor
    readout_components: Tensor

    def __init__(self, brains: dict[str, Any], frames: Sequence[int], coarsen: int = 8, channels: int = 24) -> None:
        super().__init__()
        if coarsen < 1 or HEIGHT % coarsen or WIDTH % coarsen:
            raise BadInput("model.network_args.coarsen", f"is {coarsen}", "give a power of two up to 128")
        self.frames, self.components = WindowFrames(*frames), int(brains.get("components", 0))
        self.subjects, self.planes = list(brains["subjects"]), list(brains["planes"])
        self.offsets = [sum(brains["n_voxels"][:i]) for i in range(len(self.subjects) + 1)]
        self.coarsen, self.channels, self.deepest = coarsen, channels, max(self.planes)
        self.rows, self.columns = HEIGHT // coarsen, WIDTH // coarsen
        self._add_linear_parts()
        self.stem = nn.Conv2d(self.frames.context, channels, 5, padding=2)
        self.place = nn.Parameter(torch.zeros(self.deepest, channels, self.rows, self.columns))
        self.wide = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.brain = nn.Linear(self.deepest * channels, _GLOBAL_UNITS)
        self.back = nn.Linear(_GLOBAL_UNITS, channels)
        self.body = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = nn.Conv2d(channels, self.horizon, 1)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def _add_linear_parts(self) -> None:
        context, _, horizon = self.frames
        total, components = self.offsets[-1], self.components
        self.register_buffer("rates", torch.full((total,), 0.01))
        self.register_buffer("voxels", torch.zeros(total, dtype=torch.int64))
        self.register_buffer("linear", torch.zeros(total, context, horizon))
        self.register_buffer("persistence", torch.zeros(context, horizon))
        self.register_buffer("read", torch.zeros(total, components))
        self.register_buffer("write", torch.zeros(total, components))
        products = (len(self.subjects), context * components, horizon * components)
        self.register_buffer("readout_components", torch.zeros(products))
        self.own_past = nn.Parameter(torch.zeros(context, horizon))
        self.linear_gain = nn.Parameter(torch.ones(horizon))

    @property
    def horizon(self) -> int:
        return self.frames.horizon

    def span(self, subject: int) -> slice:
        """Places of a subject's voxels among those of all."""
        return slice(self.offsets[subject], self.offsets[subject + 1])

    def base(self, subject: int) -> Tensor:
        """``(voxel,)`` log-odds of the mean rate."""
        return torch.logit(self.rates[self.span(subject)], eps=1e-6).clamp_min(FLOOR)

    def forward(self, batch: Any) -> list[Forecast]:
        """One forecast per subject that is in the batch, whatever the batch's layout."""
        batch = index_lists(batch, self.voxels, self.offsets)
        seen = active_voxels(batch.voxel_index, batch.counts)
        maps = self.activity_maps(batch, seen)
        found = []
        for subject, rows, linear in linear_forecasts(self)["linear population"].cut_at(LEAST)(batch):
            # Log-odds add up: mean rate + gain · (linear - mean rate) + own past + the map of the brain at the voxel.
            base = self.base(subject)
            plane, square = self._squares(self.voxels[self.span(subject)])
            around = maps[rows].transpose(1, 2).flatten(2)[:, :, plane * self.rows * self.columns + square]
            past = self.own_kernel(of_subject(seen, batch.subject, subject)[1], len(rows), len(base))
            found.append(Forecast(subject, rows, base + self.linear_gain[:, None] * (linear - base) + past + around))
        return found

    def own_kernel(self, seen: ActiveVoxels, windows: int, voxels: int) -> Tensor:
        """``(window, horizon, voxel)`` sum of a learned weight for each context frame in which the voxel was active."""
        past = self.own_past.new_zeros(windows * voxels, self.horizon)
        past = past.index_add(0, seen.window * voxels + seen.voxel_index, self.own_past[seen.frame])
        return past.view(windows, voxels, self.horizon).transpose(1, 2)

    def image(self, batch: Any, seen: ActiveVoxels) -> Tensor:
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

    def activity_maps(self, batch: Any, seen: ActiveVoxels) -> Tensor:
        """``(window, plane, horizon, row · column)`` what the brain adds to the log-odds in each square of pixels."""
        windows, planes = len(batch.counts), self.deepest
        image = self.image(batch, seen)
        first = functional.gelu(self.stem(image)).view(windows, planes, -1, self.rows, self.columns)
        first = (first + self.place).flatten(0, 1)
        whole = functional.gelu(self.wide(first)).mean((2, 3)).view(windows, -1)
        global_context = self.back(functional.gelu(self.brain(whole))).repeat_interleave(planes, 0)
        mixed = first + functional.gelu(self.body(first) + global_context[:, :, None, None])
        out: Tensor = self.head(mixed).view(windows, planes, self.horizon, -1)
        return out

    def for_subject(self, subject: str, planes: int, voxels: Tensor, rates: Tensor) -> "PlaneForecaster":
        """The same weights for one subject that was not in the training."""
        if planes > self.deepest:
            raise BadInput(subject, f"has {planes} planes, the bundle knows {self.deepest}", "train on deeper volumes")
        brains: dict[str, Any] = {"subjects": [subject], "n_voxels": [len(voxels)], "planes": [self.deepest]}
        brains["components"] = self.components
        twin = PlaneForecaster(brains, self.frames, self.coarsen, self.channels)
        linear = self.linear.mean(0).expand(len(voxels), -1, -1)
        own = {"rates": rates, "voxels": voxels, "linear": linear}
        # The linear model of a population belongs to the subjects of the training.
        own |= {name: getattr(twin, name) for name in ("read", "write", "readout_components")}
        twin.load_state_dict({name: own.get(name, value) for name, value in self.state_dict().items()})
        return twin.eval()
