"""LFP traces of one shank, read front to back in blocks: never pickled, never the whole recording in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from src.recordings.extracellular.npy_stream import (
    NpyStream,
    damaged,
    npz_names,
    open_npy,
    open_npz_member,
    read_npz_member,
)
from src.signals import BadInput

REQUIRED = ("traces", "sampling_rate", "channel_ids")
COORDINATES = ("channel_locations", "xcoord", "ycoord", "depth_order")
UPSTREAM = (
    "traces extracted by the original pipeline were band-passed 1-200 Hz after a common median reference: "
    "power below 1 Hz is attenuated, and waves that all channels of the shank share are reduced"
)
OPTIONAL = ("time_range", "units", "n_channels", "n_timepoints", "shank", "session_name", *COORDINATES)
BLOCK_BYTES = 1 << 24

Block = tuple[int, int, NDArray]
"""First sample, first channel, and ``(sample, channel)`` values."""


@dataclass(frozen=True)
class Traces:
    """What a trace file says of itself, and a way to read it.

    Attributes
    ----------
    path
        The file.
    n_samples, n_channels, dtype
        Shape and (native) type of the traces.
    fs_hz
        Sampling rate.
    channel_ids
        ``(channel,)`` integers or strings, in the order of the columns.
    blocks
        Starts reading: yields every sample of every channel once.
    in_time
        Whether blocks have all channels and follow each other in time.
    start_s
        First entry of ``time_range``, ``None`` where the file does not state it.
    units
        Unit of the samples as stated, or ``"unknown"``.
    coordinates
        Those of ``COORDINATES`` that the file has.
    warnings
        What in the file contradicts itself without being in the way.
    upstream
        What happened to the signal before, as far as is known.
    """

    path: Path
    n_samples: int
    n_channels: int
    dtype: np.dtype
    fs_hz: float
    channel_ids: NDArray
    blocks: Callable[[], Iterator[Block]]
    in_time: bool = True
    start_s: float | None = None
    units: str = "unknown"
    coordinates: dict[str, NDArray] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    upstream: str = UPSTREAM

    @property
    def nbytes(self) -> int:
        return self.n_samples * self.n_channels * self.dtype.itemsize


def open_traces(path: Path, fs_hz: float | None = None, shank: int = 0) -> Traces:
    """Read everything about a trace file but the samples.

    Parameters
    ----------
    path
        ``.npz`` or HDF5 with ``traces`` (n_samples, n_channels), ``sampling_rate``, ``channel_ids`` and
        perhaps ``time_range``, ``units`` and coordinates; a bare ``.npy`` of traces; a SpikeGadgets ``.rec``.
    fs_hz
        Sampling rate of an ``.npy`` file, which cannot state it, and the one a ``.rec`` file is brought down
        to; elsewhere it has to agree.
    shank
        Which shank of a ``.rec`` file.

    Raises
    ------
    BadInput
        If the file is damaged, pickled, incomplete or contradicts itself.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind == ".rec":
        return _raw(path, shank, fs_hz)
    if kind == ".npz":
        _require(path, npz_names(path))
        known = [name for name in npz_names(path) if name in REQUIRED[1:] + OPTIONAL]
        fields: dict[str, Any] = {name: read_npz_member(path, name) for name in known}
        stream = open_npz_member(path, "traces")
    elif kind == ".npy":
        stream = open_npy(path)
        if fs_hz is None:
            raise BadInput(path, "an .npy file states no sampling rate", "give sampling_rate_hz=<Hz>")
        columns = stream.shape[1] if len(stream.shape) == 2 else 1
        fields = {"sampling_rate": fs_hz, "channel_ids": np.arange(columns)}
    else:
        shape, dtype, fields, in_time = _hdf5_fields(path)
        return _checked(path, shape, dtype, fields, fs_hz, lambda: _hdf5_blocks(path), in_time)
    return _checked(path, stream.shape, stream.dtype, fields, fs_hz, lambda: _stream_blocks(stream), not stream.fortran)


def _raw(path: Path, shank: int, fs_hz: float | None) -> Traces:
    from src.recordings.extracellular import spikegadgets as lfp_spikegadgets

    raw = lfp_spikegadgets.RawShank(path, shank, fs_hz)
    return Traces(
        path,
        *raw.shape,
        raw.dtype,
        raw.fs_hz,
        raw.channel_ids,
        raw.blocks,
        units=raw.units,
        upstream=lfp_spikegadgets.UPSTREAM,
    )


def _checked(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype,
    fields: Mapping[str, Any],
    fs_hz: float | None,
    blocks: Callable[[], Iterator[Block]],
    in_time: bool,
) -> Traces:
    if dtype.kind not in "fiu":
        raise BadInput(path, f"traces are of type {dtype}", "save them as real numbers")
    if len(shape) not in (1, 2) or 0 in shape:
        raise BadInput(path, f"traces have shape {shape}", "save them as (n_samples, n_channels)")
    n_samples, n_channels = shape if len(shape) == 2 else (*shape, 1)
    ids = _channel_ids(path, fields["channel_ids"])
    if len(ids) != n_channels:
        if len(ids) == n_samples:
            problem = f"traces of shape {shape} have time along the second axis ({len(ids)} channel_ids)"
            raise BadInput(path, problem, "save them as (n_samples, n_channels): traces.T")
        raise BadInput(path, f"{len(ids)} channel_ids for {n_channels} channels", "give one id per column of traces")
    rate = _rate(path, fields["sampling_rate"])
    if fs_hz is not None and abs(rate - fs_hz) > 1e-6 * rate:
        problem = f"states a sampling rate of {rate:g} Hz, sampling_rate_hz is {fs_hz:g}"
        raise BadInput(path, problem, "leave sampling_rate_hz out, or mend the file")
    return Traces(
        path=path,
        n_samples=n_samples,
        n_channels=n_channels,
        dtype=dtype.newbyteorder("="),
        fs_hz=rate,
        channel_ids=ids,
        blocks=blocks,
        in_time=in_time,
        start_s=_start(path, fields.get("time_range")),
        units=str(np.asarray(fields.get("units", "unknown"))),
        coordinates={name: np.asarray(fields[name]) for name in COORDINATES if name in fields},
        warnings=tuple(_contradictions(fields, n_samples, n_channels, rate)),
    )


def _require(path: Path, names: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise BadInput(path, f"has no {', '.join(missing)}", f"it has {', '.join(sorted(names)) or 'nothing'}")


def _channel_ids(path: Path, value: Any) -> NDArray:
    ids = np.atleast_1d(np.asarray(value))
    if ids.dtype.kind == "S":
        ids = np.char.decode(ids, "utf-8")
    if ids.dtype.kind == "f" and np.array_equal(ids, np.round(ids)):
        ids = ids.astype(np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise BadInput(path, f"channel_ids are {ids.dtype} of shape {ids.shape}", "give one whole number or name each")
    if len(np.unique(ids)) != len(ids):
        values, counts = np.unique(ids, return_counts=True)
        twice = ", ".join(map(str, values[counts > 1][:5]))
        raise BadInput(path, f"channel_ids name {twice} more than once", "give every channel its own id")
    return ids


def _rate(path: Path, value: Any) -> float:
    rate = np.asarray(value)
    if rate.size != 1 or rate.dtype.kind not in "fiu" or not np.isfinite(rate).all() or rate.item() <= 0:
        shown = rate.item() if rate.size == 1 else f"of shape {rate.shape}"
        raise BadInput(path, f"sampling_rate is {shown}", "give one positive number of Hz")
    return float(rate.item())


def _start(path: Path, value: Any) -> float | None:
    if value is None:
        return None
    span = np.atleast_1d(np.asarray(value))
    if span.dtype.kind not in "fiu" or span.ndim != 1 or not np.isfinite(span[:1]).all():
        raise BadInput(path, "time_range does not start with a number", "give (start, end) in seconds")
    return float(span[0])


def _contradictions(fields: Mapping[str, Any], n_samples: int, n_channels: int, rate: float) -> Iterator[str]:
    for name, found in (("n_timepoints", n_samples), ("n_channels", n_channels)):
        stated = np.asarray(fields.get(name, found))
        if stated.size != 1 or stated.item() != found:
            yield f"{name} states {stated}, traces have {found}"
    span = np.atleast_1d(np.asarray(fields.get("time_range", 0.0)))
    if span.size == 2 and abs((span[1] - span[0]) - n_samples / rate) > max(1.0, 2 / rate):
        yield f"time_range spans {span[1] - span[0]:.3f} s, traces {n_samples / rate:.3f} s"


def _stream_blocks(stream: NpyStream) -> Iterator[Block]:
    n_samples, n_channels = stream.shape if len(stream.shape) == 2 else (*stream.shape, 1)
    if stream.fortran:
        rows = min(n_samples, max(1, BLOCK_BYTES // stream.dtype.itemsize))
        first = 0
        for values in stream.chunks(rows):
            yield from _columns(values, first, n_samples)
            first += len(values)
        return
    rows = max(1, BLOCK_BYTES // (n_channels * stream.dtype.itemsize))
    for index, values in enumerate(stream.chunks(rows * n_channels)):
        yield index * rows, 0, values.reshape(-1, n_channels)


def _columns(values: NDArray, first: int, n_samples: int) -> Iterator[Block]:
    """Cut a run of column-major values where one channel ends and the next begins."""
    while len(values):
        channel, sample = divmod(first, n_samples)
        part, values = values[: n_samples - sample], values[n_samples - sample :]
        yield sample, channel, part[:, None]
        first += len(part)


def _hdf5_fields(path: Path) -> tuple[tuple[int, ...], np.dtype, dict[str, Any], bool]:
    try:
        with h5py.File(path, "r") as file:
            _require(path, [*file, *file.attrs])
            if not isinstance(file["traces"], h5py.Dataset):
                raise BadInput(path, "traces is not a dataset", "save it as (n_samples, n_channels) numbers")
            known = [name for name in REQUIRED[1:] + OPTIONAL if name in file or name in file.attrs]
            fields = {name: _hdf5_value(file, name) for name in known}
            traces = file["traces"]
            in_time = traces.ndim != 2 or 0 in traces.shape or _hdf5_block_shape(traces)[1] >= traces.shape[1]
            return traces.shape, traces.dtype, fields, in_time
    except BadInput:
        raise
    except Exception as error:  # h5py fails on spoiled files in a dozen ways
        raise damaged(path, (str(error) or type(error).__name__).splitlines()[0]) from error


def _hdf5_value(file: h5py.File, name: str) -> Any:
    if name not in file:
        return file.attrs[name]
    node = file[name]
    return np.asarray(node.asstr()[()], dtype=str) if h5py.check_string_dtype(node.dtype) else node[()]


def _hdf5_blocks(path: Path) -> Iterator[Block]:
    try:
        with h5py.File(path, "r") as file:
            traces = file["traces"]
            if traces.ndim == 1:
                for first in range(0, len(traces), BLOCK_BYTES // 8):
                    yield (
                        first,
                        0,
                        traces[first : first + BLOCK_BYTES // 8].astype(_native(traces), copy=False)[:, None],
                    )
                return
            rows, columns = _hdf5_block_shape(traces)
            for channel in range(0, traces.shape[1], columns):
                for first in range(0, traces.shape[0], rows):
                    values = traces[first : first + rows, channel : channel + columns]
                    yield first, channel, values.astype(_native(traces), copy=False)
    except BadInput:
        raise
    except Exception as error:  # h5py fails on spoiled files in a dozen ways
        raise damaged(path, (str(error) or type(error).__name__).splitlines()[0]) from error


def _native(traces: h5py.Dataset) -> np.dtype:
    return traces.dtype.newbyteorder("=")


def _hdf5_block_shape(traces: h5py.Dataset) -> tuple[int, int]:
    """Whole chunks, so that none is inflated twice: all channels where they fit, fewer where they do not."""
    deep, wide = traces.chunks or (1, traces.shape[1])
    deep, columns = min(deep, traces.shape[0]), traces.shape[1]
    size = traces.dtype.itemsize
    if deep * columns * size > 8 * BLOCK_BYTES:
        columns = max(wide, BLOCK_BYTES // (deep * size) // wide * wide)
    rows = max(1, BLOCK_BYTES // (columns * size) // deep) * deep
    return rows, columns
