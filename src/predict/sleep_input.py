"""A recording read the way a bundle wants it: channels by name or by group, the signal checked, epochs cut."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.models.bundle import Bundle, require_contract
from src.preprocess.sleep.bandpower import drawn_levels
from src.preprocess.sleep.bandpower_files import LAYOUTS, ROWS, find_bandpower, read_bandpower
from src.preprocess.sleep.epochs import PREPARED, EpochSet, EpochSettings, epochs_of, find_prepared, read_epochs
from src.preprocess.sleep.night_normalization import NIGHT_VIEW
from src.recordings.check_signal import ChannelReport, check_channel
from src.recordings.sleep.channels import choose_channels, derivation, require_band, resample
from src.recordings.sleep.edf import EDF_SUFFIXES, read_annotations, read_header
from src.recordings.sleep.hypnogram import align
from src.recordings.sleep.nights import KINDS, Night, discover, load_channels, load_scoring
from src.recordings.sleep.stage_names import ScoringOptions
from src.reports.sleep import Level
from src.signals import UNSCORED, BadInput, Recording, counted

ABSENT = "none"
"""Stands for a channel that the recording lacks."""
YASA_LEAST_HZ = 50.0
_SECONDS, _CLOCK = re.compile(r"\d+(\.\d+)?"), re.compile(r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d)?")
_LIGHTS = re.compile(r"lights?[\s_-]*(off|on)\b", re.IGNORECASE)


@dataclass(frozen=True)
class InputOptions:
    """How to read what is to be scored; the options of ``infer.py`` that concern the input."""

    # In place of the bundle's, in its order: X-Y is formed where it is not there, none stands for a channel that the
    # recording lacks. Several times the bundle's number of names is a vote of so many groups.
    channels: tuple[str, ...] = ()
    scale: float = 1.0  # factor on every sample, for files that state a wrong unit
    reference: str | None = None  # hypnogram to compare with; beside: the one that lies beside the recording
    stage_coding: str | None = None  # how the reference is read, see ScoringOptions
    text_epoch_s: float | None = None
    stage_names: Mapping[str, str] = field(default_factory=dict)
    scorer: str | None = None
    # True: compare with YASA's scoring. False: the network alone scores. None: sleep_yasa.yasa_share says.
    yasa: bool | None = None
    # Clock time (HH:MM or HH:MM:SS) or seconds from the start; None: what the annotations say, failing that the first
    # and last epoch. The statistics count from one to the other.
    lights_off: str | float | None = None
    lights_on: str | float | None = None

    def __post_init__(self) -> None:
        for which, given in (("off", self.lights_off), ("on", self.lights_on)):
            if given is not None and not (_SECONDS.fullmatch(str(given)) or _CLOCK.fullmatch(str(given))):
                hint = "give a clock time, HH:MM:SS, or seconds from the start"
                raise BadInput(f"options.lights_{which}", f"is {str(given)!r}", hint)


@dataclass(frozen=True)
class NightInput:
    """One recording ready to be scored."""

    recording_id: str
    groups: list[EpochSet]  # one per group of channels that votes
    channels: list[str]  # what each group is made of
    epoch_s: float
    level: Level  # of the first channel, for people
    fs_hz: float = 0.0
    start: datetime | None = None
    signal: list[ChannelReport] = field(default_factory=list)  # what was found in the channels
    reference: NDArray[np.integer] | None = None  # (epoch,) a person's stages
    reference_read: str = "the stages in the file"  # from where and how the reference was read
    doubts: list[str] = field(default_factory=list)  # what speaks against the reference being of this recording
    rows: list[dict[str, NDArray[np.floating]]] = field(default_factory=list)  # "eeg", "eog" of each group, for YASA
    rows_hz: float = 0.0
    lights: tuple[float | None, float | None] = (None, None)  # off and on, seconds from the start
    notes: list[str] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        """Of the whole epochs and the rest."""
        return len(self.groups[0].usable) * self.epoch_s + float(self.groups[0].facts["tail_s"])


@dataclass(frozen=True)
class SignalSource:
    """Where channels come from: a file, or arrays in memory."""

    path: str | Path
    rates_hz: Mapping[str, float]  # of the channels that can be read; empty where the bundle's own are read anyway
    load: Callable[[str], Recording]  # a channel by its name, or by that of a difference
    marks: Iterable[tuple[float, Any, str]] = ()  # annotations: onset_s, duration, text


def find_inputs(source: Path, kind: str, *, scored: bool = False) -> list[Night]:
    """The recordings to stage: those of a folder, or the one of a file; :class:`BadInput` if there is none.

    The scoring beside a file is looked for where it will be compared with (``scored``).
    """
    if kind in LAYOUTS or source.suffix.lower() == ".npz":
        kind = kind if kind in LAYOUTS else "bandpower"
        return [Night(name, subject, (path,), None, kind) for name, subject, path in find_bandpower(source, kind)]
    if kind not in (known := (*KINDS, PREPARED, *LAYOUTS)):
        raise BadInput("options.kind", f"{kind!r} is no kind of recording", f"choose from: {', '.join(known)}")
    if kind == PREPARED:
        return [Night(path.parent.name, path.parent.name, (path,), None, kind) for path in find_prepared(source)]
    if kind == "edf_folder" and source.is_file() and not scored:
        return [Night(source.stem, source.stem, (source,), None, kind)]
    try:
        return discover(kind, source)
    except BadInput as error:
        if source.is_dir() and any(source.glob("*.npz")):
            hint = f"if they are band powers, give options.kind={' or '.join(LAYOUTS)}"
            raise BadInput(source, f"{error.problem}, and it holds .npz files", hint) from error
        raise


def read_input(bundle: Bundle, night: Night, options: InputOptions) -> NightInput:
    """Read, check and cut one recording, and hold it against what the bundle reads.

    Raises
    ------
    BadInput
        See :func:`src.recordings.sleep.nights.load_channels`; also for channels that make no group, and for input
        unlike the bundle's (:func:`src.models.bundle.require_contract`).
    """
    if night.kind in LAYOUTS or night.kind == PREPARED:
        return _finished_input(bundle, night, options)
    path, aliases = night.psg[0], settings_of(bundle).aliases
    rates_hz: dict[str, float] = {}
    marks: Iterable[tuple[float, Any, str]] = ()
    if path.suffix.lower() in EDF_SUFFIXES:
        header = read_header(path)
        rates_hz = {signal.label: signal.fs_hz for signal in header.signals if not signal.problem}
        marks = read_annotations(path).marks if header.annotations else ()
    if bundle.decision.get("any_channel") and not rates_hz:
        # Of other files, and of an EDF without a usable channel, for which it raises, the reader is asked.
        rates_hz = {c.channels[0]: c.fs_hz for c in load_channels(night)}
    source = SignalSource(path, rates_hz, lambda name: load_channels(night, (name,), aliases)[0], marks)
    return _with_reference(bundle, night, options, read_signal(bundle, source, options, night.recording_id))


def read_signal(bundle: Bundle, source: SignalSource, options: InputOptions, recording_id: str) -> NightInput:
    """Choose, load, check and cut the channels of one recording; see :func:`read_input`."""
    groups, native, notes = _load_groups(bundle, source, options.channels)
    highest_hz = settings_of(bundle).features.max_hz
    if slow := [name for name, r in native.items() if r.fs_hz < 2 * highest_hz]:
        notes.append(
            f"{', '.join(slow)}: the network reads up to {highest_hz:g} Hz, which this sampling rate does not reach"
        )
    if options.scale != 1:
        # Who states a factor says that the product is in microvolts.
        factor = np.float32(options.scale)
        native = {name: replace(r, samples=r.samples * factor, units=("uV",)) for name, r in native.items()}
    given = _cut(bundle, groups, native, recording_id, chosen=not options.channels)
    lights = lights_of(options, source.marks, given.start, given.duration_s)
    return replace(given, notes=[*notes, *given.notes], lights=lights)


def _load_groups(
    bundle: Bundle, source: SignalSource, given: Sequence[str]
) -> tuple[list[tuple[str, ...]], dict[str, Recording], list[str]]:
    """The groups of channels, each channel at its own rate, and notes.

    Where nobody named channels, a dead one is left out, and others are chosen in its place.
    """
    native: dict[str, Recording] = {}
    dead: dict[str, BadInput] = {}
    while True:
        alive = {label: hz for label, hz in source.rates_hz.items() if label not in dead}
        try:
            groups, notes = _choose_groups(bundle, source.path, alive, given)
        except BadInput as error:
            raise next(iter(dead.values()), error) from None
        names = dict.fromkeys(name for group in groups for name in group if name != ABSENT)
        known = len(dead)
        for name in [name for name in names if name not in native]:
            try:
                native[name] = source.load(name)
            except BadInput as error:
                if given or not bundle.decision.get("any_channel"):
                    raise
                dead[list(alive)[derivation(source.path, name, list(alive))[0]]] = error
        if len(dead) == known:
            notes += [f"{label} left out: {error.problem}" for label, error in dead.items()]
            return groups, {name: native[name] for name in names}, notes


def _choose_groups(
    bundle: Bundle, source: str | Path, rates_hz: Mapping[str, float], given: Sequence[str]
) -> tuple[list[tuple[str, ...]], list[str]]:
    """The groups of channels that vote, and a note on them: those named, else the bundle's own, else usable ones."""
    wanted = bundle.signal.channels
    if not given and bundle.decision.get("any_channel"):
        groups = choose_channels(str(source), wanted, list(rates_hz), list(rates_hz.values()), ABSENT)
        listed = "; ".join(" + ".join(name for name in group if name != ABSENT) for group in groups)
        note = f"channels chosen: {listed} (options.channels names others)"
        return groups, [] if groups == [tuple(wanted)] else [note]
    size, names = len(wanted), tuple(given) or tuple(wanted)
    if len(names) % size:
        expected = ", ".join(wanted)
        hint = f"give one for each of: {expected} ({ABSENT} for one that is absent)"
        raise BadInput("options.channels", f"names {counted(len(names), 'channel')}", hint)
    groups = [names[i : i + size] for i in range(0, len(names), size)]
    for group in groups:
        there = [name for name in group if name != ABSENT]
        if not there:
            raise BadInput("options.channels", "names no channel", "give at least one that the recording has")
        if twice := [name for name in there if there.count(name) > 1]:
            problem = f"names {twice[0]!r} twice in one group"
            raise BadInput("options.channels", problem, f"write {ABSENT} for an absent one")
    return groups, []


def _cut(
    bundle: Bundle, groups: Sequence[tuple[str, ...]], native: dict[str, Recording], recording_id: str, *, chosen: bool
) -> NightInput:
    """Recordings of one channel each, by name, as epochs of every group; the dict is emptied, for the memory.

    Of ``chosen`` groups, which nobody named, those whose EEG cannot be scored have no vote where another one can.
    """
    settings = settings_of(bundle)
    features, fs_hz = settings.features, settings.features.fs_hz
    # A channel has to reach all that is analysed. The middle of the highest band is enough for band powers relative to
    # the recording: a band of which the upper part is missing has another level all night long.
    relative = features.kind == "bandpower" and "absolute" not in bundle_views(bundle)
    least_hz = float(features.freqs_hz[-1]) if relative else features.max_hz
    reports: dict[str, ChannelReport] = {}
    rows: dict[str, NDArray[np.floating]] = {}
    about = replace(native[next(name for name in groups[0] if name != ABSENT)], samples=np.empty((1, 0), np.float32))
    for name in list(native):
        recording = native.pop(name)
        require_band(recording, least_hz)
        reports[name] = check_channel(recording.samples[0], recording.fs_hz, name, recording.units[0])
        rows[name] = resample(recording.samples, recording.fs_hz, fs_hz)[0]
        del recording
    bad = {name for name, report in reports.items() if chosen and not report.usable}
    eyes = [name.upper().startswith("EOG") for name in bundle.signal.channels]
    good = [g for g in groups if bad.isdisjoint(name for name, eye in zip(g, eyes, strict=True) if not eye)] or groups
    length = min(len(row) for row in rows.values())
    rows = {name: row[:length] for name, row in rows.items()}
    cut = [_cut_group(bundle, replace(about, fs_hz=fs_hz), group, rows, reports) for group in good]
    first = next(name for name in good[0] if name != ABSENT)
    return NightInput(
        recording_id,
        [epochs for epochs, _ in cut],
        [" + ".join(n for n in group if n != ABSENT) for group in good],
        features.epoch_s,
        Level(*drawn_levels(rows[first], fs_hz, features.epoch_s), f"1 {reports[first].units.replace('uV', 'µV')}²/Hz"),
        fs_hz=reports[first].fs_hz,
        start=about.start,
        signal=list(reports.values()),
        rows=[for_yasa for _, for_yasa in cut],
        rows_hz=fs_hz,
        notes=[f"{group[0]} has no vote: its signal cannot be EEG" for group in groups if group not in good],
    )


def _cut_group(
    bundle: Bundle,
    about: Recording,
    group: Sequence[str],
    rows: Mapping[str, NDArray[np.floating]],
    reports: Mapping[str, ChannelReport],
) -> tuple[EpochSet, dict[str, NDArray[np.floating]]]:
    """Channels that are there, cut under the bundle's names for them; the others are NaN.

    Beside them what YASA may read of the group: its first EEG and its first EOG channel whose own rate admits it.
    """
    wanted, settings = bundle.signal.channels, settings_of(bundle)
    there = [place for place, name in enumerate(group) if name != ABSENT]
    taken = [rows[group[place]] for place in there]
    samples = np.stack(taken) if len(taken) > 1 else taken[0][None]
    names, units = (wanted[place] for place in there), (reports[group[place]].units for place in there)
    cut = epochs_of(replace(about, samples=samples, channels=tuple(names), units=tuple(units)), None, settings)
    features = np.full((len(cut.features), len(group), *cut.features.shape[2:]), np.nan, np.float32)
    features[:, there] = cut.features
    found = replace(cut.signal, channels=tuple(group), shape=features.shape[1:])
    relative = settings.level == "recording" or "absolute" not in bundle_views(bundle)
    require_contract(bundle.signal, found, about.source, any_names=True, any_unit=relative)
    for_yasa: dict[str, NDArray[np.floating]] = {}
    for place in there:
        if reports[group[place]].fs_hz >= YASA_LEAST_HZ:
            for_yasa.setdefault("eog" if wanted[place].upper().startswith("EOG") else "eeg", rows[group[place]])
    return replace(cut, features=features), for_yasa


def settings_of(bundle: Bundle) -> EpochSettings:
    """How the recordings of the training were cut into epochs."""
    return bundle.settings(EpochSettings.from_params)


def bundle_views(bundle: Bundle) -> list[str]:
    """The views of the levels that the network was trained with."""
    return next((list(s["params"]["views"]) for s in bundle.steps if s["step"] == NIGHT_VIEW), ["absolute"])


def _with_reference(bundle: Bundle, night: Night, options: InputOptions, given: NightInput) -> NightInput:
    """The input with a person's stages on its epochs, what to say of them, and what makes them doubtful."""
    if not options.reference:
        return given
    named = None if options.reference == "beside" else Path(options.reference)
    scored = replace(night, hypnogram=named, not_read=()) if named else night
    settings = settings_of(bundle)
    names = {**settings.more_names, **options.stage_names}
    how = ScoringOptions(options.text_epoch_s, options.stage_coding, settings.stage_names, names, options.scorer)
    try:
        hypnogram = load_scoring(scored, how)
        if hypnogram is None:
            note = f"{night.recording_id} has no hypnogram beside it; name it with options.reference=<file>"
            return replace(given, notes=[*given.notes, note])
        stages, facts = align(hypnogram, given.duration_s, given.epoch_s, start=given.start)
    except BadInput as error:
        raise BadInput(error.source, error.problem, error.hint.replace("source.", "options.")) from None
    late_s = facts["offset_s"]
    shift = f", {abs(late_s):g} s {'after' if late_s > 0 else 'before'} the start of the recording" if late_s else ""
    read = f"{facts['scoring']}{shift}, {facts['share_scored']:.0%} of the recording scored"
    notes = [*given.notes, *scored.notes, *facts["warnings"]]
    return replace(given, reference=stages, reference_read=read, doubts=facts["doubts"], notes=notes)


def _finished_input(bundle: Bundle, night: Night, options: InputOptions) -> NightInput:
    """Epochs that exist already: nothing is left of the signal to look at.

    ``options.channels`` names those of the file that stand in the places of the bundle's.
    """
    if options.yasa:
        raise BadInput("options.yasa", "needs the signal, not finished epochs", "leave it out, or give the EDF file")
    if options.reference not in (None, "beside"):
        raise BadInput("options.reference", "needs the signal's clock", "give beside, for the stages in the file")
    path, prepared = night.psg[0], night.kind == PREPARED
    epochs = read_epochs(path.parent) if prepared else read_bandpower(night.kind, path, night.recording_id)
    stated, channels = epochs.signal, list(epochs.signal.channels)
    if options.channels:
        wanted = options.channels[: len(bundle.signal.channels)]
        ((names,), _) = _choose_groups(bundle, path, {}, wanted)
        if absent := [name for name in names if name not in channels]:
            raise BadInput("options.channels", f"has no {absent[0]!r}", f"choose from: {', '.join(channels)}")
        places = [channels.index(name) for name in names]
        epochs, channels = replace(epochs, features=epochs.features[:, places]), list(bundle.signal.channels)
    found = replace(stated, channels=tuple(channels), shape=epochs.features.shape[1:])
    require_contract(bundle.signal, found, path)
    beside = options.reference == "beside" and (epochs.stages != UNSCORED).any()
    return NightInput(
        night.recording_id,
        [replace(epochs, facts={"tail_s": 0.0} | epochs.facts)],
        ["finished epochs" if prepared else "band powers"],
        stated.window_s,
        Level(
            epochs.features[:, 0].astype(np.float32).mean(axis=-1),
            epochs.freqs_hz,
            stated.units.removeprefix("dB re "),
            None if prepared else ROWS[night.kind],
        ),
        reference=epochs.stages if beside else None,
        lights=lights_of(options, (), None, len(epochs.usable) * stated.window_s),
    )


def lights_of(
    options: InputOptions, marks: Iterable[tuple[float, Any, str]], start: datetime | None, duration_s: float
) -> tuple[float | None, float | None]:
    """Lights off and on in seconds from the start of the recording: from the options, else from its annotations.

    An option outside the recording, or lights on before lights off, raise :class:`BadInput`.
    """
    found = ((_LIGHTS.search(text), float(onset)) for onset, _, text in marks)
    marked = {match[1].lower(): onset for match, onset in found if match}
    stated = (("off", options.lights_off), ("on", options.lights_on))
    off, on = (marked.get(w) if given is None else _seconds(w, given, start, duration_s) for w, given in stated)
    if off is None or on is None or off < on:
        return off, on
    if options.lights_on is None:
        return off, None  # the light before they went out
    if options.lights_off is None:
        return None, on
    raise BadInput("options.lights_on", f"is {on:g} s after the start, lights off {off:g} s", "give a later time")


def _seconds(which: str, given: str | float, start: datetime | None, duration_s: float) -> float:
    """Seconds from the start, of a number of them or a clock time ``HH:MM`` or ``HH:MM:SS``."""
    source, text = f"options.lights_{which}", str(given)
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    elif start is None:
        raise BadInput(source, "is a clock time, but the recording states no start", "give seconds from its start")
    else:
        hours, minutes, rest = (int(part) for part in (*text.split(":"), "0")[:3])
        clock = start.hour * 3600 + start.minute * 60 + start.second
        seconds = float((hours * 3600 + minutes * 60 + rest - clock) % 86_400)
    if seconds > duration_s:
        since = f" from {start:%H:%M:%S} on" if start else ""
        problem = f"is {given}, and the recording lasts {duration_s / 3600:.3g} h{since}"
        raise BadInput(source, problem, "give a time within it, or leave it out")
    return seconds
