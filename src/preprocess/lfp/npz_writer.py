"""``.npz`` files written piece by piece, deflated by all cores, the same bytes whoever compressed them.

A member's bytes are cut at fixed places; each piece is deflated on its own with ISA-L and ends on a byte
boundary (RFC 1951, an empty stored block), so pieces made anywhere, in any order, are joined by
concatenation. The archive is written front to back, each member's checksum and sizes behind its data;
it is an ordinary one with fixed time stamps that ``numpy.load`` opens.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from isal import isal_zlib
from numpy.typing import ArrayLike, NDArray

from src.storage.forward_file import ForwardFile

_LEVEL = 1  # ISA-L: level 2 and 3 cost more and save nothing on noise-like mantissas
_MEMORY = 9  # its largest buffers: a tenth faster than the default
_LAST_BLOCK = b"\x03\x00"
_LIMIT = 0xFFFFFFFF
_NEEDS_ZIP64 = _LIMIT - (1 << 28)  # leaves room for what deflate may add to incompressible data
_VERSION, _FLAGS, _DEFLATED, _TIME, _DATE = 45, 8, 8, 0, 0x21  # sizes behind the data; 1980-01-01 00:00
_PIECE_BYTES = 1 << 19


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


@dataclass
class _Entry:
    name: bytes
    offset: int
    raw_bytes: int
    zip64: bool
    crc: int = 0
    packed_bytes: int = 0


class NpzWriter:
    """Context manager that writes one ``.npz`` file."""

    def __init__(self, path: Path) -> None:
        self._file, self._entries = ForwardFile(path), list[_Entry]()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._file.__exit__(kind, error, trace)
            return
        with self._file:
            self._write_index()

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
        with self.member(name, array.shape, array.dtype) as member:
            data = np.ascontiguousarray(array).tobytes()
            for start in range(0, len(data), _PIECE_BYTES):
                member.append(deflate(data[start : start + _PIECE_BYTES]))

    @contextmanager
    def member(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[Member]:
        """Open an array to append pieces to, in C order, until it is complete.

        Raises
        ------
        ValueError
            If it is closed before its last value.
        """
        header = _npy_header(shape, dtype)
        raw_bytes = len(header) + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        entry = _Entry(f"{name}.npy".encode("ascii"), self._file.tell(), raw_bytes, raw_bytes > _NEEDS_ZIP64)
        self._file.write(_local_header(entry))
        member = Member(self._file, entry)
        member.append(deflate(header))
        yield member
        member.finish()
        self._entries.append(entry)

    def _write_index(self) -> None:
        start = self._file.tell()
        for entry in self._entries:
            self._file.write(_central_header(entry))
        self._file.write(_end_of_index(len(self._entries), start, self._file.tell() - start))


class Member:
    """An array being written; see :meth:`NpzWriter.member`."""

    def __init__(self, file: ForwardFile, entry: _Entry) -> None:
        self._file, self._entry, self._done = file, entry, 0

    def append(self, piece: Piece) -> None:
        for part in piece.data:
            self._file.write(part)
        self._entry.packed_bytes += sum(map(len, piece.data))
        self._entry.crc = isal_zlib.crc32_combine(self._entry.crc, piece.crc, piece.n_bytes)
        self._done += piece.n_bytes

    def finish(self) -> None:
        if self._done != self._entry.raw_bytes:
            raise ValueError(f"{self._entry.name.decode()}: {self._done} of {self._entry.raw_bytes} bytes were written")
        self._file.write(_LAST_BLOCK)
        self._entry.packed_bytes += len(_LAST_BLOCK)
        self._file.write(_descriptor(self._entry))


def rows_per_piece(row: NDArray) -> int:
    """How many rows like this one make a piece: a power of two, so that pieces tile groups of 64 rows."""
    fit = max(1, _PIECE_BYTES // max(1, row.nbytes))
    return min(64, 1 << (fit.bit_length() - 1))


def _npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    buffer = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()


def _local_header(entry: _Entry) -> bytes:
    """What comes before the data, when neither sizes nor checksum are known."""
    extra = struct.pack("<HHQQ", 1, 16, 0, 0) if entry.zip64 else b""
    sizes = (_LIMIT, _LIMIT) if entry.zip64 else (0, 0)
    numbers = (_VERSION, _FLAGS, _DEFLATED, _TIME, _DATE, 0, *sizes, len(entry.name), len(extra))
    return b"PK\x03\x04" + struct.pack("<HHHHHLLLHH", *numbers) + entry.name + extra


def _descriptor(entry: _Entry) -> bytes:
    form = "<LQQ" if entry.zip64 else "<LLL"
    return b"PK\x07\x08" + struct.pack(form, entry.crc, entry.packed_bytes, entry.raw_bytes)


def _central_header(entry: _Entry) -> bytes:
    packed, raw, offset, wide = entry.packed_bytes, entry.raw_bytes, entry.offset, b""
    if entry.zip64:
        wide, packed, raw = struct.pack("<QQ", raw, packed), _LIMIT, _LIMIT
    if offset >= _LIMIT:
        wide, offset = wide + struct.pack("<Q", offset), _LIMIT
    extra = struct.pack("<HH", 1, len(wide)) + wide if wide else b""
    made_by, mode = 3 << 8 | _VERSION, 0o100644 << 16
    numbers = (made_by, _VERSION, _FLAGS, _DEFLATED, _TIME, _DATE, entry.crc, packed, raw)
    tail = (len(entry.name), len(extra), 0, 0, 0, mode, offset)
    return b"PK\x01\x02" + struct.pack("<HHHHHHLLL", *numbers) + struct.pack("<HHHHHLL", *tail) + entry.name + extra


def _end_of_index(count: int, start: int, size: int) -> bytes:
    ending = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, count, count, size, min(start, _LIMIT), 0)
    if start < _LIMIT:
        return ending
    large = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 3 << 8 | _VERSION, _VERSION, 0, 0, count, count, size, start)
    return large + struct.pack("<4sLQL", b"PK\x06\x07", 0, start + size, 1) + ending
