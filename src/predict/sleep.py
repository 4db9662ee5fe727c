"""Sleep stages of recordings nobody scored: bundle and recording in, scoring, report and manifest out.

:func:`predict` is what ``infer.py`` calls, :func:`stage` what a notebook calls.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from src.models.bundle import Bundle, load_bundle
from src.predict.sleep_input import (
    InputOptions,
    NightInput,
    SignalSource,
    bundle_views,
    find_inputs,
    read_input,
    read_signal,
    settings_of,
)
from src.predict.sleep_night import UNSCORED_NAME, ScoredNight
from src.predict.sleep_statistics import mean_vote
from src.preprocess.sleep.epochs import EPOCHS_STEP, EPOCHS_VERSION, EpochSet
from src.preprocess.sleep.night_normalization import NIGHT_VIEW, NIGHT_VIEW_VERSION, WHOLE, night_view, sleep_period
from src.recordings.check_signal import require_signal
from src.recordings.sleep.channels import derivation, is_channel
from src.recordings.sleep.edf import MICROVOLTS
from src.recordings.sleep.hypnogram import stage_counts
from src.recordings.sleep.nights import Night
from src.signals import UNSCORED, BadInput, Recording
from src.storage.batch import Job, Summary, run_batch
from src.storage.foreign_files import absent
from src.storage.output import OutputFolder

BATCH = 512
_WHOLE_NIGHT_H = 3.0
LONG = 0.6
"""A recording whose sleep period is a smaller share of it is scored in two passes."""
OPTIONS = {"predict": ["kind", *InputOptions.__dataclass_fields__]}
"""What may be given under ``options``, by function."""
_ARGUMENTS = {
    "options.yasa=false": "yasa=False",
    "options.scale=1e+06": "units='V'",
    "options.scale=1000": "units='mV'",
    "options.channels": "use",
}
"""Arguments of :func:`stage` for the options of ``infer.py`` that notes name."""
HUMAN_BUNDLE = Path(__file__).resolve().parents[2] / "pretrained" / "sleep_human"
"""The network that :func:`stage` takes where no bundle is named."""


def predict(
    bundle: Bundle,
    source: Path,
    output_dir: Path,
    *,
    kind: str = "edf_folder",
    **options: Any,
) -> Summary:
    """Stage one recording or every recording of a folder; a bad one does not stop the others.

    Parameters
    ----------
    bundle
        A ``sleep_staging`` bundle.
    source
        An EDF or BDF file, a folder of recordings, or band powers (``.npz``).
    output_dir
        Gets one folder per recording: ``report.html``, ``night.png``, ``hypnogram.csv``, ``hypnogram.edf``
        (EDF+ annotations), ``events.tsv`` (BIDS), ``manifest.json``, with a reference ``agreement.json``.
    kind
        What kind of folder ``source`` is, see :func:`src.recordings.sleep.nights.discover`.
    options
        See :class:`~src.predict.sleep_input.InputOptions`.

    Returns
    -------
    Summary
        The values are lines for the console: what was found in the signal, how the scoring agrees with the
        reference, where the files are.
    """
    network = _open(bundle)
    named = options.get("channels", ())
    how = InputOptions(**{**options, "channels": (named,) if isinstance(named, str) else tuple(named)})
    nights = find_inputs(Path(source), kind, scored=how.reference == "beside")
    reference = None if how.reference == "beside" else how.reference
    if reference and not Path(reference).exists():
        raise absent(reference)
    output = OutputFolder(Path(output_dir), (bundle.folder, source, reference))
    names = output.names((night.recording_id, night.psg[0]) for night in nights)
    jobs = [
        Job(name, _stage_night, (bundle, network, how, night, output, name))
        for name, night in zip(names, nights, strict=True)
    ]
    return run_batch(jobs, title="staging")


@dataclass(frozen=True)
class Staging:
    """The stages of one recording."""

    stages: NDArray[np.str_]  # (epoch,) names of stages, "unscored" where there is no usable signal
    probabilities: NDArray[np.floating]  # (epoch, class), NaN where unscored
    classes: list[str]  # names of the columns of probabilities
    epoch_s: float  # length of an epoch
    channels: list[str]  # that were scored, group by group
    statistics: dict[str, float | None]  # see sleep_statistics.sleep_statistics
    intervals: dict[str, tuple[float, float] | None]  # of each statistic, see sleep_statistics.statistic_intervals
    origin: str  # what scored it, and what that was trained on
    notes: list[str]  # what has to be known before the stages are used

    @classmethod
    def of(cls, scored: ScoredNight) -> Self:
        """What a notebook gets of a scored night."""
        names = np.array([*scored.classes, UNSCORED_NAME])  # UNSCORED is -1
        return cls(
            names[scored.stages],
            scored.probabilities,
            scored.classes,
            scored.given.epoch_s,
            scored.given.channels,
            scored.statistics,
            scored.intervals,
            f"{scored.scored_by} {scored.origin}",
            [_in_python(note) for note in (*scored.findings, *scored.given.notes)],
        )


def stage(
    signal: Any,
    fs_hz: float | None = None,
    channels: Sequence[str] | None = None,
    *,
    units: str | None = None,
    bundle: str | Path | Bundle | None = None,
    use: Sequence[str] = (),
    yasa: bool | None = None,
    lights: tuple[str | float | None, str | float | None] = (None, None),
) -> Staging:
    """Sleep stages of a signal in memory.

    Parameters
    ----------
    signal
        ``(channel, time)`` array, or an ``mne.io.Raw`` (which states its rate, names and volts itself).
    fs_hz
        Sampling rate of an array. A ``Raw`` needs neither this nor ``channels`` and ``units``; what contradicts it is
        refused.
    channels
        Names of an array's rows.
    units
        Their unit: ``uV`` if not given, ``mV``, ``V``, or another one for a network that does not depend on it.
    bundle
        A bundle or its folder; by default the shipped network for people.
    use
        Channels to score in the order of the bundle's, ``none`` for an absent one, several groups for a vote; by
        default those that look usable.
    yasa
        ``False``: the network alone scores; by default :func:`~src.predict.sleep_yasa.yasa_share` says.
    lights
        Lights off and on, between which the statistics count: seconds from the start, or clock times of a ``Raw`` that
        states its start; by default what the annotations of a ``Raw`` say, failing that its first and last epoch.

    Raises
    ------
    BadInput
        If the signal is not what the bundle reads.

    Examples
    --------
    >>> night = stage(samples, 100.0, ["EEG Fpz-Cz", "EOG"])  # doctest: +SKIP
    >>> night.stages[:3], night.statistics["tst_min"], night.intervals["tst_min"]  # doctest: +SKIP
    """
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle or HUMAN_BUNDLE)
    network, use = _open(loaded), (use,) if isinstance(use, str) else tuple(use)
    source = _in_memory(signal, fs_hz, [channels] if isinstance(channels, str) else channels, units)
    options = InputOptions(use, lights_off=lights[0], lights_on=lights[1])
    return Staging.of(_score(loaded, network, read_signal(loaded, source, options, "signal"), yasa))


def _marks(signal: Any) -> list[tuple[float, float, str]]:
    """The annotations of a ``Raw``, in seconds from its first sample."""
    if not hasattr(signal, "annotations"):
        return []
    marks = signal.annotations
    first_s = 0.0 if marks.orig_time is None else signal.first_time
    return [
        (onset - first_s, duration, text)
        for onset, duration, text in zip(marks.onset, marks.duration, marks.description, strict=True)
    ]


def _in_python(note: str) -> str:
    for option, argument in _ARGUMENTS.items():
        note = note.replace(option, argument)
    return note


def _in_memory(signal: Any, fs_hz: float | None, channels: Sequence[str] | None, units: str | None) -> SignalSource:
    """The rows of an array or a ``Raw``, in microvolts where the unit is one of volts."""
    marks = _marks(signal)
    start = None
    if hasattr(signal, "get_data") and hasattr(signal, "info"):  # mne.io.Raw, which holds volts
        stated: dict[str, Any] = {"fs_hz": float(signal.info["sfreq"]), "channels": list(signal.ch_names), "units": "V"}
        given = {"fs_hz": fs_hz, "channels": None if channels is None else list(channels), "units": units}
        for name, value in given.items():
            if value is not None and value != stated[name]:
                problem = f"is {value} where the Raw states {stated[name]}"
                raise BadInput(name, problem, "leave it out, or give raw.get_data() with its own rate, names and units")
        start = signal.info["meas_date"]
        signal, fs_hz, channels, units = signal.get_data(), *stated.values()
    units = units or "uV"
    if isinstance(signal, str | Path):
        hint = f"type: python infer.py input={signal}, or read it first (mne.io.read_raw_edf)"
        raise BadInput(signal, "is a path and no signal", hint)
    samples = np.asarray(signal)
    if samples.dtype.kind not in "fiu":
        raise BadInput("signal", f"holds values of type {samples.dtype}", "give real numbers")
    if samples.ndim != 2 or fs_hz is None or channels is None or len(channels) != len(samples):
        problem = f"has shape {samples.shape}, rate {fs_hz} and {len(channels or ())} channel names"
        raise BadInput("signal", problem, "give (channel, time), fs_hz and a name for each channel")
    if len(set(channels)) < len(channels):
        raise BadInput("channels", "are not all different", "give each row a name of its own")
    factor = MICROVOLTS.get(units.lower().replace("µ", "u"))
    rows = samples if factor in (None, 1.0) else samples * factor
    unit, labels = units if factor is None else "uV", list(channels)

    def load(name: str) -> Recording:
        first, other = derivation("signal", name, labels)
        row = np.asarray(rows[first], np.float32)
        row = row if other is None else row - np.asarray(rows[other], np.float32)
        found = Recording(row[None], float(fs_hz), (name,), (unit,), "signal", "signal", start, "signal")
        require_signal(found)
        return found

    return SignalSource("signal", dict.fromkeys(labels, float(fs_hz)), load, marks)


def _open(bundle: Bundle) -> torch.nn.Module:
    """The network of a bundle that this installation can use."""
    bundle.require("sleep_staging", {EPOCHS_STEP: EPOCHS_VERSION, NIGHT_VIEW: NIGHT_VIEW_VERSION})
    return bundle.network()


def _stage_night(
    bundle: Bundle, network: torch.nn.Module, options: InputOptions, night: Night, output: OutputFolder, name: str
) -> list[str]:
    output.check(name)
    given = read_input(bundle, night, options)
    scored = _score(bundle, network, given, options.yasa)
    with output.folder(name) as part:
        scored.write(part)
        facts = {
            "channels": given.channels,
            "scored_by": {"name": scored.scored_by, **scored.origin.to_dict()},
            "scale": options.scale,
            "fs_hz": given.fs_hz,
            "start": given.start.isoformat() if given.start else None,
            "epochs": stage_counts(scored.stages, scored.classes),
            "statistics": scored.statistics,
            "intervals": scored.intervals,
            "facts": given.groups[0].facts,
            "signal": [report.to_dict() for report in given.signal],
            "notes": scored.given.notes,
        }
        bundle.write_manifest(part, {path.name: path for path in night.psg}, facts)
    return scored.console_lines(output.path(name))


def _score(bundle: Bundle, network: torch.nn.Module, given: NightInput, yasa: bool | None) -> ScoredNight:
    """Have the network score every group, and YASA too where the option ``yasa`` or its rule says so."""
    temperature, views = float(bundle.decision["temperature"]), bundle_views(bundle)
    period, any_channel = (bool(bundle.decision.get(name)) for name in ("sleep_period", "any_channel"))
    probabilities = mean_vote(
        [
            stage_probabilities(network, group, temperature=temperature, views=views, find_period=period)
            for group in given.groups
        ]
    )
    scored = ScoredNight(
        given,
        probabilities,
        list(bundle.classes),
        bundle.origin,
        metrics={k: v for k, v in bundle.metrics.items() if k.startswith("test/")},
        transitions=bundle.decision.get("transitions"),
        margins=bundle.decision.get("interval_margins"),
    )
    settings = settings_of(bundle)
    relative = views != ["absolute"] or settings.level == "recording"
    hours = float((scored.stages != UNSCORED).sum()) * given.epoch_s / 3600
    if relative and not period and settings.stages == "human" and hours < _WHOLE_NIGHT_H:
        note = f"{hours:.1f} h are scored, no whole night: levels are taken relative to the recording"
        scored = replace(scored, given=replace(given, notes=[*given.notes, f"{note} and may mislead"]))
    own = bundle.signal.channels
    leads = [label.split(" + ")[0] for label in given.channels] if any_channel and given.rows else []
    foreign = [lead for lead in leads if not is_channel(lead, own)]
    if not (foreign or yasa):
        return scored
    from src.predict.sleep_yasa import with_yasa  # where the network alone scores, it is not needed

    return with_yasa(scored, foreign, own, yasa)


@torch.no_grad()
def stage_probabilities(
    network: Any,
    epochs: EpochSet,
    *,
    temperature: float,
    views: Sequence[str] = ("absolute",),
    find_period: bool = False,
) -> NDArray[np.float32]:
    """``(epoch, class)`` probabilities; rows of epochs that cannot be scored are NaN.

    A network that reads sequences (``score_night``) is given the whole night in the ``views`` it was trained
    with, any other its usable epochs one by one. With ``find_period``, a recording with much wake around its sleep is
    scored again with levels relative to the sleep period that the first pass has found.
    """
    usable = np.flatnonzero(epochs.usable)
    if not len(usable):
        raise BadInput("recording", "has no epoch that can be scored", "every epoch is flat or lacks samples")

    def score(span: slice) -> NDArray[np.float32]:
        if hasattr(network, "score_night"):
            levels = night_view(epochs.features.astype(np.float16), epochs.usable, views, span)
            logits = network.score_night(torch.from_numpy(levels).half().float())[usable]
        else:
            blocks = np.split(usable, range(BATCH, len(usable), BATCH))
            pieces = [network(torch.from_numpy(epochs.features[block].astype(np.float16)).float()) for block in blocks]
            logits = torch.cat(pieces)
        probabilities = np.full((len(epochs.usable), logits.shape[1]), np.nan, np.float32)
        probabilities[usable] = torch.softmax(logits / temperature, dim=1).numpy()
        return probabilities

    found = score(WHOLE)
    if not find_period:
        return found
    span = sleep_period(1 - found[:, 0])
    first, last, _ = span.indices(len(found))
    # The mean of both passes: the second alone is better with hours of wake around, worse where a patient lies awake.
    return found if last - first > LONG * len(found) else (found + score(span)) / np.float32(2)
