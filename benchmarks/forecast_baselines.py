"""Small forecasting networks of the field and linear models, for traces ``(time, channel)`` and for grids.

NLinear (Zeng et al. 2023, arXiv 2205.13504) maps a channel's context to its horizon by one matrix that all channels
share, after the last value has been subtracted. TSMixer (Chen et al. 2023, arXiv 2303.06053) mixes time and channels
in turn; here with few blocks and units, for recordings of minutes.
"""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from src.preprocess.calcium.grid_windows import WindowFrames

RIDGES = (0.1, 1.0, 10.0, 100.0, 1000.0, 1e4)
COMPONENTS = (4, 16, 64)


class NLinear(nn.Module):
    """``(window, context, channel)`` to ``(window, horizon, channel)``."""

    def __init__(self, frames: WindowFrames, channels: int) -> None:
        super().__init__()
        self.ahead = nn.Linear(frames.context, frames.horizon)
        nn.init.zeros_(self.ahead.weight)
        nn.init.zeros_(self.ahead.bias)

    def forward(self, series: Tensor) -> Tensor:
        last = series[:, -1:]
        out: Tensor = last + self.ahead((series - last).transpose(1, 2)).transpose(1, 2)
        return out


class TSMixer(nn.Module):
    """The same shapes; ``blocks`` of a perceptron over time and one over channels, each added to its input."""

    def __init__(self, frames: WindowFrames, channels: int, blocks: int = 2, hidden: int = 32) -> None:
        super().__init__()
        context = frames.context
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2 * blocks))
        self.over_time = nn.ModuleList(_perceptron(context, hidden) for _ in range(blocks))
        self.over_channels = nn.ModuleList(_perceptron(channels, hidden) for _ in range(blocks))
        self.ahead = nn.Linear(context, frames.horizon)
        nn.init.zeros_(self.ahead.weight)
        nn.init.zeros_(self.ahead.bias)

    def forward(self, series: Tensor) -> Tensor:
        last = series[:, -1:]
        mixed = series - last
        norms = iter(self.norms)
        for over_time, over_channels in zip(self.over_time, self.over_channels, strict=True):
            mixed = mixed + over_time(next(norms)(mixed).transpose(1, 2)).transpose(1, 2)
            mixed = mixed + over_channels(next(norms)(mixed))
        out: Tensor = last + self.ahead(mixed.transpose(1, 2)).transpose(1, 2)
        return out


NETWORKS: dict[str, Callable[[WindowFrames, int], nn.Module]] = {"NLinear": NLinear, "TSMixer-like": TSMixer}


def _perceptron(size: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, hidden), nn.GELU(), nn.Dropout(0.3), nn.Linear(hidden, size))


def windows(series: np.ndarray, firsts: np.ndarray, frames: WindowFrames) -> tuple[Tensor, Tensor]:
    """Contexts ``(window, context, channel)`` and targets ``(window, horizon, channel)`` that begin at ``firsts``."""
    place = torch.from_numpy(firsts)[:, None]
    whole = torch.from_numpy(np.asarray(series, np.float32))
    return whole[place + torch.arange(frames.context)], whole[place + torch.arange(frames.target, frames.length)]


Loss = Callable[[Tensor, Tensor], Tensor]


def trained(
    network: nn.Module, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], loss: Loss, *, epochs: int = 40
) -> nn.Module:
    """The network with the weights of the epoch that was best on ``val``; no fewer than 10 epochs of patience."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    best, state, waited = float("inf"), deepcopy(network.state_dict()), 0
    for _ in range(epochs):
        network.train()
        for rows in torch.randperm(len(train[0])).split(32):
            optimizer.zero_grad()
            loss(network(train[0][rows]), train[1][rows]).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            score = float(loss(network(val[0]), val[1]))
        waited += 1
        if score < best:
            best, state, waited = score, deepcopy(network.state_dict()), 0
        if waited == 10:
            break
    network.load_state_dict(state)
    return network.eval()


def autoregression(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> Callable[[Tensor], Tensor]:
    """A ridge regression from the context of a channel to its horizon, one for all channels; penalty by ``val``."""
    flat = [part.transpose(1, 2).reshape(-1, part.shape[1]).double() for part in (*train, *val)]
    weights = _ridge(*flat)
    return lambda seen: _with_one(seen.transpose(1, 2).double()).matmul(weights).transpose(1, 2).float()


def linear_population(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]) -> Callable[[Tensor], Tensor]:
    """The autoregression, and a ridge regression of what it leaves on the components of all channels' context."""
    own = autoregression(train, val)
    left, left_val = train[1] - own(train[0]), val[1] - own(val[0])
    centre = train[0].mean((0, 1))
    axes = torch.linalg.svd((train[0] - centre).reshape(-1, train[0].shape[2])[::4], full_matrices=False)[2]
    best, chosen = float((left_val**2).mean()), None
    for count in COMPONENTS:
        turn = axes[:count].T
        inputs = [((part - centre) @ turn).flatten(1).double() for part in (train[0], val[0])]
        weights = _ridge(inputs[0], left.flatten(1).double(), inputs[1], left_val.flatten(1).double())
        error = float(((_with_one(inputs[1]) @ weights - left_val.flatten(1)) ** 2).mean())
        if error < best:
            best, chosen = error, (turn, weights)
    if chosen is None:
        return own
    turn, weights = chosen

    def forecast(seen: Tensor) -> Tensor:
        found = own(seen)
        return found + (_with_one(((seen - centre) @ turn).flatten(1).double()) @ weights).view(found.shape).float()

    return forecast


def _with_one(inputs: Tensor) -> Tensor:
    return torch.cat([inputs, torch.ones_like(inputs[..., :1])], dim=-1)


def _ridge(inputs: Tensor, wanted: Tensor, seen: Tensor, check: Tensor) -> Tensor:
    """``(input + 1, output)`` weights of the penalty with the least squared error on ``seen`` and ``check``."""
    inputs, seen = _with_one(inputs), _with_one(seen)
    products, crossed = inputs.T @ inputs, inputs.T @ wanted
    scale = products.diagonal().mean()
    found = [
        torch.linalg.solve(products + ridge * 1e-3 * scale * torch.eye(len(products), dtype=products.dtype), crossed)
        for ridge in RIDGES
    ]
    return min(found, key=lambda weights: float(((seen @ weights - check) ** 2).mean()))
