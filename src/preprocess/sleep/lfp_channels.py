"""The channels of a recording one behind the other on disk, so that any stretch of one is one read.

Traces are stored sample by sample with all channels side by side; a spectrogram wants one channel for
all times. A nameless scratch file beside the output holds the transposed samples: memory stays the same
for any length, the source is read once, and the kernel frees the file whatever becomes of the process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.preprocess.sleep.lfp_traces import Block, Traces

_TILE_BYTES = 1 << 17  # transposed at a time: what stays in a second-level cache with its copy


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
        rows, columns = values.shape
        turned = np.empty((columns, rows), dtype=self._dtype)
        tile = max(1, _TILE_BYTES // max(1, columns * self._dtype.itemsize))
        for first in range(0, rows, tile):
            turned[:, first : first + tile] = values[first : first + tile].T
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
