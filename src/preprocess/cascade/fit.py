"""Fitting one CASCADE network to ground truth, in torch.

Upstream cuts up to five million windows out of noisy replicas of the traces and shows them one by one.
Here a step takes stretches of traces instead: the network runs over a stretch as in inference, so that
neighbouring windows share their products, and every stretch gets noise of its own when it is drawn, so
that no replica is ever stored. A stretch of one window is upstream's minibatch of independent windows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from src.preprocess.cascade.dense import dense_network, one_thread
from src.preprocess.cascade.ground_truth import Example
from src.preprocess.cascade.package import Network, PackageConfig, steps_before_readout
from src.signals import BadInput

ADAM_WARMUP = 50
"""Steps over which Adam's rate rises; from there it falls to zero along a cosine."""

MOST_REPLICAS = 500
DATASET_SHARE = 15_000_000
"""Windows over all datasets at which upstream begins to thin out the large ones."""
_STEPS_PER_DRAW = 32


@dataclass(frozen=True)
class TrainingWindows:
    """Stretches of ground truth at one noise level, ready to be drawn from.

    The trials stand behind each other in ``(time,)`` float32 arrays, with a margin around each.
    """

    dff: np.ndarray
    target: np.ndarray  # smoothed spikes
    noise: np.ndarray  # standard deviation of the noise to add
    first: np.ndarray  # (trial,) position of its first frame
    windows: np.ndarray  # (trial,) its number of windows
    share: np.ndarray  # (trial,) probability to draw a stretch from it
    epoch_windows: int  # windows in one of upstream's epochs at this noise level
    stretch: int

    @property
    def filled(self) -> float:
        """Mean fraction of a drawn stretch that lies inside its trial."""
        return float(np.sum(self.share * self.windows / (self.windows + self.stretch - 1)))


def gather(
    examples: Sequence[Example], config: PackageConfig, level: float, stretch: int, max_windows: int
) -> TrainingWindows:
    """Collect what a network of one noise level is trained on.

    As published: a trial noisier than the level or shorter than a window is left out; it counts for
    ``1.2 (level / own noise)²`` replicas, at most 500; a dataset counts for at most its share of 15
    million windows, and an epoch has at most ``max_windows``.

    Raises
    ------
    BadInput
        If no trial is quiet and long enough.
    """
    margin = config.windowsize + stretch
    parts: list[list[np.ndarray]] = [[], [], []]
    first, windows, replicas, datasets, position = [], [], [], [], margin
    for example in examples:
        strength, fitting = example.added_noise(level), len(example.dff) - config.windowsize + 1
        if strength is None or fitting < 1:
            continue
        noise = np.float32(strength / 100 * np.sqrt(config.sampling_rate_hz)) * example.noise_profile
        for part, array in zip(parts, (example.dff, example.target, noise), strict=True):
            part.append(np.pad(array, (margin, 0)))
        first.append(position)
        windows.append(fitting)
        replicas.append(min(MOST_REPLICAS, np.ceil(1.2 * (level / max(example.base_noise, 1e-6)) ** 2)))
        datasets.append(example.trial.dataset)
        position += len(example.dff) + margin
    if not first:
        raise BadInput(
            f"noise level {level:g}",
            f"no trial of the ground truth is quieter and longer than {config.windowsize} frames",
            "train higher noise levels or give more ground truth",
        )
    count, names = np.asarray(windows), np.asarray(datasets)
    total = count * np.asarray(replicas, dtype=float)
    for name in np.unique(names):
        own = names == name
        total[own] *= min(1.0, DATASET_SHARE / len(np.unique(names)) / total[own].sum())
    draws = total * (count + stretch - 1) / count
    dff, target, noise = (np.pad(np.concatenate(part), (0, margin)).astype(np.float32) for part in parts)
    epoch = int(min(max_windows, total.sum()))
    return TrainingWindows(dff, target, noise, np.asarray(first), count, draws / draws.sum(), epoch, stretch)


def draw_stretches(
    data: TrainingWindows, config: PackageConfig, count: int, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``count`` random stretches: noisy traces, targets, and which of the windows lie inside their trial.

    Every window of a trial is equally likely to be among them, those at its ends too.
    """
    trial = draw.choice(len(data.share), size=count, p=data.share)
    start = draw.integers(1 - data.stretch, data.windows[trial])
    frames = data.stretch + config.windowsize - 1
    index = (data.first[trial] + start)[:, None] + np.arange(frames)
    noise = draw.standard_normal(index.shape, dtype=np.float32)
    traces = data.dff[index] + data.noise[index] * noise
    window = start[:, None] + np.arange(data.stretch)
    inside = (window >= 0) & (window < data.windows[trial][:, None])
    targets = data.target[index[:, config.trained_frame : config.trained_frame + data.stretch]]
    return traces, targets, inside.astype(np.float32)


def fit_network(
    data: TrainingWindows,
    config: PackageConfig,
    steps: int,
    seed: Sequence[int],
    progress: Callable[[int, float], None] | None = None,
) -> Network:
    """Train one network from scratch, on the mean squared error, with ``config.batch_size`` windows per step.

    The first weights and all draws depend on ``seed`` alone. ``progress`` is called with the number of steps done and
    the mean loss since the last call.
    """
    draw = np.random.default_rng(list(seed))
    weights = [torch.from_numpy(array).requires_grad_() for array in start_weights(config, draw)]
    optimizer, schedule = _optimizer(config, weights, steps)
    batch = max(1, round(config.batch_size / data.stretch / data.filled))
    with one_thread():
        for done in range(0, steps, _STEPS_PER_DRAW):
            now = min(_STEPS_PER_DRAW, steps - done)
            drawn = [torch.from_numpy(array) for array in draw_stretches(data, config, now * batch, draw)]
            total = 0.0
            for blocks in zip(*(array.split(batch) for array in drawn), strict=True):
                optimizer.zero_grad()
                loss = window_loss(*blocks, weights, config)
                loss.backward()
                optimizer.step()
                schedule.step()
                total += float(loss.detach())
            if progress:
                progress(done + now, total / now)
    return as_network([array.detach().numpy() for array in weights], config)


def window_loss(
    traces: Tensor, targets: Tensor, inside: Tensor, weights: Sequence[Tensor], config: PackageConfig
) -> Tensor:
    """Mean squared error over the windows of some stretches that lie inside their trial."""
    errors = dense_network(traces, weights, config.windowsize) - targets
    return (inside * errors.square()).sum() / inside.sum().clamp(min=1.0)


def _optimizer(
    config: PackageConfig, weights: Sequence[Tensor], steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Adagrad as published, or Adam, which needs far fewer steps."""
    optimizer: torch.optim.Optimizer
    if config.loss_function == "mean_squared_error" and config.optimizer == "Adagrad":
        optimizer = torch.optim.Adagrad(weights, lr=0.05, initial_accumulator_value=0.1, eps=1e-7)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    if config.loss_function == "mean_squared_error" and config.optimizer == "Adam":
        optimizer = torch.optim.Adam(weights, lr=0.003, eps=1e-7)

        def rate(step: int) -> float:
            return min(1.0, (step + 1) / ADAM_WARMUP) * 0.5 * (1 + float(np.cos(np.pi * (step + 1) / steps)))

        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    problem = f"asks for {config.optimizer} on {config.loss_function}"
    raise BadInput(config.model_name, problem, "use mean_squared_error and Adagrad or Adam")


def start_weights(config: PackageConfig, draw: np.random.Generator) -> list[np.ndarray]:
    """Glorot's uniform start with zero biases, in the order of :meth:`Network.arrays`."""
    widths = (1, *config.filter_numbers)
    shapes: list[tuple[int, ...]] = [(n, widths[i], widths[i + 1]) for i, n in enumerate(config.filter_sizes)]
    shapes += [(widths[-1], config.dense_expansion), (steps_before_readout(config) * config.dense_expansion, 1)]
    arrays = []
    for shape in shapes:
        fan_in, fan_out = np.prod(shape[:-1]), np.prod((*shape[:-2], shape[-1]))
        limit = np.sqrt(6 / (fan_in + fan_out))
        arrays += [draw.uniform(-limit, limit, shape).astype(np.float32), np.zeros(shape[-1], dtype=np.float32)]
    return arrays


def as_network(arrays: Sequence[np.ndarray], config: PackageConfig) -> Network:
    """The ten arrays of :meth:`Network.arrays` as a network."""
    pairs = [(arrays[i], arrays[i + 1]) for i in range(0, 10, 2)]
    return Network((pairs[0], pairs[1], pairs[2]), pairs[3], pairs[4])
