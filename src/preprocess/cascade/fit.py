"""Fitting one CASCADE network to ground truth, in TensorFlow.

Upstream cuts up to five million windows out of noisy replicas of the traces and shows them one by one.
Here a step takes stretches of traces instead: the network runs over a stretch as in inference, so that
neighbouring windows share their products, and every stretch gets noise of its own when it is drawn, so
that no replica is ever stored. A stretch of one window is upstream's minibatch of independent windows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from src.preprocess.cascade.dense import dense_network, import_tensorflow
from src.preprocess.cascade.ground_truth import Example
from src.preprocess.cascade.package import Network, PackageConfig, kernel_shapes
from src.signals import BadInput

LEARNING_RATE = {"Adagrad": 0.05, "Adam": 0.003}
"""Optimiser of a recipe → its rate. Adagrad is the published one; Adam, whose rate rises over the first 50 steps and
falls to zero along a cosine, needs far fewer steps."""

ADAGRAD_START = 0.1
EPSILON = 1e-7
ADAM_DECAYS, ADAM_WARMUP = (0.9, 0.999), 50

MOST_REPLICAS = 500
DATASET_SHARE = 15_000_000
"""Windows over all datasets at which upstream begins to thin out the large ones."""


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
    usable = [e for e in examples if e.added_noise(level) is not None and len(e.dff) >= config.windowsize]
    if not usable:
        raise BadInput(
            f"noise level {level:g}",
            f"no trial of the ground truth is quieter and longer than {config.windowsize} frames",
            "train higher noise levels or give more ground truth",
        )
    margin = config.windowsize + stretch

    def joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
        padded = [np.pad(array, (margin, 0)) for array in arrays]
        return np.pad(np.concatenate(padded), (0, margin)).astype(np.float32)

    frames, names = np.array([len(e.dff) for e in usable]), np.array([e.trial.dataset for e in usable])
    windows = frames - config.windowsize + 1
    replicas = np.array([np.ceil(1.2 * (level / max(e.base_noise, 1e-6)) ** 2) for e in usable])
    total = windows * np.minimum(replicas, MOST_REPLICAS)
    for name in np.unique(names):
        own = names == name
        total[own] *= min(1.0, DATASET_SHARE / len(np.unique(names)) / total[own].sum())
    draws = total * (windows + stretch - 1) / windows
    return TrainingWindows(
        dff=joined(e.dff for e in usable),
        target=joined(e.target for e in usable),
        noise=joined(e.noise_of(level, config) for e in usable),
        first=np.cumsum(frames + margin) - frames,
        windows=windows,
        share=draws / draws.sum(),
        epoch_windows=int(min(max_windows, total.sum())),
        stretch=stretch,
    )


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


def fit_network(data: TrainingWindows, config: PackageConfig, steps: int, seed: Sequence[int]) -> Network:
    """Train one network from scratch, on the mean squared error, with ``config.batch_size`` windows per step.

    The first weights and all draws depend on ``seed`` alone.
    """
    if config.loss_function != "mean_squared_error" or config.optimizer not in LEARNING_RATE:
        problem = f"asks for {config.optimizer} on {config.loss_function}"
        raise BadInput(config.model_name, problem, f"use mean_squared_error and {' or '.join(LEARNING_RATE)}")
    tf = import_tensorflow()
    draw = np.random.default_rng(list(seed))
    weights = [tf.constant(array) for array in start_weights(config, draw)]
    moments = [tf.zeros_like(array) for array in weights]
    start = ADAGRAD_START if config.optimizer == "Adagrad" else 0.0
    squares = [tf.fill(array.shape, np.float32(start)) for array in weights]
    batch = max(1, round(config.batch_size / data.stretch / data.filled))
    step = training_step(config.optimizer, tuple(array.shape for array in weights), config.windowsize)
    for number in range(1, steps + 1):
        drawn = draw_stretches(data, config, batch, draw)
        weights, moments, squares = step(*drawn, weights, moments, squares, np.array([number, steps], np.float32))
    return [array.numpy() for array in weights]


@lru_cache(maxsize=4)
def training_step(name: str, shapes: tuple[Any, ...], windowsize: int) -> Any:
    """A step of an optimiser: ``(traces, targets, inside, weights, moments, squares, [number, steps])``.

    It gives the new weights, moments and squares. Compiled once for all networks of a shape: compiling takes a second.
    """
    tf = import_tensorflow()
    rate, (decay, square_decay) = LEARNING_RATE[name], ADAM_DECAYS
    block, arrays = tf.TensorSpec((None, None), tf.float32), [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    span = tf.TensorSpec((2,), tf.float32)

    @tf.function(autograph=False, input_signature=[block, block, block, arrays, arrays, arrays, span])
    def step(traces: Any, targets: Any, inside: Any, weights: Any, moments: Any, squares: Any, span: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            error = tf.square(dense_network(tf, traces, weights, windowsize) - targets)
            loss = tf.reduce_sum(inside * error) / tf.maximum(tf.reduce_sum(inside), 1.0)
        gradients = tape.gradient(loss, weights)
        if name == "Adagrad":
            squares = [s + tf.square(g) for s, g in zip(squares, gradients, strict=True)]
            changes = [rate * g / tf.sqrt(s + EPSILON) for g, s in zip(gradients, squares, strict=True)]
        else:
            number, steps = tf.unstack(span)
            moments = [decay * m + (1 - decay) * g for m, g in zip(moments, gradients, strict=True)]
            squares = [square_decay * s + (1 - square_decay) * g**2 for s, g in zip(squares, gradients, strict=True)]
            now = rate * tf.minimum(1.0, number / ADAM_WARMUP) * 0.5 * (1 + tf.cos(np.pi * number / steps))
            # Both averages start at zero; the divisors undo that.
            first, second = 1 - decay**number, 1 - square_decay**number
            changes = [
                now * (m / first) / (tf.sqrt(s / second) + EPSILON) for m, s in zip(moments, squares, strict=True)
            ]
        return [w - change for w, change in zip(weights, changes, strict=True)], moments, squares

    return step.get_concrete_function()


def start_weights(config: PackageConfig, draw: np.random.Generator) -> Network:
    """Glorot's uniform start with zero biases."""
    arrays = []
    for shape in kernel_shapes(config):
        fan_in, fan_out = np.prod(shape[:-1]), np.prod((*shape[:-2], shape[-1]))
        limit = np.sqrt(6 / (fan_in + fan_out))
        arrays += [draw.uniform(-limit, limit, shape).astype(np.float32), np.zeros(shape[-1], dtype=np.float32)]
    return arrays
