"""CASCADE's networks over whole traces at once, in TensorFlow.

CASCADE cuts a window of 64 frames around every frame and runs a convolutional network on each, which
computes almost every product a dozen times. The same weights, run over the trace as one network of
dilated convolutions, give the same numbers: a pooling by two becomes the maximum of neighbours at
stride one, and everything behind it looks at every second (then every fourth) frame. It is exact
because CASCADE's poolings are aligned to the start of the window, not to absolute time.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from src.preprocess.calcium.cascade_package import Package, PackageConfig

BLOCK_SAMPLES = 1 << 14
"""Samples that go through the networks at once; bounds the memory, whatever the number of neurons."""


def import_tensorflow(threads: int = 1) -> Any:
    """TensorFlow, quiet, in full float32 precision and with ``threads`` threads if it is not running yet."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
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
    package
        Where the weights are.
    threads
        Threads of TensorFlow, if this is what starts it.
    """

    def __init__(self, package: Package, threads: int = 1) -> None:
        self.package, self.threads = package, threads
        self._weights: dict[int, list[Any]] = {}
        self._run: dict[int, Any] = {}

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
        ``(neuron, time - windowsize + 1)`` float32 expected spikes per frame, by window start.
        """
        weights, run = self._ensemble(level)
        overlap = self.package.config.windowsize - 1
        neurons, frames = dff.shape
        out = np.empty((neurons, frames - overlap), dtype=np.float32)
        rows = max(1, BLOCK_SAMPLES // frames)
        for row in range(0, neurons, rows):
            for start in range(0, frames - overlap, BLOCK_SAMPLES):
                block = dff[row : row + rows, start : start + BLOCK_SAMPLES + overlap]
                out[row : row + rows, start : start + BLOCK_SAMPLES] = run(block[..., None], weights).numpy()
        return out

    def _ensemble(self, level: int) -> tuple[list[Any], Any]:
        tf = import_tensorflow(self.threads)
        if level not in self._weights:
            networks = self.package.networks(level)
            self._weights[level] = [[tf.constant(array) for array in network.arrays()] for network in networks]
        size = len(self._weights[level])
        if size not in self._run:
            self._run[size] = _compile(tf, self.package.config, self._weights[level])
        return self._weights[level], self._run[size]


def _compile(tf: Any, config: PackageConfig, weights: list[Any]) -> Any:
    # Weights are arguments, so that one compiled function serves every noise level.
    signature = [
        tf.TensorSpec((None, None, 1), tf.float32),
        [[tf.TensorSpec(array.shape, tf.float32) for array in member] for member in weights],
    ]

    @tf.function(input_signature=signature)
    def ensemble(traces: Any, members: list[Any]) -> Any:
        outputs = [dense_network(tf, traces, member, config) for member in members]
        return tf.add_n(outputs) / len(outputs)

    return ensemble


def dense_network(tf: Any, traces: Any, weights: list[Any], config: PackageConfig) -> Any:
    """One network over ``(trace, time, 1)``; gives ``(trace, time - windowsize + 1)``."""
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = weights
    hidden = tf.nn.relu(tf.nn.bias_add(tf.nn.conv1d(traces, w1, 1, "VALID"), b1))
    hidden = tf.nn.relu(tf.nn.bias_add(tf.nn.conv1d(hidden, w2, 1, "VALID"), b2))
    hidden = tf.maximum(hidden[:, :-1], hidden[:, 1:])
    hidden = tf.nn.relu(tf.nn.bias_add(tf.nn.conv1d(hidden, w3, 1, "VALID", dilations=2), b3))
    hidden = tf.maximum(hidden[:, :-2], hidden[:, 2:])
    hidden = tf.nn.relu(tf.nn.bias_add(tf.matmul(hidden, w4), b4))
    readout = tf.reshape(w5, (-1, config.dense_expansion, 1))
    summed = tf.nn.bias_add(tf.nn.conv1d(hidden, readout, 1, "VALID", dilations=4), b5)[..., 0]
    # Where the poolings leave frames over at a window's end, the trace's last windows have no right to them.
    return summed[:, : tf.shape(traces)[1] - config.windowsize + 1]
