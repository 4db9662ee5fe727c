"""Spectrogram files of a shank, npz or HDF5, opened for figures, training and scoring."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from src.preprocess.lfp.encoding import FLOOR
from src.recordings.extracellular.arrays import open_array, stream_npz
from src.signals import BadInput

SPECTROGRAMS = "spectrograms"
SUFFIX = {"npz": ".npz", "hdf5": ".h5"}
_BLOCK_BYTES = 1 << 24


class Tile(NamedTuple):
    """A part of one channel's spectrogram.

    Attributes
    ----------
    channel
        Its place on the channel axis.
    rows, times
        Which frequencies and frames.
    values
        ``(frequency, time)`` float32 as stored: power, or decibels.
    """

    channel: int
    rows: slice
    times: slice
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Spectrograms:
    """A spectrogram file whose values stay on disk.

    Attributes
    ----------
    path
        The file.
    channel_ids
        ``(channel,)`` as text.
    freqs, times
        Hz, and seconds from the first sample to the centre of the frame.
    start_s
        Of the first sample, on the recording's own clock.
    params
        ``spec_params``: how it was computed, in which units, at which resolution.
    """

    path: Path
    channel_ids: tuple[str, ...]
    freqs: NDArray[np.float64]
    times: NDArray[np.float64]
    start_s: float
    params: dict[str, Any]

    @property
    def decibel(self) -> bool:
        return self.params["quantity"] == "decibel"

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

    def tiles(self, places: Sequence[int]) -> Iterator[Tile]:
        """The spectrograms of some channels, a few megabytes at a time, in the order of the file."""
        yield from (_npz_tiles if self.path.suffix == ".npz" else _hdf5_tiles)(self, sorted(set(places)))

    def to_decibel(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Stored values in dB."""
        return values if self.decibel else (10 * np.log10(np.maximum(values, np.float32(FLOOR)))).astype(np.float32)


def spectrogram_file(folder: Path) -> Path:
    """The spectrogram file in the folder of a finished shank.

    Raises
    ------
    BadInput
        If there is none.
    """
    for suffix in SUFFIX.values():
        for file in sorted(Path(folder).glob(f"*_{SPECTROGRAMS}{suffix}")):
            return file
    raise BadInput(folder, "holds no spectrograms", "give the folder of a shank, or its file")


def open_spectrograms(path: Path) -> Spectrograms:
    """Open a ``<session>_sh<k>_spectrograms`` file, or the one in a shank's folder.

    Raises
    ------
    BadInput
        If it is not such a file.
    """
    path = spectrogram_file(path) if Path(path).is_dir() else Path(path)
    names = ("channel_ids", "freqs", "times", "start_time", "spec_params")
    try:
        if path.suffix == ".npz":
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
                fields = {name: archive[name] for name in names}
        else:
            with h5py.File(path, "r") as file:
                fields = {name: file[name][()] for name in names}
    except Exception as error:  # NumPy and h5py fail on spoiled files in a dozen ways
        raise BadInput(path, "is not a spectrogram file", "give one that preprocess=spectrogram wrote") from error
    return Spectrograms(
        path=path,
        channel_ids=tuple(i.decode() if isinstance(i, bytes) else str(i) for i in fields["channel_ids"].tolist()),
        freqs=fields["freqs"].astype(np.float64),
        times=fields["times"].astype(np.float64),
        start_s=float(fields["start_time"]),
        params=json.loads(_text(fields["spec_params"])),
    )


def _text(value: Any) -> str:
    value = value.item() if isinstance(value, np.ndarray) else value
    return value.decode() if isinstance(value, bytes) else str(value)


def _npz_tiles(file: Spectrograms, places: Sequence[int]) -> Iterator[Tile]:
    stored = open_array(file.path, SPECTROGRAMS, ())
    n_channels, n_rows, n_times = stored.shape
    height = max(1, _BLOCK_BYTES // (n_times * stored.dtype.itemsize))
    with stream_npz(file.path, SPECTROGRAMS, (n_channels * n_rows, n_times), stored.dtype) as read:
        for channel in places:
            for first in range(0, n_rows, height):
                rows = slice(first, min(first + height, n_rows))
                values = read(channel * n_rows + rows.start, channel * n_rows + rows.stop)
                yield Tile(channel, rows, slice(0, n_times), values.astype(np.float32, copy=False))


def _hdf5_tiles(file: Spectrograms, places: Sequence[int]) -> Iterator[Tile]:
    with h5py.File(file.path, "r") as handle:
        data = handle[SPECTROGRAMS]
        _, n_times, n_rows = data.shape
        step = data.chunks[1]
        for place in places:
            for first in range(0, n_times, step):
                times = slice(first, min(first + step, n_times))
                try:
                    values = data[place, times].T.astype(np.float32)
                except OSError as error:
                    raise BadInput(file.path, "is damaged: its values cannot be read", "make it again") from error
                yield Tile(place, slice(0, n_rows), times, values)
