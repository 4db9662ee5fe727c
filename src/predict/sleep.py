"""Sleep stages of recordings nobody scored: bundle and EDF in, CSV, figure and manifest out."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.models.bundle import Bundle
from src.preprocess.atomic import atomic_folder
from src.preprocess.batch import Job, Summary, run_batch
from src.preprocess.sleep.epochs import EpochFeatures, epoch_features
from src.preprocess.sleep.nights import Night, find_recordings, load
from src.preprocess.stage import checksums, fingerprint, provenance
from src.reports.sleep import draw_night
from src.signals import UNSCORED, BadInput, Recording

BATCH = 512


def predict(bundle: Bundle, source: Path, output_dir: Path, *, channels: list[str] | None = None) -> Summary:
    """Stage one recording or every recording of a folder; a bad one does not stop the others.

    Parameters
    ----------
    bundle
        A ``sleep_staging`` bundle.
    source
        An EDF file or a folder of them.
    output_dir
        Gets one folder per recording: ``hypnogram.csv``, ``night.png``, ``manifest.json``.
    channels
        Channels to use in place of the bundle's, in the same order and number.

    Returns
    -------
    Summary
        The values are lines for the console: where the files are.
    """
    bundle.require_task("sleep_staging")
    if channels and len(channels) != len(bundle.signal.channels):
        expected = ", ".join(bundle.signal.channels)
        raise BadInput("options.channels", f"names {len(channels)} channels", f"give one for each of: {expected}")
    network = bundle.network()
    nights = find_recordings(source)
    jobs = [
        Job(n.recording_id, _stage_night, (bundle, network, n, output_dir / n.recording_id, channels)) for n in nights
    ]
    return run_batch(jobs, title="staging")


def _stage_night(
    bundle: Bundle, network: torch.nn.Module, night: Night, folder: Path, channels: list[str] | None
) -> list[str]:
    recording, _ = load(night, channels or list(bundle.signal.channels), bundle.signal.fs_hz)
    (stage,) = bundle.stages
    features = epoch_features(recording, **stage["params"]["features"])
    probabilities = stage_probabilities(network, features, temperature=bundle.decision["temperature"])
    stages = np.where(features.usable, probabilities.argmax(1), UNSCORED)
    with atomic_folder(folder) as part:
        write_stages(part / "hypnogram.csv", features, stages, probabilities, bundle.classes)
        draw_night(
            part / "night.png",
            title=f"{recording.recording_id} – {recording.channels[0]}",
            decibels=np.nanmedian(features.decibels[:, 0].astype(np.float32), axis=-1),
            freqs_hz=features.freqs_hz,
            probabilities=probabilities,
            stages=stages,
            classes=bundle.classes,
            epoch_s=features.epoch_s,
            start=recording.start,
        )
        manifest = _manifest(bundle, night, recording, stages)
        manifest["outputs"] = checksums(part)
        (part / "manifest.json").write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n")
    return [f"hypnogram  {folder / 'hypnogram.csv'}", f"figure     {folder / 'night.png'}"]


@torch.no_grad()
def stage_probabilities(network: torch.nn.Module, features: EpochFeatures, *, temperature: float) -> np.ndarray:
    """``(epoch, class)`` probabilities; rows of epochs that cannot be scored are NaN."""
    usable = np.flatnonzero(features.usable)
    blocks = [usable[i : i + BATCH] for i in range(0, len(usable), BATCH)]
    logits = [network(torch.from_numpy(features.decibels[block].astype(np.float32))) for block in blocks]
    if not logits:
        raise BadInput("recording", "has no epoch that can be scored", "give a recording longer than one epoch")
    scored = torch.softmax(torch.cat(logits) / temperature, dim=1).numpy()
    probabilities = np.full((len(features.usable), scored.shape[1]), np.nan, np.float32)
    probabilities[usable] = scored
    return probabilities


def write_stages(
    path: Path, features: EpochFeatures, stages: np.ndarray, probabilities: np.ndarray, classes: list[str]
) -> None:
    """``onset_s,duration_s,stage,p_<stage>…``, one row per epoch; ``unscored`` epochs have empty probabilities."""
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["onset_s", "duration_s", "stage", *(f"p_{c}" for c in classes)])
        for onset, stage, row in zip(features.onset_s, stages, probabilities, strict=True):
            name = classes[stage] if stage >= 0 else "unscored"
            numbers = ["" if np.isnan(p) else f"{p:.5f}" for p in row]
            writer.writerow([f"{onset:g}", f"{features.epoch_s:g}", name, *numbers])


def _manifest(bundle: Bundle, night: Night, recording: Recording, stages: np.ndarray) -> dict[str, Any]:
    assert bundle.folder is not None
    return {
        "task": bundle.task,
        "bundle": {"path": str(bundle.folder), "weights_sha256": bundle.weights_sha256},
        "recording": {"name": Path(night.psg).name, "sha256": fingerprint(Path(night.psg))},
        "channels": list(recording.channels),
        "fs_hz": recording.fs_hz,
        "start": recording.start.isoformat() if recording.start else None,
        "epochs": {name: int((stages == i).sum()) for i, name in enumerate(bundle.classes)}
        | {"unscored": int((stages == UNSCORED).sum())},
        "provenance": provenance(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
