"""Arrays in ``.npy`` and ``.npz`` files, read front to back without holding more than a block.

NumPy can map an ``.npy`` file but has to inflate a member of an ``.npz`` as a whole. Here both are
streams, stored members at the speed of the disk and deflated ones at that of ISA-L; a member's checksum
is verified as it goes by. Nothing is ever unpickled.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from src.signals import BadInput

_INFLATE_BYTES = 1 << 20


class _Bytes(Protocol):
    def read(self, size: int, /) -> bytes: ...


_Opener = Callable[[], AbstractContextManager[_Bytes]]


@dataclass(frozen=True)
class NpyStream:
    """An array on disk whose values have not been read.

    Attributes
    ----------
    source
        File, and member, for messages.
    shape, dtype, fortran
        As the array's header says.
    """

    source: str
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    _opener: _Opener

    def chunks(self, n_values: int) -> Iterator[NDArray]:
        """The values in the order of the file, ``n_values`` at a time, in native byte order.

        Raises
        ------
        BadInput
            If the file ends early or its checksum does not match.
        """
        left = int(np.prod(self.shape, dtype=np.int64))
        with self._opener() as data:
            _header(self.source, data)
            while left:
                size = min(n_values, left)
                block = data.read(size * self.dtype.itemsize)
                if len(block) < size * self.dtype.itemsize:
                    raise damaged(self.source, "ends before its last value")
                yield np.frombuffer(block, dtype=self.dtype).astype(self.dtype.newbyteorder("="), copy=False)
                left -= size


def open_npy(path: Path) -> NpyStream:
    """The array of an ``.npy`` file.

    Raises
    ------
    BadInput
        If it is not one, or holds pickled objects.
    """
    return _stream(str(path), lambda: _open(path))


def open_npz_member(path: Path, name: str) -> NpyStream:
    """The array ``name`` of an ``.npz`` file, stored or deflated.

    Raises
    ------
    BadInput
        If there is no such array, or it is damaged or holds pickled objects.
    """
    source = f"{path} [{name}]"
    with _archive(path) as archive:
        try:
            info = archive.getinfo(f"{name}.npy")
        except KeyError:
            raise BadInput(path, f"has no array {name!r}", f"it has {', '.join(_names(archive))}") from None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        raise BadInput(source, "is packed in a way NumPy does not write", "save it with numpy.savez")
    return _stream(source, lambda: _open_member(source, path, info))


def _stream(source: str, opener: _Opener) -> NpyStream:
    with opener() as data:
        return NpyStream(source, *_header(source, data), opener)


@contextmanager
def _open_member(source: str, path: Path, info: zipfile.ZipInfo) -> Iterator[_Bytes]:
    with _open(path) as handle:
        handle.seek(max(info.header_offset, 0))
        local = handle.read(30)
        if info.header_offset < 0 or len(local) < 30 or local[:4] != b"PK\x03\x04":
            raise damaged(source, "has no header where its index points")
        handle.seek(info.header_offset + 30 + sum(struct.unpack("<HH", local[26:30])))
        yield _Member(source, handle, info)


def npz_names(path: Path) -> list[str]:
    """Names of the arrays in an ``.npz`` file.

    Raises
    ------
    BadInput
        If it is not one.
    """
    with _archive(path) as archive:
        return _names(archive)


def read_npz_member(path: Path, name: str) -> NDArray:
    """One whole array of an ``.npz`` file.

    Raises
    ------
    BadInput
        If there is no such array, or it is damaged or holds pickled objects.
    """
    stream = open_npz_member(path, name)
    values = next(stream.chunks(max(1, int(np.prod(stream.shape)))), np.empty(0, stream.dtype))
    return values.reshape(stream.shape, order="F" if stream.fortran else "C")


def pickled(source: str | Path) -> BadInput:
    return BadInput(source, "holds pickled objects, which could run any code", "save plain arrays of numbers or text")


def damaged(source: str | Path, why: str) -> BadInput:
    return BadInput(source, f"is damaged or cut short ({why})", "copy or write the file again")


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise BadInput(path, f"cannot be read ({error.strerror})", "check the path and its permissions") from error


def _archive(path: Path) -> zipfile.ZipFile:
    with _open(path):
        pass
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        with _open(path) as handle:
            start = handle.read(2)
        # Protocol 2 and later start with 0x80; protocol 0 and 1 with an opening mark or a frame letter.
        if start[:1] == b"\x80" or start[:2] in (b"(d", b"(l", b"cn", b"}q", b"]q"):
            raise pickled(path) from error
        raise damaged(path, "not a zip archive") from error


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist()]


def _header(source: str, stream: _Bytes) -> tuple[tuple[int, ...], np.dtype, bool]:
    try:
        version = np.lib.format.read_magic(stream)  # type: ignore[arg-type]
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = reader(stream)  # type: ignore[arg-type]
        if min(shape, default=0) < 0:
            raise ValueError("a negative length")
    except Exception as error:  # NumPy reads the header as Python text, and fails as Python does
        raise damaged(source, "not a NumPy array") from error
    if dtype.hasobject:
        raise pickled(source)
    return shape, dtype, fortran and len(shape) > 1


class _Member:
    """The inflated bytes of a zip member; checks them against the member's checksum at the end."""

    def __init__(self, source: str, handle: BinaryIO, info: zipfile.ZipInfo) -> None:
        self._source, self._handle = source, handle
        self._packed, self._left, self._crc = info.compress_size, info.file_size, 0
        self._expected = info.CRC
        self._inflate = isal_zlib.decompressobj(-15) if info.compress_type == zipfile.ZIP_DEFLATED else None

    def read(self, size: int, /) -> bytes:
        size = min(size, self._left)
        data = self._handle.read(size) if self._inflate is None else self._inflated(size)
        self._crc = isal_zlib.crc32(data, self._crc)
        self._left -= len(data)
        if self._left == 0 and self._crc != self._expected:
            raise damaged(self._source, "its checksum does not match")
        return data

    def _inflated(self, size: int) -> bytes:
        assert self._inflate is not None
        parts, missing = [], size
        while missing:
            packed = self._inflate.unconsumed_tail
            if not packed:
                packed = self._handle.read(min(_INFLATE_BYTES, self._packed))
                self._packed -= len(packed)
            try:
                part = self._inflate.decompress(packed, missing)
            except isal_zlib.error as error:  # type: ignore[misc]
                raise damaged(self._source, str(error)) from error
            if not part and not packed:
                break
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
