"""The types that all rooms share: recordings, contracts of signals, sleep stages, errors.

Types and constants only. Nothing here reads or writes a file.
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Self

import numpy as np

HUMAN_STAGES: tuple[str, ...] = ("W", "N1", "N2", "N3", "REM")
"""AASM stages in the order of every human label array and probability column."""

RODENT_STAGES: tuple[str, ...] = ("Wake", "NREM", "REM")
"""Rodent vigilance states in the order of every rodent label array."""

STAGE_SETS: dict[str, tuple[str, ...]] = {"human": HUMAN_STAGES, "rodent": RODENT_STAGES}
"""Whose stages are meant, by name."""

HUMAN_KAPPA, HUMAN_ACCURACY = 0.76, 0.82
"""How far human scorers agree among themselves in 30-s epochs of five stages (Lee et al. 2022, J Clin Sleep Med
18:193; Rosenberg & Van Hout 2013, J Clin Sleep Med 9:81)."""

THETA_HZ, WIDE_HZ = (5.0, 10.0), (2.0, 15.0)
"""The theta ratio is the power of the first over that of the second: high in a rodent's REM sleep and active waking."""

UNSCORED = -1
"""Label of an epoch nobody scored: movement, artefact, unknown, or past the end of the hypnogram."""


def is_human_scoring(classes: Sequence[str], epoch_s: float) -> bool:
    """Whether a scoring is of the kind that :data:`HUMAN_KAPPA` was measured with."""
    return tuple(classes) == HUMAN_STAGES and epoch_s == 30.0


class BadInput(ValueError):
    """An input the user has to fix: which file, what is wrong with it, what to do.

    Parameters
    ----------
    source
        The file, folder or configuration key at fault.
    problem
        What is wrong, in one clause.
    hint
        What the user can do about it, in one clause.
    """

    def __init__(self, source: str | Path, problem: str, hint: str) -> None:
        self.source, self.problem, self.hint = str(source), problem, hint
        super().__init__(str(source), problem, hint)

    def __str__(self) -> str:
        line = " ".join(f"{self.source}: {self.problem}; {self.hint}".splitlines())
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)  # names from damaged files


TRUST = "NEUROLIT_TRUST"
"""Environment variable with the names of the user's own packages, separated by commas; no file can set it."""


def is_trusted(target: str) -> bool:
    """Whether a dotted name is in a package that the user trusts."""
    trusted = [name.strip() for name in os.environ.get(TRUST, "").split(",") if name.strip()]
    return "." in target and any(f"{target}.".startswith(f"{name}.") for name in trusted)


def require_range(where: str, low: float, high: float = math.inf, **values: float | None) -> None:
    """Raise ``BadInput`` unless every value that is given is from ``low`` to ``high``; ``where`` begins their keys."""
    for name, value in values.items():
        if value is not None and not low <= value <= high:
            hint = f"give {low} or more" if high == math.inf else f"give a number from {low} to {high}"
            raise BadInput(f"{where}.{name}".lstrip("."), f"is {value}", hint)


def counted(number: int, noun: str) -> str:
    """``1 epoch``, ``2 epochs``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The known key that looks most like ``key``, in full or by its last part; ``None`` if none does."""

    def likeness(name: str) -> tuple[float, float]:
        last = SequenceMatcher(None, key.rpartition(".")[2], name.rpartition(".")[2]).ratio()
        return SequenceMatcher(None, key, name).ratio() + last, last

    best = max(known, key=likeness, default=None)
    if best is None:
        return None
    both, last = likeness(best)  # 0.6 is enough on average, 0.8 in the last part alone
    same = both >= 1.2 or last >= 0.8 or best.startswith(f"{key}_")  # fs: fs_hz
    return best if same else None


@dataclass(frozen=True)
class Recording:
    """One continuous recording in physical units.

    Attributes
    ----------
    samples
        ``(channel, time)`` float32, in ``units``. NaN marks samples that were not recorded.
    fs_hz
        Sampling rate, not necessarily an integer.
    channels
        One name per row of ``samples``.
    units
        One unit per row of ``samples`` (``"uV"``, ``"V"``, ``"a.u."``).
    recording_id
        Stable name of the recording.
    subject_id
        Stable name of the subject; splits are made over it.
    start
        Wall-clock time of the first sample where the source states it.
    source
        The file the samples came from.
    notes
        What the reader had to decide, for manifests and tables.
    """

    samples: np.ndarray
    fs_hz: float
    channels: tuple[str, ...]
    units: tuple[str, ...]
    recording_id: str
    subject_id: str
    start: datetime | None = None
    source: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        source = self.source or self.recording_id
        if self.samples.ndim != 2:
            raise BadInput(source, f"samples have {self.samples.ndim} axes", "give (channel, time)")
        rows = self.samples.shape[0]
        if rows != len(self.channels) or rows != len(self.units):
            raise BadInput(
                source,
                f"{rows} rows, {len(self.channels)} channel names, {len(self.units)} units",
                "give one name and one unit per row",
            )
        if not np.isfinite(self.fs_hz) or self.fs_hz <= 0:
            raise BadInput(source, f"sampling rate {self.fs_hz} Hz", "give a positive rate")

    @property
    def duration_s(self) -> float:
        return self.samples.shape[1] / self.fs_hz


@dataclass
class SourceOptions:
    """What a user says of a recording that cannot say it itself: the keys below ``source``; most need none of them."""

    fs_hz: float | None = None  # Hz; sampling rate of the recording. A file that states another one is refused.
    key: str | None = None  # name of the variable in .npz, .h5 and .mat; dotted in MATLAB structs and cells
    dtype: str | None = None  # type of a sample in raw binary files, such as int16
    channels: int | None = None  # channels that alternate in raw binary files
    gain_uv: float | None = None  # µV per unit of the samples
    stream: str | None = None  # name of one of several streams of a recording


class PlainRecord:
    """A dataclass that travels as plain lists and numbers, in JSON and in checkpoints."""

    def to_dict(self) -> dict[str, Any]:
        """Its fields, tuples as lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """Inverse of :meth:`to_dict`; unknown keys raise ``TypeError``."""
        return cls(**{k: tuple(v) if isinstance(v, list | tuple) else v for k, v in plain.items()})


@dataclass(frozen=True)
class SignalSpec(PlainRecord):
    """What a network expects of the signal it is given; travels in the bundle.

    Attributes
    ----------
    channels
        Channel names in order.
    fs_hz
        Rate the signal has when it reaches the first stage.
    window_s
        Length of the stretch that one prediction stands for (an epoch for sleep).
    units
        Unit of the values that the network reads.
    axes
        Names of the axes of the network's input, outermost first.
    shape
        Size of each axis, ``None`` where any length will do.
    freqs_hz
        Middle of every row of a frequency axis, empty where there is none.
    """

    channels: tuple[str, ...]
    fs_hz: float
    window_s: float
    units: str
    axes: tuple[str, ...]
    shape: tuple[int | None, ...] = field(default=())
    freqs_hz: tuple[float, ...] = ()


@dataclass(frozen=True)
class Origin(PlainRecord):
    """What a network was trained on; travels in the bundle, and whoever quotes its scores quotes this too.

    Attributes
    ----------
    recorded
        Whether the data were recorded. False if any of them were simulated.
    cohorts
        Names of the data sets.
    subjects
        How many subjects it was trained on.
    hours
        Hours of their recordings.
    licence
        Licence of the data.
    citation
        How the data are cited.
    """

    recorded: bool
    cohorts: tuple[str, ...]
    subjects: int
    hours: float
    licence: str = "not stated"
    citation: str = ""

    def __str__(self) -> str:
        """One line for consoles, pages and captions."""
        kind = "recordings" if self.recorded else "SIMULATED data"
        hours = float(f"{self.hours:.3g}")  # three digits, without an exponent
        people = f"{counted(self.subjects, 'subject')}, {hours:g} h"
        return f"trained on {kind}: {', '.join(self.cohorts)} ({people}; licence of the data: {self.licence})"
