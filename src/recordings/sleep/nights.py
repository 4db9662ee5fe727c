"""Which recordings a folder holds, whose they are, and how each is read.

A ``Night`` names files and no content; :func:`load` reads them. The kinds of folder are listed in :data:`KINDS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.recordings.sleep.channels import ChannelRequest
from src.recordings.sleep.databases import dreams_signal, ucddb_signal
from src.recordings.sleep.edf import read_recording
from src.recordings.sleep.hypnogram import Hypnogram
from src.recordings.sleep.scoring_files import read_hypnogram
from src.signals import HUMAN_STAGES, BadInput, Recording

_SLEEP_EDF = re.compile(r"^((?:SC4|ST7)\d{2})(\d)[A-Z0-9]{2}-(PSG|Hypnogram)\.edf$", re.IGNORECASE)
_HYPNOGRAM_SUFFIXES = (".csv", ".tsv", ".txt", "-Hypnogram.edf", "_hypnogram.edf", "_hypnogram.csv", "_hypnogram.txt")


@dataclass(frozen=True)
class Night:
    """One recording on disk, with its scoring where there is one.

    Attributes
    ----------
    recording_id, subject_id
        Splits are made over ``subject_id``: all nights of a person share it.
    psg
        The file or files that hold the signal.
    hypnogram
        The file that holds the scoring, ``None`` for a night to be scored.
    kind
        How the files are read, a key of :data:`KINDS`.
    """

    recording_id: str
    subject_id: str
    psg: tuple[Path, ...]
    hypnogram: Path | None
    kind: str

    def inputs(self) -> dict[str, Path]:
        """The files by the names that a stage's manifest lists them under."""
        signals = {"psg" if len(self.psg) == 1 else f"psg_{i}": path for i, path in enumerate(self.psg)}
        return signals | ({"hypnogram": self.hypnogram} if self.hypnogram else {})

    @classmethod
    def from_inputs(cls, kind: str, inputs: Mapping[str, Path]) -> Night:
        """Inverse of :meth:`inputs`; the recording is named after its first file."""
        psg = tuple(Path(inputs[name]) for name in sorted(inputs) if name.startswith("psg"))
        hypnogram = inputs.get("hypnogram")
        return cls(psg[0].stem, psg[0].stem, psg, Path(hypnogram) if hypnogram else None, kind)


def discover(kind: str, root: str | Path, *, subject_pattern: str | None = None) -> list[Night]:
    """The nights of a folder, in the order of their names.

    Parameters
    ----------
    kind
        ``sleep_edf``: Sleep-EDF's names, at any depth; the subject is read from the name.
        ``edf_folder``: any ``*.edf`` with a hypnogram of the same stem (``.csv``, ``.txt``,
        ``-Hypnogram.edf``) where there is one. ``dreams``, ``ucddb``: the databases' own layouts.
    root
        The folder.
    subject_pattern
        Regular expression whose first group, found in a file's name, is its subject (``edf_folder``).
        Without it ``sub-XXX`` names a subject, and failing that every file counts as its own subject.

    Raises
    ------
    BadInput
        If the folder is absent or holds no night of this kind, or the pattern does not fit.
    """
    root = Path(root)
    if kind not in KINDS:
        raise BadInput("kind", f"{kind!r} is not a kind of recording folder", f"choose from: {', '.join(KINDS)}")
    if not root.is_dir():
        raise BadInput(root, "is not a folder", "give the folder that holds the recordings")
    nights = sorted(KINDS[kind].find(root, subject_pattern), key=lambda night: night.recording_id)
    if not nights:
        raise BadInput(root, f"holds no recording of kind {kind!r}", f"expected {KINDS[kind].expected}")
    return nights


def load(
    night: Night,
    channels: Sequence[str] | None,
    fs_hz: float | None = None,
    *,
    aliases: Mapping[str, Sequence[str]] | None = None,
    max_hz: float | None = None,
    epoch_s: float | None = None,
    stage_coding: str | None = None,
    stage_names: tuple[str, ...] = HUMAN_STAGES,
) -> tuple[Recording, Hypnogram | None]:
    """Read a night: the channels asked for at the rate asked for, and its scoring on its own epochs.

    Parameters
    ----------
    channels, fs_hz, aliases, max_hz
        See :func:`src.recordings.sleep.edf.read_recording`.
    epoch_s, stage_coding, stage_names
        For text hypnograms that state neither; see
        :func:`src.recordings.sleep.scoring_files.read_hypnogram`.
    """
    names = tuple(channels) if channels is not None else None
    recording = KINDS[night.kind].signal(night, ChannelRequest(names, fs_hz, aliases or {}, max_hz))
    require_signal(recording)
    if night.hypnogram is None:
        return recording, None
    coding = stage_coding or ("ucddb" if night.kind == "ucddb" else None)
    return recording, read_hypnogram(night.hypnogram, epoch_s=epoch_s, coding=coding, stage_names=stage_names)


def require_signal(recording: Recording) -> None:
    """Refuse a channel that was never recorded or never moved.

    Raises
    ------
    BadInput
        If a channel is NaN throughout or holds one value only.
    """
    for name, row in zip(recording.channels, recording.samples, strict=True):
        finite = row[np.isfinite(row)]
        hint = "choose another channel or leave this recording out"
        if not len(finite):
            raise BadInput(recording.source, f"channel {name!r} is NaN throughout", hint)
        if finite.min() == finite.max():
            raise BadInput(recording.source, f"channel {name!r} is flat ({finite[0]:g} throughout)", hint)


def _find_sleep_edf(root: Path, _: str | None) -> list[Night]:
    found: dict[str, dict[str, Path]] = {}
    subjects = {}
    for path in sorted(root.rglob("*.edf")):
        if match := _SLEEP_EDF.match(path.name):
            recording = match[1].upper() + match[2]
            subjects[recording] = match[1].upper()
            known = found.setdefault(recording, {}).setdefault(match[3].lower(), path)
            if known != path:
                raise BadInput(path, f"is the second {match[3]} of {recording} ({known})", "keep one of them")
    return [
        Night(recording, subjects[recording], (files["psg"],), files.get("hypnogram"), "sleep_edf")
        for recording, files in found.items()
        if "psg" in files
    ]


def _find_edf_folder(root: Path, subject_pattern: str | None) -> list[Night]:
    files = [p for p in sorted(root.iterdir()) if p.suffix.lower() == ".edf" and p.is_file()]
    signals = [p for p in files if not p.stem.lower().endswith(("-hypnogram", "_hypnogram"))]
    return [Night(p.stem, _subject(p, subject_pattern), (p,), _scoring_of(p), "edf_folder") for p in signals]


def _scoring_of(psg: Path) -> Path | None:
    stems = (psg.stem, re.sub(r"[-_]PSG$", "", psg.stem, flags=re.IGNORECASE))
    candidates = (psg.with_name(stem + suffix) for stem in stems for suffix in _HYPNOGRAM_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _subject(path: Path, pattern: str | None) -> str:
    if pattern is None:
        bids = re.search(r"sub-([A-Za-z0-9]+)", path.stem)
        return bids[1] if bids else path.stem
    try:
        match = re.search(pattern, path.name)
    except re.error as error:
        raise BadInput("subject_pattern", f"{pattern!r} is no regular expression ({error})", "mend it") from None
    if not match or not match.groups():
        raise BadInput(
            path, f"subject_pattern {pattern!r} finds no subject in its name", "give one group that fits every file"
        )
    return match[1]


def _find_dreams(root: Path, _: str | None) -> list[Night]:
    nights = []
    for path in sorted(root.glob("excerpt*.txt")):
        if re.fullmatch(r"excerpt\d+", path.stem):
            edf, hypnogram = path.with_suffix(".edf"), root / f"Hypnogram_{path.stem}.txt"
            psg = edf if edf.is_file() else path
            nights.append(Night(path.stem, path.stem, (psg,), hypnogram if hypnogram.is_file() else None, "dreams"))
    return nights


def _find_ucddb(root: Path, _: str | None) -> list[Night]:
    nights = []
    for stages in sorted(root.glob("ucddb*_stage.txt")):
        patient = stages.stem.removeprefix("ucddb").removesuffix("_stage")
        if parts := sorted(root.glob(f"ucd{patient}_stage*.mat")):
            nights.append(Night(f"ucd{patient}", f"ucd{patient}", tuple(parts), stages, "ucddb"))
    return nights


def _edf_signal(night: Night, request: ChannelRequest) -> Recording:
    return read_recording(
        night.psg[0],
        request.names,
        fs_hz=request.fs_hz,
        aliases=request.aliases,
        max_hz=request.max_hz,
        recording_id=night.recording_id,
        subject_id=night.subject_id,
    )


def _dreams_signal(night: Night, request: ChannelRequest) -> Recording:
    is_edf = night.psg[0].suffix.lower() == ".edf"
    return _edf_signal(night, request) if is_edf else dreams_signal(night.psg[0], request)


def _ucddb_signal(night: Night, request: ChannelRequest) -> Recording:
    if night.hypnogram is None:
        raise BadInput(night.psg[0], "has no stage file", "the stage file says where its epochs belong")
    return ucddb_signal(night.psg, night.hypnogram, request)


@dataclass(frozen=True)
class _Kind:
    find: Callable[[Path, str | None], list[Night]]
    signal: Callable[[Night, ChannelRequest], Recording]
    expected: str


KINDS: dict[str, _Kind] = {
    "sleep_edf": _Kind(_find_sleep_edf, _edf_signal, "SC4ssNxx-PSG.edf or ST7ssNxx-PSG.edf"),
    "edf_folder": _Kind(_find_edf_folder, _edf_signal, "*.edf"),
    "dreams": _Kind(_find_dreams, _dreams_signal, "excerptN.txt"),
    "ucddb": _Kind(_find_ucddb, _ucddb_signal, "ucddbNNN_stage.txt and ucdNNN_stage*.mat"),
}
"""Kinds of recording folder."""
