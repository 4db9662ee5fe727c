"""The stage ``lfp_epochs``: a shank's spectrograms and a hypnogram in, labelled epochs for training out.

The same ``epochs.h5`` that ``sleep_epochs`` makes from nights: 4-s epochs in the three states of rodents, 30-s
epochs in the five stages of people, or any other length. Nothing is transformed again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.preprocess.lfp.encoding import FLOOR
from src.preprocess.lfp.shank import STEP
from src.preprocess.lfp.spectrogram_file import Spectrograms, open_spectrograms
from src.preprocess.sleep.epochs import AXES, EPOCHS_FILE, EpochSet, write_epochs
from src.recordings.sleep.hypnogram import Hypnogram, align, require_sleep, stage_counts, trim_wake
from src.recordings.sleep.nights import subject_of
from src.recordings.sleep.scoring_files import read_hypnogram
from src.signals import HUMAN_STAGES, STAGE_SETS, UNSCORED, BadInput
from src.storage.step import MANIFEST, CachedStep


def epochs_from_spectrogram(
    artifact: Path,
    hypnogram: Hypnogram | None,
    epoch_s: float,
    *,
    channels: Sequence[str] | None = None,
    min_hz: float = 0.5,
    max_hz: float | None = None,
    margin_s: float | None = None,
) -> EpochSet:
    """Cut finished spectrograms into epochs, and label them.

    An epoch has the frames that lie wholly inside it, the same number in each: frames never reach across
    a border. A 2-s window every 0.5 s leaves 5 frames in 4 s and 57 in 30 s.

    Parameters
    ----------
    artifact
        A shank's folder or its spectrogram file, of any preset.
    hypnogram
        Scoring whose onsets count from the first sample of the traces; ``None`` for unlabelled epochs.
    epoch_s
        Length of an epoch.
    channels
        Ids in the order of the channel axis; ``None`` for all.
    min_hz, max_hz
        Rows kept, both ends included.
    margin_s
        Wake kept before the first and after the last sleep epoch; ``None`` keeps all.

    Raises
    ------
    BadInput
        If an epoch is shorter than a window, the recording shorter than an epoch, a channel absent, or the
        scoring is of no use.
    """
    source = open_spectrograms(artifact)
    p = source.params
    n_epochs = int(p["n_samples"] / p["fs_hz"] / epoch_s + 1e-9)
    firsts, n_frames = _frames(source, epoch_s, n_epochs)
    n_epochs = len(firsts)
    rows = (source.freqs >= min_hz) & (source.freqs <= (np.inf if max_hz is None else max_hz))
    if not n_epochs or not rows.any():
        problem = "is shorter than an epoch" if not n_epochs else f"has no row between {min_hz:g} and {max_hz} Hz"
        raise BadInput(source.path, problem, "choose another epoch_s, min_hz or max_hz")
    features = _cut(source, source.places(channels), rows, firsts, n_frames)
    whole = np.isfinite(features).all(axis=(1, 2, 3))
    flat = (features <= 10 * np.log10(FLOOR) + 1).all(axis=(2, 3)).any(axis=1)
    names = HUMAN_STAGES if hypnogram is None else hypnogram.stage_names
    scored, kept = np.full(n_epochs, UNSCORED, np.int8), slice(0, n_epochs)
    facts: dict[str, Any] = {"warnings": []}
    if hypnogram is not None:
        labels, facts = align(hypnogram, p["n_samples"] / p["fs_hz"], epoch_s)
        scored = labels[:n_epochs]
        require_sleep(scored, hypnogram.source, names)
        kept = kept if margin_s is None else trim_wake(scored, margin_s, epoch_s)
    usable = whole & ~flat
    stages = np.where(usable, scored, UNSCORED).astype(np.int8)
    spoiled = int(np.sum((scored != UNSCORED)[kept] & ~usable[kept]))
    if spoiled:
        facts["warnings"].append(f"{spoiled} scored epochs left out: masked frames or a flat channel")
    facts |= {
        "epochs": kept.stop - kept.start,
        "trimmed": {"before": kept.start, "after": n_epochs - kept.stop},
        "counts": stage_counts(stages[kept], names),
        "scored_but_unusable": spoiled,
        "channels": [source.channel_ids[place] for place in source.places(channels)],
        "fs_hz": p["fs_hz"],
        "epoch_s": epoch_s,
        "stage_names": list(names),
        "axes": list(AXES),
        "units": p["units"] if source.decibel else f"dB re 1 {p['units']}",
    }
    return EpochSet(
        features=features[kept],
        stages=stages[kept],
        usable=usable[kept],
        onset_s=np.arange(n_epochs, dtype=np.float64)[kept] * epoch_s,
        freqs_hz=source.freqs[rows],
        times_s=p["window_s"] / 2 + np.arange(n_frames, dtype=np.float64) * p["hop_s"],
        facts=facts,
    )


@dataclass(frozen=True)
class ScoredShank:
    """A shank whose states somebody scored.

    Attributes
    ----------
    recording_id, subject_id
        ``<session>_sh<k>``, and the part of the session's name that splits go by.
    spectrograms, hypnogram
        The shank's folder and the scoring: inputs of :data:`LFP_EPOCHS`.
    """

    recording_id: str
    subject_id: str
    spectrograms: Path
    hypnogram: Path


def find_scored_shanks(
    root: Path, hypnograms: Path | None = None, *, subject_pattern: str | None = None
) -> list[ScoredShank]:
    """Finished shanks below a folder, each with its session's ``<session>_hypnogram.csv``.

    Parameters
    ----------
    root
        An ``output_dir`` of ``preprocess=spectrogram``.
    hypnograms
        Where the scorings are; ``None`` looks in ``root`` and in the sessions' folders.
    subject_pattern
        Regular expression whose first group is the subject in a session's name; ``None`` takes the whole
        name: sessions of one animal then count as different subjects.

    Raises
    ------
    BadInput
        If there is no shank, a session has no scoring, or the pattern does not match a session's name.
    """
    found = []
    for manifest in sorted(Path(root).rglob(MANIFEST)):
        record = json.loads(manifest.read_text())
        if record.get("step") != STEP:
            continue
        label = record["label"]
        session = label.rpartition("_sh")[0]
        places = [hypnograms] if hypnograms is not None else [Path(root), *manifest.parents[1:3]]
        files = [place / f"{session}_hypnogram.csv" for place in places]
        scoring = next((file for file in files if file.is_file()), None)
        if scoring is None:
            raise BadInput(manifest.parent, f"has no {session}_hypnogram.csv", f"put one into {places[0]}")
        subject = subject_of(session, subject_pattern, session) if subject_pattern else session
        found.append(ScoredShank(label, subject, manifest.parent, scoring))
    if not found:
        raise BadInput(root, "holds no finished shank", "run preprocess=spectrogram preset=sleep first")
    return found


def _frames(source: Spectrograms, epoch_s: float, n_epochs: int) -> tuple[NDArray[np.int64], int]:
    """First frame of every epoch that has all its frames, and how many frames an epoch has."""
    window_s, hop_s = source.params["window_s"], source.params["hop_s"]
    room = (epoch_s - window_s) / hop_s
    aligned = abs(epoch_s / hop_s - round(epoch_s / hop_s)) < 1e-6
    n_frames = int(np.floor(room + 1e-6)) + (1 if aligned else 0)
    if n_frames < 1:
        problem = f"an epoch of {epoch_s:g} s has no room for a window of {window_s:g} s every {hop_s:g} s"
        raise BadInput(source.path, problem, "lengthen epoch_s or shorten the window")
    firsts = np.ceil(np.arange(n_epochs) * epoch_s / hop_s - 1e-6).astype(np.int64)
    return firsts[firsts + n_frames <= len(source.times)], n_frames


def _cut(
    source: Spectrograms, places: Sequence[int], rows: NDArray[np.bool_], firsts: NDArray[np.int64], n_frames: int
) -> NDArray[np.float16]:
    """``(epoch, channel, frequency, time)`` dB."""
    features = np.empty((len(firsts), len(places), int(rows.sum()), n_frames), dtype=np.float16)
    target = np.cumsum(rows) - 1
    for tile in source.tiles(places):
        wanted = np.flatnonzero(rows[tile.rows])
        if not len(wanted):
            continue
        levels = source.to_decibel(tile.values[wanted])
        into = target[tile.rows][wanted]
        for frame in range(n_frames):
            inside = np.flatnonzero((firsts + frame >= tile.times.start) & (firsts + frame < tile.times.stop))
            columns = firsts[inside] + frame - tile.times.start
            features[inside[:, None], places.index(tile.channel), into, frame] = levels[:, columns].T
    return features


def _run(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    if params["species"] not in STAGE_SETS:
        raise BadInput("species", f"{params['species']!r} is not known", f"choose one of {', '.join(STAGE_SETS)}")
    hypnogram = read_hypnogram(
        inputs["hypnogram"],
        epoch_s=params["text_epoch_s"],
        coding=params["stage_coding"],
        stage_names=STAGE_SETS[params["species"]],
    )
    epochs = epochs_from_spectrogram(
        inputs["spectrograms"],
        hypnogram,
        params["epoch_s"],
        channels=params["channels"],
        min_hz=params["min_hz"],
        max_hz=params["max_hz"],
        margin_s=params["margin_s"],
    )
    write_epochs(out_dir / EPOCHS_FILE, epochs, epochs.facts)
    return epochs.facts


LFP_EPOCHS = CachedStep("lfp_epochs", 1, _run)
"""Inputs ``spectrograms`` (a shank's folder) and ``hypnogram``; parameters ``epoch_s``, ``species``, ``channels``,
``min_hz``, ``max_hz``, ``margin_s``, ``stage_coding`` and ``text_epoch_s``; writes ``epochs.h5``."""
