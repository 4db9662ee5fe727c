"""EDF, EDF+ and BDF files: the header, whether all of the file is there, samples and annotations.

Formats: Kemp et al. 1992 (EDF), Kemp & Olivan 2003 (EDF+), BioSemi (BDF, the same with 24-bit samples). What concerns
the whole file (its size, the layout of its data records) is checked with the header; what is wrong with one channel is
noted and matters only to those who read that channel. Samples are read block by block: memory holds the channels asked
for and no more, whatever the size of the file.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from src.recordings.sleep.channels import derivation
from src.signals import BadInput, Recording, counted
from src.storage.foreign_files import explained

EDF_SUFFIXES = (".edf", ".bdf")
_FIXED_BYTES = _SIGNAL_BYTES = 256
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
"""Of a signal's header fields: label, transducer, unit, physical and digital limits, filter, samples, rest."""
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
MICROVOLTS = {"uv": 1.0, "mv": 1e3, "v": 1e6, "nv": 1e-3}  # µV in a unit of a header, in small letters, u for µ
_LONGEST_S, _LONGEST_GAPS_S = 1e9, 86_400.0
_LARGEST_VALUE = 1e20
"""Bound of gain and offset: no sensor reaches it, and 24-bit samples beyond it would not fit in float32."""
_COPY_AGAIN, _EXPORT_AGAIN = "copy or download it again", "export it again"
_TAL = re.compile(rb"([+-]\d+(?:[.,]\d*)?)(?:\x15(\d*(?:[.,]\d*)?))?\x14(.*)", re.DOTALL)
"""A time-stamped annotation list: onset, duration, texts (each closed by 0x14)."""
_BLOCK_BYTES = 1 << 22
_SKIPPED_BYTES = 8192
"""Data records longer than this are read in part: only the bytes of the channel."""


def is_edf_file(path: Path) -> bool:
    """Whether a path is named as an EDF or BDF file, or is one of ISRUC's, whose suffix is ``.rec``."""
    if path.suffix.lower() != ".rec" or not path.is_file():
        return path.suffix.lower() in EDF_SUFFIXES
    with path.open("rb") as handle:
        return handle.read(8) == b"0       "


@dataclass(frozen=True)
class EdfChannel:
    """One signal as its header states it; physical values are ``digital * gain + offset``."""

    label: str
    fs_hz: float
    units: str  # "uV" for anything given in volts
    gain: float
    offset: float
    first_byte: int  # where its samples lie in every data record
    n_bytes: int
    problem: str = ""  # why the channel cannot be used, empty if it can


@dataclass(frozen=True)
class EdfHeader:
    """What an EDF or BDF file says it holds, after its size was found to agree."""

    path: Path
    signals: tuple[EdfChannel, ...]
    annotations: tuple[EdfChannel, ...]
    n_records: int
    record_s: float
    header_bytes: int
    record_bytes: int
    sample_bytes: int
    gaps: bool  # a discontinuous file, EDF+D or BDF+D
    duration_s: float  # gaps included, from the times that the first and last data records state
    start: datetime | None  # of the first sample
    first_onset_s: float
    notes: tuple[str, ...]  # what had to be decided


class Annotations(NamedTuple):
    """``marks`` are ``(onset_s, duration_s or None, text)`` from the first sample, in order; ``start`` is its time."""

    marks: list[tuple[float, float | None, str]]
    start: datetime | None
    notes: tuple[str, ...]


def read_channels(
    path: str | Path, names: Sequence[str] | None = None, aliases: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> list[Recording]:
    """One recording per channel asked for, in microvolts, each at the rate it was recorded with.

    Parameters
    ----------
    path
        EDF, EDF+C, EDF+D or BDF file.
    names, aliases
        Channels in the order wanted, found by :func:`src.recordings.sleep.channels.derivation`, which the recordings
        are named by, and further names of each. ``None`` reads every usable signal of the file's fastest rate.

    Raises
    ------
    BadInput
        For a channel that is absent or has no calibration, and for a file without signals.
    """
    header = read_header(path)
    if not header.signals:
        raise BadInput(path, "holds annotations but no signal", "give the PSG file that belongs to it")
    onsets, gaps = _record_onsets(header) if header.gaps else (None, ())
    notes, labels = (*header.notes, *gaps), [signal.label for signal in header.signals]
    picks: list[tuple[str, int, int | None]]
    if names is None:
        usable = [i for i, signal in enumerate(header.signals) if not signal.problem] or [0]
        fastest = max(header.signals[i].fs_hz for i in usable)
        picks = [(labels[i], i, None) for i in usable if header.signals[i].fs_hz == fastest]
        if dead := [signal.label for signal in header.signals if signal.problem]:
            notes = (*notes, f"{counted(len(dead), 'channel')} without calibration left out ({', '.join(dead)})")
    else:
        picks = [(name, *derivation(header.path, name, labels, aliases.get(name, ()))) for name in names]
    found = []
    for name, plus, minus in picks:
        signal = header.signals[plus]
        row = _samples(header, signal, onsets)
        if minus is not None:
            other = header.signals[minus]
            if other.fs_hz != signal.fs_hz or other.units != signal.units:
                one, two = (f"{s.label} ({s.fs_hz:g} Hz, {s.units})" for s in (signal, other))
                raise BadInput(header.path, f"{name} would be {one} minus {two}", "choose another channel")
            row -= _samples(header, other, onsets)
        about = (header.path.stem, header.path.stem, header.start, str(path), notes)
        found.append(Recording(row[None], signal.fs_hz, (name,), (signal.units,), *about))
    return found


def read_annotations(path: str | Path) -> Annotations:
    """Every EDF+ or BDF+ annotation, in order. A text that is not UTF-8 is read as Latin-1."""
    header = read_header(path)
    marks: list[tuple[float, float | None, str]] = []
    unreadable = latin = 0
    for channel in header.annotations:
        for _, block in _blocks(header, channel):
            for tal in (piece for record in block for piece in record.tobytes().split(b"\0") if piece):
                if not (match := _TAL.fullmatch(tal)):
                    unreadable += 1
                    continue
                onset_s = _number(match[1]) - header.first_onset_s
                duration = _number(match[2]) if match[2] else math.nan
                for raw in filter(None, match[3].split(b"\x14")):
                    try:
                        text = raw.decode("utf-8")
                    except UnicodeDecodeError:
                        text, latin = raw.decode("latin-1"), latin + 1
                    marks.append((onset_s, duration if math.isfinite(duration) else None, text.strip()))
    counts = {"read as Latin-1: not UTF-8": latin, "left out: not readable": unreadable}
    notes = [*header.notes, *(f"{counted(n, 'annotation')} {what}" for what, n in counts.items() if n)]
    return Annotations(sorted(marks, key=lambda mark: mark[0]), header.start, tuple(notes))


def read_header(path: str | Path) -> EdfHeader:
    """Signals, rates, units, duration and start of a file; of its data only the time of two records is read.

    Raises
    ------
    BadInput
        If the file is absent, empty, neither EDF nor BDF, truncated, or states an impossible header.
    """
    path = Path(path)
    with explained(path, hint=_COPY_AGAIN), path.open("rb") as handle:
        size, fixed = path.stat().st_size, handle.read(_FIXED_BYTES)
        is_bdf = fixed[:8] == b"\xffBIOSEMI"
        if not size:
            raise BadInput(path, "is empty (0 bytes)", _COPY_AGAIN)
        if len(fixed) < _FIXED_BYTES or not (is_bdf or fixed[:8].strip() == b"0"):
            raise BadInput(path, "is not an EDF file", "give an EDF, EDF+ or BDF file")
        n_signals = _integer(path, fixed[252:256], "number of signals")
        if n_signals < 1:
            raise BadInput(path, f"states {n_signals} signals", _COPY_AGAIN)
        rest = handle.read(n_signals * _SIGNAL_BYTES)
        if len(rest) < n_signals * _SIGNAL_BYTES:
            raise BadInput(path, f"is truncated in its header ({size} bytes)", _COPY_AGAIN)
    return _header(path, size, fixed, rest, 3 if is_bdf else 2)


def _header(path: Path, size: int, fixed: bytes, rest: bytes, sample_bytes: int) -> EdfHeader:
    # The fields of all signals stand one after the other.
    n_signals = len(rest) // _SIGNAL_BYTES
    starts = zip(n_signals * np.cumsum((0, *_WIDTHS[:-1])), _WIDTHS, strict=True)
    fields = [[rest[at + i * width : at + (i + 1) * width] for i in range(n_signals)] for at, width in starts]
    header_bytes = _integer(path, fixed[184:192], "number of header bytes")
    if header_bytes != _FIXED_BYTES + len(rest):
        raise BadInput(path, f"states a header of {header_bytes} bytes for {n_signals} signals", _EXPORT_AGAIN)
    samples = [_integer(path, stated, "samples per record") for stated in fields[8]]
    if min(samples) < 0 or sum(samples) == 0:
        raise BadInput(path, "states data records without samples", _EXPORT_AGAIN)
    record_s = _number(fixed[244:252])
    if not 0 < record_s < math.inf:
        if not all(_clean(label) in _ANNOTATIONS for label in fields[0]):
            raise BadInput(path, f"states data records of {_clean(fixed[244:252])} s", _EXPORT_AGAIN)
        record_s = 0.0
    record_bytes = sum(samples) * sample_bytes
    n_records, notes = _count_records(path, size, fixed, header_bytes, record_bytes)
    firsts = np.cumsum([0, *samples])[:-1] * sample_bytes
    names = [_clean(label) for label in fields[0]]
    twice = {name for name in names if names.count(name) > 1} - set(_ANNOTATIONS)  # C3 (1), C3 (2)
    labels = [f"{x} ({names[: i + 1].count(x)})" if x in twice else x for i, x in enumerate(names)]
    channels = [
        _channel(label, stated, n / record_s if record_s else 0.0, int(first), n * sample_bytes)
        for label, stated, n, first in zip(labels, zip(*fields[2:7], strict=True), samples, firsts, strict=True)
    ]
    stamps = tuple(channel for channel in channels if channel.label in _ANNOTATIONS)
    gaps = fixed[192:197] in (b"EDF+D", b"BDF+D")

    def onset(record: int) -> float | None:
        if not stamps:
            return None
        with path.open("rb") as handle:
            handle.seek(header_bytes + record * record_bytes + stamps[0].first_byte)
            return _onset(handle.read(stamps[0].n_bytes))

    first_s = onset(0) or 0.0
    last_s = onset(n_records - 1) if gaps else None
    if gaps and (last_s is None or not record_s):
        raise BadInput(path, "is discontinuous (EDF+D) and does not say when its data records begin", _EXPORT_AGAIN)
    duration_s = n_records * record_s if last_s is None else last_s - first_s + record_s
    start = _start(fixed)
    return EdfHeader(
        path, tuple(channel for channel in channels if channel.label not in _ANNOTATIONS), stamps, n_records, record_s,
        header_bytes, record_bytes, sample_bytes, gaps, duration_s,
        start + timedelta(seconds=first_s) if start else None, first_s, tuple(notes),
    )  # fmt: skip


def _count_records(path: Path, size: int, fixed: bytes, header_bytes: int, record_bytes: int) -> tuple[int, list[str]]:
    present = (size - header_bytes) // record_bytes
    stated = _integer(path, fixed[236:244], "number of data records")
    if stated == -1:  # a recording that was never closed
        stated = present
    if stated < 1 or present < 1:
        raise BadInput(path, f"holds {max(min(stated, present), 0)} data records", _COPY_AGAIN)
    if present < stated:
        promised = header_bytes + stated * record_bytes
        problem = f"is truncated: {size} of {promised} bytes, {present} of {stated} data records"
        raise BadInput(path, problem, _COPY_AGAIN)
    surplus = f"holds {present} data records, its header states {stated}: all were read"
    return present, [surplus] if present > stated else []


def _channel(label: str, stated: Sequence[bytes], fs_hz: float, first_byte: int, n_bytes: int) -> EdfChannel:
    """``stated`` are the unit, the physical and the digital limits."""
    low, high, digital_low, digital_high = (_number(limit) for limit in stated[1:])
    unit = _clean(stated[0]).replace("\u00c2", "").replace("\N{MICRO SIGN}", "u")
    span = digital_high - digital_low
    # The physical minimum may be the greater of the two: the gain is negative then, as the format has it.
    gain = (high - low) / span if span else 0.0
    offset = low - digital_low * gain
    factor = MICROVOLTS.get(unit.lower())
    scale, problem = (1.0 if factor is None else factor), ""
    if not (abs(gain) + abs(offset)) * scale < _LARGEST_VALUE:
        listed = ", ".join(repr(_clean(limit)) for limit in stated[1:])
        problem = f"channel {label!r} has an unreadable range ({listed})"
    elif low == high or digital_low == digital_high:
        limits = f"physical {low:g}..{high:g}, digital {digital_low:g}..{digital_high:g}"
        problem = f"channel {label!r} has no calibration ({limits})"
    elif not n_bytes:
        problem = f"channel {label!r} has no samples"
    units = "uV" if factor is not None else unit or "a.u."
    gain, offset = (0.0, 0.0) if problem else (gain * scale, offset * scale)
    return EdfChannel(label, fs_hz, units, gain, offset, first_byte, n_bytes, problem)


def _start(fixed: bytes) -> datetime | None:
    """Date and time of the start; a date ``dd-MMM-yyyy`` of EDF+ goes before the one of two digits."""
    clock = re.fullmatch(r"(\d{1,2})\D(\d{1,2})\D(\d{1,2})", _clean(fixed[176:184]))
    short = re.fullmatch(r"(\d{1,2})\D(\d{1,2})\D(\d{2})", _clean(fixed[168:176]))
    long = re.match(r"Startdate (\d{1,2}-[A-Z]{3}-\d{4})\b", _clean(fixed[88:168]), re.IGNORECASE)
    if not clock or not (long or short):
        return None
    try:
        if long:
            day = datetime.strptime(long[1], "%d-%b-%Y")
        elif short:
            day = datetime(int(short[3]) + (1900 if int(short[3]) >= 85 else 2000), int(short[2]), int(short[1]))
        start = day.replace(hour=int(clock[1]), minute=int(clock[2]), second=int(clock[3]))
    except ValueError:
        return None
    return start if 1900 <= start.year <= 2200 else None


def _clean(raw: bytes) -> str:
    return " ".join(raw.decode("latin-1").replace("\0", " ").split())


def _number(raw: bytes) -> float:
    """NaN for what is no number; exporters in some countries write a decimal comma."""
    try:
        return float(_clean(raw).replace(",", "."))
    except ValueError:
        return math.nan


def _integer(path: Path, raw: bytes, name: str) -> int:
    try:
        return int(_clean(raw))
    except ValueError:
        problem = f"is not an EDF file ({name}: {_clean(raw)!r})"
        raise BadInput(path, problem, "give an EDF, EDF+ or BDF file") from None


def _onset(record: bytes) -> float | None:
    """The time that begins a record's annotations: when the record begins."""
    match = _TAL.fullmatch(record.split(b"\0", 1)[0])
    onset_s = _number(match[1]) if match else math.nan
    return onset_s if abs(onset_s) < _LONGEST_S else None


def _samples(header: EdfHeader, channel: EdfChannel, onsets: NDArray[np.float64] | None) -> NDArray[np.float32]:
    """``(time,)`` in the channel's units; NaN where no record lies."""
    if channel.problem:
        raise BadInput(header.path, channel.problem, "choose another channel, or export it again with physical units")
    n = channel.n_bytes // header.sample_bytes
    places = np.arange(header.n_records) * n if onsets is None else np.round(onsets * channel.fs_hz).astype(np.int64)
    row = np.full(int(places[-1]) + n, np.nan, np.float32)
    for first, block in _blocks(header, channel):
        if header.sample_bytes == 2:
            digital = np.ascontiguousarray(block).view("<i2").reshape(-1)
        else:  # 24 bits
            wide = np.zeros((block.size // 3, 4), np.uint8)
            wide[:, 1:] = block.reshape(-1, 3)
            digital = wide.view("<i4").reshape(-1) >> 8
        values = (digital * np.float64(channel.gain) + channel.offset).astype(np.float32)
        if onsets is None:
            row[first * n : first * n + len(values)] = values
            continue
        for place, record in zip(places[first:], values.reshape(len(block), n), strict=False):
            row[place : place + n] = record
    return row


def _blocks(header: EdfHeader, channel: EdfChannel) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """``(first record, (record, byte))`` of one channel, some records at a time."""
    in_part = header.record_bytes > _SKIPPED_BYTES
    width = channel.n_bytes if in_part else header.record_bytes
    step = max(1, _BLOCK_BYTES // width)
    with header.path.open("rb", buffering=0) as handle:
        for first in range(0, header.n_records, step):
            n = min(step, header.n_records - first)
            at = header.header_bytes + first * header.record_bytes
            if in_part:
                places = range(at + channel.first_byte, at + n * header.record_bytes, header.record_bytes)
                raw = b"".join(os.pread(handle.fileno(), width, place) for place in places)
            else:
                raw = os.pread(handle.fileno(), n * width, at)
            if len(raw) != n * width:
                raise BadInput(header.path, "became shorter while it was read", "run again once it is complete")
            records = np.frombuffer(raw, np.uint8).reshape(n, -1)
            yield first, records if in_part else records[:, channel.first_byte :][:, : channel.n_bytes]


def _record_onsets(header: EdfHeader) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """``(record,)`` seconds from the first sample, from the time that every record states; what to say of gaps."""
    stamps = [_onset(record.tobytes()) for _, block in _blocks(header, header.annotations[0]) for record in block]
    if any(stamp is None for stamp in stamps):
        raise BadInput(header.path, f"{stamps.count(None)} data records state no time (EDF+D)", _EXPORT_AGAIN)
    onsets = np.array(stamps, np.float64) - header.first_onset_s
    gaps = np.diff(onsets) - header.record_s
    if (gaps < -1e-3).any():
        raise BadInput(header.path, "has data records that overlap in time (EDF+D)", _EXPORT_AGAIN)
    if onsets[-1] > header.n_records * header.record_s + _LONGEST_GAPS_S:
        raise BadInput(header.path, f"has gaps of {onsets[-1] / 3600:.0f} h (EDF+D)", "split it into its parts")
    gaps = gaps[gaps > 1e-3]
    note = f"has {counted(len(gaps), 'gap')}, {gaps.sum():.1f} s in all: no samples there"
    return onsets, (note,) if len(gaps) else ()
