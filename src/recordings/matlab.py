"""MATLAB 5 files, looked through before SciPy parses them.

SciPy's compiled parser does not check what a file states: a wrong type or count in a damaged file ends the
process without a message. Here the tags of the wanted variables are walked first (MathWorks, "MAT-File
Format", Level 5), reading no sample.
"""

import io
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import scipy.io

from src.signals import BadInput
from src.storage.foreign_files import explained

_HEADER = 128
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_NUMBER_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
_TEXT_BYTES = _NUMBER_BYTES | {16: 1, 17: 2, 18: 4}
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE, _FUNCTION, _OPAQUE = 1, 2, 3, 4, 5, 16, 17
_DEEPEST, _MOST_VALUES = 40, 1 << 40
_CHUNK = 1 << 20


def read_fields(
    path: Path, fields: Sequence[str], struct: str = "", hint: str = "export the recording again"
) -> dict[str, Any]:
    """Those of ``fields`` that a MATLAB file of any version has, as arrays in MATLAB's orientation.

    With ``struct`` they are members of it, or else some variables; without, all of them have to be variables. What is
    not there, and a file that cannot be read, raise :class:`BadInput`.
    """
    path = Path(path)
    with explained(path, "cannot be read as a MATLAB file", "copy it again"):
        if h5py.is_hdf5(path):  # since version 7.3
            with h5py.File(path, "r") as file:
                names, inside = list(file), isinstance(file.get(struct or "/"), h5py.Group)
                place = file[struct or "/"] if inside else file
                found = {name: place[name][()].T for name in fields if isinstance(place.get(name), h5py.Dataset)}
        else:
            found = {n: v for n, v in load_mat(path, [struct, *fields]).items() if not n.startswith("__")}
            members = found.pop(struct, np.empty(0))
            if inside := bool(members.dtype.names and members.size):
                found = {name: members.flat[0][name] for name in fields if name in members.dtype.names}
            names = [name for name, _, _ in scipy.io.whosmat(path)]
    absent = [name for name in fields if name not in found]
    if absent and not (struct and (found or inside)):
        problem = f"has no variable '{absent[0]}' (it holds {', '.join(sorted(names)[:12]) or 'nothing'})"
        raise BadInput(path, f"has no struct named {struct} and{problem[3:]}" if struct else problem, hint)
    return found


def load_mat(path: Path, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The wanted variables, or all, of a MATLAB 4 or 5 file, as :func:`scipy.io.loadmat` gives them.

    A damaged file raises ``ValueError``; SciPy's own errors come through as they are.
    """
    with Path(path).open("rb") as handle:
        head = handle.read(_HEADER)
        if len(head) < _HEADER:
            raise ValueError("it is cut off")
        order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
        if order is not None:  # a MATLAB 4 file has other bytes there, and a parser in Python
            _walk_file(handle, order, names)
        elif head[:4].count(0) == 0:
            raise ValueError("its byte order is unknown")
        handle.seek(0)
        contents: dict[str, Any] = scipy.io.loadmat(handle, variable_names=names and list(names))
    return contents


def _walk_file(handle: BinaryIO, order: str, names: Sequence[str] | None) -> None:
    end = os.fstat(handle.fileno()).st_size
    while (place := handle.tell()) < end:
        kind, size = struct.unpack(order + "II", _exactly(handle, 8))
        if kind not in (_MATRIX, _COMPRESSED) or place + 8 + size > end:
            raise ValueError(f"it has a wrong variable at byte {place}")
        if kind == _COMPRESSED:
            inflated = io.BufferedReader(_Inflated(handle, size), _CHUNK)
            kind, size_inside = struct.unpack(order + "II", _exactly(inflated, 8))
            if kind != _MATRIX:
                raise ValueError(f"it has a wrong variable at byte {place}")
            _Walk(inflated, order).matrix(size_inside, names)
        else:
            _Walk(handle, order).matrix(size, names)
        handle.seek(place + 8 + size)


class _Walk:
    """The tags of one variable, in order."""

    def __init__(self, source: Any, order: str) -> None:
        self.source, self.order = source, order

    def matrix(self, size: int, names: Sequence[str] | None = None, depth: int = 0) -> None:
        """Walk the ``size`` bytes of an array; if it is not called one of ``names``, its head alone."""
        if size == 0 and depth:
            return  # an empty array has no more than its tag
        if depth > _DEEPEST:
            raise ValueError("its arrays are nested too deep")
        flags = self._values(_UINT32, 2)
        kind, is_complex = flags[0] & 0xFF, bool(flags[0] & 0x800)
        if kind == _OPAQUE:
            if depth or names is None:
                raise ValueError("it holds objects of a MATLAB class")
            return
        shape = self._values(_INT32)
        count = math.prod(shape)
        if len(shape) < 2 or min(shape) < 0 or count > _MOST_VALUES:
            raise ValueError(f"it has an array of shape {shape}")
        name = self._bytes(_INT8).decode("latin-1")
        if depth == 0 and names is not None and name not in names:
            return
        if kind == _CELL:
            self._matrices(count, depth)
        elif kind in (_STRUCT, _OBJECT):
            if kind == _OBJECT:
                self._bytes(_INT8)
            (length,) = self._values(_INT32, 1)
            fields = self._bytes(_INT8)
            if length <= 0 or len(fields) % length:
                raise ValueError("it has a struct with wrong field names")
            self._matrices(count * (len(fields) // length), depth)
        elif kind == _CHAR:
            self._payload(_TEXT_BYTES, None)
        elif kind == _SPARSE:
            self._sparse(shape, is_complex)
        elif kind == _FUNCTION:
            self._matrices(1, depth)
        elif 6 <= kind <= 15:
            for _ in range(1 + is_complex):
                self._payload(_NUMBER_BYTES, count)
        else:
            raise ValueError(f"it has an array of the unknown class {kind}")

    def _matrices(self, count: int, depth: int) -> None:
        for _ in range(count):
            kind, size, small = self._tag()
            if kind != _MATRIX or small is not None:
                raise ValueError("it has something else where an array should be")
            self.matrix(size, None, depth + 1)

    def _sparse(self, shape: tuple[int, ...], is_complex: bool) -> None:
        rows, columns = self._values(_INT32), self._values(_INT32)
        ascending = columns[:1] == (0,) and all(np.diff(np.array(columns, np.int64)) >= 0)
        if len(columns) != shape[1] + 1 or not ascending or columns[-1] > len(rows):
            raise ValueError("it has a sparse array with wrong columns")
        if any(not 0 <= row < shape[0] for row in rows[: columns[-1]]):
            raise ValueError("it has a sparse array with wrong rows")
        for _ in range(1 + is_complex):
            self._payload(_NUMBER_BYTES, None)

    def _tag(self) -> tuple[int, int, bytes | None]:
        """Type, size, and the content where it is so small that it stands in the tag."""
        raw = _exactly(self.source, 8)
        first, size = struct.unpack(self.order + "II", raw)
        if first >> 16:
            if first >> 16 > 4:
                raise ValueError("it has a small element of more than four bytes")
            return first & 0xFFFF, first >> 16, raw[4 : 4 + (first >> 16)]
        return first, size, None

    def _bytes(self, wanted: int) -> bytes:
        kind, size, content = self._tag()
        if kind != wanted or size > _CHUNK * 64:
            raise ValueError(f"it has a value of type {kind} where {wanted} belongs")
        if content is None:
            content = _exactly(self.source, size)
            self._skip(-size % 8)
        return content

    def _values(self, wanted: int, count: int | None = None) -> tuple[int, ...]:
        content = self._bytes(wanted)
        if len(content) % 4 or (count is not None and len(content) != 4 * count):
            raise ValueError("it has a list of a wrong length")
        return struct.unpack(f"{self.order}{len(content) // 4}{'I' if wanted == _UINT32 else 'i'}", content)

    def _payload(self, widths: dict[int, int], count: int | None) -> None:
        kind, size, content = self._tag()
        if kind not in widths or size % widths[kind] or (count is not None and size != count * widths[kind]):
            raise ValueError(f"it has {size} bytes of type {kind} for an array of {count} values")
        if content is None:
            self._skip(size + -size % 8)

    def _skip(self, size: int) -> None:
        if self.source.seekable():
            self.source.seek(size, os.SEEK_CUR)
            return
        while size > 0 and (found := len(self.source.read(min(size, _CHUNK)))):
            size -= found


class _Inflated(io.RawIOBase):
    """A compressed variable as a stream of which only the piece under way is in memory."""

    def __init__(self, handle: BinaryIO, size: int) -> None:
        self.handle, self.left, self.inflate = handle, size, zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        found = b""
        while not found and not self.inflate.eof:
            compressed = self.inflate.unconsumed_tail or self.handle.read(min(self.left, _CHUNK))
            if not compressed:
                break
            if not self.inflate.unconsumed_tail:
                self.left -= len(compressed)
            found = self.inflate.decompress(compressed, len(buffer))
        buffer[: len(found)] = found
        return len(found)


def _exactly(source: Any, size: int) -> bytes:
    content: bytes = source.read(size)
    if len(content) < size:
        raise ValueError("it is cut off")
    return content
