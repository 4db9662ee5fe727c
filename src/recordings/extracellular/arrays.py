"""Recordings saved as plain arrays: ``.npy``, ``.npz``, HDF5 and MATLAB of any version; nothing is unpickled.

The variable is given by name, in MATLAB structs and cells by a dotted one: ``session.lfp``, ``trials.0.data``
(cells count from 0). What else is needed, the sampling rate above all, is read beside it and at the top.
"""

import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from src.recordings.extracellular.recording import BLOCK_BYTES, Opener, Read
from src.signals import BadInput
from src.storage.foreign_files import explained

SUFFIXES = (".mat", ".npy", ".npz", ".h5", ".hdf5")
_LARGEST_FIELD = 1 << 27
"""Values of the largest variable that is read beside the trace: a clock has one per sample."""


@dataclass(frozen=True)
class StoredArray:
    """A variable of a file, and what is beside it."""

    name: str  # its (dotted) name
    shape: tuple[int, ...]  # as stored; of .mat files, in MATLAB's order of axes
    dtype: np.dtype
    fields: Mapping[str, Any]  # numbers and texts beside it, and at the top of the file
    opener: Callable[[bool], Opener]  # opens it along its first axis, or (transposed) along its second


def open_array(path: Path, key: str | None, usual: tuple[str, ...]) -> StoredArray:
    """The variable ``key`` of a file; without a key the first of ``usual`` that there is, or the only array of numbers.

    Raises
    ------
    BadInput
        If there is no such variable, or the file is damaged or holds pickled objects.
    """
    suffix = path.suffix.lower()
    with damage_explained(path):
        if suffix == ".npy":
            values = np.load(path, mmap_mode="r", allow_pickle=False)
            return StoredArray(path.stem, values.shape, values.dtype, {}, lambda turned: _of_array(values, turned))
        if suffix == ".npz":
            return _npz(path, key, usual)
        if h5py.is_hdf5(path) or suffix != ".mat":
            return _hdf5(path, key, usual)
        return _matlab5(path, key, usual)


@contextmanager
def damage_explained(source: str | Path) -> Iterator[None]:
    """What the library of a format raises over a file in the block becomes :class:`BadInput`; see :func:`explained`."""
    with explained(source, "is damaged or cut short", "copy or write the file again"):
        try:
            yield
        except ValueError as error:
            if not re.search("pickle|Python objects|Object arrays", str(error)):
                raise
            problem = "holds pickled objects, which could run any code"
            raise BadInput(source, problem, "save plain arrays of numbers or text") from error


def _npz(path: Path, key: str | None, usual: tuple[str, ...]) -> StoredArray:
    with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile) or archive.zip is None:
            raise ValueError("not a zip archive")
        headers = {}
        for name in archive.files:
            with archive.zip.open(f"{name}.npy") as stream:
                headers[name] = _npy_header(stream)
        name = _choose(
            path, key, usual, {n: shape for n, (shape, _, dtype) in headers.items() if dtype.kind in "fiucb"}
        )
        if name not in headers:
            raise _absent(path, key, usual, list(headers))
        fields = {n: archive[n] for n in headers if n != name and np.prod(headers[n][0]) <= _LARGEST_FIELD}
    shape, fortran, dtype = headers[name]

    def opener(turned: bool) -> Opener:
        if turned or (fortran and len(shape) > 1):
            return lambda: _unpacked(path, name, shape, dtype, fortran, turned)
        return lambda: _streamed(path, name, shape, dtype)

    return StoredArray(name, shape, dtype, fields, opener)


def _npy_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    first = np.lib.format.read_magic(stream) == (1, 0)
    reader = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = reader(stream)
    if dtype.hasobject:
        raise ValueError("pickled objects")
    if min(shape, default=0) < 0:
        raise ValueError("a negative length")
    return shape, fortran, dtype


@contextmanager
def _streamed(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[Read]:
    """Rows of an array of an ``.npz`` file in C order, front to back.

    The archive's checksum is compared when the last byte has been read.
    """
    row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
    with damage_explained(path):
        archive = zipfile.ZipFile(path)
    with archive, archive.open(f"{name}.npy") as stream:
        _npy_header(stream)
        position = 0

        def read(first: int, last: int) -> NDArray:
            nonlocal position
            wanted = (last - first) * row_bytes
            with damage_explained(f"{path} [{name}]"):
                if first > position:
                    stream.seek((first - position) * row_bytes, 1)
                data = stream.read(wanted)
                if last == shape[0]:
                    stream.read(1)
                if len(data) < wanted:
                    raise ValueError("ends before its last value")
            position = last
            return np.frombuffer(data, dtype).reshape(last - first, *shape[1:])

        yield read


@contextmanager
def _unpacked(
    path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype, fortran: bool, turned: bool
) -> Iterator[Read]:
    """An archived array stored channel after channel, unpacked to a nameless file to be read in time."""
    with tempfile.TemporaryFile() as scratch:
        with damage_explained(f"{path} [{name}]"):
            with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
                _npy_header(stream)
                shutil.copyfileobj(stream, scratch, BLOCK_BYTES)
            scratch.flush()
            values = np.memmap(scratch, dtype, "r", shape=shape, order="F" if fortran else "C")
        with _of_array(values, turned)() as read:
            yield read


def _matlab5(path: Path, key: str | None, usual: tuple[str, ...]) -> StoredArray:
    from src.recordings.matlab import load_mat  # loads SciPy's reader

    top = {name: _plain(value) for name, value in load_mat(path).items() if not name.startswith("__")}
    arrays = {n: v.shape for n, v in top.items() if _numbers(v)}
    if key is None and not arrays:
        raise _absent(path, None, usual, _names(top))
    name = _choose(path, key, usual, arrays)
    values, beside = _walk(top, name)
    if values is None:
        raise _absent(path, name, usual, _names(top))
    if not _numbers(values):
        raise BadInput(path, f"{name} holds no numbers", "save real numbers")
    fields = _fields(top) | _fields(beside)
    return StoredArray(name, values.shape, values.dtype, fields, lambda turned: _of_array(values, turned))


def _plain(value: Any) -> Any:
    """Structs as dicts and cells as lists; a single struct or cell is what is in it."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "OV":
        return value
    names = value.dtype.names
    items = [{name: _plain(item[name]) for name in names} if names else _plain(item) for item in value.flat]
    return items[0] if len(items) == 1 else items


def _hdf5(path: Path, key: str | None, usual: tuple[str, ...]) -> StoredArray:
    with h5py.File(path, "r") as file:
        top = {name: file[name] for name in file if name != "#refs#"}
        numbers = {n: v.shape for n, v in top.items() if isinstance(v, h5py.Dataset) and v.dtype.kind in "fiucb"}
        name = _choose(path, key, usual, numbers)
        values, beside = _walk(top, name)
        if values is None:
            raise _absent(path, name, usual, list(top))
        if not isinstance(values, h5py.Dataset) or values.dtype.kind not in "fiucb":
            raise BadInput(path, f"{name} is not a dataset of numbers", "save real numbers")
        others = {n: v for n, v in top.items() if v != values}
        inside = beside if isinstance(beside, h5py.Group) else {}
        around = {n: inside[n] for n in inside if inside[n] != values}
        fields = _fields(others) | dict(file.attrs) | _fields(around) | dict(values.attrs)
        place, shape, dtype = values.name, values.shape, values.dtype
    # MATLAB writes the columns first, HDF5 calls that rows.
    matlab = path.suffix.lower() == ".mat" and len(shape) == 2
    shape = shape[::-1] if matlab else shape
    return StoredArray(name, shape, dtype, fields, lambda turned: lambda: _of_hdf5(path, place, turned != matlab))


@contextmanager
def _of_hdf5(path: Path, place: str, turned: bool) -> Iterator[Read]:
    """Rows (or columns) of a dataset; one whose chunks are long in time is unpacked first, each chunk once."""
    with damage_explained(path):
        file = h5py.File(path, "r")
    with file, tempfile.TemporaryFile() as scratch:
        data = file[place]
        axis = 1 if turned else 0
        values: Any = data
        chunk = data.chunks[axis] if data.chunks and data.ndim == 2 else 0
        if chunk and chunk * data.shape[1 - axis] * data.dtype.itemsize > 8 * BLOCK_BYTES:
            values = np.memmap(scratch, data.dtype, "w+", shape=data.shape, order="F" if axis == 0 else "C")
            for first in range(0, data.shape[1 - axis], data.chunks[1 - axis]):
                part = (slice(None),) * (1 - axis) + (slice(first, first + data.chunks[1 - axis]),)
                with damage_explained(path):
                    values[part] = data[part]

        def read(first: int, last: int) -> NDArray:
            with damage_explained(path):
                return np.asarray(values[:, first:last].T if turned else values[first:last])

        yield read


def _of_array(values: NDArray, turned: bool) -> Opener:
    view = values.T if turned else values
    return lambda: nullcontext(lambda first, last: np.asarray(view[first:last]))


def _numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiucb"


def _child(node: Any, part: str) -> Any:
    """A member of a struct or group, or an element of a cell, or ``None``; single structs and cells need no index."""
    if isinstance(node, Mapping) and part in node:
        return node[part]
    if isinstance(node, h5py.Dataset) and h5py.check_ref_dtype(node.dtype):
        items: Any = node[()].T.reshape(-1)
        return node.file[items[int(part)]] if part.isdigit() and int(part) < len(items) else None
    if isinstance(node, list):
        return node[int(part)] if part.isdigit() and int(part) < len(node) else None
    return node if part == "0" and isinstance(node, dict) else None


def _walk(top: Any, name: str) -> tuple[Any, Any]:
    """The node of a dotted name, and the one that holds it; a name with dots in it is tried whole first."""
    if (whole := _child(top, name)) is not None:
        return whole, top
    node, holder = top, top
    for part in name.split("."):
        node, holder = _child(node, part), node
        if node is None:
            return None, top
    return node, holder


def _fields(node: Any) -> dict[str, Any]:
    """Numbers and texts right inside a node."""
    found = {}
    for name in node if isinstance(node, Mapping) else ():
        value = node[name]
        if isinstance(value, h5py.Dataset):
            if h5py.check_ref_dtype(value.dtype) or value.size > _LARGEST_FIELD:
                continue
            text = h5py.check_string_dtype(value.dtype)
            is_text = value.attrs.get("MATLAB_class") == b"char"
            value = np.asarray(value.asstr()[()], str) if text else value[()]
            value = "".join(map(chr, np.ravel(value))) if is_text else value
        if isinstance(value, np.ndarray | np.generic | str) and getattr(value, "size", 1) <= _LARGEST_FIELD:
            found[name] = value
    return found


def _names(node: Any, prefix: str = "") -> list[str]:
    """Dotted names a user may give, the fields of structs among them."""
    inside = node.items() if isinstance(node, Mapping) else ()
    inner = [name for field, value in inside for name in _names(value, f"{prefix}{field}.")]
    return inner or [prefix.removesuffix(".")]


def _choose(path: Path, key: str | None, usual: tuple[str, ...], numbers: Mapping[str, tuple[int, ...]]) -> str:
    if key is not None:
        return key
    for name in usual:
        if name in numbers:
            return name
    long = [name for name, shape in numbers.items() if np.prod(shape) > 1000]
    if len(long) != 1:
        raise _absent(path, None, usual, list(numbers))
    return long[0]


def _absent(path: Path, key: str | None, usual: tuple[str, ...], names: list[str]) -> BadInput:
    held = ", ".join(sorted(names)[:12]) or "nothing"
    problem = f"no variable '{key or usual[0]}' (it holds {held})"
    return BadInput(path, problem, "name the trace: source.key=…, in training datamodule.recording.key=…")


@contextmanager
def trace_file(
    path: Path, shape: tuple[int, int], dtype: np.dtype, fields: Mapping[str, Any]
) -> Iterator[Callable[[NDArray], None]]:
    """Write ``traces`` (n_samples, n_channels) of ``shape`` and ``dtype`` and further ``fields`` into an ``.npz`` file.

    The format is that of the original extraction. Yields what takes the next ``(time, channel)`` block.
    """
    header = {"descr": dtype.newbyteorder("<").str, "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(_entry("traces"), "w", force_zip64=True) as member:
            np.lib.format.write_array_header_1_0(member, header)

            def write(block: NDArray) -> None:
                member.write(np.ascontiguousarray(block, dtype).data.cast("B"))

            yield write
        for name, value in fields.items():
            with archive.open(_entry(name), "w") as member:
                np.lib.format.write_array(member, np.asarray(value), allow_pickle=False)


def _entry(name: str) -> zipfile.ZipInfo:
    """With a fixed time stamp: the same content makes the same file."""
    return zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
