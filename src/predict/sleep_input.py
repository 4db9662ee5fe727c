"""A recording read the way a bundle wants it: channels by name or by group, sanity first, epochs after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.predict.sleep_yasa import YASA_EPOCH_S, yasa_stages
from src.preprocess.sleep.bandpower_files import LAYOUTS, find_bandpower, read_bandpower
from src.preprocess.sleep.epochs import EpochSet, EpochSettings, epochs_of, read_epochs
from src.preprocess.sleep.features import FeatureSettings, epoch_features
from src.preprocess.sleep.prepare import PREPARED, find_prepared
from src.recordings.sleep.channels import ChannelRequest
from src.recordings.sleep.check_signal import ChannelReport, check_recordings
from src.recordings.sleep.hypnogram import align
from src.recordings.sleep.nights import Night, ScoringOptions, discover, load_channels, load_scoring
from src.recordings.sleep.resample import require_band, resample
from src.signals import UNSCORED, BadInput, Recording

ABSENT = "none"
"""Stands for a channel that the recording lacks."""


@dataclass(frozen=True)
class InputOptions:
    """How to read what is to be scored; the options of ``infer.py`` that concern the input.

    Attributes
    ----------
    channels
        Names in place of the bundle's, in its order; ``X-Y`` is formed where it is not there, ``none`` stands
        for a channel that the recording lacks. Several times the bundle's number of names is a vote: each
        group is scored and the probabilities are averaged.
    scale
        Factor on every sample, for files that state a wrong unit.
    reference
        A hypnogram to compare with; ``beside`` takes the one that lies beside the recording.
    stage_coding, text_epoch_s
        For a text hypnogram that does not state them.
    yasa
        Have the package YASA score the night too.
    """

    channels: tuple[str, ...] = ()
    scale: float = 1.0
    reference: str | None = None
    stage_coding: str | None = None
    text_epoch_s: float | None = None
    yasa: bool = False


@dataclass(frozen=True)
class NightInput:
    """One recording ready to be scored.

    Attributes
    ----------
    groups
        One :class:`EpochSet` per group of channels that votes.
    labels
        What each group is made of.
    sanity
        What was found in the channels.
    decibels, freqs_hz, rows, units
        ``(epoch, frequency)`` picture of the first channel, for people; names of its rows where they are
        bands; what the decibels are relative to.
    reference
        ``(epoch,)`` a person's stages, or ``None``.
    yasa
        ``(epoch,)`` YASA's stages, or ``None``.
    """

    recording_id: str
    groups: list[EpochSet]
    labels: list[str]
    sanity: list[ChannelReport]
    start: datetime | None
    fs_hz: float
    decibels: NDArray[np.floating]
    freqs_hz: NDArray[np.floating]
    reference: NDArray[np.integer] | None
    notes: list[str]
    rows: list[str] | None = None
    units: str = "1 µV²/Hz"
    yasa: NDArray[np.integer] | None = None


def find_inputs(source: Path, kind: str) -> list[Night]:
    """The recordings to stage: those of a folder, or the one of a file.

    Raises
    ------
    BadInput
        If there is nothing to read.
    """
    if kind in LAYOUTS or source.suffix.lower() == ".npz":
        kind = kind if kind in LAYOUTS else "bandpower"
        return [Night(name, subject, (path,), None, kind) for name, subject, path in find_bandpower(source, kind)]
    if kind == PREPARED:
        return [Night(path.parent.name, path.parent.name, (path,), None, kind) for path in find_prepared(source)]
    if source.is_dir():
        return discover(kind, source)
    if not source.is_file():
        raise BadInput(source, "does not exist", "give an EDF file or a folder of them")
    nights = [night for night in discover(kind, source.parent) if source in night.psg]
    if not nights and kind == "edf_folder":
        return [Night(source.stem, source.stem, (source,), None, kind)]
    if not nights:
        raise BadInput(source, f"is no recording of kind {kind!r}", "give options.kind, or an EDF file")
    return nights


def read_input(night: Night, settings: EpochSettings, options: InputOptions) -> NightInput:
    """Read, check and cut one recording.

    Raises
    ------
    BadInput
        See :func:`src.recordings.sleep.nights.load`; also for channels that make no group.
    """
    if night.kind in LAYOUTS or night.kind == PREPARED:
        return _finished_input(night, options)
    groups = _groups(settings.channels, options.channels)
    names = list(dict.fromkeys(name for group in groups for name in group if name != ABSENT))
    native = {name: _native(night, name, settings, options) for name in names}
    reports = check_recordings(native.values())
    rows = {name: _resampled(recording, settings) for name, recording in native.items()}
    first = native[names[0]]
    length = min(len(row) for row in rows.values())
    epoch_sets = []
    for group in groups:
        samples = np.stack([rows[n][:length] if n != ABSENT else np.zeros(length, np.float32) for n in group])
        cut = replace(
            first, samples=samples, fs_hz=settings.features.fs_hz, channels=settings.channels,
            units=tuple(native[n].units[0] if n != ABSENT else "uV" for n in group),
        )  # fmt: skip
        epoch_sets.append(_epochs(cut, settings, [n == ABSENT for n in group]))
    shown = FeatureSettings(fs_hz=settings.features.fs_hz, epoch_s=settings.features.epoch_s, **_window(settings))
    picture = epoch_features(rows[names[0]][None, :length], shown)[:, 0].mean(axis=-1)
    reference, notes = _reference(night, settings, options, first, length / settings.features.fs_hz)
    return NightInput(
        night.recording_id,
        epoch_sets,
        [" + ".join(n for n in group if n != ABSENT) for group in groups],
        reports,
        first.start,
        first.fs_hz,
        picture,
        shown.freqs_hz,
        reference,
        notes,
        units=f"1 {first.units[0].replace('uV', 'µV')}²/Hz",
        yasa=_yasa(settings, list(native.values()), len(picture)) if options.yasa else None,
    )


def _yasa(settings: EpochSettings, channels: Sequence[Recording], n_epochs: int) -> NDArray[np.integer]:
    if settings.stages != "human" or settings.features.epoch_s != YASA_EPOCH_S:
        raise BadInput("options.yasa", "compares human sleep in epochs of 30 s", "leave it out for this bundle")
    return yasa_stages(channels, n_epochs)


def _groups(wanted: Sequence[str], given: Sequence[str]) -> list[tuple[str, ...]]:
    size, names = len(wanted), tuple(given) or tuple(wanted)
    if len(names) % size:
        expected = ", ".join(wanted)
        raise BadInput("options.channels", f"names {len(names)} channels", f"give one for each of: {expected}")
    groups = [names[i : i + size] for i in range(0, len(names), size)]
    if any(all(name == ABSENT for name in group) for group in groups):
        raise BadInput("options.channels", "names no channel", "give at least one that the recording has")
    return groups


def _native(night: Night, name: str, settings: EpochSettings, options: InputOptions) -> Recording:
    (recording,) = load_channels(night, ChannelRequest((name,), settings.aliases, settings.features.max_hz))
    return (
        replace(recording, samples=recording.samples * np.float32(options.scale)) if options.scale != 1 else recording
    )


def _resampled(recording: Recording, settings: EpochSettings) -> NDArray[np.floating]:
    require_band(recording.source, recording.channels[0], recording.fs_hz, settings.features.max_hz)
    return resample(recording.samples, recording.fs_hz, settings.features.fs_hz)[0]


def _epochs(recording: Recording, settings: EpochSettings, absent: Sequence[bool]) -> EpochSet:
    """Epochs of the channels that are there; the others are NaN."""
    there = ~np.array(absent)
    if there.all():
        return epochs_of(recording, None, settings)
    channels, units = (
        tuple(v for v, t in zip(values, there, strict=True) if t) for values in (recording.channels, recording.units)
    )
    part = replace(recording, samples=recording.samples[there], channels=channels, units=units)
    epochs = epochs_of(part, None, settings)
    features = np.full((len(epochs.features), len(there), *epochs.features.shape[2:]), np.nan, np.float32)
    features[:, there] = epochs.features
    return replace(epochs, features=features)


def _window(settings: EpochSettings) -> dict[str, Any]:
    """Frames of the picture: 4 s where epochs are long, a whole epoch where they are short."""
    window_s = min(4.0, settings.features.epoch_s)
    return {
        "window_s": window_s,
        "hop_s": window_s / 2,
        "min_hz": 0.5,
        "max_hz": min(30.0, settings.features.fs_hz / 2),
    }


def _reference(
    night: Night, settings: EpochSettings, options: InputOptions, recording: Recording, duration_s: float
) -> tuple[NDArray[np.integer] | None, list[str]]:
    if not options.reference:
        return None, []
    scored = night if options.reference == "beside" else replace(night, hypnogram=Path(options.reference))
    how = ScoringOptions(options.text_epoch_s, options.stage_coding, settings.stage_names, settings.more_names)
    hypnogram = load_scoring(scored, how)
    if hypnogram is None:
        return None, [f"{night.recording_id} has no hypnogram beside it; name it with options.reference=<file>"]
    stages, facts = align(hypnogram, duration_s, settings.features.epoch_s, start=recording.start)
    return stages, list(facts["warnings"])


def _finished_input(night: Night, options: InputOptions) -> NightInput:
    """Epochs that exist already: nothing is left of the signal to look at."""
    if options.channels:
        raise BadInput("options.channels", "cannot be chosen in finished epochs", "leave it out")
    if options.yasa:
        raise BadInput("options.yasa", "needs the signal, not finished epochs", "leave it out, or give the EDF file")
    path = night.psg[0]
    epochs = (
        read_epochs(path.parent) if night.kind == PREPARED else read_bandpower(night.kind, path, night.recording_id)
    )
    reference = epochs.stages if (epochs.stages != UNSCORED).any() and options.reference == "beside" else None
    return NightInput(
        night.recording_id,
        [replace(epochs, facts={"tail_s": 0.0} | epochs.facts)],
        ["finished epochs" if night.kind == PREPARED else "band powers"],
        [],
        None,
        0.0,
        epochs.features[:, 0].astype(np.float32).mean(axis=-1),
        epochs.freqs_hz,
        reference,
        [],
        None if night.kind == PREPARED else list(LAYOUTS[night.kind]["rows"]),
    )
