"""CASCADE's networks over whole traces at once, in TensorFlow.

CASCADE cuts a window of 64 frames around every frame and runs a convolutional network on each, which
computes almost every product a dozen times. The same weights, run over the trace as one network of
dilated convolutions, give the same numbers: a pooling by two becomes the maximum of neighbours at
stride one, and everything behind it looks at every second (then every fourth) frame. It is exact
because CASCADE's poolings are aligned to the start of the window, not to absolute time.

Two further rearrangements change no product, only how well they fill a processor's vector units. Even
and odd frames travel as one pair of channels through the first two convolutions; behind the first
pooling they are two traces of their own, on which the third convolution needs no dilation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from src.preprocess.calcium.cascade_package import Network, PackageConfig

BLOCK_SAMPLES = 1 << 14
"""Samples that go through a network at once (even, so that blocks begin on the same phase). It bounds the memory."""
SPARE_FRAMES = 4
"""Zeros behind every trace, so that both phases have a value for the last window; cut off again."""


def import_tensorflow(threads: int = 1) -> Any:
    """TensorFlow, quiet, in full float32 precision and with ``threads`` threads if it is not running yet."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        pass  # already running in this process; the number of threads does not change the result
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return tf


class DenseEnsembles:
    """The ensembles of a package; weights are read when a neuron first needs them.

    Parameters
    ----------
    config
        The architecture.
    read
        Gives the ensemble of a noise level: :meth:`Package.networks`.
    threads
        Threads of TensorFlow, if this is what starts it.
    """

    def __init__(self, config: PackageConfig, read: Callable[[int], Sequence[Network]], threads: int = 1) -> None:
        self.config, self.read, self.threads = config, read, threads
        self._networks: dict[int, list[Network]] = {}
        self._compiled: dict[tuple[int, int], Any] = {}

    def expected(self, dff: np.ndarray, level: int) -> np.ndarray:
        """Mean of the ensemble's outputs for every window of every trace.

        Parameters
        ----------
        dff
            ``(neuron, time)`` float32, finite, at least one window long.
        level
            One of the package's noise levels.

        Returns
        -------
        ``(neuron, time - windowsize + 1)`` float32 expected spikes per frame, by window start. It
        does not depend on which other traces are given along.
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
        members = [paired_weights(network, self.config) for network in self._networks[level]]
        return [tf.constant(np.stack(arrays)) for arrays in zip(*members, strict=True)]

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


def paired_weights(network: Network, config: PackageConfig) -> list[np.ndarray]:
    """The network's arrays as :func:`dense_network` takes them.

    The first two layers give two neighbouring frames at a time, kernels are ``(1, frame, in, out)``, and
    the readout is ``(unit, step)``.
    """
    (w1, b1), (w2, b2), (w3, b3) = network.convolutions
    first, second = _two_frames(w1), _two_frames(w2)
    if len(second) % 2:
        second = np.concatenate([second, np.zeros_like(second[:1])])
    second = second.reshape(len(second) // 2, 2 * w2.shape[1], 2 * w2.shape[2])
    readout, bias = network.readout
    steps = np.ascontiguousarray(readout.reshape(-1, config.dense_expansion).T)
    return [first[None], np.tile(b1, 2), second[None], np.tile(b2, 2), w3[None], b3, *network.dense, steps, bias]


def _two_frames(kernel: np.ndarray) -> np.ndarray:
    # (width, in, out) to (width + 1, in, 2 out): the outputs at one frame and at the next.
    none = np.zeros_like(kernel[:1])
    return np.concatenate([np.concatenate([kernel, none]), np.concatenate([none, kernel])], axis=2)


def dense_network(tf: Any, traces: Any, weights: list[Any], windows: int) -> Any:
    """One network over traces.

    Parameters
    ----------
    traces
        ``(trace, 1, time, 1)`` float32, with ``SPARE_FRAMES`` zeros behind the last frame.
    weights
        Those of :func:`paired_weights`.
    windows
        How many windows a trace has.

    Returns
    -------
    ``(trace, window)``: the network's output for every window, by window start.
    """
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = weights
    pairs = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(traces, w1, [1, 2], "VALID"), b1))
    pairs = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(pairs, w2, 1, "VALID"), b2))
    even, odd = tf.split(pairs, 2, axis=-1)
    phases, count, taps = [], (windows + 1) // 2, w5.shape[1]
    for pooled in (tf.maximum(even, odd), tf.maximum(odd[:, :, :-1], even[:, :, 1:])):
        hidden = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(pooled, w3, 1, "VALID"), b3))
        hidden = tf.maximum(hidden[:, :, :-1], hidden[:, :, 1:])
        flat = tf.nn.relu(tf.nn.bias_add(tf.matmul(tf.reshape(hidden, (-1, hidden.shape[3])), w4), b4))
        steps = tf.reshape(tf.matmul(flat, w5), (-1, hidden.shape[2], taps))
        phases.append(tf.add_n([steps[:, 2 * tap : 2 * tap + count, tap] for tap in range(taps)]))
    return tf.reshape(tf.stack(phases, axis=2), (-1, 2 * count))[:, :windows] + b5
