"""The typed, lazy recording that every reader of extracellular signals returns, for LFP and spikes alike.

Samples are read front to back in blocks, so memory does not grow with the length of the recording. Time is the
recording's own: what was not recorded (lost packets, pauses) is NaN of the right length.
"""

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.signals import BadInput

BLOCK_BYTES = 1 << 22
_TILE_BYTES = 1 << 17  # turned round at a time; stays in a second-level cache
AS_SAVED = "as the acquisition system saved it: no filter but the amplifier's, no re-referencing"
LONGEST_S = 30 * 86400.0
"""A clock that spans more than this is taken for damaged."""
SLOWEST_HZ, SEEN = {"lfp": 50.0, "spikes": 5_000.0}, {"lfp": "LFP or spikes", "spikes": "spikes"}

Read = Callable[[int, int], NDArray]
"""Samples ``[first, last)`` as ``(time, channel)`` of all channels of the source; ``first`` never goes back."""

Opener = Callable[[], AbstractContextManager[Read]]


@dataclass(frozen=True)
class Run:
    """Samples without a gap between them."""

    start: int  # place of the first one on the recording's clock, in samples
    first: int  # which samples of the source they are
    count: int
    opener: Opener  # opens the source


def require_rate(source: str | Path, fs_hz: float, purpose: str = "lfp") -> None:
    """Refuse a sampling rate that is too low for any signal, such as kHz in place of Hz."""
    if not SLOWEST_HZ[purpose] <= fs_hz < float("inf"):
        hint = (
            f"give the rate in Hz: {fs_hz:g} kHz is {1000 * fs_hz:g}" if 0 < fs_hz < 200 else "give a faster recording"
        )
        raise BadInput(source, f"has a sampling rate of {fs_hz:g} Hz, too low for {SEEN[purpose]}", hint)


@dataclass(frozen=True)
class ExtracellularRecording:
    """One continuous recording of one or more channels; its samples stay on disk."""

    path: Path  # file or folder it was opened from
    source_format: str  # "SpikeGadgets .rec"
    fs_hz: float  # not necessarily whole
    channel_ids: NDArray  # (channel,) whole numbers or text, as the file has them
    runs: tuple[Run, ...]  # where samples were recorded, in rising order
    shanks: NDArray[np.int64]  # (channel,) number of the group (shank, tetrode, probe, port)
    dtype: np.dtype  # of the samples in the source, in native byte order
    units: str = "unknown"  # "uV", or another unit that the file states
    # (channel,) factor and summand that turn source samples into `units`; None where they are in them
    gain: NDArray[np.float32] | None = None
    offset: NDArray[np.float32] | None = None
    start_s: float | None = None  # time of the first sample on the file's clock, where it states one
    started: datetime | None = None  # wall-clock time of the first sample where the file states it
    # arrays about the channels that the file has: `channel_locations` in µm, `depth_order`, …
    coordinates: dict[str, NDArray] = field(default_factory=dict)
    # what happened to the signal before, as far as the file says
    upstream: str = "unknown: the file does not say how the signal was filtered or referenced"
    warnings: tuple[str, ...] = ()  # what the user has to know: gaps, contradictions, skipped channels
    files: tuple[Path, ...] = ()  # the files that were read, for checksums
    columns: NDArray[np.int64] | None = None  # (channel,) column in the source; None for all in order
    width: int | None = None  # columns of the source, where `columns` are given
    length: int | None = None  # samples in all, where the file says that it goes on after its last sample
    damage: Callable[[], Sequence[str]] = tuple  # what is found damaged only when the samples are read

    @classmethod
    def of_array(
        cls, path: Path, source_format: str, fs_hz: float, values: NDArray, **known: Any
    ) -> "ExtracellularRecording":
        """A recording of samples ``(time, channel)`` in one piece: an array or a memory map."""
        given: dict[str, Any] = {
            "channel_ids": np.arange(values.shape[1]),
            "shanks": np.zeros(values.shape[1], np.int64),
            "files": (path,),
        } | known
        run = Run(0, 0, len(values), lambda: nullcontext(lambda first, last: values[first:last]))
        return cls(path, source_format, fs_hz, runs=(run,), dtype=values.dtype.newbyteorder("="), **given)

    def __post_init__(self) -> None:
        require_rate(self.path, self.fs_hz)
        if not self.n_channels or not self.runs or not self.n_samples:
            raise BadInput(self.path, "the recording is empty", "give a recording with samples")
        if len(set(self.channel_ids.tolist())) < self.n_channels:
            values, counts = np.unique(self.channel_ids, return_counts=True)
            twice = ", ".join(map(str, values[counts > 1][:5]))
            raise BadInput(self.path, f"channel_ids name {twice} more than once", "give every channel its own id")
        if self.n_samples / self.fs_hz > LONGEST_S:
            problem = f"its clock spans {self.n_samples / self.fs_hz / 86400:.0f} days"
            raise BadInput(self.path, problem, "check the clock: it may be damaged; split the recording at the jump")

    @property
    def n_channels(self) -> int:
        return len(self.channel_ids)

    @property
    def n_samples(self) -> int:
        """From the first to the last, gaps included."""
        return self.length if self.length is not None else self.runs[-1].start + self.runs[-1].count

    @property
    def duration_s(self) -> float:
        return self.n_samples / self.fs_hz

    @property
    def notes(self) -> list[str]:
        """The warnings, and what was found damaged so far: complete once the samples have been read."""
        return [*self.warnings, *self.damage()]

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """``(first, last + 1)`` samples of every gap."""
        ends = [0, *(run.start + run.count for run in self.runs)]
        starts = [*(run.start for run in self.runs), self.n_samples]
        return [(end, start) for end, start in zip(ends, starts, strict=True) if start > end]

    @property
    def block_dtype(self) -> np.dtype:
        """Type of what :meth:`blocks` yields: the source's, float32 where samples are scaled or missing."""
        plain = self.gain is None and (self.dtype.kind == "f" or not self.gaps)
        return self.dtype if plain else np.dtype(np.float32)

    def blocks(self, n_samples: int | None = None, *, scaled: bool = True) -> Iterator[NDArray]:
        """Every sample once, as ``(time, channel)`` blocks of at most ``n_samples`` in :attr:`units`.

        With ``scaled=False`` all channels of the source come in its order, before gain and offset: :attr:`columns`
        says which of them are this recording's. A damaged file raises :class:`BadInput`.
        """
        width = self.n_channels if self.width is None else self.width
        step = n_samples or max(1, BLOCK_BYTES // (width * self.dtype.itemsize))
        position = 0
        for run in self.runs:
            yield from self._missing(run.start - position, step, None if scaled else width)
            with run.opener() as read:
                for first in range(run.first, run.first + run.count, step):
                    values = read(first, min(first + step, run.first + run.count))
                    yield self.scaled(values) if scaled else values.reshape(len(values), -1)
            position = run.start + run.count
        yield from self._missing(self.n_samples - position, step, None if scaled else width)

    def samples(self) -> NDArray[np.float32]:
        """The whole recording in memory: ``(channel, time)`` float32."""
        values = np.empty((self.n_channels, self.n_samples), np.float32)
        first = 0
        for block in self.blocks():
            values[:, first : first + len(block)] = block.T
            first += len(block)
        return values

    def between(self, first: int, last: int) -> NDArray[np.float32]:
        """Samples ``[first, last)`` as ``(channel, time)`` float32, NaN where nothing was recorded."""
        values = np.full((self.n_channels, last - first), np.nan, np.float32)
        for run in self.runs:
            start, stop = max(first, run.start), min(last, run.start + run.count)
            if start < stop:
                with run.opener() as read:
                    piece = self.scaled(read(start - run.start + run.first, stop - run.start + run.first))
                values[:, start - first : stop - first] = piece.T
        return values

    def select(self, channels: Sequence[int] | NDArray) -> "ExtracellularRecording":
        """Some channels by their places in :attr:`channel_ids`, in the order given."""
        places = np.asarray(channels, np.int64)
        columns = places if self.columns is None else self.columns[places]
        kept = {
            name: values[places] if values.shape[:1] == (self.n_channels,) else values
            for name, values in self.coordinates.items()
        }
        return replace(
            self,
            channel_ids=self.channel_ids[places],
            shanks=self.shanks[places],
            columns=columns,
            width=self.n_channels if self.columns is None else self.width,
            gain=None if self.gain is None else self.gain[places],
            offset=None if self.offset is None else self.offset[places],
            coordinates=kept,
        )

    def shank(self, number: int) -> "ExtracellularRecording":
        """The channels of one shank; :class:`BadInput` if there is none."""
        places = np.flatnonzero(self.shanks == number)
        if not len(places):
            known = ", ".join(map(str, np.unique(self.shanks)))
            raise BadInput(self.path, f"has no shank {number}", f"it has shanks {known}")
        return self.select(places)

    def on_clock(
        self, cuts: Iterable[int], clock: Callable[[int], float], what: str = "samples", **changes: Any
    ) -> "ExtracellularRecording":
        """This recording of one run with gaps where its clock jumps.

        ``cuts`` are the samples that do not follow on the one before, ``clock`` gives the clock at a sample, in
        samples; ``what`` is missing in a gap. ``changes`` are further fields.
        """
        run, firsts = self.runs[0], [0, *(int(cut) for cut in cuts)]
        pieces = [(a, b - a, run.opener) for a, b in zip(firsts, [*firsts[1:], run.count], strict=True)]
        runs, said = runs_on_clock(pieces, [round(clock(first)) for first in firsts], self.fs_hz, what)
        return replace(self, runs=runs, warnings=(*self.warnings, *said), **changes)

    def at_times(self, times: NDArray) -> "ExtracellularRecording":
        """This recording of one run with the time ``(time,)`` of every sample in seconds: its jumps become gaps."""
        cuts, since = timestamp_jumps(times, self.fs_hz), times - times[0]
        return self.on_clock(cuts, lambda sample: float(since[sample]) * self.fs_hz, start_s=float(times[0]))

    def _missing(self, count: int, step: int, width: int | None) -> Iterator[NDArray]:
        for first in range(0, count, step):
            yield np.full((min(step, count - first), width or self.n_channels), np.nan, self.block_dtype)

    def scaled(self, values: NDArray) -> NDArray:
        """This recording's channels of source samples ``(time, channel)``, in :attr:`units`."""
        values = values.reshape(len(values), -1)
        if self.columns is not None:
            values = values[:, self.columns]
        if self.gain is None:
            return values.astype(self.block_dtype, copy=False)
        scaled = values.astype(np.float32)
        if self.offset is not None and self.offset.any():
            scaled += self.offset / self.gain  # a whole number of counts where the zero is in the middle of the range
        scaled *= self.gain
        return scaled


ReadRow = Callable[[int, slice], NDArray]
"""Samples of one channel of the recording; may be called from any thread."""


@contextmanager
def channel_rows(
    recording: ExtracellularRecording, folder: Path, pool: Executor, channels: Sequence[int] | None = None
) -> Iterator[ReadRow]:
    """Read a recording once, transposing as it passes, and give access to any stretch of any channel.

    The transposed samples are in a nameless scratch file in ``folder``, so memory is the same for any length; ``pool``
    transposes one block while the next one is read. ``channels`` are the places of those that will be asked for.
    """
    kept = range(recording.n_channels) if channels is None else sorted(set(channels))
    chosen = recording if channels is None else recording.select(kept)
    row_of = {channel: row for row, channel in enumerate(kept)}
    dtype, length = recording.block_dtype, recording.n_samples
    with tempfile.TemporaryFile(dir=folder) as scratch:
        descriptor = scratch.fileno()

        def write(first: int, block: NDArray) -> None:
            turned = np.empty(block.shape[::-1], dtype)
            tile = max(1, _TILE_BYTES // (block.shape[1] * dtype.itemsize))
            for start in range(0, len(block), tile):
                turned[:, start : start + tile] = block[start : start + tile].T
            for row, values in enumerate(turned):
                offset = (row * length + first) * dtype.itemsize
                if os.pwrite(descriptor, values.data, offset) < values.nbytes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def read(channel: int, stretch: slice) -> NDArray:
            offset = (row_of[channel] * length + stretch.start) * dtype.itemsize
            return np.frombuffer(os.pread(descriptor, (stretch.stop - stretch.start) * dtype.itemsize, offset), dtype)

        first, pending = 0, None
        for block in chosen.blocks():
            if pending is not None:
                pending.result()
            pending = pool.submit(write, first, block)
            first += len(block)
        if pending is not None:
            pending.result()
        yield read


def runs_on_clock(
    starts: Sequence[tuple[int, int, Opener]], clock: Sequence[int], fs_hz: float, what: str
) -> tuple[tuple[Run, ...], tuple[str, ...]]:
    """Place consecutive pieces of a recording on its clock; returns the runs and what is to be said.

    Parameters
    ----------
    starts
        ``(first, count, opener)`` of every piece, in the order they were recorded.
    clock
        What the clock says at the first sample of each piece, in samples. Where it goes back, the length of the
        pause is not known: the piece follows on without a gap, and that is said.
    what
        What is missing in a gap: ``"packets"``.
    """
    runs, warnings, shift = list[Run](), list[str](), -int(clock[0])
    for (first, count, opener), now in zip(starts, clock, strict=True):
        due = runs[-1].start + runs[-1].count if runs else 0
        start = int(now) + shift
        if start < due:
            if due - start > 1:
                warnings.append(f"the clock goes back at {due / fs_hz:.3f} s: the length of the pause is not known")
            shift += due - start
            start = due
        elif start > due:
            lost = (start - due) / fs_hz
            warnings.append(f"{what} are missing for {lost:.3f} s from {due / fs_hz:.3f} s on: NaN there")
        runs.append(Run(start, first, count, opener))
    if len(warnings) > 4:
        lost_s = (runs[-1].start + runs[-1].count - sum(run.count for run in runs)) / fs_hz
        warnings = [*warnings[:3], f"and {len(warnings) - 3} more gaps: {lost_s:.3f} s of {what} are missing in all"]
    return tuple(runs), tuple(warnings)


def jumps(at: Callable[[int], int], count: int) -> list[int]:
    """Samples whose clock is not one after that of the sample before, by bisection.

    ``at`` gives the clock of a sample, which has 32 bits. It is read for a few samples for every jump, not
    for all: the clock of a stretch whose ends differ by its length has no jump (a loss and a repetition of the same
    length within a stretch would go unseen).
    """
    found, stack = list[int](), [(0, count - 1)]
    while stack:
        first, last = stack.pop()
        if (at(last) - at(first) - (last - first)) % (1 << 32) == 0:
            continue
        if last - first == 1:
            found.append(last)
            continue
        middle = (first + last) // 2
        stack += [(first, middle), (middle, last)]
    return sorted(found)


def timestamp_jumps(times: Any, fs_hz: float) -> list[int]:
    """Samples that come later than one and a half intervals after the one before, or before it; a million at a time.

    ``times`` are ``(time,)`` seconds: an array, a memory map or an HDF5 dataset.
    """
    found, step = list[int](), 1 << 20
    last = np.asarray(times[-1])
    unsure = 2 * float(np.spacing(np.abs(last))) * fs_hz if last.dtype.kind == "f" else 0.0
    for first in range(0, len(times), step):
        apart = np.diff(np.asarray(times[max(0, first - 1) : first + step], np.float64)) * fs_hz
        found += (np.flatnonzero((apart > 1.5 + unsure) | (apart < -0.5 - unsure)) + max(1, first)).tolist()
    return found
