"""suite2p output folders as calcium recordings: accepted ROIs of every plane."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from src.signals import BadInput

SUITE2P_FILES = ("F.npy", "iscell.npy", "stat.npy", "ops.npy")
_NEEDED = SUITE2P_FILES[:3]


@dataclass(frozen=True)
class NpyTraces:
    """Traces spread over planes: ``rows[i]`` is (plane, row of its F.npy)."""

    files: tuple[Path, ...]
    rows: np.ndarray
    frames: int

    def read(self, rows: np.ndarray) -> np.ndarray:
        wanted = self.rows[rows]
        block = np.empty((len(wanted), self.frames), np.float32)
        for plane in np.unique(wanted[:, 0]):
            here = wanted[:, 0] == plane
            block[here] = np.load(self.files[plane], mmap_mode="r")[wanted[here, 1]][:, : self.frames]
        return block


def find_planes(folder: Path) -> list[Path]:
    """The plane folders of a suite2p output in ``folder``, in plane order; empty if it is none."""
    for place in (folder / "suite2p", folder):
        planes = [p for p in place.glob("plane*") if (p / "F.npy").is_file()]
        if planes:
            return sorted(planes, key=lambda p: (len(p.name), p.name))
    return [folder] if (folder / "F.npy").is_file() else []


def read_planes(planes: list[Path]) -> tuple[NpyTraces, np.ndarray, np.ndarray, float | None, dict[str, int]]:
    """Accepted ROIs of all planes: traces, positions (row, column, plane), ids, rate or None, counts.

    Raises
    ------
    BadInput
        For missing or broken files, or planes without a common set of ROIs and frames.
    """
    positions, rows, ids, files, lengths, rates, listed = [], [], [], [], [], [], 0
    for number, plane in enumerate(planes):
        for name in _NEEDED:
            if not (plane / name).is_file():
                raise BadInput(plane, f"has no {name}", f"put {', '.join(_NEEDED)} of suite2p there")
        traces = _load(plane / "F.npy", mmap=True)
        accepted = _load(plane / "iscell.npy")
        stat = load_objects(plane / "stat.npy")
        if traces.ndim != 2 or np.shape(stat) != traces.shape[:1] or accepted.shape[:1] != traces.shape[:1]:
            problem = f"F.npy has shape {traces.shape}, iscell.npy {accepted.shape}, stat.npy {np.shape(stat)}"
            raise BadInput(plane, problem, "take all three from the same suite2p run")
        kept = np.flatnonzero(np.asarray(accepted).reshape(len(accepted), -1)[:, 0] > 0)
        middle = np.array([_middle(plane, stat[k]) for k in kept], dtype=np.float64).reshape(-1, 2)
        positions.append(np.column_stack([middle, np.full(len(kept), number, float)]))
        rows.append(np.column_stack([np.full(len(kept), number), kept]))
        ids.append(listed + kept + 1)
        files.append(plane / "F.npy")
        lengths.append(traces.shape[1])
        rates.append(_rate(plane / "ops.npy"))
        listed += len(traces)
    xyz, order, cells = np.concatenate(positions), np.concatenate(rows), np.concatenate(ids)
    if not len(cells):
        raise BadInput(planes[0].parent, "no ROI is accepted in iscell.npy", "curate the ROIs in suite2p")
    # suite2p's planes of one session may differ by the last frame, where the recording stopped.
    if max(lengths) - min(lengths) > 1:
        raise BadInput(planes[0].parent, f"planes have {sorted(set(lengths))} frames", "take planes of one session")
    placed = np.isfinite(xyz).all(axis=1)
    counts = {
        "listed": listed,
        "with_traces": listed,
        "dropped_invalid": listed - len(cells),
        "dropped_without_coordinates": int((~placed).sum()),
    }
    source = NpyTraces(tuple(files), order[placed], min(lengths))
    return source, xyz[placed], cells[placed].astype(np.int64), rates[0], counts


def load_objects(path: Path) -> Any:
    """An object array that a pickle holds, admitting NumPy arrays and plain values only.

    ``numpy.load(allow_pickle=True)`` would run whatever code the file names.

    Raises
    ------
    BadInput
        If the file is broken or names anything else.
    """
    try:
        with path.open("rb") as handle:
            major, _ = np.lib.format.read_magic(handle)
            read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[major]
            shape, _, dtype = read_header(handle)
            if not dtype.hasobject:
                handle.seek(0)
                return np.lib.format.read_array(handle, allow_pickle=False)
            return _PlainUnpickler(handle).load().reshape(shape)
    except Exception as error:  # a spoiled header is Python text, a spoiled pickle may ask for anything
        text = " ".join(str(error).split())[:120]
        raise BadInput(path, f"cannot be read ({text})", "save it again with suite2p") from error


class _PlainUnpickler(pickle.Unpickler):
    allowed: ClassVar = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        ("_codecs", "encode"),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not plain data")
        return super().find_class(module, name)


def _load(path: Path, mmap: bool = False) -> np.ndarray:
    try:
        if mmap:
            return np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as handle:
            return np.lib.format.read_array(handle, allow_pickle=False)
    except Exception as error:  # NumPy reads the header as Python text, and fails as Python does
        text = " ".join(str(error).split())[:120]
        raise BadInput(path, f"cannot be read ({text})", "save it again with suite2p") from error


def _middle(plane: Path, roi: Any) -> Any:
    try:
        row, column = roi["med"]
    except (KeyError, TypeError, ValueError, IndexError):
        raise BadInput(plane / "stat.npy", "an ROI has no centre (med)", "save it again with suite2p") from None
    return row, column


def _rate(path: Path) -> float | None:
    """``fs`` of ops.npy, or None if the file is absent or holds more than plain data."""
    if not path.is_file():
        return None
    try:
        return float(load_objects(path).item()["fs"])
    except (BadInput, KeyError, AttributeError, TypeError, ValueError):
        return None
