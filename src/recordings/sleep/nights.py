"""Which recordings a folder holds, whose they are, and how each is read.

A ``Night`` names files and no content; :func:`load_channels` reads them. :data:`KINDS` lists the kinds of folder.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from rich.console import Console

from src.recordings.check_signal import require_signal
from src.recordings.sleep.channels import derivation
from src.recordings.sleep.databases import dreams_signal, ucddb_signal
from src.recordings.sleep.edf import EDF_SUFFIXES, is_edf_file, read_channels, read_header
from src.recordings.sleep.hypnogram import Hypnogram
from src.recordings.sleep.stage_names import ScoringOptions
from src.signals import BadInput, Recording
from src.storage.atomic import PART
from src.storage.foreign_files import absent
from src.storage.progress import say

_SLEEP_EDF = re.compile(r"^((?:SC4|ST7)\d{2})(\d)[A-Z0-9]{2}-(PSG|Hypnogram)\.edf$", re.IGNORECASE)
_WORDS = (
    r"hypnogramm?|hypno?|sleepscoring|scoring|scored|stages?|staging|stg|annot(?:ation)?s?|events|nsrr|profusion"
    r"|schlafprofil|sleep[ _]?profile|sleep[ _]?stages?|allscore|scores?"
)
_SUFFIXES = (
    *(".csv", ".tsv", ".edf", ".bdf", ".xml", ".rml", ".annot", ".eannot", ".txt"),
    *(".hyp", ".hypno", ".ids", ".sta", ".json"),
)
_SCORER = re.compile(r"(?P<stem>.+)_\d")
"""``1_1.txt`` and ``1_2.txt`` are two scorings of ``1.edf``."""
_SCORING = re.compile(
    rf"(?:(?:{_WORDS})[-_. ]+)?(?P<stem>.+?)(?:[-_. ]+(?:{_WORDS}|base))?(?:\.edf(?=\.xml))?(?P<suffix>\.\w+)",
    re.IGNORECASE,
)
"""Names of scorings beside ``<stem>.edf``: ``<stem>.csv``, ``<stem>-Hypnogram.edf``, ``Hypnogram_<stem>.txt``…"""
_SCORING_EDF = re.compile(rf"[-_. ](?:{_WORDS})$", re.IGNORECASE)
_SIGNAL_WORD = re.compile(r"[-_ ](?:PSG|eeg)$", re.IGNORECASE)
_ONLY_WORDS = re.compile(_WORDS, re.IGNORECASE)
"""``hypnogram.csv`` (our own name) or ``Schlafprofil.txt`` belong to a recording that is alone in its folder."""


def is_edf(path: Path) -> bool:
    """Whether a path is an EDF or BDF file, or a folder with one."""
    return any(is_edf_file(p) for p in (path.iterdir() if path.is_dir() else (path,)))


@dataclass(frozen=True)
class Night:
    """One recording on disk, with its scoring where there is one."""

    recording_id: str
    subject_id: str  # splits are made over it: all nights of a person share it
    psg: tuple[Path, ...]  # the file or files that hold the signal
    hypnogram: Path | None  # the scoring's file; None for a night to be scored, or one whose own annotations hold it
    kind: str  # how the files are read, a key of KINDS
    not_read: tuple[Path, ...] = ()  # further scorings beside the recording

    @property
    def notes(self) -> list[str]:
        """What has to be said of the scoring that was found."""
        if not (self.hypnogram and self.not_read):
            return []
        others = ", ".join(path.name for path in self.not_read)
        return [f"{1 + len(self.not_read)} scorings beside it: {self.hypnogram.name} is read, not {others}"]

    def inputs(self) -> dict[str, Path]:
        """The files by the names that a step's manifest lists them under."""
        signals = {"psg" if len(self.psg) == 1 else f"psg_{i}": path for i, path in enumerate(self.psg)}
        return signals | ({"hypnogram": self.hypnogram} if self.hypnogram else {})

    @classmethod
    def from_inputs(cls, kind: str, inputs: Mapping[str, Path]) -> "Night":
        """Inverse of :meth:`inputs`; the recording is named after its first file."""
        psg = tuple(Path(inputs[name]) for name in sorted(inputs) if name.startswith("psg"))
        hypnogram = inputs.get("hypnogram")
        return cls(psg[0].stem, psg[0].stem, psg, Path(hypnogram) if hypnogram else None, kind)


def discover(
    kind: str, root: str | Path, *, subject_pattern: str | None = None, scoring: str | None = None
) -> list[Night]:
    """The nights of a folder, or of one recording in it, in the order of their names.

    Parameters
    ----------
    kind
        ``sleep_edf``: Sleep-EDF's names; the subject is read from the name. ``edf_folder``: any EDF or BDF file,
        with a scoring of the same stem where there is one. ``dreams``, ``ucddb``: the databases' own layouts.
        Folders are searched at any depth for the first two.
    subject_pattern
        Regular expression whose first group, found in a file's name, is its subject (``edf_folder``).
        Without it ``sub-XXX`` names a subject, and failing that every file counts as its own subject.
    scoring
        Where the scoring of a recording is, relative to its folder: ``{stem}_events.tsv`` (``edf_folder``).
    """
    root = Path(root)
    if kind not in KINDS:
        raise BadInput("kind", f"{kind!r} is not a kind of recording folder", f"choose from: {', '.join(KINDS)}")
    if not root.exists():
        raise absent(root)
    found = KINDS[kind].find(root, subject_pattern, scoring)
    nights = sorted((n for n in found if root.is_dir() or root in n.psg), key=lambda night: night.recording_id)
    if not nights:
        raise BadInput(root, f"holds no recording of kind {kind!r}", f"expected {KINDS[kind].expected}")
    return nights


def load_channels(
    night: Night, names: Sequence[str] | None = None, aliases: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> list[Recording]:
    """The channels asked for, a recording of one channel each; see :func:`~.edf.read_channels`.

    A channel without a signal raises :class:`BadInput`.
    """
    if (only := KINDS[night.kind].signal(night)) is None:
        found = read_channels(night.psg[0], names, aliases)
    else:
        for name in names or ():
            derivation(only.source, name, only.channels, aliases.get(name, ()))
        found = [replace(only, channels=(name,)) for name in (only.channels if names is None else names)]
    for channel in found:
        require_signal(channel)
    return found


def load_scoring(night: Night, options: ScoringOptions) -> Hypnogram | None:
    """The scoring of a night: its file, or the stages among the recording's own annotations; ``None`` without any."""
    from src.recordings.sleep.scoring_files import has_stages, read_hypnogram

    options = replace(options, coding=options.coding or KINDS[night.kind].coding)
    if night.hypnogram is not None:
        return read_hypnogram(night.hypnogram, options)
    path = night.psg[0]
    return read_hypnogram(path, options) if path.suffix.lower() in EDF_SUFFIXES and has_stages(path, options) else None


def subject_of(name: str, pattern: str | None, source: str | Path) -> str:
    """The subject in a file's or folder's name: the first group of ``pattern``, ``sub-XXX``, or the name itself."""
    if pattern is None:
        bids = re.search(r"sub-([A-Za-z0-9]+)", name)
        return bids[1] if bids else name
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise BadInput("subject_pattern", f"{pattern!r} is no regular expression ({error})", "correct it") from None
    if not match or not match.groups() or match[1] is None:
        problem = f"subject_pattern {pattern!r} finds no subject in its name"
        raise BadInput(source, problem, "give one group that fits every name")
    return match[1]


def _find_sleep_edf(root: Path, _: str | None, __: str | None) -> list[Night]:
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for path in _below(root):
        if match := _SLEEP_EDF.match(path.name):
            subject = match[1].upper()
            files, role = found.setdefault((subject + match[2], subject), {}), match[3].lower()
            if role in files:
                recording = subject + match[2]
                raise BadInput(path, f"is the second {match[3]} of {recording} ({files[role]})", "keep one of them")
            files[role] = path
    return [
        Night(recording, subject, (files["psg"],), files.get("hypnogram"), "sleep_edf")
        for (recording, subject), files in found.items()
        if "psg" in files
    ]


def _find_edf_folder(root: Path, subject_pattern: str | None, scoring: str | None) -> list[Night]:
    top = root.parent if root.is_file() else root
    signals = [path for path in _below(root) if not _SCORING_EDF.search(path.stem) and _holds_signal(path)]
    names = [path.stem.casefold() for path in signals]
    folders: dict[Path, list[Path]] = {}
    for path in signals:
        folders.setdefault(path.parent, []).append(path)
    nights = []
    for folder, files in folders.items():
        beside = _scorings_in(folder, files)
        for path in files:
            same = names.count(path.stem.casefold()) > 1
            name = "-".join(path.relative_to(top).parts) if same else path.stem
            stems = (path.stem, _SIGNAL_WORD.sub("", path.stem), *_sleep_edf_night(path))
            beside_it = [p for stem in stems for p in beside.get(stem.casefold(), [])]
            named = [_named(path, scoring)] if scoring else beside_it
            found, *others = list(dict.fromkeys(named)) or [None]
            sleep_edf = None if subject_pattern else _SLEEP_EDF.match(path.name)
            subject = sleep_edf[1].upper() if sleep_edf else None
            subject = subject or subject_of(path.name if subject_pattern else name, subject_pattern, path)
            nights.append(Night(name, subject, (path,), found, "edf_folder", tuple(p for p in others if p)))
    if scoring and not any(night.hypnogram for night in nights):
        raise BadInput("source.scoring", f"{scoring!r} names no file beside any recording of {root}", "correct it")
    return nights


def _below(root: Path) -> Iterator[Path]:
    """EDF and BDF files below a folder; those beside a file.

    Hidden ones are left out, which is said unless a program made them. A link to nothing is refused when its turn
    comes.
    """
    found = root.parent.glob("*") if root.is_file() else root.rglob("*")
    root = root.parent if root.is_file() else root
    for path in sorted(found):
        if path.is_dir() or not is_edf_file(path):
            continue
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            yield path
        elif path.name.startswith(".") and not path.name.startswith("._") and not PART.fullmatch(path.name):
            say(Console(stderr=True), f"{path}: is a hidden file and left out; rename it if it is a recording")


def _holds_signal(path: Path, *, damaged: bool = True) -> bool:
    """False for a file of annotations only; ``damaged`` for one that cannot be read, which its reader refuses."""
    try:
        return bool(read_header(path).signals)
    except BadInput:
        return damaged


def _sleep_edf_night(path: Path) -> list[str]:
    """The name that the two files of a Sleep-EDF night share."""
    match = _SLEEP_EDF.match(path.name)
    return [match[1] + match[2]] if match else []


def _named(psg: Path, pattern: str) -> Path | None:
    """The file that ``source.scoring`` names."""
    try:
        found = (psg.parent / pattern.format(stem=s) for s in (psg.stem, _SIGNAL_WORD.sub("", psg.stem)))
        return next((path for path in found if path.is_file()), None)
    except (KeyError, IndexError, ValueError):
        raise BadInput("source.scoring", f"{pattern!r} is no pattern", "write it like {stem}_events.tsv") from None


def _scorings_in(folder: Path, recordings: Sequence[Path]) -> dict[str, list[Path]]:
    """The scorings in a folder by the stem of their recording, the best first."""
    found: dict[str, list[Path]] = {}
    stems = {path.stem.casefold() for path in recordings}
    for path in sorted(folder.iterdir()):
        match = _SCORING.fullmatch(path.name)
        if path in recordings or not match or match["suffix"].lower() not in _SUFFIXES or not path.is_file():
            continue
        if path.suffix.lower() in EDF_SUFFIXES and _holds_signal(path, damaged=not _SCORING_EDF.search(path.stem)):
            continue
        if path.suffix.lower() == ".json" and not _is_scoring(path):
            continue  # BIDS puts other things there
        own = len(recordings) == 1 and _ONLY_WORDS.fullmatch(path.stem)
        of_scorer = None if match["stem"].casefold() in stems else _SCORER.fullmatch(match["stem"])
        own_stems = [recordings[0].stem] if own else [of_scorer["stem"]] if of_scorer else []
        for stem in (match["stem"], *_sleep_edf_night(path), *own_stems):
            found.setdefault(stem.casefold(), []).append(path)
    return {
        stem: sorted(paths, key=lambda path: (_SUFFIXES.index(path.suffix.lower()), _is_plain(path), len(path.name)))
        for stem, paths in found.items()
    }


def _is_plain(path: Path) -> bool:
    """Whether a text has a name that does not say what it is: DREAMS has the signal there."""
    return path.suffix.lower() == ".txt" and not re.search(rf"(?:^|[-_. ])(?:{_WORDS})(?:[-_. ]|$)", path.stem, re.I)


def _is_scoring(path: Path) -> bool:
    """Whether a JSON file holds stages, of one scorer or several."""
    from src.recordings.sleep.scoring_records import json_tables
    from src.recordings.sleep.scoring_text import read_text

    try:
        return bool(json_tables(read_text(path), ScoringOptions())[0])
    except BadInput:
        return False


def _find_dreams(root: Path, _: str | None, __: str | None) -> Iterator[Night]:
    for path in _beside_or_in(root, "excerpt*.txt"):
        if re.fullmatch(r"excerpt\d+", path.stem):
            edf, hypnogram = path.with_suffix(".edf"), path.with_name(f"Hypnogram_{path.stem}.txt")
            psg = edf if edf.is_file() else path
            yield Night(path.stem, path.stem, (psg,), hypnogram if hypnogram.is_file() else None, "dreams")


def _find_ucddb(root: Path, _: str | None, __: str | None) -> Iterator[Night]:
    for stages in _beside_or_in(root, "ucddb*_stage.txt"):
        name = f"ucd{stages.stem.removeprefix('ucddb').removesuffix('_stage')}"
        if parts := _beside_or_in(root, f"{name}_stage*.mat"):
            yield Night(name, name, tuple(parts), stages, "ucddb")


def _beside_or_in(root: Path, pattern: str) -> list[Path]:
    return sorted((root.parent if root.is_file() else root).glob(pattern))


@dataclass(frozen=True)
class _Kind:
    """How nights of a kind are found and read."""

    find: Callable[[Path, str | None, str | None], Iterable[Night]]
    expected: str  # what their files are called
    signal: Callable[[Night], Recording | None] = lambda night: None  # the one channel of what is no EDF or BDF file
    coding: str | None = None  # what integers in their scorings mean


KINDS: dict[str, _Kind] = {
    "sleep_edf": _Kind(_find_sleep_edf, "SC4ssNxx-PSG.edf or ST7ssNxx-PSG.edf"),
    "edf_folder": _Kind(_find_edf_folder, "*.edf or *.bdf"),
    "dreams": _Kind(
        _find_dreams,
        "excerptN.txt",
        lambda night: dreams_signal(night.psg[0]) if night.psg[0].suffix == ".txt" else None,
    ),
    "ucddb": _Kind(
        _find_ucddb,
        "ucddbNNN_stage.txt and ucdNNN_stage*.mat",
        lambda night: ucddb_signal(night.psg, night.hypnogram),
        "ucddb",
    ),
}
"""Kinds of recording folder."""
