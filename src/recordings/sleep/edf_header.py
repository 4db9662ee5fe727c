"""Headers of EDF, EDF+ and BDF files: what is in the file, and whether all of it is there.

Formats: Kemp et al. 1992 (EDF), Kemp & Olivan 2003 (EDF+), BioSemi (BDF, the same with 24-bit samples). What concerns
the whole file (its size, the layout of its data records) is checked here; what is wrong with one channel is noted and
matters only to those who read that channel.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from src.signals import BadInput

_FIXED_BYTES = _SIGNAL_BYTES = 256
_FIELDS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
"""Widths of a signal's header fields: label, transducer, unit, physical and digital limits, filter, samples, rest."""
_LABEL, _UNIT, _PHYSICAL_MIN, _PHYSICAL_MAX, _DIGITAL_MIN, _DIGITAL_MAX, _SAMPLES = 0, 2, 3, 4, 5, 6, 8
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
_MICROVOLTS = {"uv": 1.0, "mv": 1e3, "v": 1e6, "nv": 1e-3}
_LONGEST_S = 1e9
_LARGEST_VALUE = 1e20
"""Bound of gain and offset: no sensor reaches it, and 24-bit samples beyond it would not fit in float32."""
COPY_AGAIN, EXPORT_AGAIN = "copy or download it again", "export it again"
TAL = re.compile(rb"([+-]\d+(?:[.,]\d*)?)(?:\x15(\d*(?:[.,]\d*)?))?\x14(.*)", re.DOTALL)
"""A time-stamped annotation list: onset, duration, texts (each closed by 0x14)."""


@dataclass(frozen=True)
class EdfChannel:
    """One signal as its header states it; ``units`` is ``uV`` for anything given in volts.

    ``first_byte`` and ``n_bytes`` say where its samples lie in every data record; ``problem`` says why the channel
    cannot be used (empty if it can).
    """

    label: str
    fs_hz: float
    units: str
    gain: float
    offset: float
    first_byte: int
    n_bytes: int
    problem: str = ""

    def physical(self, digital: NDArray[np.integer]) -> NDArray[np.float32]:
        """``(time,)`` float32 in ``units`` from the stored integers."""
        return (digital * np.float64(self.gain) + self.offset).astype(np.float32)


@dataclass(frozen=True)
class EdfHeader:
    """What an EDF or BDF file says it holds, after its size was found to agree.

    ``duration_s`` counts the gaps of a discontinuous file (``gaps``: EDF+D or BDF+D) from the times that its first
    and last data records state. ``start`` is the time of the first sample. ``notes`` says what had to be decided.
    """

    path: Path
    signals: tuple[EdfChannel, ...]
    annotations: tuple[EdfChannel, ...]
    n_records: int
    record_s: float
    header_bytes: int
    record_bytes: int
    sample_bytes: int
    gaps: bool
    duration_s: float
    start: datetime | None
    first_onset_s: float
    notes: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(signal.label for signal in self.signals)


def read_header(path: str | Path) -> EdfHeader:
    """Signals, rates, units, duration and start of a file; of its data only the time of two records is read.

    Raises
    ------
    BadInput
        If the file is absent, empty, neither EDF nor BDF, truncated, or states an impossible header.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            fixed = handle.read(_FIXED_BYTES)
            if not size:
                raise BadInput(path, "is empty (0 bytes)", COPY_AGAIN)
            is_bdf = fixed[:8] == b"\xffBIOSEMI"
            if len(fixed) < _FIXED_BYTES or not (is_bdf or fixed[:8].strip() == b"0"):
                raise BadInput(path, "is not an EDF file", "give an EDF, EDF+ or BDF file")
            n_signals = _integer(path, fixed, 252, 4, "number of signals")
            if n_signals < 1:
                raise BadInput(path, f"states {n_signals} signals", COPY_AGAIN)
            rest = handle.read(n_signals * _SIGNAL_BYTES)
            if len(rest) < n_signals * _SIGNAL_BYTES:
                raise BadInput(path, f"is truncated in its header ({size} bytes)", COPY_AGAIN)
            return _header(handle, path, size, fixed, rest, 3 if is_bdf else 2)
    except FileNotFoundError:
        raise BadInput(path, "does not exist", "check the path") from None
    except IsADirectoryError:
        raise BadInput(path, "is a folder", "give an EDF file") from None
    except PermissionError:
        raise BadInput(path, "cannot be read (permission denied)", "ask for read access") from None
    except OSError as error:
        raise BadInput(path, f"cannot be read ({error.strerror})", COPY_AGAIN) from None


def _header(handle: BinaryIO, path: Path, size: int, fixed: bytes, rest: bytes, sample_bytes: int) -> EdfHeader:
    n_signals = len(rest) // _SIGNAL_BYTES
    header_bytes = _integer(path, fixed, 184, 8, "number of header bytes")
    if header_bytes != _FIXED_BYTES + len(rest):
        raise BadInput(path, f"states a header of {header_bytes} bytes for {n_signals} signals", EXPORT_AGAIN)
    samples = [_integer(path, _field(rest, i, _SAMPLES), 0, 8, "samples per record") for i in range(n_signals)]
    if min(samples) < 0 or sum(samples) == 0:
        raise BadInput(path, "states data records without samples", EXPORT_AGAIN)
    labels = _distinct([_clean(_field(rest, i, _LABEL)) for i in range(n_signals)])
    record_s = number(fixed[244:252])
    if not 0 < record_s < math.inf:
        if not all(label in _ANNOTATIONS for label in labels):
            raise BadInput(path, f"states data records of {_clean(fixed[244:252])} s", EXPORT_AGAIN)
        record_s = 0.0
    record_bytes = sum(samples) * sample_bytes
    n_records, notes = _count_records(path, size, fixed, header_bytes, record_bytes)
    firsts = np.cumsum([0, *samples])[:-1] * sample_bytes
    channels = [
        _channel(rest, i, label, n, int(first), record_s, sample_bytes)
        for i, (label, n, first) in enumerate(zip(labels, samples, firsts, strict=True))
    ]
    stamps = tuple(channel for channel in channels if channel.label in _ANNOTATIONS)
    gaps = fixed[192:197] in (b"EDF+D", b"BDF+D")

    def stamp(record: int) -> float | None:
        if not stamps:
            return None
        handle.seek(header_bytes + record * record_bytes + stamps[0].first_byte)
        return record_onset(handle.read(stamps[0].n_bytes))

    first_s = stamp(0) or 0.0
    if gaps and (not stamps or not record_s or stamp(n_records - 1) is None):
        raise BadInput(path, "is discontinuous (EDF+D) and does not say when its data records begin", EXPORT_AGAIN)
    last_s = stamp(n_records - 1) if gaps else None
    duration_s = n_records * record_s if last_s is None else last_s - first_s + record_s
    start = _start(fixed)
    start = start + timedelta(seconds=first_s) if start else None
    return EdfHeader(
        path, tuple(channel for channel in channels if channel.label not in _ANNOTATIONS), stamps, n_records, record_s,
        header_bytes, record_bytes, sample_bytes, gaps, duration_s,
        start, first_s, tuple(notes),
    )  # fmt: skip


def _count_records(path: Path, size: int, fixed: bytes, header_bytes: int, record_bytes: int) -> tuple[int, list[str]]:
    present = (size - header_bytes) // record_bytes
    stated = _integer(path, fixed, 236, 8, "number of data records")
    if stated == -1:  # a recording that was never closed
        stated = present
    if stated < 1 or present < 1:
        raise BadInput(path, f"holds {max(min(stated, present), 0)} data records", COPY_AGAIN)
    if present < stated:
        promised = header_bytes + stated * record_bytes
        problem = f"is truncated: {size} of {promised} bytes, {present} of {stated} data records"
        raise BadInput(path, problem, COPY_AGAIN)
    surplus = f"holds {present} data records, its header states {stated}: all were read"
    return present, [surplus] if present > stated else []


def _channel(
    rest: bytes, index: int, label: str, n_samples: int, first_byte: int, record_s: float, sample_bytes: int
) -> EdfChannel:
    raw = {name: _field(rest, index, name) for name in (_PHYSICAL_MIN, _PHYSICAL_MAX, _DIGITAL_MIN, _DIGITAL_MAX)}
    low, high, digital_low, digital_high = (number(value) for value in raw.values())
    unit = _clean(_field(rest, index, _UNIT)).replace("\u00c2", "").replace("\N{MICRO SIGN}", "u")
    problem = ""
    span = digital_high - digital_low
    # The physical minimum may be the greater of the two: the gain is negative then, as the format has it.
    gain = (high - low) / span if span else 0.0
    offset = low - digital_low * gain
    factor = _MICROVOLTS.get(unit.lower())
    scale = 1.0 if factor is None else factor
    if not (abs(gain) + abs(offset)) * scale < _LARGEST_VALUE:
        listed = ", ".join(repr(_clean(value)) for value in raw.values())
        problem = f"channel {label!r} has an unreadable range ({listed})"
    elif low == high or digital_low == digital_high:
        stated = f"physical {low:g}..{high:g}, digital {digital_low:g}..{digital_high:g}"
        problem = f"channel {label!r} has no calibration ({stated})"
    elif not n_samples:
        problem = f"channel {label!r} has no samples"
    return EdfChannel(
        label=label,
        fs_hz=n_samples / record_s if record_s else 0.0,
        units="uV" if factor is not None else unit or "a.u.",
        gain=0.0 if problem else gain * scale,
        offset=0.0 if problem else offset * scale,
        first_byte=first_byte,
        n_bytes=n_samples * sample_bytes,
        problem=problem,
    )


def record_onset(record: bytes) -> float | None:
    """The time that begins a record's annotations: when the record begins."""
    match = TAL.fullmatch(record.split(b"\0", 1)[0])
    onset_s = number(match[1]) if match else math.nan
    return onset_s if abs(onset_s) < _LONGEST_S else None


def _start(fixed: bytes) -> datetime | None:
    """Date and time of the start; a date ``dd-MMM-yyyy`` of EDF+ goes before the one of two digits."""
    clock = re.fullmatch(r"(\d{1,2})\D(\d{1,2})\D(\d{1,2})", _clean(fixed[176:184]))
    short = re.fullmatch(r"(\d{1,2})\D(\d{1,2})\D(\d{2})", _clean(fixed[168:176]))
    if not clock:
        return None
    long = re.match(r"Startdate (\d{1,2}-[A-Z]{3}-\d{4})\b", _clean(fixed[88:168]), re.IGNORECASE)
    try:
        if long:
            day = datetime.strptime(long[1], "%d-%b-%Y")
        elif short:
            year = int(short[3]) + (1900 if int(short[3]) >= 85 else 2000)
            day = datetime(year, int(short[2]), int(short[1]))
        else:
            return None
        if not 1900 <= day.year <= 2200:
            return None
        return day.replace(hour=int(clock[1]), minute=int(clock[2]), second=int(clock[3]))
    except ValueError:
        return None


def _distinct(labels: Sequence[str]) -> list[str]:
    """Labels that occur more than once are numbered: ``C3 (1)``, ``C3 (2)``."""
    twice = {label for label in labels if labels.count(label) > 1} - set(_ANNOTATIONS)
    return [f"{x} ({labels[: i + 1].count(x)})" if x in twice else x for i, x in enumerate(labels)]


def _field(rest: bytes, index: int, field: int) -> bytes:
    n_signals = len(rest) // _SIGNAL_BYTES
    at = n_signals * sum(_FIELDS[:field]) + index * _FIELDS[field]
    return rest[at : at + _FIELDS[field]]


def _clean(raw: bytes) -> str:
    return " ".join(raw.decode("latin-1").replace("\0", " ").split())


def number(raw: bytes) -> float:
    """NaN for what is no number; exporters in some countries write a decimal comma."""
    try:
        return float(_clean(raw).replace(",", "."))
    except ValueError:
        return math.nan


def _integer(path: Path, block: bytes, offset: int, width: int, name: str) -> int:
    text = _clean(block[offset : offset + width])
    try:
        return int(text)
    except ValueError:
        raise BadInput(path, f"is not an EDF file ({name}: {text!r})", "give an EDF, EDF+ or BDF file") from None
