"""A recording read the way a bundle wants it: channels by name or by group, sanity first, epochs after."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.models.bundle import Bundle
from src.predict.sleep_channels import choose_channels
from src.predict.sleep_contract import bundle_views, require_contract
from src.predict.sleep_yasa import YASA_EPOCH_S, yasa_stages
from src.preprocess.sleep.bandpower_files import LAYOUTS, find_bandpower, read_bandpower
from src.preprocess.sleep.epochs import EpochSet, EpochSettings, epochs_of, read_epochs
from src.preprocess.sleep.features import FeatureSettings, epoch_features
from src.preprocess.sleep.prepare import PREPARED, find_prepared
from src.recordings.sleep.channels import ChannelRequest, derivations
from src.recordings.sleep.check_signal import ChannelReport, check_recordings
from src.recordings.sleep.edf import read_annotations
from src.recordings.sleep.edf_header import read_header
from src.recordings.sleep.hypnogram import align
from src.recordings.sleep.nights import Night, ScoringOptions, discover, load_channels, load_scoring
from src.recordings.sleep.resample import require_band, resample
from src.recordings.sleep.scoring_files import EDF_SUFFIXES
from src.signals import UNSCORED, BadInput, Recording

ABSENT = "none"
"""Stands for a channel that the recording lacks."""
_LIGHTS = re.compile(r"lights?[\s_-]*(off|on)\b", re.IGNORECASE)


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
    lights_off, lights_on
        Clock time (``HH:MM`` or ``HH:MM:SS``) or seconds from the start; by default what the recording's annotations
        say, failing that its first and last epoch. The statistics count from one to the other.
    """

    channels: tuple[str, ...] = ()
    scale: float = 1.0
    reference: str | None = None
    stage_coding: str | None = None
    text_epoch_s: float | None = None
    yasa: bool = False
    lights_off: str | float | None = None
    lights_on: str | float | None = None


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
    lights
        Lights off and on in seconds from the start, ``None`` where nobody says.
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
    lights: tuple[float | None, float | None] = (None, None)


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
    if not source.exists():
        raise BadInput(source, "does not exist", "give an EDF file or a folder of them")
    try:
        return discover(kind, source)
    except BadInput:
        if source.is_file() and kind == "edf_folder":
            return [Night(source.stem, source.stem, (source,), None, kind)]
        raise


def read_input(bundle: Bundle, night: Night, settings: EpochSettings, options: InputOptions) -> NightInput:
    """Read, check and cut one recording, and hold it against what the bundle reads.

    Raises
    ------
    BadInput
        See :func:`src.recordings.sleep.nights.load_channels`; also for channels that make no group, and for input
        unlike the bundle's (:func:`require_contract`).
    """
    if night.kind in LAYOUTS or night.kind == PREPARED:
        return _finished_input(bundle, night, options)
    labels, rates_hz = _labels(night) if bundle.decision.get("any_channel") else ((), ())
    groups, notes = choose_groups(bundle, night.psg[0], labels, rates_hz, options.channels)
    names = list(dict.fromkeys(name for group in groups for name in group if name != ABSENT))
    native = {name: _native(night, name, settings, options) for name in names}
    return cut_input(bundle, settings, groups, native, night.recording_id, options, night, notes)


def choose_groups(
    bundle: Bundle, source: str | Path, labels: Sequence[str], rates_hz: Sequence[float], given: Sequence[str]
) -> tuple[list[tuple[str, ...]], list[str]]:
    """The groups of channels that vote, and a note on them: those named, else the bundle's own, else usable ones."""
    wanted = bundle.signal.channels
    if given or not bundle.decision.get("any_channel"):
        return _groups(wanted, given), []
    try:
        derivations(source, wanted, labels, {})
        return [wanted], []
    except BadInput:
        groups = choose_channels(str(source), wanted, labels, rates_hz, ABSENT)
    listed = "; ".join(" + ".join(name for name in group if name != ABSENT) for group in groups)
    return groups, [f"channels chosen: {listed} (options.channels names others)"]


def _labels(night: Night) -> tuple[Sequence[str], Sequence[float]]:
    """Names and rates of the channels of a recording."""
    if night.psg[0].suffix.lower() in EDF_SUFFIXES:
        signals = [signal for signal in read_header(night.psg[0]).signals if not signal.problem]
        return [signal.label for signal in signals], [signal.fs_hz for signal in signals]
    channels = load_channels(night, ChannelRequest(None))
    return [channel.channels[0] for channel in channels], [channel.fs_hz for channel in channels]


def cut_input(
    bundle: Bundle,
    settings: EpochSettings,
    groups: Sequence[Sequence[str]],
    native: Mapping[str, Recording],
    recording_id: str,
    options: InputOptions,
    night: Night | None = None,
    notes: Sequence[str] = (),
) -> NightInput:
    """Recordings of one channel each, by name, as epochs of every group.

    Raises
    ------
    BadInput
        If the epochs are not what the bundle reads.
    """
    first = native[next(name for name in groups[0] if name != ABSENT)]
    rows = {name: _resampled(recording, settings) for name, recording in native.items()}
    length = min(len(row) for row in rows.values())
    epoch_sets = []
    for group in groups:
        samples = np.stack([rows[n][:length] if n != ABSENT else np.zeros(length, np.float32) for n in group])
        units = tuple(native[n].units[0] if n != ABSENT else first.units[0] for n in group)
        cut = replace(
            first, samples=samples, fs_hz=settings.features.fs_hz, channels=bundle.signal.channels, units=units
        )
        epoch_sets.append(_epochs(cut, settings, [n == ABSENT for n in group]))
        level = "variance" if settings.features.kind == "bandpower" else f"1 {units[0]}^2/Hz"
        found = (settings.features.fs_hz, settings.features.epoch_s, f"dB re {level}")
        relative = settings.level == "recording" or "absolute" not in bundle_views(bundle)
        require_contract(bundle.signal, epoch_sets[-1], None, *found, source=first.source, any_unit=relative)
    shown = FeatureSettings(fs_hz=settings.features.fs_hz, epoch_s=settings.features.epoch_s, **_window(settings))
    picture = epoch_features(rows[first.channels[0]][None, :length], shown)[:, 0].mean(axis=-1)
    reference, more = (
        (None, []) if night is None else _reference(night, settings, options, first, length / settings.features.fs_hz)
    )
    return NightInput(
        recording_id,
        epoch_sets,
        [" + ".join(n for n in group if n != ABSENT) for group in groups],
        check_recordings(native.values()),
        first.start,
        first.fs_hz,
        picture,
        shown.freqs_hz,
        reference,
        [*notes, *more],
        units=f"1 {first.units[0].replace('uV', 'µV')}²/Hz",
        yasa=_yasa(settings, list(native.values()), len(picture)) if options.yasa else None,
        lights=_lights(options, night, first.start),
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
    for group in groups:
        if twice := [name for name in group if name != ABSENT and group.count(name) > 1]:
            raise BadInput(
                "options.channels", f"names {twice[0]!r} twice in one group", f"write {ABSENT} for an absent one"
            )
    return groups


def _native(night: Night, name: str, settings: EpochSettings, options: InputOptions) -> Recording:
    (recording,) = load_channels(night, ChannelRequest((name,), settings.aliases, settings.features.max_hz))
    if options.scale == 1:
        return recording
    # Who states a factor says that the product is in microvolts.
    return replace(recording, samples=recording.samples * np.float32(options.scale), units=("uV",))


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


def _finished_input(bundle: Bundle, night: Night, options: InputOptions) -> NightInput:
    """Epochs that exist already: nothing is left of the signal to look at.

    ``options.channels`` names those of the file that stand in the places of the bundle's.
    """
    if options.yasa:
        raise BadInput("options.yasa", "needs the signal, not finished epochs", "leave it out, or give the EDF file")
    path, prepared = night.psg[0], night.kind == PREPARED
    epochs = read_epochs(path.parent) if prepared else read_bandpower(night.kind, path, night.recording_id)
    stated = epochs.signal
    assert stated is not None
    channels = list(stated.channels)
    if options.channels:
        (names,) = _groups(bundle.signal.channels, options.channels[: len(bundle.signal.channels)])
        if absent := [name for name in names if name not in channels]:
            raise BadInput("options.channels", f"has no {absent[0]!r}", f"choose from: {', '.join(channels)}")
        places = [channels.index(name) for name in names]
        epochs, channels = replace(epochs, features=epochs.features[:, places]), list(bundle.signal.channels)
    found = (stated.fs_hz, stated.window_s, stated.units)
    require_contract(bundle.signal, epochs, channels, *found, source=path)
    reference = epochs.stages if (epochs.stages != UNSCORED).any() and options.reference == "beside" else None
    return NightInput(
        night.recording_id,
        [replace(epochs, facts={"tail_s": 0.0} | epochs.facts)],
        ["finished epochs" if prepared else "band powers"],
        [],
        None,
        0.0,
        epochs.features[:, 0].astype(np.float32).mean(axis=-1),
        epochs.freqs_hz,
        reference,
        [],
        None if prepared else list(LAYOUTS[night.kind]["rows"]),
        lights=_lights(options, None, None),
    )


def _lights(options: InputOptions, night: Night | None, start: datetime | None) -> tuple[float | None, float | None]:
    """Lights off and on in seconds from the start of the recording: from the options, else from its annotations."""
    found = dict.fromkeys(("off", "on"), None) | (_marked_lights(night) if night is not None else {})
    given = {"off": options.lights_off, "on": options.lights_on}
    return tuple(found[k] if v is None else _seconds(f"options.lights_{k}", v, start) for k, v in given.items())  # type: ignore[return-value]


def _marked_lights(night: Night) -> dict[str, float]:
    path = night.psg[0]
    if path.suffix.lower() not in EDF_SUFFIXES or not read_header(path).annotations:
        return {}
    found = {}
    for onset, _, text in read_annotations(path).marks:
        if match := _LIGHTS.search(text):
            found[match[1].lower()] = onset
    return found


def _seconds(source: str, given: str | float, start: datetime | None) -> float:
    """Seconds from the start, of a number of them or a clock time ``HH:MM`` or ``HH:MM:SS``."""
    text = str(given)
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
        raise BadInput(source, f"is {text!r}", "give a clock time, HH:MM:SS, or seconds from the start")
    if start is None:
        raise BadInput(source, "is a clock time, but the recording states no start", "give seconds from its start")
    hours, minutes, seconds = (int(part) for part in (*text.split(":"), "0")[:3])
    clock = start.hour * 3600 + start.minute * 60 + start.second
    return float((hours * 3600 + minutes * 60 + seconds - clock) % 86_400)
