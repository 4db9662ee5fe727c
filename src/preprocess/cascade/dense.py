"""CASCADE's networks over whole traces at once, in TensorFlow.

CASCADE cuts a window of 64 frames around every frame and runs a convolutional network on each, which
computes almost every product a dozen times. The same weights, run over the trace as one network of
dilated convolutions, give the same numbers: a pooling by two becomes the maximum of neighbours at
stride one, and everything behind it looks at every second (then every fourth) frame. It is exact
because CASCADE's poolings are aligned to the start of the window, not to absolute time.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np

from src.preprocess.cascade.package import Network
from src.signals import BadInput

BLOCK_SAMPLES = 1 << 13
"""Samples that go through a network at once. It bounds the memory."""


def import_tensorflow() -> Any:
    """TensorFlow in full float32 precision, with one thread if it is not running yet.

    It is imported with stderr redirected, because its C++ start-up messages ignore every log setting.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    screen = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            import tensorflow as tf

            with suppress(RuntimeError):  # already running in this process; threads do not change the result
                tf.config.threading.set_intra_op_parallelism_threads(1)
                tf.config.threading.set_inter_op_parallelism_threads(1)
            tf.config.list_physical_devices()
        except ImportError as error:
            hint = "type: pip install -r requirements.lock, or do without networks: engine=oasis cascade_model=tau1.25s"
            raise BadInput("engine", "CASCADE's networks need TensorFlow, which is not installed", hint) from error
        finally:
            os.dup2(screen, 2)
            os.close(screen)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return tf


def ensemble_mean(dff: np.ndarray, networks: Sequence[Network], windowsize: int) -> np.ndarray:
    """Mean of an ensemble's outputs, ``(neuron, time - windowsize + 1)`` float32 by window start.

    ``dff`` is ``(neuron, time)`` float32, finite, at least one window long. A neuron's result does not depend on
    which others are given along.
    """
    tf = import_tensorflow()
    members = [[tf.constant(array) for array in network] for network in networks]
    run = _compiled(tuple(array.shape for array in members[0]), windowsize)
    (neurons, frames), overlap = dff.shape, windowsize - 1
    out = np.empty((neurons, frames - overlap), np.float32)
    # Every block of traces of one length has the same shape, because the last bit of a result may depend on the shape.
    rows = max(1, BLOCK_SAMPLES // frames)
    for row in range(0, neurons, rows):
        for start in range(0, frames - overlap, BLOCK_SAMPLES):
            given = dff[row : row + rows, start : start + BLOCK_SAMPLES + overlap]
            block = tf.constant(np.pad(given, ((0, rows - len(given)), (0, 0))))
            mean = sum(run(block, *arrays).numpy() for arrays in members) / len(members)
            out[row : row + rows, start : start + BLOCK_SAMPLES] = mean[: len(given)]
    return out


@lru_cache(maxsize=4)
def _compiled(shapes: tuple[Any, ...], windowsize: int) -> Any:
    # Weights are arguments and the length is open, so one graph serves every network of a package.
    tf = import_tensorflow()
    second = fourier_convolution if shapes[2][0] > 12 else None  # a kernel of 9 frames gains nothing
    signature = [tf.TensorSpec((None, None), tf.float32), *(tf.TensorSpec(shape, tf.float32) for shape in shapes)]

    @tf.function(autograph=False, input_signature=signature)
    def run(traces: Any, *arrays: Any) -> Any:
        return dense_network(tf, traces, arrays, windowsize, second)

    return run.get_concrete_function()


def fourier_convolution(tf: Any, hidden: Any, kernel: Any) -> Any:
    """``tf.nn.conv1d(hidden, kernel, 1, "VALID")`` by Fourier transforms of pieces of the traces (overlap-save).

    With a kernel of 19 frames it takes a third of the products: in a piece, the sum over the kernel's frames becomes
    one product of channels per frequency. Of ``hop + overlap`` frames that go in, ``hop`` come out. Both transforms are
    products with a matrix of cosines and sines.
    """
    width, inputs, outputs = kernel.shape
    overlap, hop = width - 1, 3 * (width - 1) // 2 + 1
    size, frequencies = hop + overlap, (hop + overlap) // 2 + 1
    angle = 2 * np.pi / size * np.outer(np.arange(frequencies), np.arange(size))
    forth = np.stack([np.cos(angle), -np.sin(angle)], 1).astype(np.float32)  # (frequency, real or imaginary, frame)
    # Of a real signal, all frequencies but 0 and the highest of an even size stand for two.
    weight = np.where(2 * np.arange(frequencies) % size == 0, 1, 2).astype(np.float32) / np.float32(size)
    back = weight[:, None, None] * forth[..., :hop]
    # A correlation is the product with the conjugate: (x + iy)(a - ib) = (xa + yb) + i(ya - xb).
    real, imaginary = tf.unstack(tf.einsum("fpk,kio->pfoi", forth[..., :width], kernel))
    product = tf.concat([tf.concat([real, imaginary], 2), tf.concat([-imaginary, real], 2)], 1)

    traces, frames = tf.shape(hidden)[0], tf.shape(hidden)[1]
    pieces = (frames - overlap + hop - 1) // hop
    padded = tf.pad(hidden, [[0, 0], [0, (pieces + 1) * hop - frames], [0, 0]])
    padded = tf.transpose(tf.reshape(padded, (traces, pieces + 1, hop * inputs)), (2, 0, 1))
    padded = tf.reshape(padded, (hop, inputs, traces, pieces + 1))
    padded = tf.concat([padded[..., :-1], padded[:overlap, ..., 1:]], 0)  # (frame, channel, trace, piece)
    spectrum = tf.matmul(forth.reshape(-1, size), tf.reshape(padded, (size, -1)))
    spectrum = tf.matmul(product, tf.reshape(spectrum, (frequencies, 2 * inputs, -1)))
    pieced = tf.matmul(back.reshape(-1, hop), tf.reshape(spectrum, (2 * frequencies, -1)), transpose_a=True)
    pieced = tf.transpose(tf.reshape(pieced, (hop * outputs, traces, pieces)), (1, 2, 0))
    return tf.reshape(pieced, (traces, pieces * hop, outputs))[:, : frames - overlap]


def dense_network(tf: Any, traces: Any, arrays: Sequence[Any], windowsize: int, second: Any = None) -> Any:
    """One network's output ``(trace, time - windowsize + 1)``, by window start.

    ``traces`` is ``(trace, time)``; ``arrays`` a :data:`~src.preprocess.cascade.package.Network`;
    ``second`` replaces ``tf.nn.conv1d`` in the second layer, which has two thirds of all products.
    """
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = arrays
    windows = tf.shape(traces)[1] - windowsize + 1
    hidden = tf.pad(traces, [[0, 0], [0, 2]])[..., None]  # so that the last window has whole pairs of frames
    hidden = tf.nn.relu(tf.nn.bias_add(tf.nn.conv1d(hidden, w1, 1, "VALID"), b1))
    hidden = second(tf, hidden, w2) if second else tf.nn.conv1d(hidden, w2, 1, "VALID")
    hidden = tf.nn.max_pool1d(tf.nn.relu(tf.nn.bias_add(hidden, b2)), 2, 1, "VALID")
    # A convolution over every second frame is one over the rows of (pair of frames, frame of the pair). TensorFlow
    # has no gradient of a dilated convolution on a CPU without oneDNN.
    pairs = tf.shape(hidden)[1] // 2
    hidden = tf.reshape(hidden[:, : 2 * pairs], (-1, pairs, 2, w3.shape[1]))
    hidden = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(hidden, w3[:, None], 1, "VALID"), b3))
    hidden = tf.nn.max_pool2d(hidden, [2, 1], 1, "VALID")
    flat = tf.nn.relu(tf.nn.bias_add(tf.matmul(tf.reshape(hidden, (-1, w4.shape[0])), w4), b4))
    hidden = tf.reshape(flat, (tf.shape(hidden)[0], -1, w4.shape[1]))
    taps = w5.shape[0] // w4.shape[1]
    steps = tf.matmul(tf.reshape(w5, (taps, -1)), hidden, transpose_b=True)  # (trace, tap, time)
    return tf.add_n([steps[:, tap, 4 * tap : 4 * tap + windows] for tap in range(taps)]) + b5
