"""Nights that exist as band powers only: Sleep-EDF nights of a published cache, and a mouse with its EMG."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.preprocess.sleep.bandpower import SLEEP_BANDS_HZ, BandPowerSettings
from src.preprocess.sleep.epochs import AXES, EpochSet
from src.recordings.sleep.hypnogram import stage_counts
from src.signals import HUMAN_STAGES, RODENT_STAGES, UNSCORED, BadInput, SignalSpec
from src.storage.foreign_files import explained

CHANNELS = ("EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal")
_DB_PER_NEPER = 10 / np.log(10)
MOUSE_EPOCH_S = 4.0
BANDPOWER, MOUSE = "bandpower", "mouse_bandpower"
MOUSE_DAYS = {"baseline": 1, "recovery": 2}
MOUSE_ROWS = ("delta", "theta", "alpha", "beta", "gamma", "EMG")
_FLOOR_POWER = 1e-6
_MOST_BYTES = 1 << 26
_LONGEST_S = 14 * 86_400.0
_MOUSE_STAGES = {1: 0, 2: 1, 3: 2}
ROWS = {BANDPOWER: ("delta", "theta", "alpha", "sigma", "beta"), MOUSE: MOUSE_ROWS}
"""Names of the rows of an epoch, by kind of file."""
STAGES_OF = {BANDPOWER: HUMAN_STAGES, MOUSE: RODENT_STAGES}
LAYOUTS = {
    BANDPOWER: SignalSpec(
        CHANNELS, 0.0, BandPowerSettings().epoch_s, "dB re variance", AXES, (len(CHANNELS), len(SLEEP_BANDS_HZ), 1),
        tuple(BandPowerSettings().freqs_hz.tolist()),
    ),
    MOUSE: SignalSpec(
        ("EEG+EMG",), 0.0, MOUSE_EPOCH_S, "dB", AXES, (1, len(MOUSE_ROWS), 1), tuple(map(float, range(len(MOUSE_ROWS))))
    ),
}  # fmt: skip
"""What the epochs of each kind look like, in the words of a bundle."""


def read_bandpower_night(path: str | Path) -> EpochSet:
    """One Sleep-EDF night: ``features`` (epoch, 3, 10), ``labels`` (epoch,) and ``onsets_sec`` (epoch,).

    Of the features the first five of a channel, natural logarithms of band powers, become dB; the five
    relative powers say nothing that these do not. Epochs that the file leaves out are put in as unusable, so
    that neighbours are neighbours. A file without ``labels`` is a night to be scored.
    """
    path = Path(path)
    arrays = _arrays(path, ("features", "onsets_sec"), ("labels",))
    features, onsets = arrays["features"], arrays["onsets_sec"].astype(np.float64)
    labels = arrays.get("labels", np.full(len(features), UNSCORED))
    bands = len(SLEEP_BANDS_HZ)
    if features.ndim != 3 or features.shape[1:] != (len(CHANNELS), 2 * bands):
        problem = f"features have shape {features.shape}, expected (epoch, {len(CHANNELS)}, {2 * bands})"
        raise BadInput(path, problem, "give 3 channels of 5 log and 5 relative band powers")
    if onsets.ndim != 1 or not onsets.shape == labels.shape == features.shape[:1]:
        problem = f"{len(features)} epochs, {len(onsets)} onsets, {len(labels)} labels"
        raise BadInput(path, problem, "give one of each per epoch")
    if odd := sorted(set(np.unique(labels).tolist()) - {*range(len(HUMAN_STAGES)), -100, UNSCORED}):
        raise BadInput(path, f"has unknown labels {odd}", "use 0-4 for W, N1, N2, N3, REM and -100 for unscored")
    epoch_s = LAYOUTS[BANDPOWER].window_s
    place = _places(path, (onsets - onsets[0]) / epoch_s, epoch_s)
    stages = np.where(labels >= 0, labels, UNSCORED)
    return _on_grid(BANDPOWER, place, features[:, :, :bands] * _DB_PER_NEPER, stages, float(onsets[0]))


def read_bandpower_mouse(path: str | Path, mode: int) -> EpochSet:
    """One day of the mouse recording: five EEG bands and the EMG integral as six rows of one channel, in dB.

    Epochs of 4 s, Wake, NREM and REM; those that the source rejected are put back as unusable. ``path`` is
    ``sampleData.npz``, ``mode`` 1 the baseline day, 2 the recovery from sleep deprivation.
    """
    path = Path(path)
    arrays = _arrays(path, ("bandsD", "epochsLinked", "epochTime"))
    shapes = [arrays[name].shape for name in ("bandsD", "epochsLinked", "epochTime")]
    if any(len(s) != 2 or s[0] != shapes[0][0] or s[1] < n for s, n in zip(shapes, (6, 3, 2), strict=True)):
        raise BadInput(path, f"has bandsD, epochsLinked, epochTime of shapes {shapes}", "give one row per epoch")
    day = arrays["epochTime"][:, 1] == mode
    if not day.any():
        raise BadInput(path, f"has no epochs of mode {mode}", "choose 1 (baseline) or 2 (recovery)")
    linked = arrays["epochsLinked"][day]
    place = _places(path, (linked[:, 1] - linked[0, 1]).astype(np.float64), MOUSE_EPOCH_S)
    levels = 10 * np.log10(np.maximum(arrays["bandsD"][day], _FLOOR_POWER))[:, None, :]
    stages = np.vectorize(lambda code: _MOUSE_STAGES.get(int(code), UNSCORED))(linked[:, 2])
    return _on_grid(MOUSE, place, levels, stages, 0.0)


def find_bandpower(root: str | Path, kind: str) -> list[tuple[str, str, Path]]:
    """``(recording id, subject id, file)`` of a folder's band-power recordings, or of one file."""
    root = Path(root)
    files = [root] if root.is_file() else sorted(root.glob("*.npz"))
    if not files:
        raise BadInput(root, "holds no .npz recording", "give the folder of band-power nights")
    if kind == MOUSE:
        return [(f"{path.stem}_{day}", path.stem, path) for path in files for day in MOUSE_DAYS]
    return [(path.stem, re.sub(r"__\d+$", "", path.stem), path) for path in files]  # <subject>__<night>.npz


def read_bandpower(kind: str, path: Path, recording_id: str) -> EpochSet:
    """The epochs of one recording that :func:`find_bandpower` names."""
    if kind == MOUSE:
        return read_bandpower_mouse(path, MOUSE_DAYS[recording_id.rpartition("_")[2]])
    return read_bandpower_night(path)


def _arrays(path: Path, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
    """Some arrays of an archive; their size in memory is checked before they are unpacked."""
    with explained(path, "cannot be read as .npz"), zipfile.ZipFile(path) as archive:
        held = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        members = {name: held[name] for name in (*needed, *optional) if name in held}
        size, arrays = sum(info.file_size for info in members.values()), {}
        plain = all(info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in members.values())
        for name, info in members.items() if size <= _MOST_BYTES and plain else ():
            with archive.open(info) as member:
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    if absent := [name for name in needed if name not in members]:
        raise BadInput(path, f"has no {' and no '.join(absent)}", f"it holds: {', '.join(held) or 'nothing'}")
    if size > _MOST_BYTES or not plain:
        raise BadInput(path, f"unpacks to {size / 1e6:.0f} MB, far more than band powers", "give a night's band powers")
    if any(array.ndim == 0 for array in arrays.values()):
        raise BadInput(path, "holds single numbers in place of arrays", "export it again")
    if not len(arrays[needed[0]]):
        raise BadInput(path, "holds no epoch", "leave it out")
    return arrays


def _places(path: Path, steps: NDArray[np.floating], epoch_s: float) -> NDArray[np.int64]:
    """The epoch, counted from the first, that each row belongs to."""
    most = _LONGEST_S / epoch_s
    if not np.isfinite(steps).all() or np.abs(steps).max() > most:
        raise BadInput(path, f"has onsets further apart than {_LONGEST_S / 86_400:.0f} days", "export it again")
    place = np.round(steps).astype(np.int64)
    if np.abs(steps - place).max() > 0.01 or (np.diff(place) <= 0).any():
        raise BadInput(path, "has onsets that are no ascending multiples of its epoch", "export it again")
    return place


def _on_grid(
    kind: str, place: NDArray[np.int64], rows: NDArray[np.floating], stages: NDArray[np.integer], first_s: float
) -> EpochSet:
    n_epochs, epoch_s = int(place[-1]) + 1, LAYOUTS[kind].window_s
    features = np.full((n_epochs, *rows.shape[1:], 1), np.nan, np.float32)
    features[place, ..., 0] = rows
    scored, usable = np.full(n_epochs, UNSCORED, np.int8), np.zeros(n_epochs, bool)
    usable[place] = np.isfinite(rows).all(axis=(1, 2))
    scored[place] = np.where(usable[place], stages, UNSCORED)
    return EpochSet(
        features=features,
        stages=scored,
        usable=usable,
        onset_s=np.arange(n_epochs, dtype=np.float64) * epoch_s + first_s,
        times_s=np.array([epoch_s / 2]),
        signal=LAYOUTS[kind],
        facts={
            "epochs": n_epochs,
            "counts": stage_counts(scored, STAGES_OF[kind]),
            "missing_samples": int(n_epochs - usable.sum()),
            "tail_s": 0.0,
            "warnings": [],
        },
    )
