"""Find recording sessions and the LFP traces of their shanks.

A session is a ``.rec`` folder whose ``low_freq`` folder holds one ``<session>_sh<k>_lfp_traces`` file per
shank (``.npz``, ``.npy``, ``.h5``, ``.hdf5``), or a SpikeGadgets ``.rec`` file. Its name is the folder's,
cut at the first dot. Which shanks there are is read off the files, never assumed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from src.signals import BadInput

TRACES = re.compile(r"(?P<session>.+)_sh(?P<shank>\d+)_lfp_traces\.(npz|npy|h5|hdf5)", re.IGNORECASE)
LOW_FREQ = "low_freq"
_DEPTH = 5  # folders below input_dir that are searched


@dataclass(frozen=True)
class Session:
    """One recording session.

    Attributes
    ----------
    name
        Stem of the session's folder or file up to the first dot.
    path
        The ``.rec`` folder or file.
    shanks
        The files found for each shank; more than one is an error of that shank.
    notes
        What was found and left aside, and gaps in the numbering of the shanks.
    problem
        Why nothing of this session can be used.
    raw
        The SpikeGadgets ``.rec`` file, where the session is one.
    """

    name: str
    path: Path
    shanks: dict[int, tuple[Path, ...]]
    notes: tuple[str, ...] = ()
    problem: BadInput | None = None
    raw: Path | None = None


def find_sessions(input_dir: Path) -> list[Session]:
    """Every session at or below a path, in the order of their paths.

    Parameters
    ----------
    input_dir
        A ``.rec`` folder, a folder of them (at any of five levels), a folder of trace files, a single
        trace file, or a SpikeGadgets ``.rec`` file.

    Raises
    ------
    BadInput
        If the path does not exist or holds no session.
    """
    input_dir = Path(input_dir)
    if not input_dir.exists():
        raise BadInput(input_dir, "does not exist", "give a .rec folder, or a folder of them, as input_dir")
    found = list(_search(input_dir.resolve(), _DEPTH))
    if not found:
        wanted = f"<name>.rec/{LOW_FREQ}/<name>_sh<k>_lfp_traces.npz"
        raise BadInput(input_dir, "no recording session was found", f"give the folder that holds {wanted}")
    times = Counter(session.name for session in found)
    return [session if times[session.name] == 1 else _same_name(session, found) for session in found]


def _search(path: Path, depth: int) -> Iterator[Session]:
    if path.is_file():
        if path.suffix.lower() == ".rec":
            yield Session(_session_name(path), path, {}, raw=path)
        elif TRACES.fullmatch(path.name):
            yield from _of_files(path.parent, [path])
        return
    low_freq = path if path.name == LOW_FREQ else path / LOW_FREQ
    if low_freq.is_dir():
        yield _of_folder(low_freq)
        return
    if files := _trace_files(path):
        yield from _of_files(path, files)
        return
    if path.suffix.lower() == ".rec":
        yield _without_traces(path)
        return
    if depth:
        for child in sorted(path.iterdir()):
            if not child.name.startswith(".") and (child.is_dir() or child.suffix.lower() == ".rec"):
                yield from _search(child, depth - 1)


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


def _without_traces(folder: Path) -> Session:
    raw = sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() == ".rec")
    if len(raw) == 1:
        return Session(_session_name(folder), folder, {}, raw=raw[0])
    held = f"no {LOW_FREQ} folder" + (f" and {len(raw)} .rec files" if raw else "")
    hint = f"extract the LFP traces into {LOW_FREQ}, or give one .rec file"
    return Session(_session_name(folder), folder, {}, problem=BadInput(folder, held, hint))


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
