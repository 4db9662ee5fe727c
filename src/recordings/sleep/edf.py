"""EDF and EDF+ files: channels by name, in microvolts, at any rate; annotations; and what can be wrong with them.

Formats: Kemp et al. 1992 (EDF) and Kemp & Olivan 2003 (EDF+). A file is checked by
:mod:`src.recordings.sleep.edf_integrity` before a byte of signal is trusted.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import edfio
import numpy as np

from src.recordings.sleep.channels import Derivation, derivations
from src.recordings.sleep.edf_integrity import check_edf
from src.recordings.sleep.resample import require_band, resample
from src.signals import BadInput, Recording

_MICROVOLTS = {"uv": 1.0, "mv": 1e3, "v": 1e6, "nv": 1e-3}


@dataclass(frozen=True)
class EdfSignalHeader:
    """One signal as its header states it; ``units`` is ``uV`` for anything given in volts."""

    label: str
    fs_hz: float
    units: str
    gain: float
    offset: float

    def physical(self, digital: np.ndarray) -> np.ndarray:
        """``(time,)`` float32 in ``units`` from the stored integers."""
        return (digital * np.float64(self.gain) + self.offset).astype(np.float32)


@dataclass(frozen=True)
class EdfHeader:
    """What an EDF file says it holds, after its size was found to agree."""

    path: Path
    signals: tuple[EdfSignalHeader, ...]
    duration_s: float
    start: datetime | None

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(signal.label for signal in self.signals)


def read_header(path: str | Path) -> EdfHeader:
    """Signals, rates, units, duration and start of an EDF file; no sample is read.

    Raises
    ------
    BadInput
        If the file is absent, empty, not EDF, truncated, or states an impossible header.
    """
    return _header(Path(path), _open(Path(path)))


def read_recording(
    path: str | Path,
    channels: Sequence[str] | None = None,
    *,
    fs_hz: float | None = None,
    aliases: Mapping[str, Sequence[str]] | None = None,
    max_hz: float | None = None,
    recording_id: str | None = None,
    subject_id: str | None = None,
) -> Recording:
    """Read the channels asked for, and only those, in microvolts.

    Parameters
    ----------
    path
        EDF or EDF+C file.
    channels
        Names in the order wanted, found by :func:`src.recordings.sleep.channels.derivations`; the
        recording carries these names. ``None`` reads every signal of the file's fastest rate.
    fs_hz
        Rate to resample to. ``None`` keeps the file's, which then has to be one for all channels.
    aliases
        Further names to try for a channel, best first.
    max_hz
        The highest frequency that will be analysed; a rate that cannot carry it is refused.
    recording_id, subject_id
        Default to the file's stem.

    Returns
    -------
    Recording
        ``(channel, time)`` float32; anything in V, mV or nV converted to ``uV``, other units as stated.

    Raises
    ------
    BadInput
        See :func:`read_header`; also for an absent channel, channels of different rates, and a rate
        too low for ``max_hz``.
    """
    path = Path(path)
    edf = _open(path)
    header = _header(path, edf)
    if channels is None:
        fastest = max((signal.fs_hz for signal in header.signals), default=0.0)
        channels = [signal.label for signal in header.signals if signal.fs_hz == fastest]
        picks = [Derivation(s.label, i) for i, s in enumerate(header.signals) if s.fs_hz == fastest]
    else:
        picks = derivations(path, channels, header.labels, aliases or {})
    if not picks:
        raise BadInput(path, "holds annotations but no signal", "give the PSG file that belongs to it")
    rows, units, rates = zip(*(_derive(path, edf, header, pick) for pick in picks), strict=True)
    for pick, rate in zip(picks, rates, strict=True):
        require_band(path, pick.name, rate, max_hz)
    if fs_hz is None:
        if len(set(rates)) > 1:
            listed = ", ".join(f"{p.name} {rate:g} Hz" for p, rate in zip(picks, rates, strict=True))
            raise BadInput(path, f"channels have different rates ({listed})", "give the rate to resample to, fs_hz=...")
        fs_hz = rates[0]
    rows = tuple(resample(row, rate, fs_hz) for row, rate in zip(rows, rates, strict=True))
    shortest = min(len(row) for row in rows)
    return Recording(
        samples=np.stack([row[:shortest] for row in rows]),
        fs_hz=float(fs_hz),
        channels=tuple(channels),
        units=units,
        recording_id=recording_id or path.stem,
        subject_id=subject_id or path.stem,
        start=header.start,
        source=str(path),
    )


def read_annotations(path: str | Path) -> tuple[list[tuple[float, float | None, str]], datetime | None]:
    """``(onset_s, duration_s, text)`` of every EDF+ annotation, in order, and the start of the file.

    Raises
    ------
    BadInput
        See :func:`read_header`; also when the file has no annotation signal or it cannot be parsed.
    """
    path = Path(path)
    edf = _open(path)
    try:
        found = [(float(a.onset), a.duration, a.text.strip()) for a in edf.annotations]
    except Exception as error:
        raise BadInput(path, f"has unreadable annotations ({_short(error)})", "export the EDF+ again") from error
    return sorted(found, key=lambda a: a[0]), _start(edf)


def _open(path: Path) -> edfio.Edf:
    check_edf(path)
    try:
        with warnings.catch_warnings():
            # edfio warns about lengths that disagree with the header; those were judged above.
            warnings.simplefilter("ignore")
            return edfio.read_edf(path, lazy_load_data=True, header_encoding="latin-1")
    except Exception as error:
        raise BadInput(path, f"has a malformed EDF header ({_short(error)})", "export it again") from error


def _header(path: Path, edf: edfio.Edf) -> EdfHeader:
    if edf.reserved.startswith("EDF+D"):
        raise BadInput(path, "is discontinuous (EDF+D)", "export it as EDF or EDF+C, gaps filled")
    try:
        record_s = edf.data_record_duration
    except ValueError as error:
        raise BadInput(path, f"states no duration of its data records ({_short(error)})", "export it again") from error
    signals = tuple(_signal_header(path, signal, record_s) for signal in edf.signals)
    return EdfHeader(path, signals, edf.num_data_records * record_s, _start(edf))


def _signal_header(path: Path, signal: edfio.EdfSignal, record_s: float) -> EdfSignalHeader:
    label = signal.label.strip()
    if not math.isfinite(record_s) or record_s <= 0:
        raise BadInput(path, f"states data records of {record_s:g} s", "export it again")
    try:
        # Some exporters follow the local habit of a decimal comma.
        low, high = (
            float(raw.decode("latin-1").replace(",", ".")) for raw in (signal._physical_min, signal._physical_max)
        )
        digital_low, digital_high = signal.digital_min, signal.digital_max
    except ValueError as error:
        raise BadInput(
            path, f"channel {label!r} has an unreadable range ({_short(error)})", "export it again"
        ) from error
    if not (math.isfinite(low) and math.isfinite(high)) or low == high or digital_low == digital_high:
        problem = (
            f"channel {label!r} has no calibration (physical {low:g}..{high:g}, digital {digital_low}..{digital_high})"
        )
        raise BadInput(path, problem, "export it again with physical units")
    unit = signal.physical_dimension.strip().replace("\N{MICRO SIGN}", "u").replace("\N{GREEK SMALL LETTER MU}", "u")
    factor = _MICROVOLTS.get(unit.lower())
    gain = (high - low) / (digital_high - digital_low)
    scale = 1.0 if factor is None else factor
    return EdfSignalHeader(
        label=label,
        fs_hz=signal.samples_per_data_record / record_s,
        units="uV" if factor is not None else unit or "a.u.",
        gain=gain * scale,
        offset=(low - digital_low * gain) * scale,
    )


def _start(edf: edfio.Edf) -> datetime | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return edf.startdatetime
        except Exception:
            # An anonymised date ("Startdate X") still leaves the clock time and the legacy date.
            text = f"{edf._startdate.decode('latin-1')} {edf._starttime.decode('latin-1')}"
    try:
        return datetime.strptime(text.strip(), "%d.%m.%y %H.%M.%S")
    except ValueError:
        return None


def _derive(path: Path, edf: edfio.Edf, header: EdfHeader, pick: Derivation) -> tuple[np.ndarray, str, float]:
    signal = header.signals[pick.plus]
    row = signal.physical(edf.signals[pick.plus].digital)
    if pick.minus is not None:
        other = header.signals[pick.minus]
        if other.fs_hz != signal.fs_hz or other.units != signal.units:
            problem = f"{pick.name} would be {signal.label} ({signal.fs_hz:g} Hz, {signal.units}) minus {other.label} "
            raise BadInput(path, problem + f"({other.fs_hz:g} Hz, {other.units})", "choose another channel")
        row = row - other.physical(edf.signals[pick.minus].digital)
    return row, signal.units, signal.fs_hz


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
