"""The original's layout: ``<label>/*.npy``, one power spectrogram of shape (frequency, time, 1) per epoch.

Such a folder does not say whose an epoch is, so it cannot be split by subject, and any other split puts neighbouring
epochs of one night on both sides. The subject therefore has to be readable from the file names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.sleep.epochs import AXES, EpochSet, EpochSettings, write_epochs
from src.preprocess.sleep.features import FeatureSettings, decibels
from src.recordings.sleep.hypnogram import stage_counts
from src.recordings.sleep.nights import subject_of
from src.recordings.sleep.stage_names import CODINGS, integer_of, stage_code
from src.signals import BadInput, SignalSpec
from src.storage.foreign_files import absent, explained
from src.storage.step import CachedStep

LabelledFiles = dict[str, Path]
"""``"<label>/<file name>"`` to path."""


def find_label_folders(root: str | Path, subject_pattern: str | None = None) -> dict[str, LabelledFiles]:
    """The epochs of every subject in label folders, which are named by stage (``W``, ``N1``…) or integer (``0``…``4``).

    The first group of the regular expression ``subject_pattern``, found in a file's name, is its subject.
    """
    root = Path(root)
    if not root.exists():
        raise absent(root)
    if not root.is_dir():
        raise BadInput(root, "is not a folder", "give the folder that holds the label folders")
    files = sorted(root.glob("*/*.npy"))
    if not files:
        raise BadInput(root, "holds no <label>/*.npy", "give the folder that holds the label folders")
    if subject_pattern is None:
        problem = "names no subjects, so that no split by subject is possible"
        raise BadInput(root, problem, "give subject_pattern, whose group finds the subject in a file's name")
    subjects: dict[str, LabelledFiles] = {}
    for path in files:
        subject = subject_of(path.name, subject_pattern, path)
        subjects.setdefault(subject, {})[f"{path.parent.name}/{path.name}"] = path
    return subjects


def _label(name: str, settings: EpochSettings) -> int | None:
    """What a folder's name stands for; integers are the original's, in the order of the AASM, unless said otherwise."""
    number = integer_of(name)
    if number is not None:
        return CODINGS[settings.stage_coding or "aasm"].get(number)
    return stage_code(name, settings.stage_names, settings.more_names)


def _power(path: Path, settings: FeatureSettings) -> np.ndarray:
    expected = (settings.n_bins, settings.n_frames)
    with explained(path, "cannot be read as .npy"), path.open("rb") as handle:
        if path.stat().st_size > 16 * expected[0] * expected[1] + 4096:
            raise BadInput(path, f"is larger than {expected} numbers", "give one power spectrogram an epoch")
        power = np.lib.format.read_array(handle, allow_pickle=False)
    if power.shape not in (expected, (*expected, 1)):
        problem = f"has shape {power.shape}, the features call for {expected}"
        raise BadInput(path, problem, "set features.window_s and hop_s to those it was made with")
    if not np.isfinite(power).all() or power.min() < 0:
        raise BadInput(path, "holds no power (negative or not finite)", "give linear power, not decibels")
    return power.reshape(expected).astype(np.float32)


def _run(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    settings = EpochSettings.from_params(params)
    if not isinstance(settings.features, FeatureSettings):
        raise BadInput("features.kind", "label folders hold spectrograms", "choose linear, mel or db")
    names = sorted(inputs, key=lambda name: Path(name).name)
    labels = {name: _label(name.partition("/")[0], settings) for name in names}
    if unknown := sorted({name.partition("/")[0] for name, label in labels.items() if label is None}):
        raise BadInput(inputs[names[0]].parents[1], f"has unknown label folders: {', '.join(unknown)}", "name stages")
    stages = np.array([labels[name] for name in names], np.int8)
    power = np.stack([_power(inputs[name], settings.features) for name in names])
    features, units = decibels(power, settings.features)[:, None], "dB re 1 unit of the power as found"
    about = (settings.channels, settings.features.fs_hz, settings.features.epoch_s, units, AXES, features.shape[1:])
    epochs = EpochSet(
        features=features,
        stages=stages,
        usable=np.ones(len(stages), bool),
        # When an epoch was is not known: they stand in the order of their names.
        onset_s=np.arange(len(stages), dtype=np.float64) * settings.features.epoch_s,
        times_s=settings.features.times_s,
        signal=SignalSpec(*about, tuple(settings.features.freqs_hz.tolist())),
        facts={
            "epochs": len(stages),
            "counts": stage_counts(stages, settings.stage_names),
            "warnings": ["epochs in the order of their file names: their order in the night is not known"],
        },
    )
    return write_epochs(out_dir, epochs, settings.stage_names)


SLEEP_LABEL_FOLDERS = CachedStep("sleep_label_folders", 1, _run)
"""Inputs of one subject from :func:`find_label_folders`, parameters ``EpochSettings.to_params("label_folders")``."""
