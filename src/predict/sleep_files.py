"""A scored night as files that other programs read."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.recordings.sleep.hypnogram import Hypnogram
from src.recordings.sleep.scoring_files import write_annotations
from src.signals import UNSCORED

UNSCORED_NAME = "unscored"


def write_stages(
    path: Path,
    onset_s: NDArray[np.floating],
    epoch_s: float,
    stages: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
    tail_s: float = 0.0,
    yasa: NDArray[np.integer] | None = None,
) -> None:
    """``onset_s,duration_s,stage,p_<stage>…``, a row per epoch; ``unscored`` rows have no numbers.

    A rest of the signal too short for an epoch is a last ``unscored`` row of ``tail_s``. EDFBrowser imports
    the file as annotations: separator ``,``, onset in seconds in column 1, duration 2, description 3, data
    from line 2. YASA's stages, where given, are a last column ``yasa``.
    """
    blank, more = [""] * len(classes), [] if yasa is None else ["yasa"]
    others = [UNSCORED_NAME] * len(stages) if yasa is None else [_name(stage, classes) for stage in yasa]
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["onset_s", "duration_s", "stage", *(f"p_{c}" for c in classes), *more])
        for onset, stage, row, other in zip(onset_s, stages, probabilities, others, strict=True):
            numbers = [f"{p:.5f}" for p in row] if stage != UNSCORED else blank
            writer.writerow(
                [f"{onset:.10g}", f"{epoch_s:g}", _name(stage, classes), *numbers, *([other] if more else [])]
            )
        if tail_s:
            last = [UNSCORED_NAME] if more else []
            writer.writerow([f"{onset_s[-1] + epoch_s:.10g}", f"{tail_s:g}", UNSCORED_NAME, *blank, *last])


def _name(stage: int, classes: Sequence[str]) -> str:
    return classes[stage] if stage != UNSCORED else UNSCORED_NAME


def write_bids(
    path: Path,
    onset_s: NDArray[np.floating],
    epoch_s: float,
    stages: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
) -> None:
    """BIDS ``events.tsv`` (``onset``, ``duration``, ``trial_type``, ``confidence``) and the JSON that explains it."""
    lines = ["onset\tduration\ttrial_type\tconfidence"]
    for onset, stage, row in zip(onset_s, stages, probabilities, strict=True):
        sure = f"{row.max():.3f}" if stage != UNSCORED else "n/a"
        lines.append(f"{onset:.10g}\t{epoch_s:g}\t{_name(stage, classes)}\t{sure}")
    path.write_text("\n".join(lines) + "\n")
    levels = {name: f"stage {name}" for name in classes} | {UNSCORED_NAME: "no signal that could be scored"}
    meaning = {
        "trial_type": {"LongName": "sleep stage", "Description": "scored automatically", "Levels": levels},
        "confidence": {"Description": "calibrated probability of the stage", "Units": "1"},
    }
    path.with_suffix(".json").write_text(json.dumps(meaning, indent=2) + "\n")


def write_edf_annotations(
    path: Path,
    onset_s: NDArray[np.floating],
    epoch_s: float,
    stages: NDArray[np.integer],
    classes: Sequence[str],
    start: datetime | None,
) -> None:
    """EDF+ annotations as Sleep-EDF has them, beside the recording's own clock."""
    first = float(onset_s[0]) if len(onset_s) else 0.0
    scoring = Hypnogram(np.asarray(stages, np.int8), epoch_s, first, start, str(path), tuple(classes))
    write_annotations(scoring, path)
