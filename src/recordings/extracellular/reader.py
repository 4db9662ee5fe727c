"""Any extracellular recording, for LFP and spikes alike: a file or folder in, a typed, lazy recording out.

``formats.py`` says which format a file has, ``vendors.py`` reads it with SpikeInterface and neo, ``arrays.py`` and
``binary.py`` read plain arrays and what SpikeInterface reads slowly or wrongly.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io.wavfile
from numpy.typing import NDArray

from src.recordings.extracellular.arrays import SUFFIXES, StoredArray, damage_explained, open_array
from src.recordings.extracellular.binary import open_raw
from src.recordings.extracellular.formats import RATE_HINT, vendor_format
from src.recordings.extracellular.recording import ExtracellularRecording, Run, require_rate
from src.signals import BadInput, SourceOptions

COORDINATES = ("channel_locations", "xcoord", "ycoord", "depth_order")
ORIGINAL_UPSTREAM = (
    "traces extracted by the original pipeline were band-passed 1-200 Hz after a common median reference: "
    "power below 1 Hz is attenuated, and waves that all channels of the shank share are reduced"
)
_ORIGINAL_KEYS = {"original_fs", "original_duration"}
"""Only the original extraction writes these."""

_RATE = re.compile(
    r"(sampl(e|ing))?(rate|freq|frequency)(s?hz)?|fs(hz|hertz|ample)?|sr|srate|sfreq|adfreq|samplespersecond"
    r"|acquisitionrate"
)
_INTERVAL = re.compile(r"dt|tsample|sampl(e|ing)interval|samplingperiod")
_LATEST_S = 1e11
USUAL_NAMES = ("traces", "d", "data", "lfp", "LFP", "signal", "samples")


def open_recording(
    path: Path, options: SourceOptions | None = None, *, purpose: str = "lfp", usual_hz: float | None = None
) -> ExtracellularRecording:
    """Everything about a recording but its samples.

    Parameters
    ----------
    path
        A file or folder of one of :data:`.formats.FORMATS`, plain arrays, WAV, or raw binary with ``options.dtype``.
    purpose
        ``"lfp"`` or ``"spikes"``: which stream of a recording with several is meant, and which array of a file.
    usual_hz
        Sampling rate of arrays that state none, where the options give none either.

    Raises
    ------
    BadInput
        If the file is damaged, incomplete or contradicts itself or the options, or its format is not known.
    """
    path, options = Path(path), options or SourceOptions()
    if not path.exists():
        raise BadInput(path, "does not exist", "check the path")
    suffix = path.suffix.lower()
    if path.is_file() and suffix in SUFFIXES:
        usual = USUAL_NAMES if purpose == "lfp" else tuple(dict.fromkeys(("d", *USUAL_NAMES)))
        recording = _of_arrays(path, open_array(path, options.key, usual), options.fs_hz or usual_hz)
    elif path.is_file() and suffix == ".wav":
        recording = _wav(path)
    elif path.is_file() and options.dtype is not None:
        recording = open_raw(path, options.dtype, options.channels, options.fs_hz)
    else:
        from src.recordings.extracellular.vendors import open_vendor  # loads SpikeInterface

        recording = open_vendor(path, options.stream, purpose)
    require_rate(path, recording.fs_hz, purpose)
    if options.fs_hz is not None and not np.isclose(recording.fs_hz, options.fs_hz, rtol=1e-3):
        stated = f"{recording.fs_hz:g} Hz"
        problem = f"states a sampling rate of {stated}, {options.fs_hz:g} Hz was given"
        raise BadInput(path, problem, f"give {stated} if the file is right, else correct the file or resample it")
    if options.gain_uv is not None:
        if not options.gain_uv or not np.isfinite(options.gain_uv):
            raise BadInput("source.gain_uv", f"is {options.gain_uv:g}", "give the µV of one unit of the samples")
        gain = np.full(recording.n_channels, options.gain_uv, np.float32)
        recording = replace(recording, gain=gain, offset=None, units="uV")
    return recording


def is_recording(path: Path) -> bool:
    """Whether a path looks like a recording that :func:`open_recording` opens without being told more."""
    return (path.is_file() and path.suffix.lower() in (*SUFFIXES, ".wav")) or vendor_format(path) is not None


def stated_rate(path: Path, fields: Mapping[str, Any]) -> float | None:
    """The sampling rate in Hz that a file states under any of its common names, ``None`` if under none.

    Intervals may be in s, ms or µs: the first that makes a rate between 100 Hz and 200 kHz is meant. Refused are
    what is not one positive number, and two names that state different rates.
    """
    found: dict[str, float] = {}
    for name, value in fields.items():
        plain = re.sub(r"[^a-z]", "", name.lower())
        if not (_RATE.fullmatch(plain) or _INTERVAL.fullmatch(plain)):
            continue
        number = np.asarray(value)
        if number.size != 1 or number.dtype.kind not in "fiu" or not np.isfinite(number).all() or number.item() <= 0:
            shown = number.item() if number.size == 1 else f"of shape {number.shape}"
            raise BadInput(path, f"{name} is {shown}", "give one positive number of Hz")
        rate = float(number.item())
        if _INTERVAL.fullmatch(plain):
            rate = next((unit / rate for unit in (1, 1e3, 1e6) if 100 <= unit / rate <= 200_000), 1 / rate)
        found[name] = rate
    rates = sorted(found.items(), key=lambda item: item[1])
    if rates and not np.isclose(rates[0][1], rates[-1][1], rtol=1e-3):
        (one, low), (other, high) = rates[0], rates[-1]
        raise BadInput(path, f"{one} states {low:g} Hz and {other} {high:g} Hz", "correct the wrong one")
    return rates[0][1] if rates else None


def _of_arrays(path: Path, stored: StoredArray, fs_hz: float | None) -> ExtracellularRecording:
    fields, name, warnings = stored.fields, stored.name, list[str]()
    if stored.dtype.kind not in "fiu":
        raise BadInput(path, f"{name} is of type {stored.dtype}", "save real numbers")
    shape = tuple(n for n in stored.shape if n != 1) or (1,)
    if 0 in stored.shape:
        raise BadInput(path, f"{name} is empty (shape {stored.shape})", "give a recording with samples")
    if len(shape) > 2 or len(stored.shape) > 2:
        raise BadInput(path, f"{name} has shape {stored.shape}", "save it as (n_samples, n_channels)")
    ids = _channel_ids(path, fields["channel_ids"]) if "channel_ids" in fields else None
    rows, columns = stored.shape if len(stored.shape) == 2 else (*stored.shape, 1)
    # Time runs along the second axis of one row, or of more columns than rows where no ids say which is which.
    turned = len(stored.shape) == 2 and (columns > rows if ids is None else len(ids) == rows != columns)
    n_samples, n_channels = (columns, rows) if turned else (rows, columns)
    ids = np.arange(n_channels) if ids is None else ids
    if len(ids) != n_channels:
        raise BadInput(path, f"{len(ids)} channel_ids for {n_channels} channels", "give one id per channel")
    if turned and n_channels > 1:
        warnings.append(f"{name} of shape {stored.shape} is read as (channel, time)")
    times, rate, said = _sample_times(path, fields, n_samples, stated_rate(path, fields) or fs_hz)
    warnings += said
    if rate is None:
        raise BadInput(path, "states no sampling rate", RATE_HINT)
    span = fields.get("time_range") if times is None else None
    start, length, contradictions = _time_range(path, span, n_samples, rate)
    for key, count in (("n_timepoints", n_samples), ("n_channels", n_channels)):
        stated = np.asarray(fields.get(key, count))
        if stated.size != 1 or stated.item() != count:
            warnings.append(f"{key} states {stated}, {name} has {count}")
    upstream = ORIGINAL_UPSTREAM if set(fields) >= _ORIGINAL_KEYS else ExtracellularRecording.upstream
    recording = ExtracellularRecording(
        path=path,
        source_format=f"arrays ({path.suffix})",
        fs_hz=rate,
        channel_ids=ids,
        runs=(Run(0, 0, n_samples, stored.opener(turned)),),
        shanks=_shanks(path, fields, n_channels),
        dtype=stored.dtype.newbyteorder("="),
        units=str(np.asarray(fields.get("units", "unknown"))),
        start_s=start,
        coordinates={key: np.asarray(fields[key]) for key in COORDINATES if key in fields},
        upstream=str(np.asarray(fields.get("upstream", upstream))),
        warnings=(*warnings, *contradictions),
        files=(path,),
        length=length,
    )
    return recording if times is None else recording.at_times(times)


def _channel_ids(path: Path, value: Any) -> NDArray:
    ids = np.atleast_1d(np.asarray(value))
    ids = ids.reshape(-1) if ids.size in ids.shape else ids  # MATLAB knows no vectors, only rows and columns
    if ids.dtype.kind == "S":
        ids = np.char.decode(ids, "utf-8")
    if ids.dtype.kind == "f" and np.array_equal(ids, np.round(ids)):
        ids = ids.astype(np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise BadInput(path, f"channel_ids are {ids.dtype} of shape {ids.shape}", "give one whole number or name each")
    return ids


def _shanks(path: Path, fields: Mapping[str, Any], n_channels: int) -> NDArray[np.int64]:
    """``(channel,)`` number of the group of each channel, of numbers or names under any of the common names."""
    name = next((n for n in ("shanks", "channel_groups", "groups", "group", "shank") if n in fields), None)
    groups = np.asarray(fields[name]).reshape(-1) if name else np.zeros(1, np.int64)
    if len(groups) not in (1, n_channels):
        raise BadInput(path, f"{name} has {len(groups)} entries for {n_channels} channels", "give one per channel")
    if groups.dtype.kind not in "iu":
        groups = np.unique(groups.astype(str), return_inverse=True)[1]
    return np.broadcast_to(groups, n_channels).astype(np.int64)


def _sample_times(
    path: Path, fields: Mapping[str, Any], n_samples: int, rate: float | None
) -> tuple[NDArray | None, float | None, list[str]]:
    """``(time,)`` seconds of every sample where the file has them, the rate, and what is to be said.

    Whole numbers count samples, or ticks of which there are always as many between two samples. Times that do not
    rise, or contradict the stated rate, are refused.
    """
    said = list[str]()
    for name in ("timestamps", "time_stamps", "times", "time", "t"):
        values = np.asarray(fields.get(name, 0)).reshape(-1)
        if values.dtype.kind not in "fiu" or len(values) < 2:
            continue
        if len(values) != n_samples:
            if name.endswith("stamps"):
                said.append(f"{name} has {len(values)} values for {n_samples} samples: they are not used")
            continue
        if not (np.abs(values) < (_LATEST_S if values.dtype.kind == "f" else np.inf)).all():
            problem = f"{name} holds NaN or infinite values, or times beyond {_LATEST_S:g} s"
            raise BadInput(path, problem, "give the time of every sample")
        apart = max(1, min(1000, n_samples // 10))  # few clocks resolve a single sample
        step = float(np.median(values[apart:].astype(np.float64) - values[:-apart])) / apart
        if step <= 0:
            raise BadInput(path, f"{name} does not rise", "give the time of every sample in seconds")
        if values.dtype.kind in "iu":
            return (None if rate is None else values / (step * rate)), rate, said  # `step` ticks make a sample
        if rate is not None and not np.isclose(1 / step, rate, rtol=0.02):
            problem = f"{name} are {step:.4g} apart, {1 / step:.6g} Hz if they are seconds; the rate is {rate:g} Hz"
            raise BadInput(path, problem, "give them in seconds, or correct the rate")
        whole = float(np.round(1 / step))
        return values, rate or (whole if abs(whole * step - 1) < 1e-4 else 1 / step), said
    return None, rate, said


def _time_range(path: Path, value: Any, n_samples: int, rate: float) -> tuple[float | None, int | None, Sequence[str]]:
    """Start in seconds, length in samples if it is longer than what was recorded, and what is to be said."""
    if value is None:
        return None, None, ()
    span = np.atleast_1d(np.asarray(value)).reshape(-1)
    if span.dtype.kind not in "fiu" or not np.isfinite(span[:1]).all():
        raise BadInput(path, "time_range does not start with a number", "give (start, end) in seconds")
    if span.size != 2 or not np.isfinite(span[1]):
        return float(span[0]), None, ()
    stated, found = float(span[1] - span[0]), n_samples / rate
    if abs(stated - found) <= max(0.01, 2 / rate):
        return float(span[0]), None, ()
    said = f"time_range spans {stated:.3f} s, traces {found:.3f} s"
    if stated < found:
        return float(span[0]), None, (f"{said}: every sample is kept",)
    return float(span[0]), round(stated * rate), (f"{said}: the last {stated - found:.3f} s are NaN",)


def _wav(path: Path) -> ExtracellularRecording:
    with warnings.catch_warnings(record=True) as caught, damage_explained(path):
        warnings.simplefilter("always")
        try:
            rate, values = scipy.io.wavfile.read(path, mmap=True)
        except ValueError:  # a sample of three bytes cannot be mapped
            rate, values = scipy.io.wavfile.read(path)
    if values.dtype == np.uint8:
        raise BadInput(path, "has samples of 8 bits", "save it with 16 bits or more")
    cut = [f"{path.name} is cut short: {one.message}" for one in caught if "EOF" in str(one.message)]
    values = values.reshape(len(values), -1)
    return ExtracellularRecording.of_array(path, "WAV", float(rate), values, warnings=tuple(cut))
