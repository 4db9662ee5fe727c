"""Samples and annotations of EDF, EDF+ and BDF files.

Samples are read block by block: memory holds the channels asked for and no more, whatever the size of the file. A
channel's calibration is judged when it is read, so that a faulty channel that nobody asks for does not matter.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.recordings.sleep.channels import ChannelRequest, Derivation, derivations
from src.recordings.sleep.edf_header import EXPORT_AGAIN, TAL, EdfChannel, EdfHeader, number, read_header, record_onset
from src.recordings.sleep.resample import join_channels, require_band
from src.signals import BadInput, Recording
from src.storage.atomic import atomic_file

EDF_SUFFIXES = (".edf", ".bdf")
_BLOCK_BYTES = 1 << 22
_SKIPPED_BYTES = 8192
"""Data records longer than this are read in part: only the bytes of the channel."""
_LONGEST_GAPS_S = 86_400.0


class Annotations(NamedTuple):
    """``marks`` are ``(onset_s, duration_s or None, text)`` from the first sample, in order; ``start`` is its time."""

    marks: list[tuple[float, float | None, str]]
    start: datetime | None
    notes: tuple[str, ...]


def read_recording(
    path: str | Path,
    channels: Sequence[str] | None = None,
    *,
    fs_hz: float | None = None,
    aliases: Mapping[str, Sequence[str]] | None = None,
    max_hz: float | None = None,
) -> Recording:
    """The channels asked for, and only those, in microvolts at one rate; see :func:`read_channels`."""
    request = ChannelRequest(tuple(channels) if channels is not None else None, aliases or {}, max_hz)
    return join_channels(read_channels(path, request), fs_hz)


def read_channels(
    path: str | Path, request: ChannelRequest, *, recording_id: str | None = None, subject_id: str | None = None
) -> list[Recording]:
    """One recording per channel asked for, each at the rate it was recorded with.

    Parameters
    ----------
    path
        EDF, EDF+C, EDF+D or BDF file.
    request
        Names are found by :func:`src.recordings.sleep.channels.derivations`; the recordings carry them. No names
        read every usable signal of the file's fastest rate.
    recording_id, subject_id
        Default to the file's stem.

    Raises
    ------
    BadInput
        For a channel that is absent or has no calibration, a file without signals, a rate too low for ``max_hz``.
    """
    header = read_header(path)
    if not header.signals:
        raise BadInput(path, "holds annotations but no signal", "give the PSG file that belongs to it")
    if request.names is None:
        usable = [i for i, signal in enumerate(header.signals) if not signal.problem] or [0]
        fastest = max(header.signals[i].fs_hz for i in usable)
        picks = [Derivation(header.labels[i], i) for i in usable if header.signals[i].fs_hz == fastest]
    else:
        picks = derivations(header.path, request.names, header.labels, request.aliases)
    onsets, gaps = _record_onsets(header) if header.gaps else (None, ())
    notes = (*header.notes, *gaps)
    dead = [signal.label for signal in header.signals if signal.problem]
    if request.names is None and dead:
        notes = (*notes, f"{len(dead)} channels without calibration left out ({', '.join(dead)})")
    name = recording_id or header.path.stem
    found = []
    for pick in picks:
        row, signal = _derive(header, pick, onsets)
        require_band(header.path, pick.name, signal.fs_hz, request.max_hz)
        samples, units = row[None], (signal.units,)
        found.append(
            Recording(
                samples, signal.fs_hz, (pick.name,), units, name, subject_id or name, header.start, str(path), notes
            )
        )
    return found


def read_annotations(path: str | Path) -> Annotations:
    """Every EDF+ or BDF+ annotation, in order. A text that is not UTF-8 is read as Latin-1.

    Raises
    ------
    BadInput
        See :func:`read_header`.
    """
    header = read_header(path)
    marks: list[tuple[float, float | None, str]] = []
    unreadable = latin = 0
    for channel in header.annotations:
        for _, block in _blocks(header, channel):
            for tal in (piece for record in block for piece in record.tobytes().split(b"\0") if piece):
                if not (match := TAL.fullmatch(tal)):
                    unreadable += 1
                    continue
                onset_s = number(match[1]) - header.first_onset_s
                duration = number(match[2]) if match[2] else math.nan
                for raw in filter(None, match[3].split(b"\x14")):
                    text, is_latin = _text(raw)
                    latin += is_latin
                    marks.append((onset_s, duration if math.isfinite(duration) else None, text.strip()))
    notes = list(header.notes)
    if latin:
        notes.append(f"{latin} annotations are not UTF-8 and were read as Latin-1")
    if unreadable:
        notes.append(f"{unreadable} annotations cannot be read and were left out")
    return Annotations(sorted(marks, key=lambda mark: mark[0]), header.start, tuple(notes))


def write_annotations(annotations: Sequence[tuple[float, float, str]], start: datetime | None, path: Path) -> None:
    """Write ``(onset_s, duration_s, text)`` as an EDF+ file without signals."""
    import edfio

    start = start or datetime(1985, 1, 1)
    edf = edfio.Edf(
        [],
        recording=edfio.Recording(startdate=start.date()),
        starttime=start.time(),
        annotations=[edfio.EdfAnnotation(*annotation) for annotation in annotations],
    )
    with atomic_file(path) as part:
        edf.write(part)


def _derive(
    header: EdfHeader, pick: Derivation, onsets: NDArray[np.float64] | None
) -> tuple[NDArray[np.float32], EdfChannel]:
    signal = header.signals[pick.plus]
    row = _samples(header, signal, onsets)
    if pick.minus is not None:
        other = header.signals[pick.minus]
        if other.fs_hz != signal.fs_hz or other.units != signal.units:
            problem = f"{pick.name} would be {signal.label} ({signal.fs_hz:g} Hz, {signal.units}) minus {other.label} "
            raise BadInput(header.path, problem + f"({other.fs_hz:g} Hz, {other.units})", "choose another channel")
        row -= _samples(header, other, onsets)
    return row, signal


def _samples(header: EdfHeader, channel: EdfChannel, onsets: NDArray[np.float64] | None) -> NDArray[np.float32]:
    """``(time,)`` in the channel's units; NaN where no record lies."""
    if channel.problem:
        raise BadInput(header.path, channel.problem, "choose another channel, or export it again with physical units")
    per_record = channel.n_bytes // header.sample_bytes
    if onsets is None:
        row = np.empty(header.n_records * per_record, np.float32)
        for first, block in _blocks(header, channel):
            values = channel.physical(_integers(block, header.sample_bytes))
            row[first * per_record : first * per_record + len(values)] = values
        return row
    places = np.round(onsets * channel.fs_hz).astype(np.int64)
    row = np.full(int(places[-1]) + per_record, np.nan, np.float32)
    for first, block in _blocks(header, channel):
        values = channel.physical(_integers(block, header.sample_bytes)).reshape(len(block), per_record)
        for place, record in zip(places[first : first + len(block)], values, strict=True):
            row[place : place + per_record] = record
    return row


def _integers(block: NDArray[np.uint8], sample_bytes: int) -> NDArray[np.integer]:
    """``(time,)`` of little-endian 16-bit or 24-bit integers."""
    if sample_bytes == 2:
        return np.ascontiguousarray(block).view("<i2").reshape(-1)
    wide = np.zeros((block.size // 3, 4), np.uint8)
    wide[:, 1:] = block.reshape(-1, 3)
    return wide.view("<i4").reshape(-1) >> 8


def _blocks(header: EdfHeader, channel: EdfChannel) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """``(first record, (record, byte))`` of one channel, some records at a time."""
    in_part = header.record_bytes > _SKIPPED_BYTES
    step = max(1, _BLOCK_BYTES // (channel.n_bytes if in_part else header.record_bytes))
    with header.path.open("rb", buffering=0) as handle:
        for first in range(0, header.n_records, step):
            n = min(step, header.n_records - first)
            at = header.header_bytes + first * header.record_bytes
            if in_part:
                places = range(at + channel.first_byte, at + n * header.record_bytes, header.record_bytes)
                raw = b"".join(os.pread(handle.fileno(), channel.n_bytes, place) for place in places)
                block = np.frombuffer(raw, np.uint8)
            else:
                block = np.frombuffer(os.pread(handle.fileno(), n * header.record_bytes, at), np.uint8)
            if block.size != n * (channel.n_bytes if in_part else header.record_bytes):
                raise BadInput(header.path, "became shorter while it was read", "run again once it is complete")
            records = block.reshape(n, -1)
            yield first, records if in_part else records[:, channel.first_byte :][:, : channel.n_bytes]


def _record_onsets(header: EdfHeader) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """``(record,)`` seconds from the first sample, from the time that every record states; what to say of gaps."""
    stamps = [record_onset(record.tobytes()) for _, block in _blocks(header, header.annotations[0]) for record in block]
    if any(stamp is None for stamp in stamps):
        raise BadInput(header.path, f"{stamps.count(None)} data records state no time (EDF+D)", EXPORT_AGAIN)
    onsets = np.array(stamps, np.float64) - header.first_onset_s
    if (np.diff(onsets) < header.record_s - 1e-3).any():
        raise BadInput(header.path, "has data records that overlap in time (EDF+D)", EXPORT_AGAIN)
    if onsets[-1] > header.n_records * header.record_s + _LONGEST_GAPS_S:
        raise BadInput(header.path, f"has gaps of {onsets[-1] / 3600:.0f} h (EDF+D)", "split it into its parts")
    gaps = np.diff(onsets) - header.record_s
    gaps = gaps[gaps > 1e-3]
    return onsets, (f"has {len(gaps)} gaps of {gaps.sum():.1f} s together: no samples there",) if len(gaps) else ()


def _text(raw: bytes) -> tuple[str, bool]:
    try:
        return raw.decode("utf-8"), False
    except UnicodeDecodeError:
        return raw.decode("latin-1"), True
