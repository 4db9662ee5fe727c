"""The channels of a recording as rows, though its samples are stored with all channels side by side."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.recordings.extracellular.recording import ExtracellularRecording

_TILE_BYTES = 1 << 17

ReadRow = Callable[[int, slice], NDArray]
"""Samples of one channel of the recording; may be called from any thread."""


@contextmanager
def channel_rows(
    recording: ExtracellularRecording, folder: Path, pool: Executor, channels: Sequence[int] | None = None
) -> Iterator[ReadRow]:
    """Read a recording once, transposing as it passes, and give access to any stretch of any channel.

    The transposed samples are in a nameless scratch file, so memory is the same for any length.

    Parameters
    ----------
    folder
        Where the scratch file is made; it takes as much room as the samples.
    pool
        Transposes one block while the next one is read.
    channels
        Places of those that will be asked for; ``None`` for all.
    """
    kept = range(recording.n_channels) if channels is None else sorted(set(channels))
    chosen = recording if channels is None else recording.select(kept)
    row_of = {channel: row for row, channel in enumerate(kept)}
    dtype, length = recording.block_dtype, recording.n_samples
    with tempfile.TemporaryFile(dir=folder) as scratch:
        descriptor = scratch.fileno()

        def write(first: int, block: NDArray) -> None:
            turned = np.empty(block.shape[::-1], dtype)
            tile = max(1, _TILE_BYTES // (block.shape[1] * dtype.itemsize))  # stays in a second-level cache
            for start in range(0, len(block), tile):
                turned[:, start : start + tile] = block[start : start + tile].T
            for row, values in enumerate(turned):
                source, offset = values.data.cast("B"), (row * length + first) * dtype.itemsize
                while len(source):
                    count = os.pwrite(descriptor, source, offset)
                    source, offset = source[count:], offset + count

        def read(channel: int, stretch: slice) -> NDArray:
            values = np.empty(stretch.stop - stretch.start, dtype)
            target, offset = values.data.cast("B"), (row_of[channel] * length + stretch.start) * dtype.itemsize
            while len(target):
                count = os.preadv(descriptor, [target], offset)
                if not count:
                    raise IndexError(f"samples {stretch} lie beyond the recording")
                target, offset = target[count:], offset + count
            return values

        first, pending = 0, None
        for block in chosen.blocks():
            if pending is not None:
                pending.result()
            pending = pool.submit(write, first, block)
            first += len(block)
        if pending is not None:
            pending.result()
        yield read
