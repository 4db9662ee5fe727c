"""Compute and write a shank's spectrograms: transforms and compression on all cores, in bounded memory.

Threads suffice: the transform, NumPy's loops and ISA-L release the interpreter lock. What is computed
when, by how many threads and in how much memory does not show in a single byte of the result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from src.preprocess.lfp.artifact import SPECTROGRAMS
from src.preprocess.lfp.bands import BandPowers, BandPowersFile
from src.preprocess.lfp.encoding import Encoding
from src.preprocess.lfp.npz_writer import NpzWriter, deflate, rows_per_piece
from src.preprocess.sleep.spectrogram import SpectrogramPlan
from src.recordings.extracellular.channels import ChannelMajor, channel_major, rows_in_time
from src.recordings.extracellular.traces import Traces
from src.storage.parallel import call, in_order


@dataclass
class Computation:
    """One shank's spectrograms: what goes in, what is wanted, and what was found on the way.

    Attributes
    ----------
    traces, n_times
        The samples, and how many frames they make.
    plan, encoding, bands
        How frames become power, what of it is stored, and the bands to sum (or none).
    bands_file
        Takes the band powers, if there are bands.
    pool, threads
        Who computes.
    advance
        Called after every channel, or with the part of one that is done.
    masked
        Frames of each channel that touch a sample that is not finite.
    """

    traces: Traces
    n_times: int
    plan: SpectrogramPlan
    encoding: Encoding
    bands: BandPowers | None
    bands_file: BandPowersFile | None
    pool: Executor
    threads: int
    advance: Callable[..., None]
    masked: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.masked = np.zeros(self.traces.n_channels, dtype=np.int64)

    def spans(self, step: int) -> list[slice]:
        """The frames, so many at a time."""
        return [slice(first, min(first + step, self.n_times)) for first in range(0, self.n_times, step)]

    def stretch(self, span: slice) -> slice:
        """The samples of some frames."""
        return self.plan.stretch(span.start, span.stop)

    def keep(self, channel: int, first: int, sums: NDArray[np.float32] | None) -> None:
        """Take a channel's band powers from its frame ``first`` on."""
        if self.bands_file is not None and sums is not None:
            self.bands_file.put(channel, first, sums)


def frames_per_task(plan: SpectrogramPlan) -> int:
    """Frames that are computed in one go: a power of two, at most 2 MiB of samples and 8 MiB of power."""
    fit = min((1 << 19) // plan.hop, (1 << 21) // plan.n_freqs, 1 << 11)
    return 1 << max(4, fit.bit_length() - 1)


def frames_per_chunk(plan: SpectrogramPlan, n_channels: int) -> int:
    """Frames in a chunk of HDF5, of one channel: those of a task, fewer where many channels pass by together."""
    fit = max(1 << 7, (1 << 23) // (plan.hop * n_channels))
    return min(frames_per_task(plan), 1 << (fit.bit_length() - 1))


def write_npz(path: Path, work: Computation, axes: Mapping[str, Any], memory_bytes: int) -> None:
    """``spectrograms`` (channel, frequency, time) after the axes, in one ``.npz`` file.

    Time is the last axis of the file, so all frames of some rows have to be there before the first of
    them is written. Two slabs of rows take ``memory_bytes``; where a channel does not fit into one, its
    transform is repeated for every slab.
    """
    row = np.empty(work.n_times, dtype=work.encoding.dtype)
    step, n_rows = rows_per_piece(row), work.encoding.n_rows
    height = min(n_rows, max(1, memory_bytes // 2 // row.nbytes // step) * step)
    slabs = [
        (channel, slice(first, min(first + height, n_rows)))
        for channel in range(work.traces.n_channels)
        for first in range(0, n_rows, height)
    ]
    buffers = [np.empty((height, work.n_times), dtype=work.encoding.dtype) for _ in range(min(2, len(slabs)))]
    spans, sums = work.spans(frames_per_task(work.plan)), dict[int, NDArray[np.float32]]()

    def fill(index: int) -> list[Future[int]]:
        channel, rows = slabs[index]
        out = buffers[index % 2][: rows.stop - rows.start]
        if rows.start == 0 and work.bands is not None:
            sums[channel] = np.empty((len(work.bands.names) + 1, work.n_times), dtype=np.float32)
        into = sums.get(channel) if rows.start == 0 else None
        return [work.pool.submit(_fill_span, work, channels, channel, rows, span, out[:, span], into) for span in spans]

    with channel_major(work.traces, path.parent, work.pool) as channels, NpzWriter(path) as file:
        for name, values in axes.items():
            file.add(name, values)
        with file.member(SPECTROGRAMS, (work.traces.n_channels, n_rows, work.n_times), work.encoding.dtype) as member:
            filling = fill(0)
            for index, (channel, rows) in enumerate(slabs):
                work.masked[channel] += sum(task.result() for task in filling)
                slab = buffers[index % 2][: rows.stop - rows.start]
                starts = range(0, len(slab), step)
                packing = deque(work.pool.submit(deflate, slab[start : start + step].data) for start in starts)
                # The next slab is computed while this one is written.
                filling = fill(index + 1) if index + 1 < len(slabs) else []
                while packing:
                    member.append(packing.popleft().result())
                if rows.stop == n_rows:
                    work.keep(channel, 0, sums.pop(channel, None))
                    work.advance()


def _fill_span(
    work: Computation,
    channels: ChannelMajor,
    channel: int,
    rows: slice,
    span: slice,
    out: NDArray,
    sums: NDArray[np.float32] | None,
) -> int:
    """Compute some rows of some frames; returns how many frames are masked, counted in a channel's first rows."""
    bins = work.encoding.bins(rows)
    needed = bins if work.bands is None or sums is None else _union(bins, work.bands.bins)
    samples = channels.read(channel, work.stretch(span))
    if work.encoding.plain and needed == bins:
        power = work.plan.power(samples, bins=bins, out=out)
    else:
        power = work.plan.power(samples, bins=needed)
        out[:] = work.encoding.encode(power, needed, rows)
    if work.bands is not None and sums is not None:
        sums[:, span] = work.bands.sum(power)
    return int(np.isnan(power[0]).sum()) if rows.start == 0 else 0


class _Chunk(NamedTuple):
    channel: int
    first: int
    data: bytes
    sums: NDArray[np.float32] | None
    masked: int


def write_hdf5(path: Path, work: Computation, axes: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
    """``spectrograms`` (channel, time, frequency) and the axes as datasets of one HDF5 file.

    A chunk is one channel for some frames; all channels of these frames come before the next ones, as they
    do in the traces. The chunks pass the library's own shuffle and deflate filters, applied here by all
    cores, so any HDF5 reader opens them without a plugin.
    """
    traces, width = work.traces, work.encoding.n_rows
    depth = min(frames_per_chunk(work.plan, traces.n_channels), work.n_times)
    spans = work.spans(depth)
    stretches = [work.stretch(span) for span in spans]
    with rows_in_time(traces, path.parent, work.pool, stretches) as passing, h5py.File(path, "w") as file:
        for name, values in axes.items():
            array = np.asarray(values)
            # HDF5 knows no fixed-width Unicode; its strings of any length are Python's.
            file.create_dataset(name, data=array.astype(object) if array.dtype.kind == "U" else array)
        data = file.create_dataset(
            SPECTROGRAMS,
            shape=(traces.n_channels, work.n_times, width),
            dtype=work.encoding.dtype,
            chunks=(1, depth, width),
            shuffle=True,
            compression="gzip",
            compression_opts=1,
        )
        data.attrs.update(attributes)
        calls = (
            partial(_pack_span, work, row, channel, span, depth)
            for span, row in zip(spans, passing, strict=True)
            for channel in range(traces.n_channels)
        )
        for chunk in in_order(call, calls, work.pool, 3 * work.threads):
            data.id.write_direct_chunk((chunk.channel, chunk.first, 0), chunk.data)
            work.masked[chunk.channel] += chunk.masked
            work.keep(chunk.channel, chunk.first, chunk.sums)
            if chunk.channel == traces.n_channels - 1:
                work.advance(traces.n_channels / len(spans))


def _pack_span(work: Computation, row: Callable[[int], NDArray], channel: int, span: slice, depth: int) -> _Chunk:
    rows = slice(0, work.encoding.n_rows)
    bins = work.encoding.bins(rows)
    bins = bins if work.bands is None else _union(bins, work.bands.bins)
    power = work.plan.power(row(channel), bins=bins)
    values = np.zeros((depth, rows.stop), dtype=work.encoding.dtype)
    values[: span.stop - span.start] = work.encoding.encode(power, bins, rows).T
    planes = np.ascontiguousarray(values.reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T)
    sums = None if work.bands is None else work.bands.sum(power)
    return _Chunk(channel, span.start, _deflate(planes), sums, int(np.isnan(power[0]).sum()))


def _deflate(planes: NDArray[np.uint8]) -> bytes:
    """Each plane of bytes with a code of its own: noise in the low ones does not spoil that of the high ones."""
    packer = isal_zlib.compressobj(1)
    parts = [part for plane in planes for part in (packer.compress(plane.data), packer.flush(isal_zlib.Z_SYNC_FLUSH))]
    return b"".join([*parts, packer.flush()])


def _union(one: slice, other: slice) -> slice:
    return slice(min(one.start, other.start), max(one.stop, other.stop))
