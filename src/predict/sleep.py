"""Sleep stages of recordings nobody scored: bundle and EDF in, CSV, figure and manifest out."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.models.bundle import Bundle
from src.preprocess.atomic import atomic_folder
from src.preprocess.batch import Job, Summary, run_batch
from src.preprocess.sleep.epochs import EpochSet, EpochSettings, epochs_of
from src.preprocess.sleep.nights import Night, discover, load
from src.preprocess.stage import checksums, fingerprint, provenance
from src.reports.sleep import draw_night
from src.signals import UNSCORED, BadInput, Recording

BATCH = 512


def predict(
    bundle: Bundle, source: Path, output_dir: Path, *, channels: list[str] | None = None, kind: str = "edf_folder"
) -> Summary:
    """Stage one recording or every recording of a folder; a bad one does not stop the others.

    Parameters
    ----------
    bundle
        A ``sleep_staging`` bundle.
    source
        An EDF file, or a folder of recordings.
    output_dir
        Gets one folder per recording: ``hypnogram.csv``, ``night.png``, ``manifest.json``.
    channels
        Channels to use in place of the bundle's, in the same order and number.
    kind
        What kind of folder ``source`` is, see :func:`src.preprocess.sleep.nights.discover`.

    Returns
    -------
    Summary
        The values are lines for the console: where the files are.
    """
    bundle.require_task("sleep_staging")
    settings = EpochSettings.from_params(bundle.stages[0]["params"])
    if channels:
        if len(channels) != len(settings.channels):
            expected = ", ".join(settings.channels)
            raise BadInput("options.channels", f"names {len(channels)} channels", f"give one for each of: {expected}")
        settings = replace(settings, channels=tuple(channels))
    network = bundle.network()
    jobs = [
        Job(night.recording_id, _stage_night, (bundle, network, settings, night, output_dir / night.recording_id))
        for night in find_nights(source, kind)
    ]
    return run_batch(jobs, title="staging")


def find_nights(source: Path, kind: str) -> list[Night]:
    """The recordings to stage: those of a folder, or the one of a file.

    Raises
    ------
    BadInput
        If there is nothing to read.
    """
    if source.is_dir():
        return discover(kind, source)
    if not source.is_file():
        raise BadInput(source, "does not exist", "give an EDF file or a folder of them")
    if kind == "edf_folder":
        return [Night(source.stem, source.stem, (source,), None, kind)]
    nights = [night for night in discover(kind, source.parent) if source in night.psg]
    if not nights:
        raise BadInput(source, f"is no recording of kind {kind!r}", "give options.kind, or an EDF file")
    return nights


def _stage_night(
    bundle: Bundle, network: torch.nn.Module, settings: EpochSettings, night: Night, folder: Path
) -> list[str]:
    fs_hz, epoch_s = settings.features.fs_hz, settings.features.epoch_s
    recording, _ = load(night, settings.channels, fs_hz, aliases=settings.aliases, max_hz=settings.features.max_hz)
    epochs = epochs_of(recording, None, settings)
    probabilities = stage_probabilities(network, epochs, temperature=bundle.decision["temperature"])
    stages = np.where(epochs.usable, probabilities.argmax(1), UNSCORED)
    with atomic_folder(folder) as part:
        write_stages(part / "hypnogram.csv", epochs, epoch_s, stages, probabilities, bundle.classes)
        draw_night(
            part / "night.png",
            title=f"{recording.recording_id} – {recording.channels[0]}",
            decibels=np.median(epochs.features[:, 0].astype(np.float32), axis=-1),
            freqs_hz=epochs.freqs_hz,
            probabilities=probabilities,
            stages=stages,
            classes=bundle.classes,
            epoch_s=epoch_s,
            start=recording.start,
        )
        manifest = _manifest(bundle, night, recording, stages, epochs) | {"outputs": checksums(part)}
        (part / "manifest.json").write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n")
    return [f"hypnogram  {folder / 'hypnogram.csv'}", f"figure     {folder / 'night.png'}"]


@torch.no_grad()
def stage_probabilities(network: torch.nn.Module, epochs: EpochSet, *, temperature: float) -> np.ndarray:
    """``(epoch, class)`` probabilities; rows of epochs that cannot be scored are NaN."""
    usable = np.flatnonzero(epochs.usable)
    if not len(usable):
        raise BadInput("recording", "has no epoch that can be scored", "every epoch is flat or lacks samples")
    blocks = np.split(usable, range(BATCH, len(usable), BATCH))
    logits = [network(torch.from_numpy(epochs.features[block].astype(np.float16)).float()) for block in blocks]
    scored = torch.softmax(torch.cat(logits) / temperature, dim=1).numpy()
    probabilities = np.full((len(epochs.usable), scored.shape[1]), np.nan, np.float32)
    probabilities[usable] = scored
    return probabilities


def write_stages(
    path: Path, epochs: EpochSet, epoch_s: float, stages: np.ndarray, probabilities: np.ndarray, classes: list[str]
) -> None:
    """``onset_s,duration_s,stage,p_<stage>…``, a row per epoch; ``unscored`` rows have no numbers."""
    blank = [""] * len(classes)
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["onset_s", "duration_s", "stage", *(f"p_{c}" for c in classes)])
        for onset, stage, row in zip(epochs.onset_s, stages, probabilities, strict=True):
            scored = stage != UNSCORED
            numbers = [f"{p:.5f}" for p in row] if scored else blank
            writer.writerow([f"{onset:g}", f"{epoch_s:g}", classes[stage] if scored else "unscored", *numbers])
        if tail := epochs.facts["tail_s"]:
            writer.writerow([f"{len(stages) * epoch_s:g}", f"{tail:g}", "unscored", *blank])


def _manifest(
    bundle: Bundle, night: Night, recording: Recording, stages: np.ndarray, epochs: EpochSet
) -> dict[str, Any]:
    counts = {name: int((stages == i).sum()) for i, name in enumerate(bundle.classes)}
    return {
        "task": bundle.task,
        "bundle": {"path": str(bundle.folder), "weights_sha256": bundle.weights_sha256},
        "recording": {path.name: fingerprint(path) for path in night.psg},
        "channels": list(recording.channels),
        "fs_hz": recording.fs_hz,
        "start": recording.start.isoformat() if recording.start else None,
        "epochs": counts | {"unscored": int((stages == UNSCORED).sum())},
        "facts": epochs.facts,
        "provenance": provenance(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
