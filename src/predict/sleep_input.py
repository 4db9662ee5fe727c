"""A recording read the way a bundle wants it: channels by name or by group, the signal checked, epochs cut."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.models.bundle import Bundle, require_contract
from src.predict.sleep_channels import ABSENT, choose_groups, load_groups
from src.preprocess.sleep.bandpower_files import LAYOUTS, ROWS, find_bandpower, read_bandpower
from src.preprocess.sleep.epochs import PREPARED, EpochSet, EpochSettings, epochs_of, find_prepared, read_epochs
from src.preprocess.sleep.night_normalization import NIGHT_VIEW
from src.recordings.sleep.channels import require_band, resample
from src.recordings.sleep.check_signal import ChannelReport, check_channel
from src.recordings.sleep.edf import EDF_SUFFIXES, read_annotations, read_header
from src.recordings.sleep.hypnogram import align
from src.recordings.sleep.nights import KINDS, Night, discover, load_scoring
from src.recordings.sleep.stage_names import ScoringOptions
from src.reports.sleep import Level, level_of
from src.signals import UNSCORED, BadInput, Recording
from src.storage.foreign_files import absent

YASA_LEAST_HZ = 50.0
_SECONDS, _CLOCK = re.compile(r"\d+(\.\d+)?"), re.compile(r"([01]?\d|2[0-3]):[0-5]\d(:[0-5]\d)?")
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
    stage_coding, text_epoch_s, stage_names, scorer
        How the reference is read, where it does not say so: what integers mean, the length of a line's epoch,
        further names of stages with the stage that each stands for, and whose stages where several people scored.
    yasa
        ``true``: compare with YASA's scoring; ``false``: the network alone scores, whatever the channels; by default
        :func:`~src.predict.sleep_yasa.yasa_share` says.
    lights_off, lights_on
        Clock time (``HH:MM`` or ``HH:MM:SS``) or seconds from the start; by default what the recording's annotations
        say, failing that its first and last epoch. The statistics count from one to the other.
    """

    channels: tuple[str, ...] = ()
    scale: float = 1.0
    reference: str | None = None
    stage_coding: str | None = None
    text_epoch_s: float | None = None
    stage_names: Mapping[str, str] = field(default_factory=dict)
    scorer: str | None = None
    yasa: bool | None = None
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
    if kind not in (known := (*KINDS, PREPARED, *LAYOUTS)):
        raise BadInput("options.kind", f"{kind!r} is no kind of recording", f"choose from: {', '.join(known)}")
    if kind == PREPARED:
        return [Night(path.parent.name, path.parent.name, (path,), None, kind) for path in find_prepared(source)]
    if not source.exists():
        raise absent(source)
    try:
        return discover(kind, source)
    except BadInput as error:
        if source.is_dir() and any(source.glob("*.npz")):
            hint = f"if they are band powers, give options.kind={' or '.join(LAYOUTS)}"
            raise BadInput(source, f"{error.problem}, and it holds .npz files", hint) from error
        if source.is_file() and kind == "edf_folder":
            return [Night(source.stem, source.stem, (source,), None, kind)]
        raise


def read_input(bundle: Bundle, night: Night, settings: EpochSettings, options: InputOptions) -> NightInput:
    """Read, check and cut one recording, and hold it against what the bundle reads.

    Raises
    ------
    BadInput
        See :func:`src.recordings.sleep.nights.load_channels`; also for channels that make no group, and for input
        unlike the bundle's (:func:`src.models.bundle.require_contract`).
    """
    if night.kind in LAYOUTS or night.kind == PREPARED:
        return _finished_input(bundle, night, options)
    groups, native, notes = load_groups(bundle, night, settings, options.channels)
    if slow := [name for name, r in native.items() if r.fs_hz < 2 * settings.features.max_hz]:
        highest = settings.features.max_hz
        notes.append(
            f"{', '.join(slow)}: the network reads up to {highest:g} Hz, which this sampling rate does not reach"
        )
    if options.scale != 1:
        # Who states a factor says that the product is in microvolts.
        factor = np.float32(options.scale)
        native = {name: replace(r, samples=r.samples * factor, units=("uV",)) for name, r in native.items()}
    given = cut_input(bundle, settings, groups, native, night.recording_id, chosen=not options.channels)
    given = _with_reference(night, settings, options, given)
    return replace(
        given,
        notes=[*notes, *given.notes],
        lights=lights_of(options, _marks(night.psg[0]), given.start, given.duration_s),
    )


def cut_input(
    bundle: Bundle,
    settings: EpochSettings,
    groups: Sequence[Sequence[str]],
    native: dict[str, Recording],
    recording_id: str,
    *,
    chosen: bool = False,
) -> NightInput:
    """Recordings of one channel each, by name, as epochs of every group; the dict is emptied, for the memory.

    Of ``chosen`` groups, which nobody named, those whose EEG cannot be scored have no vote where another one can.

    Raises
    ------
    BadInput
        If the epochs are not what the bundle reads.
    """
    fs_hz, epoch_s = settings.features.fs_hz, settings.features.epoch_s
    # A channel has to reach all that is analysed. The middle of the highest band is enough for band powers relative to
    # the recording: a band of which the upper part is missing has another level all night long.
    relative = settings.features.kind == "bandpower" and "absolute" not in bundle_views(bundle)
    least_hz = float(settings.features.freqs_hz[-1]) if relative else settings.features.max_hz
    reports: list[ChannelReport] = []
    rows: dict[str, NDArray[np.floating]] = {}
    about: dict[str, Recording] = {}  # without samples
    for name in list(native):
        recording = native.pop(name)
        require_band(recording, least_hz)
        reports.append(check_channel(recording.samples[0], recording.fs_hz, name, recording.units[0]))
        rows[name] = resample(recording.samples, recording.fs_hz, fs_hz)[0]
        about[name] = replace(recording, samples=rows[name][None, :0])
        del recording
    bad = {report.channel for report in reports if chosen and not report.usable}
    eyes = [name.upper().startswith("EOG") for name in bundle.signal.channels]
    good = [g for g in groups if bad.isdisjoint(name for name, eye in zip(g, eyes, strict=True) if not eye)] or groups
    notes = [f"{group[0]} has no vote: its signal cannot be EEG" for group in groups if group not in good]
    groups = good
    length = min(len(row) for row in rows.values())
    rows = {name: row[:length] for name, row in rows.items()}
    first = about[next(name for name in groups[0] if name != ABSENT)]
    cut = [_cut_group(bundle, settings, group, rows, about) for group in groups]
    return NightInput(
        recording_id,
        [epochs for epochs, _ in cut],
        [" + ".join(n for n in group if n != ABSENT) for group in groups],
        epoch_s,
        level_of(rows[first.channels[0]], fs_hz, epoch_s, first.units[0]),
        fs_hz=first.fs_hz,
        start=first.start,
        signal=reports,
        rows=[for_yasa for _, for_yasa in cut],
        rows_hz=fs_hz,
        notes=notes,
    )


def _cut_group(
    bundle: Bundle,
    settings: EpochSettings,
    group: Sequence[str],
    rows: Mapping[str, NDArray[np.floating]],
    about: Mapping[str, Recording],
) -> tuple[EpochSet, dict[str, NDArray[np.floating]]]:
    """Channels that are there, cut under the bundle's names for them; the others are NaN.

    Beside them what YASA may read of the group: its first EEG and its first EOG channel whose own rate admits it.
    """
    there = [place for place, name in enumerate(group) if name != ABSENT]
    units = tuple(about[group[place]].units[0] for place in there)
    names = tuple(bundle.signal.channels[place] for place in there)
    taken = [rows[group[place]] for place in there]
    samples = np.stack(taken) if len(taken) > 1 else taken[0][None]
    fs_hz, first = settings.features.fs_hz, about[group[there[0]]]
    cut = epochs_of(replace(first, samples=samples, fs_hz=fs_hz, channels=names, units=units), None, settings)
    features = np.full((len(cut.features), len(group), *cut.features.shape[2:]), np.nan, np.float32)
    features[:, there] = cut.features
    found = replace(cut.signal, channels=tuple(group), shape=features.shape[1:])
    relative = settings.level == "recording" or "absolute" not in bundle_views(bundle)
    require_contract(bundle.signal, found, first.source, any_names=True, any_unit=relative)
    for_yasa: dict[str, NDArray[np.floating]] = {}
    for name, wanted in zip(group, bundle.signal.channels, strict=True):
        if name != ABSENT and about[name].fs_hz >= YASA_LEAST_HZ:
            for_yasa.setdefault("eog" if wanted.upper().startswith("EOG") else "eeg", rows[name])
    return replace(cut, features=features), for_yasa


def bundle_views(bundle: Bundle) -> list[str]:
    """The views of the levels that the network was trained with."""
    return next((list(s["params"]["views"]) for s in bundle.steps if s["step"] == NIGHT_VIEW), ["absolute"])


def _with_reference(night: Night, settings: EpochSettings, options: InputOptions, given: NightInput) -> NightInput:
    """The input with a person's stages on its epochs, what to say of them, and what makes them doubtful."""
    if not options.reference:
        return given
    named = None if options.reference == "beside" else Path(options.reference)
    scored = replace(night, hypnogram=named, not_read=()) if named else night
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
        ((names,), _) = choose_groups(bundle, path, channels, (), wanted)
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


def _marks(path: Path) -> Iterable[tuple[float, Any, str]]:
    """The annotations of a recording: onset, duration, text."""
    annotated = path.suffix.lower() in EDF_SUFFIXES and read_header(path).annotations
    return read_annotations(path).marks if annotated else ()


def lights_of(
    options: InputOptions, marks: Iterable[tuple[float, Any, str]], start: datetime | None, duration_s: float
) -> tuple[float | None, float | None]:
    """Lights off and on in seconds from the start of the recording: from the options, else from its annotations.

    An option outside the recording, or lights on before lights off, raise :class:`BadInput`.
    """
    found = ((_LIGHTS.search(text), float(onset)) for onset, _, text in marks)
    marked = {match[1].lower(): onset for match, onset in found if match}
    lights: dict[str, float | None] = {}
    for which, given in (("off", options.lights_off), ("on", options.lights_on)):
        source = f"options.lights_{which}"
        lights[which] = seconds = marked.get(which) if given is None else _seconds(source, given, start)
        if given is not None and seconds is not None and seconds > duration_s:
            since = f" from {start:%H:%M:%S} on" if start else ""
            problem = f"is {given}, and the recording lasts {duration_s / 3600:.3g} h{since}"
            raise BadInput(source, problem, "give a time within it, or leave it out")
    off, on = lights["off"], lights["on"]
    if off is not None and on is not None and on <= off:
        if options.lights_on is None:
            return off, None  # the light before they went out
        if options.lights_off is None:
            return None, on
        raise BadInput("options.lights_on", f"is {on:g} s after the start, lights off {off:g} s", "give a later time")
    return off, on


def _seconds(source: str, given: str | float, start: datetime | None) -> float:
    """Seconds from the start, of a number of them or a clock time ``HH:MM`` or ``HH:MM:SS``."""
    text = str(given)
    if _SECONDS.fullmatch(text):
        return float(text)
    if start is None:
        raise BadInput(source, "is a clock time, but the recording states no start", "give seconds from its start")
    hours, minutes, seconds = (int(part) for part in (*text.split(":"), "0")[:3])
    clock = start.hour * 3600 + start.minute * 60 + start.second
    return float((hours * 3600 + minutes * 60 + seconds - clock) % 86_400)
