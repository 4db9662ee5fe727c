"""From a folder of recordings (or the simulator) to the cached epoch spectrograms that training reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.preprocess.sleep.bandpower_files import LAYOUTS, SLEEP_BANDPOWER, find_bandpower
from src.preprocess.sleep.epochs import EPOCHS_FILE, SLEEP_EPOCHS, EpochSettings
from src.preprocess.sleep.label_folders import SLEEP_LABEL_FOLDERS, LabelledFiles, find_label_folders
from src.recordings.sleep.nights import Night, discover
from src.signals import BadInput, Origin
from src.simulate.sleep import SIMULATE_NIGHTS
from src.storage.batch import Job, Summary, run_batch
from src.storage.step import ensure

PREPARED = "prepared"
"""Kind of source whose epochs another stage has made, such as those of an LFP session."""


@dataclass(frozen=True)
class EpochArtifact:
    """The epoch spectrograms of one night on disk; ``facts`` are those of the stage's manifest."""

    recording_id: str
    subject_id: str
    path: Path
    facts: Mapping[str, Any]


def prepare_nights(
    source: Mapping[str, Any], settings: EpochSettings, *, cache: Path, workers: int
) -> tuple[list[EpochArtifact], Summary]:
    """Make, or find in the cache, the epoch spectrograms of every night of a source.

    Parameters
    ----------
    source
        ``kind`` and ``root`` (and ``subject_pattern``) of :func:`~src.recordings.sleep.nights.discover` or, for
        ``label_folders``, of :func:`~src.preprocess.sleep.label_folders.find_label_folders`;
        ``kind: simulated`` with ``subjects``, ``nights``, ``hours`` and ``seed``, a kind of
        :data:`~src.preprocess.sleep.bandpower_files.LAYOUTS` and ``root``, ``kind: prepared`` with the
        ``root`` of finished epochs (and ``subject_pattern``), or ``kind: several`` with a list
        of such ``sources``. Each may state ``cohort``, ``licence`` and ``citation``.
    settings
        What to make.
    cache, workers
        Where it is kept; how many processes work on it.

    Returns
    -------
    tuple
        The artifacts in the order of their names, and what became of each night: a night that cannot
        be used is named with its reason, and the others go on.
    """
    summary = run_batch(_jobs(source, settings, cache), title="preparing nights", workers=workers)
    artifacts = [artifact for found in summary.values.values() for artifact in found]
    return sorted(artifacts, key=lambda a: a.recording_id), summary


def source_origin(source: Mapping[str, Any], *, subjects: int, hours: float) -> Origin:
    """Where the recordings of a source come from: its ``cohort``, ``licence`` and ``citation``, as it states them."""
    parts = source["sources"] if source.get("kind") == "several" else [source]

    def stated(name: str, otherwise: str) -> list[str]:
        return list(dict.fromkeys(str(part.get(name) or otherwise) for part in parts))

    cohorts = [str(part.get("cohort") or Path(part.get("root") or "simulated nights").name) for part in parts]
    recorded = all(part.get("kind") != "simulated" for part in parts)
    licence, citation = "; ".join(stated("licence", "not stated")), "; ".join(filter(None, stated("citation", "")))
    return Origin(recorded, tuple(dict.fromkeys(cohorts)), subjects, round(hours, 2), licence, citation)


def _jobs(source: Mapping[str, Any], settings: EpochSettings, cache: Path) -> list[Job]:
    plain = {name: value for name, value in source.items() if name not in ("cohort", "licence", "citation")}
    kind = plain.pop("kind", None)
    if kind == "several":
        return [job for part in plain["sources"] for job in _jobs(part, settings, cache)]
    if kind in LAYOUTS:
        found = find_bandpower(plain["root"], str(kind))
        return [Job(name, _prepare_bandpower, (str(kind), name, subject, path, cache)) for name, subject, path in found]
    if kind == "simulated":
        return _simulated_jobs(plain, settings, cache)
    if kind == PREPARED:
        return [
            Job(path.parent.name, _adopt, (path.parent, plain.get("subject_pattern")))
            for path in find_prepared(plain["root"])
        ]
    try:
        if kind == "label_folders":
            folders = find_label_folders(**plain)
            return [Job(name, _prepare_labelled, (name, files, settings, cache)) for name, files in folders.items()]
        nights = discover(str(kind), **plain)
    except TypeError as error:
        raise BadInput("source", str(error), "give kind and root (and subject_pattern)") from error
    return [Job(night.recording_id, _prepare, (night, settings, cache)) for night in nights]


def find_prepared(root: str | Path) -> list[Path]:
    """The ``epochs.h5`` files below a folder: finished epochs, of whatever stage made them.

    Raises
    ------
    BadInput
        If there is none.
    """
    files = sorted(Path(root).rglob(EPOCHS_FILE))
    if not files:
        raise BadInput(root, f"holds no {EPOCHS_FILE}", "give the folder that a stage wrote epochs into")
    return files


def _adopt(folder: Path, subject_pattern: str | None) -> list[EpochArtifact]:
    """Finished epochs as they are; the subject is read from the folder's name, failing that it is the name."""
    match = re.search(subject_pattern, folder.name) if subject_pattern else None
    if subject_pattern and not (match and match.groups()):
        hint = "give one group that fits every folder"
        raise BadInput(folder, f"subject_pattern {subject_pattern!r} finds no subject in its name", hint)
    return [EpochArtifact(folder.name, match[1] if match else folder.name, folder, {})]


def _simulated_jobs(plain: Mapping[str, Any], settings: EpochSettings, cache: Path) -> list[Job]:
    known = {"subjects": 16, "nights": 1, "hours": 8.0, "seed": 0, "first_subject": 0}
    if odd := set(plain) - set(known):
        raise BadInput("source", f"unknown keys {sorted(odd)}", f"the simulator takes {', '.join(known)}")
    cohort = {**known, **plain}
    first = int(cohort["first_subject"])
    numbers = range(first, first + int(cohort["subjects"]))
    return [Job(f"simulated subject {n:02d}", _simulate_and_prepare, (n, cohort, settings, cache)) for n in numbers]


def _simulate_and_prepare(
    subject: int, cohort: Mapping[str, Any], settings: EpochSettings, cache: Path
) -> list[EpochArtifact]:
    params = {"subjects": [subject], "nights": cohort["nights"], "hours": cohort["hours"]}
    label = f"subject{subject:02d}"
    nights = ensure(SIMULATE_NIGHTS, {}, params, label=label, cache=cache, seed=int(cohort["seed"]))
    return [artifact for night in discover("sleep_edf", nights.path) for artifact in _prepare(night, settings, cache)]


def _prepare_bandpower(kind: str, name: str, subject: str, path: Path, cache: Path) -> list[EpochArtifact]:
    artifact = ensure(SLEEP_BANDPOWER, {"night": path}, {"kind": kind, "recording": name}, label=name, cache=cache)
    return [EpochArtifact(name, subject, artifact.path, artifact.manifest["facts"])]


def _prepare_labelled(subject: str, files: LabelledFiles, settings: EpochSettings, cache: Path) -> list[EpochArtifact]:
    params = settings.to_params("label_folders")
    artifact = ensure(SLEEP_LABEL_FOLDERS, files, params, label=subject, cache=cache)
    return [EpochArtifact(subject, subject, artifact.path, artifact.manifest["facts"])]


def _prepare(night: Night, settings: EpochSettings, cache: Path) -> list[EpochArtifact]:
    artifact = ensure(
        SLEEP_EPOCHS, night.inputs(), settings.to_params(night.kind), label=night.recording_id, cache=cache
    )
    return [EpochArtifact(night.recording_id, night.subject_id, artifact.path, artifact.manifest["facts"])]
