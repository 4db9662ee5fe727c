"""CASCADE's networks over whole traces at once, in torch.

CASCADE cuts a window of 64 frames around every frame and runs a convolutional network on each, which
computes almost every product a dozen times. The same weights, run over the trace as one network of
dilated convolutions, give the same numbers: a pooling by two becomes the maximum of neighbours at
stride one, and everything behind it looks at every second (then every fourth) frame. It is exact
because CASCADE's poolings are aligned to the start of the window, not to absolute time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv1d, max_pool1d, pad, relu

from src.preprocess.cascade.package import Network

BLOCK_SAMPLES = 1 << 12
"""Samples that go through a network at once. It bounds the memory."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside the block torch works with one thread, so that cores change no bit; ``workers`` share the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
@torch.inference_mode()
def ensemble_mean(dff: np.ndarray, networks: Sequence[Network], windowsize: int) -> np.ndarray:
    """Mean of an ensemble's outputs, ``(neuron, time - windowsize + 1)`` float32 by window start.

    ``dff`` is ``(neuron, time)`` float32, finite, at least one window long. A neuron's result does not depend on
    which others are given along.
    """
    members = [[torch.from_numpy(array) for array in network.arrays()] for network in networks]
    (neurons, frames), overlap = dff.shape, windowsize - 1
    out = np.empty((neurons, frames - overlap), np.float32)
    # Every block of traces of one length has the same shape: torch's choice of an algorithm depends on the shape, and
    # the last bit of a result on the algorithm.
    rows = max(1, BLOCK_SAMPLES // frames)
    for row in range(0, neurons, rows):
        for start in range(0, frames - overlap, BLOCK_SAMPLES):
            given = torch.from_numpy(dff[row : row + rows, start : start + BLOCK_SAMPLES + overlap])
            block = pad(given, (0, 0, 0, rows - len(given)))
            mean = sum(dense_network(block, arrays, windowsize) for arrays in members) / len(members)
            out[row : row + rows, start : start + BLOCK_SAMPLES] = mean[: len(given)]
    return out


def dense_network(traces: Tensor, arrays: Sequence[Tensor], windowsize: int) -> Tensor:
    """One network's output ``(trace, time - windowsize + 1)``, by window start.

    ``traces`` is ``(trace, time)``; ``arrays`` are those of :meth:`~src.preprocess.cascade.package.Network.arrays`.
    """
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = arrays
    hidden = relu(_convolve(traces[:, None], w1, b1))
    hidden = relu(_convolve(hidden, w2, b2))
    hidden = relu(_convolve(max_pool1d(hidden, 2, 1), w3, b3, dilation=2))
    hidden = torch.maximum(hidden[..., :-2], hidden[..., 2:])
    hidden = relu(_convolve(hidden, w4[None], b4))
    steps = w5.reshape(-1, w4.shape[1], 1)
    # Where a pooling leaves out the last frame of a window, there are more outputs than windows.
    return _convolve(hidden, steps, b5, dilation=4)[:, 0, : traces.shape[1] - windowsize + 1]


def _convolve(signal: Tensor, kernel: Tensor, bias: Tensor, dilation: int = 1) -> Tensor:
    """Convolve ``(trace, channel, time)`` with a kernel in Keras's order, ``(frame, in, out)``."""
    return conv1d(signal, kernel.permute(2, 1, 0), bias, dilation=dilation)
