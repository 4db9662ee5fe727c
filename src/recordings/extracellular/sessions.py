"""Find recording sessions and the LFP traces of their shanks.

A session is a folder whose ``low_freq`` folder holds one ``<session>_sh<k>_lfp_traces`` file per shank (``.npz``,
``.npy``, ``.h5``, ``.hdf5``), or a recording of an acquisition system in any format that :mod:`.vendors` knows. Its
name is the folder's or file's, cut at the first dot. Which shanks there are is read off the files, never assumed.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from src.recordings.extracellular.arrays import SUFFIXES as ARRAY_SUFFIXES
from src.recordings.extracellular.binary import parts_of
from src.recordings.extracellular.formats import NO_LFP, vendor_format
from src.recordings.extracellular.reader import open_recording
from src.signals import BadInput, SourceOptions
from src.storage.foreign_files import absent

TRACES = re.compile(r"(?P<session>.+)_sh(?P<shank>\d+)_lfp_traces\.(npz|npy|h5|hdf5)", re.IGNORECASE)
LOW_FREQ = "low_freq"
_DEPTH = 5  # folders below input_dir that are searched
_PREFERRED = (".lfp", ".eeg", ".rec", ".ns2", ".ns3", ".ns1", ".ns4", ".ns5", ".ns6", ".dat")
"""Of several files of one recording, the one at the LFP's rate is read."""


@dataclass(frozen=True)
class Session:
    """One recording session."""

    name: str  # stem of its folder or file up to the first dot
    path: Path  # the folder or file
    shanks: dict[int, tuple[Path, ...]]  # trace files found for each shank; more than one is an error of that shank
    notes: tuple[str, ...] = ()  # what was found and left aside, and gaps in the numbering of the shanks
    problem: BadInput | None = None  # why nothing of this session can be used
    raw: Path | None = None  # the recording of the acquisition system, where the session is one

    def shank_numbers(self, source: Mapping[str, Any]) -> list[int]:
        """Which shanks there are; of a recording of an acquisition system, its groups. Raises its problem."""
        if self.problem is not None:
            raise self.problem
        if self.raw is None:
            return sorted(self.shanks)
        return [int(k) for k in np.unique(open_recording(self.raw, SourceOptions(**source)).shanks)]

    def trace_file(self, shank: int) -> Path:
        """The one trace file of a shank; :class:`BadInput` if there is none, or more than one."""
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
        raise absent(input_dir)
    found = list(_search(input_dir.resolve(), _DEPTH))
    if not found:
        wanted = f"<name>/{LOW_FREQ}/<name>_sh<k>_lfp_traces.npz, or recordings of an acquisition system"
        hint = f"give the folder that holds {wanted}"
        arrays = (file for file in sorted(input_dir.rglob("*")) if file.suffix.lower() in ARRAY_SUFFIXES)
        if array := next(arrays, None):
            hint = f"of arrays give one, such as {array} (source.fs_hz=<Hz> if it states no rate), or {hint}"
        raise BadInput(input_dir, "no recording session was found", hint)
    times = Counter(session.name for session in found)
    return [session if times[session.name] == 1 else _same_name(session, found) for session in found]


def _search(path: Path, depth: int) -> Iterator[Session]:
    low_freq = path if path.name == LOW_FREQ else path / LOW_FREQ
    if low_freq.is_dir():
        yield _of_folder(low_freq)
        return
    files = [path] if path.is_file() else sorted(path.iterdir())
    if traces := _traces(files):
        for name, shanks in sorted(traces.items()):
            several = sum(map(len, traces.values())) > 1 or any(len(same) > 1 for same in shanks.values())
            yield Session(name, path.parent if path.is_file() else path, shanks, _gaps(shanks) if several else ())
        return
    if path.is_file() or vendor_format(path) is not None:
        yield Session(_session_name(path), path, {}, raw=path)
        return
    raw = list(_recordings(files))
    yield from raw
    if not raw and path.suffix.lower() == ".rec":
        problem = BadInput(path, f"no {LOW_FREQ} folder and no recording", f"extract the LFP traces into {LOW_FREQ}")
        yield Session(_session_name(path), path, {}, problem=problem)
    elif depth:
        for child in files:
            if not child.name.startswith(".") and child.is_dir():
                yield from _search(child, depth - 1)


def _recordings(files: Sequence[Path]) -> Iterator[Session]:
    """Recordings of acquisition systems among the files of a folder, one per name; what is left aside is noted."""
    by_name: dict[str, list[Path]] = {}
    for file in files:
        known = vendor_format(file) if file.is_file() and not file.name.startswith(".") else None
        if known is not None and known.name not in NO_LFP:
            first = parts_of(file)[0] if file.suffix.lower() == ".rec" else file
            by_name.setdefault(_session_name(first), []).append(first)

    def rank(file: Path) -> tuple[int, str]:
        suffix = file.suffix.lower()
        return _PREFERRED.index(suffix) if suffix in _PREFERRED else len(_PREFERRED), file.name

    for name, same in by_name.items():
        chosen = min(set(same), key=rank)
        others = sorted({file.name for file in same} - {chosen.name})
        notes = (f"{chosen.name} is read; {', '.join(others)} left aside",) if others else ()
        yield Session(name, chosen, {}, notes, raw=chosen)


def _of_folder(low_freq: Path) -> Session:
    folder, traces = low_freq.parent, _traces(sorted(low_freq.iterdir()))
    name = next((n for n in (_session_name(folder), _stem(folder)) if n in traces), _session_name(folder))
    shanks = traces.pop(name, {})
    strangers = ", ".join(sorted(file.name for other in traces.values() for files in other.values() for file in files))
    notes = (f"{strangers}: not of session {name}, left aside",) if strangers else ()
    problem = None
    if not shanks:
        held = f"{LOW_FREQ} holds only {strangers}" if strangers else f"{LOW_FREQ} holds no LFP traces"
        problem = BadInput(folder, held, f"name the files {name}_sh<k>_lfp_traces.npz")
    return Session(name, folder, shanks, (*notes, *_gaps(shanks)), problem)


def _same_name(session: Session, found: list[Session]) -> Session:
    others = ", ".join(str(s.path) for s in found if s.name == session.name and s.path != session.path)
    problem = BadInput(session.path, f"{others} is also named {session.name}", "process them into different output_dir")
    return replace(session, problem=problem)


def _traces(files: Sequence[Path]) -> dict[str, dict[int, tuple[Path, ...]]]:
    """The LFP traces among files, by session and shank."""
    found: dict[str, dict[int, tuple[Path, ...]]] = {}
    for file in files:
        if (match := TRACES.fullmatch(file.name)) and file.is_file():
            shanks, shank = found.setdefault(match["session"], {}), int(match["shank"])
            shanks[shank] = (*shanks.get(shank, ()), file)
    return {name: dict(sorted(shanks.items())) for name, shanks in found.items()}


def _gaps(shanks: dict[int, tuple[Path, ...]]) -> tuple[str, ...]:
    absent = sorted(set(range(max(shanks, default=-1) + 1)) - set(shanks))
    return (f"no traces for shank{'s' * (len(absent) > 1)} {', '.join(map(str, absent))}",) if absent else ()


def _stem(path: Path) -> str:
    return path.name[: -len(".rec")] if path.suffix.lower() == ".rec" else path.name


def _session_name(path: Path) -> str:
    return _stem(path).split(".")[0] or path.name
