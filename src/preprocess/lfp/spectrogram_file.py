"""Spectrogram files of a shank: what is kept of a power spectrogram, how it is written and how it is opened again.

Rows are power or decibels, bands are summed. All cores write, piece by piece; readers open channel by channel. A
member of an ``.npz`` file is cut at fixed places; each piece is deflated on its own with ISA-L and ends on a byte
boundary (RFC 1951, an empty stored block), so that pieces made by any thread are joined by concatenation. Headers and
index are :mod:`zipfile`'s.
"""

import io
import json
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
import scipy.sparse
from isal import isal_zlib
from numpy.typing import NDArray

from src.preprocess.spectrogram import SpectrogramPlan
from src.recordings.extracellular.arrays import open_array
from src.signals import THETA_HZ, WIDE_HZ, BadInput
from src.storage.forward_file import ForwardFile

FLOOR, SILENT_DB = 1e-30, -299.0  # power that a flat channel is stored as (-300 dB), and the level it is known by
_DECIBEL = np.float32(10 / np.log(10))


class Encoding:
    """From ``(frequency, time)`` power to the rows that are stored.

    Attributes
    ----------
    freqs, n_rows
        ``(row,)`` Hz, what each stored row stands for; how many rows there are.
    dtype, decibel
        How values are stored.
    n_bins
        Bins from 0 Hz on that the rows are made of.
    """

    def __init__(self, plan: SpectrogramPlan, params: Mapping[str, Any]) -> None:
        self.dtype, self.decibel = np.dtype(params["dtype"]), bool(params["decibel"])
        fmax_hz = params["fmax_hz"]
        if fmax_hz is not None and not fmax_hz >= plan.freqs[1]:
            raise BadInput("fmax_hz", f"{fmax_hz} Hz keeps no frequency above 0 Hz", "give Hz, or null for all")
        linear = plan.freqs if fmax_hz is None else plan.freqs[plan.freqs <= fmax_hz * (1 + 1e-12)]
        self.n_bins, self.freqs = len(linear), linear
        self._weights: scipy.sparse.csr_array | None = None
        if params["log_bins"] is not None:
            self.freqs, self._weights = _logarithmic(linear, int(params["log_bins"]))
        self.n_rows = len(self.freqs)

    def encode(self, power: NDArray[np.float32]) -> NDArray:
        """``(row, time)`` from the power of at least the first ``n_bins`` bins."""
        rows = power[: self.n_bins]
        if self._weights is not None:
            rows = (self._weights @ rows).astype(np.float32, copy=False)
        if self.decibel:
            rows = np.log(np.maximum(rows, np.float32(FLOOR)))
            rows *= _DECIBEL
        return rows.astype(self.dtype, copy=False)


def _logarithmic(linear: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], scipy.sparse.csr_array]:
    """Bins evenly spaced in log frequency, from the first bin above 0 Hz to the last.

    A row is the mean of the bins between the geometric midpoints to its neighbours; where none lies
    there, it is interpolated between the two bins around it.
    """
    if count < 2 or len(linear) < 3:
        raise BadInput("log_bins", f"{count} of {len(linear)} bins", "give at least 2, of at least 3 linear ones")
    centres = np.geomspace(linear[1], linear[-1], count)
    inner = np.sqrt(centres[1:] * centres[:-1])
    edges = np.searchsorted(linear, np.concatenate([centres[:1], inner, centres[-1:] * (1 + 1e-12)]))
    weights = scipy.sparse.lil_array((count, len(linear)), dtype=np.float32)
    for row, (first, last) in enumerate(pairwise(edges)):
        if last > first:
            weights[row, first:last] = 1 / (last - first)
            continue
        upper = int(np.clip(np.searchsorted(linear, centres[row]), 1, len(linear) - 1))
        share = (centres[row] - linear[upper - 1]) / (linear[upper] - linear[upper - 1])
        weights[row, upper - 1], weights[row, upper] = 1 - share, share
    return centres, weights.tocsr()


class BandPowers:
    """Which bins belong to which band.

    Attributes
    ----------
    names, edges_hz
        Bands that lie wholly below half the sampling rate, and their edges ``(band, 2)``.
    left_out
        Names of those that do not.
    n_bins
        Bins from 0 Hz on that the bands are made of.
    """

    def __init__(self, plan: SpectrogramPlan, bands: Mapping[str, Sequence[float]]) -> None:
        if plan.scaling != "density":
            raise BadInput("band_powers", "bands are integrals of a density", "set scaling=density")
        kept = {name: edges for name, edges in bands.items() if edges[1] <= plan.fs_hz / 2}
        self.names = tuple(kept)
        self.left_out = tuple(name for name in bands if name not in kept)
        self.edges_hz = np.array(list(kept.values()), dtype=np.float64).reshape(-1, 2)
        self._bins = [_bins(plan, *edges) for edges in (*kept.values(), THETA_HZ, WIDE_HZ)]
        self.n_bins = max(bins.stop for bins in self._bins)
        self._spacing = np.float32(plan.spacing_hz)

    def sum(self, power: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(band + 1, time)``: band powers in units², then the theta ratio, of power from bin 0 on.

        The ratio of a frame without any power between 2 and 15 Hz is NaN.
        """
        sums = np.stack([power[bins].sum(axis=0) * self._spacing for bins in self._bins])
        with np.errstate(invalid="ignore", divide="ignore"):
            sums[-2] /= sums[-1]
        return sums[:-1]


def _bins(plan: SpectrogramPlan, low_hz: float, high_hz: float) -> slice:
    """Bins with their centre in ``[low, high)``: neighbouring bands share none."""
    first, last = np.searchsorted(plan.freqs, [low_hz, high_hz])
    if first == last and high_hz <= plan.freqs[-1]:
        problem = f"no bin between {low_hz:g} and {high_hz:g} Hz (bins are {plan.spacing_hz:.3g} Hz apart)"
        raise BadInput("bands", problem, "lengthen the window or nfft, or widen the band")
    return slice(int(first), int(last))


SPECTROGRAMS = "spectrograms"
SUFFIX = {"npz": ".npz", "hdf5": ".h5"}
_LEVEL, _MEMORY = 1, 9  # ISA-L: levels 2 and 3 cost more and save nothing on noise; the largest buffers are fastest
_LAST_BLOCK = b"\x03\x00"
_PIECE_BYTES = 1 << 19
_SIZES_BEHIND = 8  # flag of a member whose checksum and sizes follow its data
_LARGE = (1 << 32) - (1 << 28)  # bytes; the rest is for what deflate may add to incompressible data


@dataclass(frozen=True)
class Spectrograms:
    """A spectrogram file whose values stay on disk.

    Attributes
    ----------
    channel_ids
        ``(channel,)`` as text.
    freqs, times
        Hz, and seconds from the first sample to the centre of the frame.
    params
        ``spec_params``: how it was computed, in which units, at which resolution.
    """

    path: Path
    channel_ids: tuple[str, ...]
    freqs: NDArray[np.float64]
    times: NDArray[np.float64]
    params: dict[str, Any]

    @property
    def decibel(self) -> bool:
        return self.params["quantity"] == "decibel"

    @property
    def duration_s(self) -> float:
        return self.params["n_samples"] / self.params["fs_hz"]

    def places(self, channels: Sequence[str] | None) -> list[int]:
        """Places of the named channels on the channel axis, of all without names.

        Raises
        ------
        BadInput
            If one is not there.
        """
        if channels is None:
            return list(range(len(self.channel_ids)))
        if missing := [name for name in channels if str(name) not in self.channel_ids]:
            known = ", ".join(self.channel_ids[:8]) + (", …" if len(self.channel_ids) > 8 else "")
            raise BadInput(self.path, f"has no channel {', '.join(map(str, missing))}", f"its channels are {known}")
        return [self.channel_ids.index(str(name)) for name in channels]

    def channels(self, places: Iterable[int]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Place and ``(frequency, time)`` values of some channels as stored, in the order of the file.

        Raises
        ------
        BadInput
            If the file is damaged.
        """
        with open_array(self.path, SPECTROGRAMS, ()).opener(False)() as read:
            for place in sorted(set(places)):
                values = read(place, place + 1)[0].astype(np.float32, copy=False)
                yield place, values if self.path.suffix == ".npz" else values.T

    def to_decibel(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Stored values in dB."""
        return values if self.decibel else (10 * np.log10(np.maximum(values, np.float32(FLOOR)))).astype(np.float32)


def open_spectrograms(path: Path) -> Spectrograms:
    """Open a ``<session>_sh<k>_spectrograms`` file, or the one in a shank's folder.

    Raises
    ------
    BadInput
        If it is not such a file.
    """
    path = Path(path)
    if path.is_dir():
        files = [file for suffix in SUFFIX.values() for file in sorted(path.glob(f"*_{SPECTROGRAMS}{suffix}"))]
        if not files:
            raise BadInput(path, "holds no spectrograms", "give the folder of a shank, or its file")
        path = files[0]
    fields = open_array(path, SPECTROGRAMS, ()).fields
    try:
        ids = [i.decode() if isinstance(i, bytes) else str(i) for i in fields["channel_ids"].tolist()]
        freqs, times = (fields[name].astype(np.float64) for name in ("freqs", "times"))
        return Spectrograms(path, tuple(ids), freqs, times, json.loads(str(fields["spec_params"])))
    except (KeyError, AttributeError, ValueError) as error:
        raise BadInput(path, "is not a spectrogram file", "give one that preprocess=spectrogram wrote") from error


Piece = tuple[bytes, int, int]
"""A deflated run of a member's bytes, their checksum, and how many they were."""


def deflate(values: bytes | memoryview) -> Piece:
    """Compress one piece; releases the interpreter lock."""
    view = memoryview(values).cast("B")
    packer = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -15, _MEMORY)
    data = packer.compress(view) + packer.flush(isal_zlib.Z_SYNC_FLUSH)
    return data, isal_zlib.crc32(view), view.nbytes


def rows_per_piece(row_bytes: int) -> int:
    """How many rows make a piece: a power of two, so that pieces tile groups of 64 rows."""
    return min(64, 1 << (max(1, _PIECE_BYTES // max(1, row_bytes)).bit_length() - 1))


def write_npz(
    path: Path, axes: Mapping[str, Any], shape: tuple[int, ...], dtype: np.dtype, pieces: Iterable[Piece]
) -> None:
    """``spectrograms``, given in pieces in C order, after the axes, in one ``.npz`` file past the page cache.

    Raises
    ------
    ValueError
        If the pieces are not as long as the shape says.
    """
    arrays = {name: np.asarray(values) for name, values in axes.items()}
    with ForwardFile(path) as file:
        members = [
            _member(file, name, array.shape, array.dtype, [deflate(array.tobytes())]) for name, array in arrays.items()
        ]
        members.append(_member(file, SPECTROGRAMS, shape, dtype, pieces))
        with zipfile.ZipFile(cast(Any, file), "w") as archive:  # it writes the index of what is there
            archive.filelist.extend(members)


def _member(
    file: ForwardFile, name: str, shape: tuple[int, ...], dtype: np.dtype, pieces: Iterable[Piece]
) -> zipfile.ZipInfo:
    """Write an array as the next member of an archive."""
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    wanted = header.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
    info.compress_type, info.flag_bits = zipfile.ZIP_DEFLATED, _SIZES_BEHIND
    info.header_offset, info.file_size, info.compress_size, info.CRC = file.tell(), 0, 0, 0
    file.write(info.FileHeader(zip64=wanted > _LARGE))
    for data, crc, n_bytes in chain([deflate(header.getvalue())], pieces):
        file.write(data)
        info.compress_size += len(data)
        info.CRC = isal_zlib.crc32_combine(info.CRC, crc, n_bytes)
        info.file_size += n_bytes
    if info.file_size != wanted:
        raise ValueError(f"{info.filename}: {info.file_size} of {wanted} bytes were written")
    file.write(_LAST_BLOCK)
    info.compress_size += len(_LAST_BLOCK)
    sizes = "<4sLQQ" if wanted > _LARGE else "<4sLLL"
    file.write(struct.pack(sizes, b"PK\x07\x08", info.CRC, info.compress_size, info.file_size))
    return info


def filtered(values: NDArray) -> bytes:
    """A chunk as HDF5's shuffle and deflate filters make it; releases the interpreter lock.

    Each plane of bytes has a code of its own: noise in the low bytes does not spoil that of the high ones.
    """
    planes = np.ascontiguousarray(values.reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T)
    packer, parts = isal_zlib.compressobj(_LEVEL), list[bytes]()
    for plane in planes:
        parts += [packer.compress(plane.data), packer.flush(isal_zlib.Z_SYNC_FLUSH)]
    return b"".join([*parts, packer.flush()])


def write_hdf5(
    path: Path,
    axes: Mapping[str, Any],
    shape: tuple[int, int, int],
    dtype: np.dtype,
    depth: int,
    chunks: Iterable[tuple[int, int, bytes]],
    attributes: Mapping[str, Any],
) -> None:
    """``spectrograms`` (channel, time, frequency) and the axes as datasets; any HDF5 reader opens them.

    ``chunks`` are channel, first frame and :func:`filtered` values of every ``depth`` frames.
    """
    with h5py.File(path, "w") as file:
        for name, values in axes.items():
            array = np.asarray(values)
            # HDF5 knows no fixed-width Unicode; its strings of any length are Python's.
            file.create_dataset(name, data=array.astype(object) if array.dtype.kind == "U" else array)
        kept = {"chunks": (1, depth, shape[2]), "shuffle": True, "compression": "gzip", "compression_opts": 1}
        data = file.create_dataset(SPECTROGRAMS, shape, dtype, **kept)
        data.attrs.update(attributes)
        for channel, first, chunk in chunks:
            data.id.write_direct_chunk((channel, first, 0), chunk)
