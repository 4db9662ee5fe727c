"""HDF5 with errors a user can act on, and columns that grow chunk by chunk."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  # registers Blosc, Zstandard and other filters with HDF5
import numpy as np

from src.signals import BadInput
from src.storage.foreign_files import explained


@contextmanager
def reading(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file opened for reading; every error of HDF5 becomes :class:`BadInput`."""
    with explained(path, "cannot be read as HDF5", "copy or export it again"):
        try:
            with h5py.File(path, "r") as file:
                yield file
        except OSError as error:
            if isinstance(error, BlockingIOError) or "unable to lock" in str(error):
                problem = "is locked by a program that writes it"
                raise BadInput(path, problem, "close that program, or wait for it") from error
            if "truncated" in str(error):
                raise BadInput(path, "is cut short (the HDF5 file ends too early)", "copy it again") from error
            raise


@contextmanager
def writing(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file whose failed writes are reported, and reported only once it is closed.

    HDF5 cannot close a file it could not write to: it keeps it open and crashes the process at its end.
    So HDF5 is told that all went well, and the error comes from here.

    Raises
    ------
    OSError
        If the disk is full or any other write failed.
    """
    with _FailsAfterwards(path, "w+") as raw:
        with h5py.File(raw, "w") as file:
            yield file
        raw.check()


def bounded_array(data: h5py.Dataset, path: Path, most_bytes: int) -> np.ndarray:
    """The whole of a small dataset that lies in the file itself.

    Parameters
    ----------
    data, path
        The dataset and its file.
    most_bytes
        What the array, and one chunk of it, may take in memory.

    Raises
    ------
    BadInput
        If it is larger, or kept in another file.
    """
    if data.external or data.is_virtual:
        raise BadInput(path, f"keeps {data.name} in another file", "copy the data into one file")
    chunk = int(np.prod(data.chunks or (0,), dtype=object))
    if max(data.size, chunk) * data.dtype.itemsize > most_bytes:
        raise BadInput(path, f"says that {data.name} has more than {most_bytes:,} bytes", "fetch or export it again")
    return np.asarray(data[()])


class _FailsAfterwards(io.FileIO):
    """A file that swallows what it cannot write and remembers why."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view) and self.error is None:
                done += self._put(view[done:]) or 0
        except OSError as error:
            self.error = error
        return len(view)

    _put = io.FileIO.write

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def check(self) -> None:
        if self.error is not None:
            raise self.error


def files_reached(path: Path) -> list[Path]:
    """The other files that an HDF5 file takes data from: through external links and virtual data sets, at any depth.

    A name that is relative may be meant from the file's folder or from the working directory: both count. Files that
    are not there, and a file that is no HDF5, reach nothing.

    Raises
    ------
    BadInput
        For data in external raw storage, whose bytes no reader checks, and for a file that cannot be read.
    """
    found: dict[Path, None] = {}
    waiting = [Path(path)]
    while waiting:
        current = waiting.pop()
        if not h5py.is_hdf5(current):
            continue
        for name in _named_files(current):
            for place in (current.parent / name, Path(name)):
                other = place.resolve()
                if other.is_file() and other != Path(path).resolve() and other not in found:
                    found[other] = None
                    waiting.append(other)
    return sorted(found)


def _named_files(path: Path) -> set[str]:
    names: set[str] = set()

    def visit(_: str, link: Any) -> None:
        if isinstance(link, h5py.ExternalLink):
            names.add(link.filename)

    def inspect(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        if item.external:
            outside = ", ".join(str(part[0]) for part in item.external)
            problem = f"{name} lies in raw storage outside of it ({outside})"
            raise BadInput(path, problem, f"write it into one file: h5repack {path.name} whole.h5")
        if item.is_virtual:
            names.update(source.file_name for source in item.virtual_sources())

    with reading(path) as file:
        file.visititems_links(visit)
        file.visititems(inspect)
    return names - {"."}


class AppendedColumn:
    """A compressed dataset that is written in whole chunks while its length is still unknown.

    Parameters
    ----------
    file, name, dtype
        Where it goes and what it holds.
    chunk
        Rows per chunk.
    width
        Columns, or None for a one-dimensional dataset.
    """

    def __init__(self, file: h5py.File, name: str, dtype: type, chunk: int, width: int | None = None) -> None:
        tail = () if width is None else (width,)
        self._data = file.create_dataset(
            name, (0, *tail), dtype, maxshape=(None, *tail), chunks=(chunk, *tail),
            compression="gzip", compression_opts=1, shuffle=True,
        )  # fmt: skip
        self._chunk, self._waiting, self._rows = chunk, [np.empty((0, *tail), dtype)], 0

    def append(self, rows: np.ndarray) -> None:
        self._waiting.append(rows)
        self._rows += len(rows)
        if self._rows >= self._chunk:
            self._flush(self._rows - self._rows % self._chunk)

    def close(self) -> None:
        self._flush(self._rows)

    def _flush(self, count: int) -> None:
        rows = np.concatenate(self._waiting)
        start = len(self._data)
        self._data.resize(start + count, axis=0)
        self._data[start:] = rows[:count]
        self._waiting, self._rows = [rows[count:]], len(rows) - count
