"""From a folder of recordings (or the simulator) to the cached epoch spectrograms that training reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from src.preprocess.sleep.bandpower_files import LAYOUTS, ROWS, STAGES_OF, find_bandpower, read_bandpower
from src.preprocess.sleep.epochs import (
    EPOCHS_STEP,
    EPOCHS_VERSION,
    PREPARED,
    EpochSettings,
    epochs_of,
    find_prepared,
    write_epochs,
)
from src.preprocess.sleep.label_folders import SLEEP_LABEL_FOLDERS, find_label_folders
from src.recordings.check_signal import check_channel
from src.recordings.sleep.channels import join_channels, require_band
from src.recordings.sleep.nights import KINDS, Night, discover, load_channels, load_scoring, subject_of
from src.signals import BadInput, Origin, require_range
from src.simulate.sleep import SIMULATE_NIGHTS
from src.storage.batch import Job, Summary, run_batch
from src.storage.step import CachedStep, ensure, read_artifact

_ORIGIN_KEYS = ("cohort", "licence", "citation", "fetch")
_SCORING_KEYS = {"stage_names": "more_names"} | {key: key for key in ("stage_coding", "text_epoch_s", "scorer")}
"""Keys of a source that say how its scorings are read, and the settings that they set."""


@dataclass(frozen=True)
class EpochArtifact:
    """The epoch spectrograms of one night on disk; ``facts`` are those of the step's manifest."""

    recording_id: str
    subject_id: str
    path: Path
    facts: Mapping[str, Any]


def prepare_nights(
    source: Mapping[str, Any], settings: EpochSettings, *, cache: Path, workers: int
) -> tuple[list[EpochArtifact], Summary]:
    """Make, or find in the cache, the epoch spectrograms of every night of a source.

    ``source`` has a ``kind``, a key of :data:`SOURCES`, and the keys of that kind: ``root`` (and ``subject_pattern``,
    ``scoring``) of recordings, ``subjects``, ``nights``, ``hours`` and ``seed`` of the simulator. ``stage_names`` (the
    user's own names), ``stage_coding``, ``text_epoch_s`` and ``scorer`` say how scorings are read; ``cohort``,
    ``licence`` and ``citation`` what the recordings are. ``kind: several`` has a list of such ``sources``.

    Returns the artifacts in the order of their names, and what became of each night: a night that cannot be used is
    named with its reason, and the others go on.
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


def recordings_table(artifacts: Sequence[EpochArtifact]) -> Table:
    """What is to be known of every recording before anything is trained on it, a row each."""
    table = Table(title="recordings", title_justify="left")
    for column in ("recording", "subject", "signal", "scoring", "epochs", "scored", "to look at"):
        table.add_column(column, overflow="fold", justify="right" if column in ("epochs", "scored") else "left")
    for artifact in artifacts:
        table.add_row(
            artifact.recording_id, artifact.subject_id, *(escape(cell) for cell in _facts_row(artifact.facts))
        )
    return table


def _facts_row(facts: Mapping[str, Any]) -> list[str]:
    signals = facts.get("signals", [])
    stated = [f"{s['channel']} ({s['units']}, {s['fs_hz']:g} Hz)" for s in signals] or list(facts.get("channels", []))
    found = [f"{s['channel']}: {finding}" for s in signals for finding in s["findings"]]
    counts = facts.get("counts", {})
    scored, epochs = sum(n for name, n in counts.items() if name != "unscored"), facts.get("epochs")
    share = facts.get("share_scored", scored / epochs if epochs else None)
    return [
        ", ".join(stated),
        str(facts.get("scoring", "")),
        "" if epochs is None else str(epochs),
        "" if share is None else f"{share:.0%}",
        "; ".join([*found, *facts.get("warnings", [])]),
    ]


def _jobs(source: Mapping[str, Any], settings: EpochSettings, cache: Path) -> list[Job]:
    plain = dict(source)
    kind = str(plain.pop("kind", None))
    if kind == "several":
        return [job for part in plain["sources"] for job in _jobs(part, settings, cache)]
    if kind not in SOURCES:
        raise BadInput("source.kind", f"{kind!r} is not known", f"choose from: several, {', '.join(SOURCES)}")
    how = {name: plain[key] for key, name in _SCORING_KEYS.items() if plain.get(key)}
    keys = {key: value for key, value in plain.items() if key not in (*_SCORING_KEYS, *_ORIGIN_KEYS)}
    try:
        return SOURCES[kind](kind, replace(settings, **how), cache, **keys)
    except TypeError as error:
        raise BadInput("source", str(error).partition("() ")[2], "see conf/source for the keys of each kind") from error


def _run(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    settings = EpochSettings.from_params(params)
    night = Night.from_inputs(params["kind"], inputs)
    hypnogram = load_scoring(night, settings.scoring)
    if hypnogram is None:
        hint = "put one beside it, name it with source.scoring='{stem}_scored.txt', or leave this recording out"
        raise BadInput(night.psg[0], "has no hypnogram", hint)
    features = settings.features
    channels = load_channels(night, settings.channels, settings.aliases)
    for channel in channels:
        require_band(channel, features.max_hz)
    reports = [check_channel(c.samples[0], c.fs_hz, c.channels[0], c.units[0]) for c in channels]
    recording = join_channels(channels, features.fs_hz)
    epochs = epochs_of(recording, hypnogram, settings)
    facts = {
        "start": recording.start.isoformat() if recording.start else None,
        "signals": [report.to_dict() for report in reports],
        **epochs.facts,
        "warnings": [*recording.notes, *epochs.facts["warnings"]],
    }
    return write_epochs(out_dir, replace(epochs, facts=facts), hypnogram.stage_names)


SLEEP_EPOCHS = CachedStep(EPOCHS_STEP, EPOCHS_VERSION, _run)
"""Inputs ``Night.inputs()``, parameters ``EpochSettings.to_params(kind)``; writes ``epochs.h5``."""


def _run_bandpower(
    inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None
) -> dict[str, Any]:
    kind = params["kind"]
    epochs = read_bandpower(kind, Path(inputs["night"]), params["recording"])
    rows = {"rows": list(ROWS[kind]), "freqs_hz": list(epochs.signal.freqs_hz), "start": None}
    return write_epochs(out_dir, replace(epochs, facts=rows | epochs.facts), STAGES_OF[kind])


SLEEP_BANDPOWER = CachedStep("sleep_bandpower", 2, _run_bandpower)
"""Input ``night`` (an ``.npz``), parameters ``kind`` and ``recording``; writes ``epochs.h5``."""


def _night_jobs(
    kind: str,
    settings: EpochSettings,
    cache: Path,
    *,
    root: str | Path,
    subject_pattern: str | None = None,
    scoring: str | None = None,
) -> list[Job]:
    nights = discover(kind, root, subject_pattern=subject_pattern, scoring=scoring)
    return [Job(night.recording_id, _prepare_night, (night, settings, cache)) for night in nights]


def _bandpower_jobs(kind: str, settings: EpochSettings, cache: Path, *, root: str | Path) -> list[Job]:
    found = find_bandpower(root, kind)
    params = [{"kind": kind, "recording": name} for name, _, _ in found]
    return [
        Job(name, _prepare, (SLEEP_BANDPOWER, {"night": path}, given, name, subject, cache))
        for (name, subject, path), given in zip(found, params, strict=True)
    ]


def _label_jobs(
    kind: str, settings: EpochSettings, cache: Path, *, root: str | Path, subject_pattern: str | None = None
) -> list[Job]:
    folders, params = find_label_folders(root, subject_pattern), settings.to_params(kind)
    return [
        Job(name, _prepare, (SLEEP_LABEL_FOLDERS, files, params, name, name, cache)) for name, files in folders.items()
    ]


def _prepared_jobs(
    kind: str, settings: EpochSettings, cache: Path, *, root: str | Path, subject_pattern: str | None = None
) -> list[Job]:
    """Finished epochs as they are; without a pattern the folder's name is the subject."""
    folders = [path.parent for path in find_prepared(root)]
    subjects = [subject_of(f.name, subject_pattern, f) if subject_pattern else f.name for f in folders]
    return [Job(folder.name, _adopt, (folder, subject)) for folder, subject in zip(folders, subjects, strict=True)]


def _simulated_jobs(
    kind: str,
    settings: EpochSettings,
    cache: Path,
    *,
    subjects: int = 16,
    first_subject: int = 0,
    seed: int = 0,
    nights: int = 1,
    hours: float = 8.0,
) -> list[Job]:
    require_range("source", 1, subjects=subjects, nights=nights)
    require_range("source", 0.1, hours=hours)
    cohort = {"nights": nights, "hours": hours}
    numbers = range(int(first_subject), int(first_subject) + int(subjects))
    return [
        Job(f"simulated subject {n:02d}", _simulate_and_prepare, (n, cohort, seed, settings, cache)) for n in numbers
    ]


def _simulate_and_prepare(
    subject: int, cohort: dict[str, Any], seed: int, settings: EpochSettings, cache: Path
) -> list[EpochArtifact]:
    params = {"subjects": [subject], **cohort}
    made = ensure(SIMULATE_NIGHTS, {}, params, label=f"subject{subject:02d}", cache=cache, seed=int(seed))
    return [found for night in discover("sleep_edf", made.path) for found in _prepare_night(night, settings, cache)]


def _prepare_night(night: Night, settings: EpochSettings, cache: Path) -> list[EpochArtifact]:
    params = settings.to_params(night.kind)
    (found,) = _prepare(SLEEP_EPOCHS, night.inputs(), params, night.recording_id, night.subject_id, cache)
    return [replace(found, facts={**found.facts, "warnings": [*night.notes, *found.facts["warnings"]]})]


def _prepare(
    step: CachedStep, inputs: Mapping[str, Path], params: dict[str, Any], name: str, subject: str, cache: Path
) -> list[EpochArtifact]:
    artifact = ensure(step, inputs, params, label=name, cache=cache)
    return [EpochArtifact(name, subject, artifact.path, artifact.manifest["facts"])]


def _adopt(folder: Path, subject: str) -> list[EpochArtifact]:
    found = read_artifact(folder)
    return [EpochArtifact(folder.name, subject, folder, found.manifest["facts"] if found else {})]


SOURCES: dict[str, Callable[..., list[Job]]] = {
    **dict.fromkeys(KINDS, _night_jobs),
    **dict.fromkeys(LAYOUTS, _bandpower_jobs),
    "label_folders": _label_jobs,
    "simulated": _simulated_jobs,
    PREPARED: _prepared_jobs,
}
"""Kinds of source; the keyword arguments of each are the keys that a source of this kind may have."""
