"""The channels of a recording as rows, though traces are stored sample by sample with all channels side by side.

:func:`channel_major` gives any stretch of any channel: a nameless scratch file beside the output holds the
transposed samples, so memory stays the same for any length, the source is read once, and the kernel frees
the file whatever becomes of the process. Who goes through the recording in time needs no such file:
:func:`rows_in_time`.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.recordings.extracellular.traces import Block, Traces

_TILE_BYTES = 1 << 17
_WINDOW_BYTES = 1 << 27


class ChannelMajor:
    """Random access to the channels of a recording; made by :func:`channel_major`."""

    def __init__(self, descriptor: int, traces: Traces, columns: Sequence[int]) -> None:
        self._descriptor = descriptor
        self._dtype, self._n_samples = traces.dtype, traces.n_samples
        self._places = {column: place for place, column in enumerate(columns)}

    def read(self, channel: int, stretch: slice) -> NDArray:
        """Samples of one channel, counted as in the traces; safe from any thread."""
        values = np.empty(stretch.stop - stretch.start, dtype=self._dtype)
        target, offset = values.data.cast("B"), self._offset(channel, stretch.start)
        while len(target):
            count = os.preadv(self._descriptor, [target], offset)
            if not count:
                raise IndexError(f"samples {stretch} lie beyond the recording")
            target, offset = target[count:], offset + count
        return values

    def write(self, block: Block) -> None:
        """Put a ``(sample, channel)`` block in its place."""
        sample, channel, values = block
        wanted = [c for c in range(channel, channel + values.shape[1]) if c in self._places]
        if len(wanted) < values.shape[1]:
            values = values[:, [c - channel for c in wanted]]
        turned = np.empty(values.shape[::-1], dtype=self._dtype)
        _transpose(values, turned)
        for column, row in zip(wanted, turned, strict=True):
            source, offset = row.data.cast("B"), self._offset(column, sample)
            while len(source):
                count = os.pwrite(self._descriptor, source, offset)
                source, offset = source[count:], offset + count

    def _offset(self, channel: int, sample: int) -> int:
        return (self._places[channel] * self._n_samples + sample) * self._dtype.itemsize


@contextmanager
def channel_major(
    traces: Traces, folder: Path, pool: Executor, columns: Sequence[int] | None = None
) -> Iterator[ChannelMajor]:
    """Read the traces once, transposing as they come, and give access by channel.

    Parameters
    ----------
    folder
        Where the scratch file is made; it takes as much room as the traces uncompressed.
    pool
        Transposes one block while the next one is read.
    columns
        Which channels will be asked for; ``None`` for all.
    """
    with tempfile.TemporaryFile(dir=folder) as scratch:
        channels = ChannelMajor(scratch.fileno(), traces, range(traces.n_channels) if columns is None else columns)
        pending = None
        for block in traces.blocks():
            if pending is not None:
                pending.result()
            pending = pool.submit(channels.write, block)
        if pending is not None:
            pending.result()
        yield channels


def windows(traces: Traces, stretches: Sequence[slice]) -> Iterator[NDArray]:
    """``(channel, sample)`` of one stretch of the recording after the other, read once and without a scratch file.

    Parameters
    ----------
    traces
        With blocks in time.
    stretches
        In rising order; they may overlap and need not reach the end, which is read all the same: only there
        does a damaged file show.
    """
    blocks, first, block = traces.blocks(), 0, np.empty((0, traces.n_channels), dtype=traces.dtype)
    start, window = 0, np.empty((traces.n_channels, 0), dtype=traces.dtype)
    for stretch in stretches:
        shared = window[:, max(0, stretch.start - start) :]
        start, filled = stretch.start, shared.shape[1]
        window = np.empty((traces.n_channels, stretch.stop - start), dtype=traces.dtype)
        window[:, :filled] = shared
        while start + filled < stretch.stop:
            while first + len(block) <= start + filled:
                first, _, block = next(blocks)
            part = block[start + filled - first : stretch.stop - first]
            _transpose(part, window[:, filled : filled + len(part)])
            filled += len(part)
        yield window
    deque(blocks, maxlen=0)


@contextmanager
def rows_in_time(
    traces: Traces, folder: Path, pool: Executor, stretches: Sequence[slice]
) -> Iterator[Iterator[Callable[[int], NDArray]]]:
    """For one stretch of the recording after the other, what returns a channel's samples to any thread.

    The recording passes by where its blocks are in time and a stretch of all channels is not large; else
    :func:`channel_major` turns it round first.
    """
    longest = max(stretch.stop - stretch.start for stretch in stretches)
    if traces.in_time and longest * traces.n_channels * traces.dtype.itemsize <= _WINDOW_BYTES:
        yield (window.__getitem__ for window in windows(traces, stretches))
        return
    with channel_major(traces, folder, pool) as channels:
        yield (partial(channels.read, stretch=stretch) for stretch in stretches)


def _transpose(values: NDArray, out: NDArray) -> None:
    """What stays in a second-level cache with its copy at a time."""
    rows, columns = values.shape
    tile = max(1, _TILE_BYTES // max(1, columns * values.itemsize))
    for row in range(0, rows, tile):
        out[:, row : row + tile] = values[row : row + tile].T
