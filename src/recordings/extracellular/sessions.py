"""Find recording sessions and the LFP traces of their shanks.

A session is a folder whose ``low_freq`` folder holds one ``<session>_sh<k>_lfp_traces`` file per shank (``.npz``,
``.npy``, ``.h5``, ``.hdf5``), or a recording of an acquisition system in any format that :mod:`.vendors` knows. Its
name is the folder's or file's, cut at the first dot. Which shanks there are is read off the files, never assumed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from src.recordings.extracellular.formats import SourceOptions, vendor_format
from src.recordings.extracellular.reader import open_recording
from src.recordings.extracellular.spikegadgets import parts_of
from src.signals import BadInput

TRACES = re.compile(r"(?P<session>.+)_sh(?P<shank>\d+)_lfp_traces\.(npz|npy|h5|hdf5)", re.IGNORECASE)
LOW_FREQ = "low_freq"
_DEPTH = 5  # folders below input_dir that are searched
_PREFERRED = (".lfp", ".eeg", ".rec", ".ns2", ".ns3", ".ns1", ".ns4", ".ns5", ".ns6", ".dat")
"""Of several files of one recording, the one at the LFP's rate is read."""


@dataclass(frozen=True)
class Session:
    """One recording session.

    Attributes
    ----------
    name
        Stem of the session's folder or file up to the first dot.
    path
        The folder or file.
    shanks
        The trace files found for each shank; more than one is an error of that shank.
    notes
        What was found and left aside, and gaps in the numbering of the shanks.
    problem
        Why nothing of this session can be used.
    raw
        The recording of the acquisition system, where the session is one.
    """

    name: str
    path: Path
    shanks: dict[int, tuple[Path, ...]]
    notes: tuple[str, ...] = ()
    problem: BadInput | None = None
    raw: Path | None = None

    def shank_numbers(self, source: Mapping[str, Any]) -> list[int]:
        """Which shanks there are; of a recording of an acquisition system, its groups.

        Raises
        ------
        BadInput
            If nothing of the session can be used.
        """
        if self.problem is not None:
            raise self.problem
        if self.raw is None:
            return sorted(self.shanks)
        return [int(k) for k in np.unique(open_recording(self.raw, SourceOptions(**source)).shanks)]

    def trace_file(self, shank: int) -> Path:
        """The one trace file of a shank.

        Raises
        ------
        BadInput
            If there is none, or more than one.
        """
        files = self.shanks.get(shank, ())
        if not files:
            known = ", ".join(map(str, self.shanks))
            raise BadInput(self.path, f"no traces for shank {shank}", f"there are shanks {known}")
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise BadInput(self.path, f"{len(files)} files for shank {shank}: {names}", "leave one of them there")
        return files[0]


def find_sessions(input_dir: Path) -> list[Session]:
    """Every session at or below a path, in the order of their paths.

    Parameters
    ----------
    input_dir
        A session's folder, a folder of them (at any of five levels), a folder of trace files, a single trace file,
        or a recording that :func:`.reader.open_recording` opens.

    Raises
    ------
    BadInput
        If the path does not exist or holds no session.
    """
    input_dir = Path(input_dir)
    if not input_dir.exists():
        raise BadInput(input_dir, "does not exist", "give a recording, or a folder of them, as input_dir")
    path = input_dir.resolve()
    found = [_raw(path)] if path.is_file() and not TRACES.fullmatch(path.name) else list(_search(path, _DEPTH))
    if not found:
        wanted = f"<name>/{LOW_FREQ}/<name>_sh<k>_lfp_traces.npz, or recordings of an acquisition system"
        raise BadInput(input_dir, "no recording session was found", f"give the folder that holds {wanted}")
    times = Counter(session.name for session in found)
    return [session if times[session.name] == 1 else _same_name(session, found) for session in found]


def _raw(path: Path) -> Session:
    return Session(_session_name(path), path, {}, raw=path)


def _search(path: Path, depth: int) -> Iterator[Session]:
    if path.is_file():
        yield from _of_files(path.parent, [path])
        return
    low_freq = path if path.name == LOW_FREQ else path / LOW_FREQ
    if low_freq.is_dir():
        yield _of_folder(low_freq)
        return
    if files := _trace_files(path):
        yield from _of_files(path, files)
        return
    if vendor_format(path) is not None:
        yield _raw(path)
        return
    if raw := _recordings(path):
        yield from (replace(_raw(file), notes=notes) for file, notes in raw)
    elif path.suffix.lower() == ".rec":
        problem = BadInput(path, f"no {LOW_FREQ} folder and no recording", f"extract the LFP traces into {LOW_FREQ}")
        yield Session(_session_name(path), path, {}, problem=problem)
        return
    if depth:
        for child in sorted(path.iterdir()):
            if not child.name.startswith(".") and child.is_dir():
                yield from _search(child, depth - 1)


def _recordings(folder: Path) -> list[tuple[Path, tuple[str, ...]]]:
    """Recordings among the files of a folder, one per name, and what is left aside for each."""
    by_name: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        known = vendor_format(file) if file.is_file() and not file.name.startswith(".") else None
        if known is not None and known.name not in ("EDF", "NIX"):
            first = parts_of(file)[0] if file.suffix.lower() == ".rec" else file
            by_name.setdefault(_session_name(first), []).append(first)
    found = list[tuple[Path, tuple[str, ...]]]()
    for files in by_name.values():
        chosen = min(set(files), key=lambda file: (_rank(file), file.name))
        others = sorted({file.name for file in files} - {chosen.name})
        notes = (f"{chosen.name} is read; {', '.join(others)} left aside",) if others else ()
        found.append((chosen, notes))
    return found


def _rank(file: Path) -> int:
    suffix = file.suffix.lower()
    return _PREFERRED.index(suffix) if suffix in _PREFERRED else len(_PREFERRED)


def _of_folder(low_freq: Path) -> Session:
    folder, files = low_freq.parent, _trace_files(low_freq)
    prefixes = {_matched(file)["session"] for file in files}
    name = next((n for n in (_session_name(folder), _stem(folder)) if n in prefixes), _session_name(folder))
    own = [file for file in files if _matched(file)["session"] == name]
    strangers = [file.name for file in files if file not in own]
    notes = [f"{', '.join(strangers)}: not of session {name}, left aside"] if strangers else []
    problem = None
    if not own:
        held = f"{LOW_FREQ} holds only {', '.join(strangers)}" if strangers else f"{LOW_FREQ} holds no LFP traces"
        problem = BadInput(folder, held, f"name the files {name}_sh<k>_lfp_traces.npz")
    shanks = _by_shank(own)
    return Session(name, folder, shanks, (*notes, *_gaps(shanks)), problem)


def _of_files(folder: Path, files: list[Path]) -> Iterator[Session]:
    for name in sorted({_matched(file)["session"] for file in files}):
        shanks = _by_shank([file for file in files if _matched(file)["session"] == name])
        yield Session(name, folder, shanks, _gaps(shanks) if len(files) > 1 else ())


def _same_name(session: Session, found: list[Session]) -> Session:
    others = ", ".join(str(s.path) for s in found if s.name == session.name and s.path != session.path)
    problem = BadInput(session.path, f"{others} is also named {session.name}", "process them into different output_dir")
    return replace(session, problem=problem)


def _by_shank(files: list[Path]) -> dict[int, tuple[Path, ...]]:
    shanks: dict[int, list[Path]] = {}
    for file in files:
        shanks.setdefault(int(_matched(file)["shank"]), []).append(file)
    return {shank: tuple(shanks[shank]) for shank in sorted(shanks)}


def _gaps(shanks: dict[int, tuple[Path, ...]]) -> tuple[str, ...]:
    absent = sorted(set(range(max(shanks, default=-1) + 1)) - set(shanks))
    if not absent:
        return ()
    return (f"no traces for shank{'s' * (len(absent) > 1)} {', '.join(map(str, absent))}",)


def _trace_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and TRACES.fullmatch(file.name))


def _matched(file: Path) -> re.Match[str]:
    match = TRACES.fullmatch(file.name)
    assert match is not None  # only files that matched come here
    return match


def _stem(path: Path) -> str:
    return path.name[: -len(".rec")] if path.suffix.lower() == ".rec" else path.name


def _session_name(path: Path) -> str:
    return _stem(path).split(".")[0] or path.name
