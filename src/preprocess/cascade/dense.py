"""CASCADE's networks over whole traces at once, in TensorFlow.

CASCADE cuts a window of 64 frames around every frame and runs a convolutional network on each, which
computes almost every product a dozen times. The same weights, run over the trace as one network of
dilated convolutions, give the same numbers: a pooling by two becomes the maximum of neighbours at
stride one, and everything behind it looks at every second (then every fourth) frame. It is exact
because CASCADE's poolings are aligned to the start of the window, not to absolute time.

Further rearrangements change how well the arithmetic fills a processor, not what is computed. Even and
odd frames travel as one pair of channels through the first two convolutions, so that poolings are
maxima of neighbours in memory. The second convolution, two thirds of all products, is computed for two
pairs of frames at once by the scheme of Winograd's F(2, 2): three products instead of four, by way of
differences of its input and sums of its weights.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from src.preprocess.cascade.package import Network, PackageConfig
from src.signals import BadInput

BLOCK_SAMPLES = 1 << 13
"""Samples that go through a network at once. It bounds the memory.

A multiple of four, so that blocks begin on the same phase."""
SPARE_FRAMES = 6
"""Zeros behind every trace, so that the last window has whole pairs of pairs of frames; cut off again."""


def import_tensorflow(threads: int = 1) -> Any:
    """TensorFlow in full float32 precision, with ``threads`` threads if it is not running yet.

    It is imported with stderr redirected, because its C++ start-up messages ignore every log setting.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    screen = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            try:
                import tensorflow as tf
            except ImportError as error:
                hint = "type: pip install -r requirements.lock, or give engine=oasis, which needs no networks"
                raise BadInput("engine", "CASCADE's networks need TensorFlow, which is not installed", hint) from error
            with suppress(RuntimeError):  # already running in this process; threads do not change the result
                tf.config.threading.set_intra_op_parallelism_threads(threads)
                tf.config.threading.set_inter_op_parallelism_threads(1)
            tf.config.list_physical_devices()
        finally:
            os.dup2(screen, 2)
            os.close(screen)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return tf


class DenseEnsembles:
    """The ensembles of a package; ``read`` gives that of a noise level when a neuron first needs it.

    ``threads`` are those of TensorFlow, if this is what starts it.
    """

    def __init__(self, config: PackageConfig, read: Callable[[int], Sequence[Network]], threads: int = 1) -> None:
        self.config, self.read, self.threads = config, read, threads
        self._networks: dict[int, list[Network]] = {}
        self._compiled: dict[tuple[int, int], Any] = {}

    def expected(self, dff: np.ndarray, level: int) -> np.ndarray:
        """Mean of an ensemble's outputs, ``(neuron, time - windowsize + 1)`` float32 by window start.

        ``dff`` is ``(neuron, time)`` float32, finite, at least one window long. A neuron's result does not depend on
        which others are given along.
        """
        tf = import_tensorflow(self.threads)
        weights, overlap = self._stacked(tf, level), self.config.windowsize - 1
        neurons, frames = dff.shape
        out = np.empty((neurons, frames - overlap), dtype=np.float32)
        rows = max(1, BLOCK_SAMPLES // frames)
        for row in range(0, neurons, rows):
            for start in range(0, frames - overlap, BLOCK_SAMPLES):
                block = dff[row : row + rows, start : start + BLOCK_SAMPLES + overlap]
                padded = np.zeros((len(block), 1, block.shape[1] + SPARE_FRAMES, 1), dtype=np.float32)
                padded[:, 0, : block.shape[1], 0] = block
                run = self._ensemble(tf, block.shape[1], weights)
                out[row : row + rows, start : start + BLOCK_SAMPLES] = run(tf.constant(padded), *weights).numpy()
        return out

    def _stacked(self, tf: Any, level: int) -> list[Any]:
        if level not in self._networks:
            self._networks[level] = list(self.read(level))
        # Made anew for every call: paired, the weights of all levels would take more memory than a block's work.
        members = [paired_weights(tf, network.arrays()) for network in self._networks[level]]
        return [tf.stack(arrays) for arrays in zip(*members, strict=True)]

    def _ensemble(self, tf: Any, frames: int, weights: list[Any]) -> Any:
        # Compiled once per length of trace: weights are arguments, so one graph serves every noise level.
        key = (frames, weights[0].shape[0])
        if key not in self._compiled:
            signature = [tf.TensorSpec((None, 1, frames + SPARE_FRAMES, 1), tf.float32)]
            signature += [tf.TensorSpec(array.shape, tf.float32) for array in weights]
            windows = frames - self.config.windowsize + 1
            ensemble = tf.function(_ensemble_mean(tf, windows), input_signature=signature, autograph=False)
            self._compiled[key] = ensemble.get_concrete_function()
        return self._compiled[key]


def _ensemble_mean(tf: Any, windows: int) -> Any:
    def mean(traces: Any, *stacked: Any) -> Any:
        members = stacked[0].shape[0]

        # A loop inside the graph: five calls from outside would cost more than a short trace's arithmetic.
        def add_member(member: Any, total: Any) -> tuple[Any, Any]:
            return member + 1, total + dense_network(tf, traces, [weights[member] for weights in stacked], windows)

        start = (tf.constant(0), tf.zeros((tf.shape(traces)[0], windows)))
        total = tf.while_loop(lambda member, _: member < members, add_member, start, parallel_iterations=1)[1]
        return total / members

    return mean


def paired_weights(tf: Any, arrays: Sequence[Any]) -> list[Any]:
    """The ten arrays of :meth:`Network.arrays` as :func:`dense_network` takes them; gradients pass through.

    The first two layers give two neighbouring frames at a time, kernels are ``(1, frame, in, out)`` (the
    third layer's ``(frame, 1, in, out)``), and the readout is ``(unit, step)``. Of the second layer's kernel
    come its even pairs of frames, the sum of even and odd ones, and the odd ones, negative.
    """
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = (tf.convert_to_tensor(array) for array in arrays)
    first, second = _two_frames(tf, w1), _two_frames(tf, w2)
    second = tf.concat([second, tf.zeros_like(second[: -second.shape[0] % 4])], 0)
    second = tf.reshape(second, (1, second.shape[0] // 2, 2 * w2.shape[1], 2 * w2.shape[2]))
    even, odd = second[:, ::2], second[:, 1::2]
    steps = tf.transpose(tf.reshape(w5, (-1, w4.shape[1])))
    biases = tf.tile(b1, [2]), tf.tile(b2, [2])
    return [first[None], biases[0], even, even + odd, -odd, biases[1], w3[:, None], b3, w4, b4, steps, b5]


def _two_frames(tf: Any, kernel: Any) -> Any:
    # (width, in, out) to (width + 1, in, 2 out): the outputs at one frame and at the next.
    none = tf.zeros_like(kernel[:1])
    return tf.concat([tf.concat([kernel, none], 0), tf.concat([none, kernel], 0)], 2)


def dense_network(tf: Any, traces: Any, weights: list[Any], windows: int) -> Any:
    """One network's output ``(trace, window)``, by window start.

    ``traces`` is ``(trace, 1, time, 1)`` float32, with ``SPARE_FRAMES`` zeros behind; ``weights`` are those of
    :func:`paired_weights`.
    """
    w1, b1, even, both, odd, b2, w3, b3, w4, b4, w5, b5 = weights
    pairs = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(traces, w1, [1, 2], "VALID"), b1))
    hidden = tf.nn.max_pool2d(_second_layer(tf, pairs, (even, both, odd), b2), [1, 2], 1, "SAME")
    # A convolution over every second frame is one over the rows of (pair of frames, frame of the pair). TensorFlow
    # has no gradient of a dilated convolution on a CPU without oneDNN.
    hidden = tf.reshape(hidden, (-1, hidden.shape[2] // 2, 2, hidden.shape[3]))
    hidden = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(hidden, w3, 1, "VALID"), b3))
    # Two frames as one step of twice the channels: the neighbour in memory is then the frame after the next.
    hidden = tf.reshape(hidden, (-1, 1, hidden.shape[1], 2 * hidden.shape[3]))
    hidden = tf.nn.max_pool2d(hidden, [1, 2], 1, "VALID")
    flat = tf.nn.relu(tf.nn.bias_add(tf.matmul(tf.reshape(hidden, (-1, w4.shape[0])), w4), b4))
    taps = w5.shape[1]
    steps = tf.reshape(tf.matmul(flat, w5), (-1, 2 * hidden.shape[2], taps))
    return tf.add_n([steps[:, 4 * tap : 4 * tap + windows, tap] for tap in range(taps)]) + b5


def _second_layer(tf: Any, pairs: Any, kernels: tuple[Any, Any, Any], bias: Any) -> Any:
    # Winograd's F(2, 2): (x0 - x1) g0, x1 (g0 + g1) and (x1 - x2) g1 give x0 g0 + x1 g1 and x1 g0 + x2 g1.
    even, both, odd = kernels
    reach = 2 * even.shape[1] - 1
    count = (pairs.shape[2] - reach) // 2
    span = 2 * (count - 1) + reach
    differences = pairs[:, :, :-1] - pairs[:, :, 1:]

    def convolve(inputs: Any, start: int, kernel: Any) -> Any:
        return tf.nn.conv2d(inputs[:, :, start : start + span : 2], kernel, 1, "VALID")

    common = tf.nn.bias_add(convolve(pairs, 1, both), bias)
    first = tf.nn.relu(convolve(differences, 0, even) + common)
    second = tf.nn.relu(convolve(differences, 1, odd) + common)
    # (trace, 1, 4 frames, channel of each) is (trace, 1, frame, channel) in memory.
    return tf.reshape(tf.concat([first, second], axis=3), (-1, 1, 4 * count, bias.shape[0] // 2))
