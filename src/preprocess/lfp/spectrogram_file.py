"""Spectrogram files of a shank, ``.npz`` or HDF5: written piece by piece by all cores, opened channel by channel.

A member of an ``.npz`` file is cut at fixed places; each piece is deflated on its own with ISA-L and ends on a byte
boundary (RFC 1951, an empty stored block), so that pieces made by any thread are joined by concatenation. Headers and
index are :mod:`zipfile`'s.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from src.preprocess.lfp.encoding import FLOOR
from src.recordings.extracellular.arrays import open_array
from src.signals import BadInput
from src.storage.forward_file import ForwardFile

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
