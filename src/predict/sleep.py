"""Sleep stages of recordings nobody scored: bundle and recording in, scoring, report and manifest out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from src.models.bundle import Bundle, inputs_of
from src.predict.sleep_files import write_bids, write_edf_annotations, write_stages
from src.predict.sleep_input import InputOptions, NightInput, find_inputs, read_input
from src.preprocess.sleep.epochs import SLEEP_EPOCHS, EpochSet, EpochSettings
from src.preprocess.sleep.night_normalization import NIGHT_VIEW, NIGHT_VIEW_VERSION, night_view
from src.recordings.sleep.nights import Night
from src.reports.sleep import draw_night
from src.reports.sleep_agreement import agreement, beside
from src.reports.sleep_page import ScoredNight, write_page
from src.signals import UNSCORED, BadInput
from src.storage.batch import Job, Summary, run_batch
from src.storage.manifest import write_manifest
from src.storage.output import OutputFolder, distinct_names
from src.storage.progress import printable
from src.storage.step import fingerprint, provenance

BATCH = 512
_WHOLE_NIGHT_H = 3.0


def predict(
    bundle: Bundle,
    source: Path,
    output_dir: Path,
    *,
    channels: Sequence[str] = (),
    kind: str = "edf_folder",
    reference: str | None = None,
    scale: float = 1.0,
    stage_coding: str | None = None,
    text_epoch_s: float | None = None,
    yasa: bool = False,
) -> Summary:
    """Stage one recording or every recording of a folder; a bad one does not stop the others.

    Parameters
    ----------
    bundle
        A ``sleep_staging`` bundle.
    source
        An EDF file, a folder of recordings, or band powers (``.npz``).
    output_dir
        Gets one folder per recording: ``report.html``, ``night.png``, ``hypnogram.csv``, ``hypnogram.edf``
        (EDF+ annotations), ``events.tsv`` (BIDS), ``manifest.json``, with a reference ``agreement.json``.
    kind
        What kind of folder ``source`` is, see :func:`src.recordings.sleep.nights.discover`.
    channels, reference, scale, stage_coding, text_epoch_s, yasa
        See :class:`~src.predict.sleep_input.InputOptions`.

    Returns
    -------
    Summary
        The values are lines for the console: what was found in the signal, how the scoring agrees with the
        reference, where the files are.
    """
    bundle.require_task("sleep_staging")
    bundle.require_steps({SLEEP_EPOCHS.name: SLEEP_EPOCHS.version, NIGHT_VIEW: NIGHT_VIEW_VERSION})
    settings = EpochSettings.from_params(bundle.steps[0]["params"])
    wanted = (channels,) if isinstance(channels, str) else tuple(channels)
    options = InputOptions(wanted, float(scale), reference, stage_coding, text_epoch_s, yasa)
    network = bundle.network()
    nights = find_inputs(Path(source), kind)
    output = OutputFolder(Path(output_dir), inputs_of(bundle, source, None if reference == "beside" else reference))
    names = distinct_names((night.recording_id, night.psg[0]) for night in nights)
    jobs = [
        Job(name, _stage_night, (bundle, network, settings, options, night, output, name))
        for name, night in zip(names, nights, strict=True)
    ]
    return run_batch(jobs, title="staging")


def _stage_night(
    bundle: Bundle,
    network: torch.nn.Module,
    settings: EpochSettings,
    options: InputOptions,
    night: Night,
    output: OutputFolder,
    name: str,
) -> list[str]:
    folder = output.path(name)
    given = read_input(night, settings, options)
    expected, found = tuple(bundle.network_args[k] for k in ("n_channels",)), given.groups[0].features.shape[1]
    if expected[0] != found:
        raise BadInput(night.psg[0], f"has {found} channel(s), the bundle reads {expected[0]}", "use another bundle")
    temperature, views = float(bundle.decision["temperature"]), _views(bundle)
    votes = [stage_probabilities(network, group, temperature=temperature, views=views) for group in given.groups]
    probabilities = _vote(votes)
    scored = np.isfinite(probabilities).all(axis=1)
    stages = np.where(scored, np.nan_to_num(probabilities).argmax(axis=1), UNSCORED)
    scoring = _describe(bundle, settings, given, probabilities, stages)
    with output.folder(name) as part:
        _write_files(part, scoring, float(given.groups[0].facts["tail_s"]))
        write_manifest(part, _manifest(bundle, night, given, options, scoring))
    return _lines(scoring, given, folder)


@torch.no_grad()
def stage_probabilities(
    network: Any, epochs: EpochSet, *, temperature: float, views: Sequence[str] = ("absolute",)
) -> NDArray[np.float32]:
    """``(epoch, class)`` probabilities; rows of epochs that cannot be scored are NaN.

    A network that reads sequences (``score_night``) is given the whole night in the ``views`` it was trained
    with, any other its usable epochs one by one.
    """
    usable = np.flatnonzero(epochs.usable)
    if not len(usable):
        raise BadInput("recording", "has no epoch that can be scored", "every epoch is flat or lacks samples")
    if hasattr(network, "score_night"):
        levels = torch.from_numpy(night_view(epochs.features.astype(np.float16), epochs.usable, views))
        logits = network.score_night(levels.half().float())[usable]
    else:
        blocks = np.split(usable, range(BATCH, len(usable), BATCH))
        pieces = [network(torch.from_numpy(epochs.features[block].astype(np.float16)).float()) for block in blocks]
        logits = torch.cat(pieces)
    probabilities = np.full((len(epochs.usable), logits.shape[1]), np.nan, np.float32)
    probabilities[usable] = torch.softmax(logits / temperature, dim=1).numpy()
    return probabilities


def _vote(votes: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
    """Mean over the groups of channels that could be scored, epoch by epoch."""
    stacked = np.stack(votes)
    known = np.isfinite(stacked).all(axis=2, keepdims=True)
    count = known.sum(axis=0)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _views(bundle: Bundle) -> list[str]:
    return next((list(s["params"]["views"]) for s in bundle.steps if s["step"] == NIGHT_VIEW), ["absolute"])


def _describe(
    bundle: Bundle,
    settings: EpochSettings,
    given: NightInput,
    probabilities: NDArray[np.floating],
    stages: NDArray[np.integer],
) -> ScoredNight:
    onset_s = given.groups[0].onset_s
    steps = np.diff(onset_s)
    return ScoredNight(
        recording_id=printable(given.recording_id),
        channels=given.labels,
        classes=list(bundle.classes),
        epoch_s=float(steps[0]) if len(steps) else settings.features.epoch_s,
        start=given.start,
        onset_s=onset_s,
        stages=stages,
        probabilities=probabilities,
        decibels=given.decibels,
        freqs_hz=given.freqs_hz,
        sanity=given.sanity,
        rows=given.rows,
        units=given.units,
        notes=[*given.notes, *_short(bundle, settings, stages)],
        reference=given.reference,
        yasa=given.yasa,
        bundle_metrics={k: v for k, v in bundle.metrics.items() if k.startswith("test/")},
    )


def _short(bundle: Bundle, settings: EpochSettings, stages: NDArray[np.integer]) -> list[str]:
    """A warning where levels are taken relative to a recording that is no night."""
    hours = float((stages != UNSCORED).sum() * settings.features.epoch_s / 3600)
    relative = _views(bundle) != ["absolute"] or settings.features.kind == "bandpower" or settings.level == "recording"
    if not relative or hours >= _WHOLE_NIGHT_H or settings.stages != "human":
        return []
    return [f"{hours:.1f} h are scored, no whole night: levels are taken relative to the recording and may mislead"]


def _write_files(part: Path, scoring: ScoredNight, tail_s: float) -> None:
    onset_s, epoch_s, classes = scoring.onset_s, scoring.epoch_s, scoring.classes
    write_stages(
        part / "hypnogram.csv", onset_s, epoch_s, scoring.stages, scoring.probabilities, classes, tail_s, scoring.yasa
    )
    write_bids(part / "events.tsv", onset_s, epoch_s, scoring.stages, scoring.probabilities, classes)
    write_edf_annotations(part / "hypnogram.edf", onset_s, epoch_s, scoring.stages, classes, scoring.start)
    draw_night(
        part / "night.png",
        title=f"{scoring.recording_id} – {scoring.channels[0]}",
        decibels=scoring.decibels,
        freqs_hz=scoring.freqs_hz,
        probabilities=scoring.probabilities,
        stages=scoring.stages,
        classes=classes,
        epoch_s=epoch_s,
        start=scoring.start,
        reference=scoring.reference,
        rows=scoring.rows,
        units=scoring.units,
    )
    if scoring.reference is not None:
        found = agreement(scoring.reference, scoring.stages, scoring.probabilities, classes, epoch_s)
        (part / "agreement.json").write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
    write_page(part / "report.html", scoring, part / "night.png")


def _lines(scoring: ScoredNight, given: NightInput, folder: Path) -> list[str]:
    warnings = [f"look at    {r.channel}: {finding}" for r in given.sanity for finding in r.findings]
    lines = [*warnings, *(f"note       {note}" for note in scoring.notes)]
    if scoring.reference is not None:
        found = agreement(scoring.reference, scoring.stages, scoring.probabilities, scoring.classes, scoring.epoch_s)
        lines += [f"agreement  {line}" for line in found["lines"]]
    if scoring.yasa is not None:
        lines += [
            f"yasa       {line}" for line in beside(scoring.yasa, scoring.stages, scoring.reference, scoring.classes)
        ]
    return [
        *lines,
        f"report     {folder / 'report.html'}",
        f"hypnogram  {folder / 'hypnogram.csv'}",
        f"figure     {folder / 'night.png'}",
    ]


def _manifest(
    bundle: Bundle, night: Night, given: NightInput, options: InputOptions, scoring: ScoredNight
) -> dict[str, Any]:
    counts = {name: int((scoring.stages == i).sum()) for i, name in enumerate(bundle.classes)}
    return {
        "task": bundle.task,
        "bundle": bundle.record(),
        "recording": {path.name: fingerprint(path) for path in night.psg},
        "channels": given.labels,
        "scale": options.scale,
        "fs_hz": given.fs_hz,
        "start": given.start.isoformat() if given.start else None,
        "epochs": counts | {"unscored": int((scoring.stages == UNSCORED).sum())},
        "facts": given.groups[0].facts,
        "sanity": [report.to_dict() for report in given.sanity],
        "provenance": provenance(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
