"""What a folder of calcium recordings holds, and which model each would get: ``list=true``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.calcium.parameters import CalciumParams
from src.preprocess.cascade.download import AUTO, SUBSTITUTES, package_at_hand, package_for_rate
from src.preprocess.cascade.inference import is_same_rate, is_too_far
from src.preprocess.cascade.package import CONFIG_FILE, read_config
from src.recordings.calcium.sources import find_subjects, open_recording, subject_files, subject_name
from src.reports.tables import ResultsTable
from src.signals import BadInput
from src.storage.batch import Summary


@dataclass(frozen=True)
class RecordingList(Summary):
    """A row per recording."""

    rows: tuple[dict[str, Any], ...] = ()

    def table(self) -> ResultsTable:
        return ResultsTable(self.rows, title=self.title)


def recordings_of(params: CalciumParams) -> RecordingList:
    """The recordings of ``input_dir``; one that cannot be opened says why in its row."""
    places = find_subjects(Path(params.input_dir), params.skip)
    return RecordingList(params.input_dir, rows=tuple(_row(place, params) for place in places))


def _row(place: Path, params: CalciumParams) -> dict[str, Any]:
    row = dict.fromkeys(("recording", "cells", "frames", "fs_hz", "signal", "positions", "model"))
    row["recording"] = name = subject_name(place)
    try:
        found = open_recording(subject_files(place), name, params.fs_hz, neuropil=params.neuropil, need_positions=False)
        placed = np.isfinite(found.positions).all(axis=1)
        row |= {
            "cells": found.cells,
            "frames": found.frames,
            "fs_hz": found.fs_hz,
            "signal": "ΔF/F" if found.signal == "dff" else "fluorescence",
            "positions": "yes" if placed.all() else f"{placed.sum()} of {found.cells}",
            "model": model_for(found.fs_hz, params),
        }
    except BadInput as error:
        row["model"] = f"{error.problem}; {error.hint}"
    return row


def model_for(fs_hz: float, params: CalciumParams) -> str:
    """The model that a recording of this rate would get, and what would be done to its rate."""
    model, models_dir = params.cascade_model, Path(params.models_dir)
    if params.engine == "oasis":
        return model
    folder = package_for_rate(fs_hz, models_dir) if model == AUTO else package_at_hand(model, models_dir)
    if folder is None:
        instead = f", or else {SUBSTITUTES[model]}" if model in SUBSTITUTES else ""
        return f"{model} (fetched from CASCADE{instead})"
    rate = read_config(folder / CONFIG_FILE).sampling_rate_hz
    if is_same_rate(fs_hz, rate):
        return folder.name
    far = is_too_far(fs_hz, rate, model == AUTO)
    done = "refused: more than a factor of two away" if far else "the recording is resampled"
    return f"{folder.name} ({rate:g} Hz, {done})"
