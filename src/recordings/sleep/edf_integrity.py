"""Is this an EDF file, and is all of it there? What the header promises is held against the bytes on the disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from src.signals import BadInput

_FIXED_BYTES, _SIGNAL_BYTES, _SAMPLE_BYTES = 256, 256, 2
_MOST_SIGNALS = 9999
_SAMPLES_AT = 216
_ANNOTATIONS = "EDF Annotations"
_COPY_AGAIN, _EXPORT_AGAIN = "copy or download it again", "export it again"


def check_edf(path: Path) -> None:
    """Refuse what is no EDF file, is cut off, or contradicts itself.

    Raises
    ------
    BadInput
        Naming the first thing found wrong and what can be done about it.
    """
    head = _read_head(path)
    if not head.size:
        raise BadInput(path, "is empty (0 bytes)", _COPY_AGAIN)
    if head.fixed[1:8] == b"BIOSEMI":
        raise BadInput(path, "is a BDF file (24 bit)", "convert it to EDF")
    if len(head.fixed) < _FIXED_BYTES or head.fixed[:8].strip() != b"0":
        raise BadInput(path, "is not an EDF file", "give an EDF or EDF+ file")
    n_signals = _integer(path, head.fixed, 252, 4, "number of signals")
    header_bytes = _integer(path, head.fixed, 184, 8, "number of header bytes")
    if n_signals < 1:
        raise BadInput(path, f"states {n_signals} signals", _COPY_AGAIN)
    if header_bytes != _FIXED_BYTES + n_signals * _SIGNAL_BYTES:
        raise BadInput(path, f"states a header of {header_bytes} bytes for {n_signals} signals", _EXPORT_AGAIN)
    if len(head.rest) < n_signals * _SIGNAL_BYTES:
        raise BadInput(path, f"is truncated in its header ({head.size} bytes)", _COPY_AGAIN)
    _check_records(path, head, n_signals, header_bytes)


@dataclass(frozen=True)
class _Head:
    size: int
    fixed: bytes
    rest: bytes


def _read_head(path: Path) -> _Head:
    try:
        size = path.stat().st_size
        with path.open("rb") as handle:
            return _Head(size, handle.read(_FIXED_BYTES), handle.read(_MOST_SIGNALS * _SIGNAL_BYTES))
    except FileNotFoundError:
        raise BadInput(path, "does not exist", "check the path") from None
    except IsADirectoryError:
        raise BadInput(path, "is a folder", "give an EDF file") from None
    except PermissionError:
        raise BadInput(path, "cannot be read (permission denied)", "ask for read access") from None
    except OSError as error:
        raise BadInput(path, f"cannot be read ({error.strerror})", _COPY_AGAIN) from None


def _check_records(path: Path, head: _Head, n_signals: int, header_bytes: int) -> None:
    labels = {_text(head.rest, 16 * i, 16) for i in range(n_signals)}
    if labels != {_ANNOTATIONS} and not _positive(_text(head.fixed, 244, 8)):
        raise BadInput(path, f"states data records of {_text(head.fixed, 244, 8)} s", _EXPORT_AGAIN)
    starts = (_SAMPLES_AT * n_signals + 8 * i for i in range(n_signals))
    lengths = [_integer(path, head.rest, start, 8, "samples per record") for start in starts]
    if min(lengths) < 0 or sum(lengths) == 0:
        raise BadInput(path, "states data records without samples", _EXPORT_AGAIN)
    record_bytes = sum(lengths) * _SAMPLE_BYTES
    present = (head.size - header_bytes) // record_bytes
    records = _integer(path, head.fixed, 236, 8, "number of data records")
    if records == -1:
        # A recording that was never closed: what is there counts.
        records = present
    if records < 1 or present < 1:
        raise BadInput(path, f"holds {max(min(records, present), 0)} data records", _COPY_AGAIN)
    if present < records:
        promised = header_bytes + records * record_bytes
        problem = f"is truncated: {head.size} of {promised} bytes, {present} of {records} data records"
        raise BadInput(path, problem, _COPY_AGAIN)
    if present > records:
        problem = f"holds {present} data records, its header states {records}"
        raise BadInput(path, problem, "correct the number of data records in the header, or export it again")


def _text(block: bytes, offset: int, width: int) -> str:
    return " ".join(block[offset : offset + width].decode("latin-1").split())


def _positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _integer(path: Path, block: bytes, offset: int, width: int, name: str) -> int:
    text = _text(block, offset, width)
    try:
        return int(text)
    except ValueError:
        raise BadInput(path, f"is not an EDF file ({name}: {text!r})", "give an EDF or EDF+ file") from None
