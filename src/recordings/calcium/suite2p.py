"""suite2p output folders as calcium recordings: accepted ROIs of every plane, neuropil subtracted."""

from __future__ import annotations

import datetime
import pickle
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from src.recordings.calcium.recording import CalciumRecording, Plane, of_planes
from src.signals import BadInput
from src.storage.foreign_files import explained

SUITE2P_FILES = ("F.npy", "Fneu.npy", "iscell.npy", "stat.npy", "ops.npy")
_NEEDED = ("F.npy", "stat.npy")
_SAVE_AGAIN = "save it again with suite2p"


@dataclass(frozen=True)
class PlaneTraces:
    """The accepted ``rows`` of one plane's ``F.npy``, less ``coefficient`` times those of ``Fneu.npy``."""

    plane: Path
    rows: np.ndarray
    coefficient: float

    def read(self, rows: np.ndarray) -> np.ndarray:
        wanted = self.rows[rows]
        block = np.asarray(np.load(self.plane / "F.npy", mmap_mode="r")[wanted], np.float32)
        if self.coefficient and (self.plane / "Fneu.npy").is_file():
            neuropil = np.load(self.plane / "Fneu.npy", mmap_mode="r")[wanted]
            block = block - np.float32(self.coefficient) * neuropil
        return block


def find_planes(folder: Path) -> list[Path]:
    """The plane folders of a suite2p output in ``folder``, in plane order; empty if it is none.

    Where only ``combined`` was kept, that is the one.
    """
    for place in (folder / "suite2p", folder):
        planes = [p for p in place.glob("plane*") if (p / "F.npy").is_file()]
        if planes:
            return sorted(planes, key=_plane_order)
        if (place / "combined" / "F.npy").is_file():
            return [place / "combined"]
    return [folder] if (folder / "F.npy").is_file() else []


def suite2p_files(planes: list[Path]) -> dict[str, Path]:
    """What is read of these planes, by ``plane/file``."""
    return {
        f"{plane.name}/{name}": plane / name for plane in planes for name in SUITE2P_FILES if (plane / name).exists()
    }


def open_suite2p(
    files: dict[str, Path], subject: str, fs_hz: float | None, coefficient: float, need_positions: bool
) -> CalciumRecording:
    """The accepted ROIs of all planes, ``F.npy`` less ``coefficient`` times ``Fneu.npy``.

    Unless ``need_positions``, cells without a centre are kept, with NaN as position.
    """
    folders = sorted({path.parent for path in files.values()}, key=_plane_order)
    planes = [_plane(folder, n, coefficient, need_positions) for n, folder in enumerate(folders)]
    rates = [] if fs_hz is not None else [_stated_rate(folder / "ops.npy") for folder in folders]
    known = {"subject": subject, "file": folders[0], "notes": _notes(folders, coefficient)}
    return of_planes(planes, rates, fs_hz, "curate the ROIs in suite2p", **known)


def _notes(planes: list[Path], coefficient: float) -> tuple[str, ...]:
    notes = []
    without = [plane.name for plane in planes if not (plane / "Fneu.npy").is_file()]
    if coefficient and without:
        notes.append(f"{', '.join(without)}: no Fneu.npy, so no neuropil was subtracted")
    elif coefficient:
        notes.append(f"{coefficient:g} of the neuropil (Fneu.npy) was subtracted")
    if uncurated := [plane.name for plane in planes if not (plane / "iscell.npy").is_file()]:
        notes.append(f"{', '.join(uncurated)}: no iscell.npy, so every ROI was taken as a cell")
    if planes[0].name == "combined":
        notes.append("positions are those of suite2p's mosaic of all planes (combined)")
    return tuple(notes)


def _plane(folder: Path, number: int, coefficient: float, need_positions: bool) -> Plane:
    """The accepted ROIs of one plane, at their rows and columns in plane ``number``."""
    for name in _NEEDED if need_positions else _NEEDED[:1]:
        if not (folder / name).is_file():
            raise BadInput(folder, f"has no {name}", f"put {', '.join(_NEEDED)} of suite2p there")
    traces = _load(folder / "F.npy", mmap=True)
    accepted = _load(folder / "iscell.npy") if (folder / "iscell.npy").is_file() else np.ones(traces.shape[:1])
    rois = [None] * len(traces) if not (folder / "stat.npy").is_file() else load_objects(folder / "stat.npy")
    if traces.dtype.kind not in "fiu":
        raise BadInput(folder / "F.npy", f"holds {traces.dtype.name}, not real numbers", _SAVE_AGAIN)
    if traces.ndim != 2 or np.shape(rois)[:1] != traces.shape[:1] or accepted.shape[:1] != traces.shape[:1]:
        problem = f"F.npy has shape {traces.shape}, iscell.npy {accepted.shape}, stat.npy {np.shape(rois)}"
        raise BadInput(folder, problem, "take all three from the same suite2p run")
    if (folder / "Fneu.npy").is_file() and (shape := _load(folder / "Fneu.npy", mmap=True).shape) != traces.shape:
        problem = f"F.npy has shape {traces.shape}, Fneu.npy {shape}"
        raise BadInput(folder, problem, "take both from the same suite2p run")
    kept = np.flatnonzero((accepted if accepted.ndim == 1 else accepted[:, 0]) > 0)
    positions = np.array([_position(folder, rois[k], number, need_positions) for k in kept], np.float64)
    return Plane(len(traces), kept, positions.reshape(-1, 3), traces.shape[1], PlaneTraces(folder, kept, coefficient))


def _plane_order(plane: Path) -> tuple[int, str]:
    return len(plane.name), plane.name


def load_objects(path: Path) -> Any:
    """An object array that a pickle holds, admitting NumPy arrays, dates, paths and plain values only.

    ``numpy.load(allow_pickle=True)`` would run whatever code the file names.
    """
    with explained(path, hint=_SAVE_AGAIN), path.open("rb") as handle:
        major, _ = np.lib.format.read_magic(handle)
        read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[major]
        shape, _, dtype = read_header(handle)
        if not dtype.hasobject:
            handle.seek(0)
            return np.lib.format.read_array(handle, allow_pickle=False)
        return _PlainUnpickler(handle).load().reshape(shape)


def _path(windows: bool) -> Any:
    # A path of another system cannot be built here; as text it can.
    return lambda *parts: str((PureWindowsPath if windows else PurePosixPath)(*parts))


_ADMITTED: dict[tuple[str, str], Any] = {
    **{("datetime", name): getattr(datetime, name) for name in ("datetime", "date", "time", "timedelta", "timezone")},
    **{
        (module, f"{pure}{system}Path"): _path(system == "Windows")
        for module in ("pathlib", "pathlib._local")
        for pure in ("", "Pure")
        for system in ("Posix", "Windows")
    },
}
_NUMPY = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    ("_codecs", "encode"),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        if (module, name) not in _NUMPY:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not plain data")
        return super().find_class(module, name)


def _load(path: Path, mmap: bool = False) -> np.ndarray:
    with explained(path, hint=_SAVE_AGAIN):
        if mmap:
            return np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as handle:
            return np.lib.format.read_array(handle, allow_pickle=False)


def _position(plane: Path, roi: Any, number: int, needed: bool) -> tuple[float, float, float]:
    """Row, column and plane of a ROI; ``combined`` says of every ROI which plane it was found in."""
    try:
        row, column = roi["med"]
    except (KeyError, TypeError, ValueError, IndexError):
        if needed:
            raise BadInput(plane / "stat.npy", "an ROI has no centre (med)", _SAVE_AGAIN) from None
        row = column = np.nan
    stated = roi.get("iplane", -1) if isinstance(roi, dict) else -1
    return row, column, number if stated < 0 else stated


def _stated_rate(path: Path) -> Any:
    """``fs`` of an ops.npy; None if there is none."""
    settings: Any = load_objects(path) if path.is_file() else None
    settings = settings.item() if getattr(settings, "size", 0) == 1 else settings
    return settings.get("fs") if isinstance(settings, dict) else None
