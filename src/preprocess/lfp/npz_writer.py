"""``.npz`` files written piece by piece, deflated by all cores, the same bytes whoever compressed them.

A member's bytes are cut at fixed places; each piece is deflated on its own with ISA-L and ends on a byte
boundary (RFC 1951, an empty stored block), so pieces made anywhere, in any order, are joined by
concatenation. Headers and index are :mod:`zipfile`'s; it writes front to back, with sizes behind the data.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from isal import isal_zlib
from numpy.typing import ArrayLike, NDArray

from src.storage.forward_file import ForwardFile

_LEVEL = 1  # ISA-L: level 2 and 3 cost more and save nothing on noise-like mantissas
_MEMORY = 9  # its largest buffers: a tenth faster than the default
_LAST_BLOCK = b"\x03\x00"
_PIECE_BYTES = 1 << 19
_SIZES_BEHIND = 8  # flag of a member whose checksum and sizes follow its data
_LARGE = (1 << 32) - (1 << 28)  # bytes; leaves room for what deflate may add to incompressible data


class Piece(NamedTuple):
    """A deflated run of a member's bytes, in parts so as not to copy them together."""

    data: tuple[bytes, ...]
    crc: int
    n_bytes: int


def deflate(values: bytes | memoryview) -> Piece:
    """Compress one piece; releases the interpreter lock."""
    view = memoryview(values).cast("B")
    packer = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -15, _MEMORY)
    data = (packer.compress(view), packer.flush(isal_zlib.Z_SYNC_FLUSH))
    return Piece(data, isal_zlib.crc32(view), view.nbytes)


class NpzWriter:
    """Writes one ``.npz`` file; made by :func:`npz_writer`."""

    def __init__(self, file: ForwardFile, archive: zipfile.ZipFile) -> None:
        self._file, self._archive = file, archive

    def add(self, name: str, values: ArrayLike) -> None:
        """Write a whole array.

        Raises
        ------
        TypeError
            If it would have to be pickled.
        """
        array = np.asarray(values)
        if array.dtype.hasobject:
            raise TypeError(f"{name} holds Python objects")
        with self.member(name, array.shape, array.dtype) as append:
            data = np.ascontiguousarray(array).tobytes()
            for start in range(0, len(data), _PIECE_BYTES):
                append(deflate(data[start : start + _PIECE_BYTES]))

    @contextmanager
    def member(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[Callable[[Piece], None]]:
        """Open an array to append pieces to, in C order, until it is complete.

        Raises
        ------
        ValueError
            If it is closed before its last value.
        """
        header = io.BytesIO()
        description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, description)
        wanted = header.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
        info.compress_type, info.flag_bits = zipfile.ZIP_DEFLATED, _SIZES_BEHIND
        info.header_offset, info.file_size, info.compress_size, info.CRC = self._file.tell(), 0, 0, 0
        self._file.write(info.FileHeader(zip64=wanted > _LARGE))

        def append(piece: Piece) -> None:
            for part in piece.data:
                self._file.write(part)
            info.compress_size += sum(map(len, piece.data))
            info.CRC = isal_zlib.crc32_combine(info.CRC, piece.crc, piece.n_bytes)
            info.file_size += piece.n_bytes

        append(deflate(header.getvalue()))
        yield append
        if info.file_size != wanted:
            raise ValueError(f"{info.filename}: {info.file_size} of {wanted} bytes were written")
        self._file.write(_LAST_BLOCK)
        info.compress_size += len(_LAST_BLOCK)
        sizes = "<4sLQQ" if wanted > _LARGE else "<4sLLL"
        self._file.write(struct.pack(sizes, b"PK\x07\x08", info.CRC, info.compress_size, info.file_size))
        self._archive.filelist.append(info)
        self._archive.NameToInfo[info.filename] = info
        self._archive.start_dir = self._file.tell()


@contextmanager
def npz_writer(path: Path) -> Iterator[NpzWriter]:
    """Write an ``.npz`` file past the page cache."""
    with ForwardFile(path) as file:
        index = _Index(file)
        archive = zipfile.ZipFile(cast(Any, index), "w")
        try:
            yield NpzWriter(file, archive)
            archive.close()
        finally:
            index.open = False


class _Index:
    """What zipfile writes its index to: a file that goes forward only, until it is given up."""

    def __init__(self, file: ForwardFile) -> None:
        self._file, self.open = file, True
        self.tell = file.tell

    def write(self, data: bytes) -> int:
        if self.open:
            self._file.write(data)
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""


def rows_per_piece(row: NDArray) -> int:
    """How many rows like this one make a piece: a power of two, so that pieces tile groups of 64 rows."""
    fit = max(1, _PIECE_BYTES // max(1, row.nbytes))
    return min(64, 1 << (fit.bit_length() - 1))
