"""Single-channel extracellular recordings and spike trains: reading, checking, writing.

Inside the project a spike's ``index`` is the 0-based sample of its *onset*; files for MATLAB users are
1-based. The conversion happens here and nowhere else.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from numpy.typing import ArrayLike

from src.recordings.check_signal import in_runs
from src.recordings.matlab import read_fields
from src.signals import BadInput
from src.storage.atomic import atomic_file
from src.storage.foreign_files import explained

MOST_UNITS = 100
"""Largest number of a neuron of one channel where nobody says how many there are."""

_SORTING_HINT = "give a Phy folder (with params.py), <name>_sorting.npz, or a folder that SpikeInterface saved"


@dataclass(frozen=True)
class SpikeTrain:
    """Sorted spikes of one channel."""

    index: np.ndarray  # (spike,) int64, 0-based sample of each onset, ascending
    unit: np.ndarray  # (spike,) int64, the neuron each spike belongs to, counted from 1

    def __post_init__(self) -> None:
        if self.index.ndim != 1 or self.index.shape != self.unit.shape:
            raise ValueError(f"index {self.index.shape} and unit {self.unit.shape} must be equally long vectors")

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def sorted(cls, index: ArrayLike, unit: ArrayLike) -> "SpikeTrain":
        """A train in ascending order; simultaneous spikes are ordered by unit, pairs stay together."""
        index, unit = np.asarray(index, np.int64), np.asarray(unit, np.int64)
        order = np.lexsort((unit, index))
        return cls(index[order], unit[order])

    @classmethod
    def empty(cls) -> "SpikeTrain":
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))

    def between(self, start: int, stop: int) -> "SpikeTrain":
        """Spikes with onset in ``[start, stop)``, counted from ``start``."""
        keep = (self.index >= start) & (self.index < stop)
        return SpikeTrain(self.index[keep] - start, self.unit[keep])


def holds_spikes(path: Path) -> bool:
    """Whether a MATLAB file has variables of spike sorting: ``d``, ``Index`` and ``Class``, or wave_clus' ``sr``."""
    if path.suffix.lower() != ".mat" or not path.is_file():
        return False
    try:
        if h5py.is_hdf5(path):  # since version 7.3
            with h5py.File(path, "r") as file:
                names = set(file)
        else:
            names = {name for name, _, _ in scipy.io.whosmat(path)}
    except (NotImplementedError, ValueError, OSError, TypeError):  # damaged: its reader says how
        return False
    return "d" in names or {"Index", "Class"} <= names or {"data", "sr"} <= names


def read_spikes(path: Path, *, n_samples: int | None = None, n_units: int | None = 5) -> SpikeTrain:
    """Read ``Index`` (1-based onsets) and ``Class`` (from 1) of a ``.mat`` or HDF5 file.

    Refused are unequal lengths, fractions, an index outside ``1…n_samples`` and a class outside ``1…n_units``.
    """
    path = Path(path)
    if path.suffix.lower() not in (".mat", ".h5", ".hdf5"):
        raise BadInput(path, f"unknown kind of file '{path.suffix}'", "give a .mat, .h5 or .hdf5 file")
    content = read_fields(path, ("Index", "Class"), hint="training needs d, Index and Class")
    train = checked_train(path, content, first=1, n_samples=n_samples, n_units=n_units)
    return SpikeTrain(train.index - 1, train.unit)


def checked_train(
    source: str | Path,
    labels: Mapping[str, Any],
    *,
    first: int = 0,
    n_samples: int | None = None,
    n_units: int | None = None,
) -> SpikeTrain:
    """A train of what somebody gives as labels: two names, each with its list, the samples and then the neurons.

    Parameters
    ----------
    first
        Number of the first sample.
    n_samples, n_units
        Length of the recording, and the largest number of a neuron; :data:`MOST_UNITS` unless given.

    Raises
    ------
    BadInput
        Lists of unequal lengths, what is no whole number, a sample outside the recording, a neuron outside
        ``1…n_units``.
    """
    (names, lists), last_unit = zip(*labels.items(), strict=True), n_units or MOST_UNITS
    index, unit = (_whole_numbers(source, *item) for item in zip(names, lists, strict=True))
    if len(index) != len(unit):
        problem = f"{len(index)} entries in {names[0]}, {len(unit)} in {names[1]}"
        raise BadInput(source, problem, f"give one {names[1]} per {names[0]}")
    origin = f"{names[0]} counts samples from {first}{', as MATLAB does' if first else ''}"
    numbers = "number the neurons 1, 2, 3, … and leave out spikes of no neuron"
    last = np.inf if n_samples is None else n_samples - 1 + first
    checks = (names[0], index, first, last, origin), (names[1], unit, 1, last_unit, numbers)
    for name, values, low, high, hint in checks:
        outside = values[(values < low) | (values > high)]
        if len(outside):
            span = f"{low}…{'' if high == np.inf else high}"
            raise BadInput(source, f"{len(outside)} {name} outside {span} (the first is {outside[0]})", hint)
    return SpikeTrain.sorted(index, unit)


def read_sorting(path: Path, fs_hz: float) -> tuple[SpikeTrain, tuple[str, ...]]:
    """The spikes of a sorting, and which unit of it each neuron is.

    Of a Phy folder with units that somebody called good, these alone are taken; noise never is. Refused is what is no
    sorting, has another rate or several segments, or no unit.
    """
    from spikeinterface.core import load, read_npz_sorting
    from spikeinterface.extractors import read_phy

    path = Path(path)
    with explained(path, "is no sorting", _SORTING_HINT):
        path.stat()
        if (path / "params.py").is_file():
            sorting = read_phy(path, exclude_cluster_groups=["noise"])
        else:
            sorting = read_npz_sorting(path) if path.suffix == ".npz" else load(path)
        units, rate, segments = list(sorting.unit_ids), sorting.get_sampling_frequency(), sorting.get_num_segments()
    if not np.isclose(rate, fs_hz, rtol=1e-3):
        raise BadInput(path, f"was sorted at {rate:g} Hz, the recording has {fs_hz:g} Hz", "give its own recording")
    if segments != 1:
        raise BadInput(path, f"has {segments} segments", "give a sorting of one segment")
    quality = sorting.get_property("quality")
    good = [u for u, q in zip(units, quality, strict=True) if q == "good"] if quality is not None else []
    chosen = good or units
    trains = [np.asarray(sorting.get_unit_spike_train(unit), np.int64) for unit in chosen]
    trains, chosen = [t for t in trains if len(t)], [u for t, u in zip(trains, chosen, strict=True) if len(t)]
    if not trains:
        raise BadInput(path, "has no unit with a spike", _SORTING_HINT)
    names = np.concatenate([np.full(len(t), number) for number, t in enumerate(trains, start=1)])
    said = ", ".join(f"{number} is unit {unit}" for number, unit in enumerate(chosen, start=1))
    return SpikeTrain.sorted(np.concatenate(trains), names), (f"neuron {said} of {path.name}",)


def write_mat(path: Path, train: SpikeTrain | None = None, trace: np.ndarray | None = None) -> None:
    """Write ``Index`` (1-based) and ``Class`` as 1×N rows where a train is given, and the trace as row ``d``."""
    content: dict[str, Any] = {}
    if train is not None:
        content |= {"Index": (train.index + 1)[None], "Class": train.unit[None]}
    if trace is not None:
        content["d"] = np.asarray(trace, np.float32)[None]
    with atomic_file(Path(path)) as part:
        scipy.io.savemat(part, content, appendmat=False, do_compression=False)


def write_csv(path: Path, train: SpikeTrain, fs_hz: float, columns: dict[str, np.ndarray] | None = None) -> None:
    """One line per spike: 1-based index, time of the onset, class, then any further columns."""
    extra = columns or {}
    with atomic_file(Path(path)) as part, part.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["index", "time_s", "class", *extra])
        for row, (index, unit) in enumerate(zip(train.index, train.unit, strict=True)):
            values = [f"{column[row]:.4f}" for column in extra.values()]
            writer.writerow([index + 1, f"{index / fs_hz:.6f}", unit, *values])


def unusable(samples: np.ndarray, *, saturated_run: int = 8, flat_run: int = 50) -> np.ndarray:
    """Mask ``(time,)`` of samples that carry no signal: NaN, a rail the amplifier stuck to, or one value all along.

    A rail is the largest or smallest value of the trace held for ``saturated_run`` samples or more; any other value,
    zero above all, counts where it is held for ``flat_run`` samples.
    """
    bad = np.isnan(samples)
    finite = samples[~bad]
    if finite.size == 0:
        return bad
    for rail in (finite.max(), finite.min()):
        bad |= in_runs(samples == rail, saturated_run)
    return bad | held(samples[None], flat_run)


def cut_off(samples: np.ndarray) -> tuple[tuple[float, int], ...]:
    """For either rail of a trace ``(time,)`` its distance from the median, and how often two samples or more are at it.

    The rails are the largest and the smallest value.
    """
    finite = samples[np.isfinite(samples)]
    found = []
    for rail in (finite.max(), finite.min()) if len(finite) else ():
        top = in_runs(samples == rail, 2).astype(np.int8)
        found.append((abs(float(rail) - float(np.median(finite))), int(np.count_nonzero(np.diff(top, prepend=0) == 1))))
    return tuple(found)


def held(samples: np.ndarray, flat_run: int = 50) -> np.ndarray:
    """Mask ``(time,)`` of where every row of ``(channel, time)`` keeps its value for ``flat_run`` samples or more."""
    flat = in_runs(np.concatenate(((np.diff(samples, axis=1) == 0).all(axis=0), [False])), flat_run)
    return np.asarray(flat | np.concatenate(([False], flat[:-1])))


def _whole_numbers(source: str | Path, key: str, array: Any) -> np.ndarray:
    values, hint = np.atleast_1d(np.asarray(array)), "give the sample of each spike and the number of its neuron"
    if values.size > max(values.shape):
        raise BadInput(source, f"'{key}' has shape {values.shape}", hint)
    if values.dtype.kind not in "iuf" or not np.all(np.isfinite(values)) or np.any(values != np.round(values)):
        raise BadInput(source, f"'{key}' holds something other than whole numbers", hint)
    values = values.reshape(-1)
    return values.astype(np.int64)
