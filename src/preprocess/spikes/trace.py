"""A recording that is ready to be filtered: read, centred, and checked for what carries no signal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.recordings.extracellular.arrays import SUFFIXES
from src.recordings.extracellular.spike_trains import read_trace, unusable
from src.signals import BadInput

MOST_UNUSABLE = 0.5
"""Share of NaN and saturated samples above which a recording is refused."""


@dataclass(frozen=True)
class Trace:
    """``centred (time,)`` float32 without NaN, and the mask of real samples."""

    name: str
    centred: np.ndarray
    usable: np.ndarray
    fs_hz: float
    source: str

    @property
    def duration_s(self) -> float:
        return len(self.centred) / self.fs_hz

    @property
    def unusable_share(self) -> float:
        return float(1 - self.usable.mean())


def load_trace(path: Path, *, fs_hz: float, key: str = "d", channel: int | None = None) -> Trace:
    """Read, centre and check one recording; NaN and stuck samples become zero and are marked.

    Raises
    ------
    BadInput
        What :func:`read_trace` raises, or when most of the recording carries no signal.
    """
    recording = read_trace(path, fs_hz=fs_hz, key=key, channel=channel)
    return as_trace(recording.samples[0], fs_hz, recording.recording_id, str(path))


def as_trace(samples: np.ndarray, fs_hz: float, name: str, source: str = "signal") -> Trace:
    """Centre and check samples in memory, as :func:`load_trace` does; ``source`` is named in errors."""
    bad = unusable(samples)
    if bad.mean() > MOST_UNUSABLE:
        raise BadInput(source, f"{bad.mean():.0%} of the samples are NaN or saturated", "give a recording with signal")
    present = samples.astype(np.float32)
    centred = np.where(bad, np.float32(0), present - np.float32(np.median(present[~bad])))
    if not centred.any():
        raise BadInput(source, "every sample has the same value", "give a recording with signal")
    return Trace(name, centred, ~bad, fs_hz, source)


def find_recording(folder: Path, name: str) -> Path:
    """The file of recording ``name`` in a folder, whatever its suffix.

    Raises
    ------
    BadInput
        If there is none.
    """
    for suffix in SUFFIXES:
        if (path := Path(folder) / f"{name}{suffix}").is_file():
            return path
    raise BadInput(folder, f"holds no recording '{name}'", f"expected {name}.mat (or {', '.join(SUFFIXES[1:])})")
