"""Which recordings a folder holds, and how each is opened."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from src.recordings.calcium.fish import POSITIONS, TIME_SERIES, open_fish
from src.recordings.calcium.recording import CalciumRecording
from src.recordings.calcium.segmentation import (
    EXTRACTORS,
    INSCOPIX,
    NWB,
    open_extractor,
    open_inscopix,
    open_nwb,
    recognise,
)
from src.recordings.calcium.suite2p import MATLAB_FILE, find_planes, open_suite2p, suite2p_files
from src.signals import BadInput
from src.storage.foreign_files import absent


def find_subjects(input_dir: Path, skip: Sequence[str] = ()) -> list[Path]:
    """The recordings of a folder in name order, without those in ``skip``.

    These are its sub-folders named ``subject_*``. Where there are none: ``input_dir`` itself if it is a recording,
    or else every folder and file in it that is one.

    Raises
    ------
    BadInput
        If the folder is missing or holds no recording, or if ``skip`` names an unknown one or leaves none.
    """
    input_dir = Path(input_dir)
    if not input_dir.exists():
        raise absent(input_dir)
    inside = sorted(input_dir.iterdir()) if input_dir.is_dir() else []
    found = [p for p in inside if p.is_dir() and p.name.startswith("subject_")]
    if not found and len(_files_of_traces(inside)) < 2 and _is_recording(input_dir):
        found = [input_dir]
    found = found or [p for p in inside if _is_recording(p)]
    if not found and input_dir.is_file():
        subject_files(input_dir)  # says why it is no recording
    if not found:
        problem = "has no sub-folder whose name starts with subject_, and no suite2p, NWB, CaImAn or EXTRACT output"
        raise BadInput(input_dir, problem, "put every subject in a folder of its own")
    names = [subject_name(p) for p in found]
    if unknown := sorted(set(skip) - set(names)):
        raise BadInput(f"skip={','.join(unknown)}", "is no subject here", f"there are: {', '.join(names[:10])}")
    kept = [p for p, name in zip(found, names, strict=True) if name not in set(skip)]
    if not kept:
        raise BadInput(f"skip={list(skip)}", "leaves no subject to work on", "take one off the list")
    return kept


def subject_name(place: Path) -> str:
    """Name of the subject whose recording is in ``place``: for ``mouse1/suite2p/plane0`` that is ``mouse1``."""
    folder = Path(place).absolute()
    if folder.is_file() and folder.name != MATLAB_FILE:
        return folder.stem
    inner = ("suite2p", "combined", MATLAB_FILE)
    while folder.parent != folder and (folder.name in inner or folder.name.startswith("plane")):
        folder = folder.parent
    return folder.name


def _is_recording(place: Path) -> bool:
    """Whether a place holds one recording, or several that :func:`subject_files` refuses by name."""
    inside = list(place.iterdir()) if place.is_dir() else [place]
    is_fish = all((place / name).is_file() for name in (TIME_SERIES, POSITIONS))
    return is_fish or bool(find_planes(place) or _files_of_traces(inside))


def _files_of_traces(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """The files among ``paths`` that hold the traces of a whole recording, with their roles."""
    return [(role, path) for path in paths if (role := recognise(path))]


def subject_files(place: Path) -> dict[str, Path]:
    """The input files of one subject by role; what is read is exactly what is listed here."""
    place = Path(place)
    if planes := find_planes(place):
        return suite2p_files(planes)
    if place.is_file():
        if role := recognise(place):
            return {role: place}
        problem = f"is no NWB, CaImAn, EXTRACT (MATLAB 7.3), Inscopix or suite2p ({MATLAB_FILE}) file"
        raise BadInput(place, problem, "give the folder of the recording; arrays go through spike_rates in Python")
    missing = [name for name in (TIME_SERIES, POSITIONS) if not (place / name).is_file()]
    if not missing:
        return {"traces": place / TIME_SERIES, "cells": place / POSITIONS}
    files = [p for p in sorted(place.iterdir()) if p.name not in (TIME_SERIES, POSITIONS)] if place.is_dir() else []
    found = _files_of_traces(files)
    if len(found) > 1:
        names = ", ".join(path.name for _, path in found)
        raise BadInput(place, f"holds {len(found)} recordings ({names})", "give one of them, or a folder for each")
    if found:
        return dict(found)
    problem = f"has no {' and no '.join(missing)}"
    raise BadInput(place, problem, f"put {TIME_SERIES} and {POSITIONS}, a suite2p folder or one NWB file, there")


def open_recording(
    files: Mapping[str, Path],
    subject: str,
    fs_hz: float | None = None,
    *,
    neuropil: float = 0.7,
    need_positions: bool = True,
) -> CalciumRecording:
    """Open a subject from the files that :func:`subject_files` found.

    ``fs_hz`` overrides the rate in the files, ``neuropil`` is the share that is subtracted where a source has it
    (suite2p, NWB; suite2p's authors take 0.7), and with ``need_positions`` cells without coordinates are left out.
    Files that are unreadable, incomplete, or that contradict each other raise :class:`BadInput`.
    """
    if "traces" in files:
        return open_fish(files["traces"], files["cells"], subject, fs_hz)
    if NWB in files:
        recording = open_nwb(files[NWB], subject, fs_hz, neuropil)
    elif INSCOPIX in files:
        recording = open_inscopix(files[INSCOPIX], subject, fs_hz)
    elif role := next((role for role in files if role in EXTRACTORS), None):
        recording = open_extractor(role, files[role], subject, fs_hz)
    else:
        recording = open_suite2p(dict(files), subject, fs_hz, neuropil, need_positions)
    return recording.placed_only() if need_positions else recording
