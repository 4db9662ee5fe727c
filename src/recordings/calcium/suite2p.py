"""suite2p output folders as calcium recordings: accepted ROIs of every plane, neuropil subtracted."""

import datetime
import pickle
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from src.recordings.calcium.recording import CalciumRecording, Plane, of_planes
from src.recordings.matlab import read_fields
from src.signals import BadInput
from src.storage.foreign_files import explained

SUITE2P_FILES = ("F.npy", "Fneu.npy", "iscell.npy", "stat.npy", "ops.npy")
MATLAB_FILE = "Fall.mat"
"""suite2p's export for MATLAB, which holds what the five files hold."""

_SAVE_AGAIN = "save it again with suite2p"


def find_planes(place: Path) -> list[Path]:
    """The planes of a suite2p output in ``place``, in plane order: folders, or ``Fall.mat`` where that is all.

    Empty if there is none. Where only ``combined`` was kept, that is the one.
    """
    for root in (place / "suite2p", place):
        planes = [plane for folder in sorted(root.glob("plane*"), key=_plane_order) for plane in _plane_at(folder)]
        if planes := planes or _plane_at(root / "combined"):
            return planes
    return _plane_at(place)


def _plane_at(place: Path) -> list[Path]:
    if (place.name.endswith(MATLAB_FILE) and place.is_file()) or (place / "F.npy").is_file():
        return [place]
    return [place / MATLAB_FILE] if (place / MATLAB_FILE).is_file() else []


def suite2p_files(planes: list[Path]) -> dict[str, Path]:
    """What is read of these planes, by ``plane/file``."""
    inside = [[plane / name for name in SUITE2P_FILES] if plane.is_dir() else [plane] for plane in planes]
    return {f"{path.parent.name}/{path.name}": path for paths in inside for path in paths if path.exists()}


def open_suite2p(
    files: dict[str, Path], subject: str, fs_hz: float | None, coefficient: float, need_positions: bool
) -> CalciumRecording:
    """The accepted ROIs of all planes, ``F`` less ``coefficient`` times ``Fneu``.

    Unless ``need_positions``, cells without a centre are kept, with NaN as position.
    """
    places = {path if path.name.endswith(MATLAB_FILE) else path.parent for path in files.values()}
    contents = {place: _read_plane(place, fs_hz is None) for place in sorted(places, key=_plane_order)}
    planes = [_plane(*item, n, coefficient, need_positions) for n, item in enumerate(contents.items())]
    rates = [] if fs_hz is not None else [_member(inside.get("ops"), "fs") for inside in contents.values()]
    known = {"subject": subject, "file": next(iter(contents)), "notes": _notes(contents, coefficient)}
    return of_planes(planes, rates, fs_hz, "curate the ROIs in suite2p", **known)


def _notes(contents: dict[Path, dict[str, Any]], coefficient: float) -> tuple[str, ...]:
    notes = []
    without = [place.name for place, inside in contents.items() if "Fneu" not in inside]
    if coefficient and without:
        notes.append(f"{', '.join(without)}: no Fneu.npy, so no neuropil was subtracted")
    elif coefficient:
        notes.append(f"{coefficient:g} of the neuropil (Fneu) was subtracted")
    if uncurated := [place.name for place, inside in contents.items() if "iscell" not in inside]:
        notes.append(f"{', '.join(uncurated)}: no iscell.npy, so every ROI was taken as a cell")
    if "combined" in next(iter(contents)).parts[-2:]:
        notes.append("positions are those of suite2p's mosaic of all planes (combined)")
    return tuple(notes)


def _read_plane(place: Path, need_rate: bool) -> dict[str, Any]:
    """Those of ``F``, ``Fneu``, ``iscell``, ``stat`` and, for the rate, ``ops`` that a plane has."""
    if not place.is_dir():
        return _read_matlab(place, place.stat().st_mtime_ns)
    names = SUITE2P_FILES if need_rate else SUITE2P_FILES[:-1]
    paths = {path.stem: path for name in names if (path := place / name).is_file()}
    return {name: load_objects(p) if name in ("stat", "ops") else _load(p) for name, p in paths.items()}


@lru_cache(maxsize=1)
def _read_matlab(place: Path, _changed_ns: int) -> dict[str, Any]:
    names = [Path(name).stem for name in SUITE2P_FILES]
    found = read_fields(place, names, place.stem, "export it again with suite2p (save_mat)")
    return found | {"stat": found["stat"].ravel()} if "stat" in found else found


def _plane(place: Path, inside: dict[str, Any], number: int, coefficient: float, need_positions: bool) -> Plane:
    """The accepted ROIs of one plane, at their rows and columns in plane ``number``."""
    for name in ("F", "stat") if need_positions else ("F",):
        if name not in inside:
            missing = f"{name}.npy" if place.is_dir() else name
            raise BadInput(place, f"has no {missing}", "put what suite2p wrote there")
    traces = inside["F"]
    if traces.dtype.kind not in "fiu":
        raise BadInput(place, f"F holds {traces.dtype.name}, not real numbers", _SAVE_AGAIN)
    shapes = {name: np.shape(inside[name]) for name in ("F", "Fneu", "iscell", "stat") if name in inside}
    same_rois = traces.ndim == 2 and all(shape[:1] == traces.shape[:1] for shape in shapes.values())
    if not same_rois or shapes.get("Fneu", traces.shape) != traces.shape:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise BadInput(place, f"has arrays of shapes {listed}", "take all from the same suite2p run")
    accepted = inside.get("iscell", np.ones(len(traces)))
    kept = np.flatnonzero((accepted if accepted.ndim == 1 else accepted[:, 0]) > 0)
    rois = inside.get("stat", [None] * len(traces))
    positions = np.array([_position(place, rois[k], number, need_positions) for k in kept], np.float64)

    def read(rows: np.ndarray) -> np.ndarray:  # arrays of .npy files stay on the disk until then
        block = np.asarray(traces[rows], np.float32)
        return block - np.float32(coefficient) * inside["Fneu"][rows] if coefficient and "Fneu" in inside else block

    return Plane(len(traces), kept, positions.reshape(-1, 3), traces.shape[1], read)


def _plane_order(place: Path) -> tuple[int, str]:
    folder = place.parent if place.name.endswith(MATLAB_FILE) else place
    return len(folder.name), folder.name


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


def _load(path: Path) -> np.ndarray:
    with explained(path, hint=_SAVE_AGAIN):
        return np.lib.format.open_memmap(path, mode="r")


def _member(record: Any, name: str) -> Any:
    """A member of a dictionary of suite2p, or of the struct that MATLAB made of it; None if there is none."""
    record = record.item() if isinstance(record, np.ndarray) and record.size == 1 and not record.dtype.names else record
    if isinstance(record, dict):
        return record.get(name)
    names = getattr(getattr(record, "dtype", None), "names", None) or ()
    return np.ravel(record[name].flat[0]) if name in names and record.size else None


def _position(place: Path, roi: Any, number: int, needed: bool) -> tuple[float, float, float]:
    """Row, column and plane of a ROI; ``combined`` says of every ROI which plane it was found in."""
    try:
        row, column = _member(roi, "med")
    except (TypeError, ValueError):
        if needed:
            raise BadInput(place, "an ROI in stat has no centre (med)", _SAVE_AGAIN) from None
        row = column = np.nan
    stated = _member(roi, "iplane")
    plane = -1 if stated is None else int(np.ravel(stated)[0])
    return row, column, number if plane < 0 else plane
