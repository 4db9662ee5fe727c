"""The step ``sleep_epochs``: a night in, labelled log-power images of its epochs out.

Training calls the step, which caches; inference calls :func:`epochs_of` on the recording. Both run the same code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from src.preprocess.sleep.bandpower import BandPowerSettings
from src.recordings.foreign_files import explained
from src.recordings.sleep.channels import ChannelRequest, join_channels
from src.recordings.sleep.check_signal import check_channel
from src.recordings.sleep.hypnogram import Hypnogram, align, require_sleep, stage_counts, trim_wake
from src.recordings.sleep.nights import Night, load_channels, load_scoring
from src.recordings.sleep.stage_names import ScoringOptions
from src.signals import STAGE_SETS, UNSCORED, BadInput, Recording, SignalSpec
from src.storage.step import CachedStep

if TYPE_CHECKING:
    from src.preprocess.sleep.features import FeatureSettings

EPOCHS_FILE = "epochs.h5"
PREPARED = "prepared"
"""Kind of source whose epochs another step has made, such as those of an LFP session."""
_ARRAYS = ("features", "stages", "usable", "onset_s", "freqs_hz", "times_s")
LEVELS = ("unit", "recording")
AXES = ("epoch", "channel", "frequency", "time")


def feature_settings(plain: Mapping[str, Any]) -> FeatureSettings | BandPowerSettings:
    """How an epoch becomes an image: band powers (``kind: bandpower``) or a spectrogram of another kind."""
    if plain.get("kind") == "bandpower":
        return BandPowerSettings(**plain)
    from src.preprocess.sleep.features import FeatureSettings

    return FeatureSettings(**plain)


@dataclass(frozen=True)
class EpochSettings:
    """Everything that decides what ``epochs.h5`` holds."""

    channels: tuple[str, ...] = ("EEG Fpz-Cz",)  # names in the order of the channel axis
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)  # further names of a channel, best first
    # How an epoch becomes an image, or band powers (kind: bandpower); its epoch_s and fs_hz rule.
    features: FeatureSettings | BandPowerSettings = field(default_factory=lambda: feature_settings({}))
    stages: str = "human"  # whose: human or rodent
    margin_s: float | None = 1800.0  # wake kept before the first and after the last sleep epoch; None keeps all
    # unit: dB re 1 µV²/Hz as recorded. recording: each channel relative to its median level over the recording, for
    # amplifiers whose units or gain are not known.
    level: str = "unit"
    stage_coding: str | None = None  # what integers in scorings mean: aasm, edf, dreams, ucddb, rodent
    text_epoch_s: float | None = None  # length of a text scoring's line; None: told from the recording's length
    more_names: Mapping[str, str] = field(default_factory=dict)  # stage names of the user's own, and their stages

    def __post_init__(self) -> None:
        if self.stages not in STAGE_SETS:
            raise BadInput("epochs.stages", f"{self.stages!r} is not known", f"choose from: {', '.join(STAGE_SETS)}")
        if self.level not in LEVELS:
            raise BadInput("epochs.level", f"{self.level!r} is not known", f"choose from: {', '.join(LEVELS)}")

    @property
    def stage_names(self) -> tuple[str, ...]:
        return STAGE_SETS[self.stages]

    @property
    def scoring(self) -> ScoringOptions:
        """How scorings are read."""
        return ScoringOptions(self.text_epoch_s, self.stage_coding, self.stage_names, self.more_names)

    def to_params(self, kind: str) -> dict[str, Any]:
        """Parameters of the step for a night of this kind, plain types."""
        plain = asdict(self) | {"channels": list(self.channels), "features": self.features.to_dict()}
        plain["aliases"] = {name: list(more) for name, more in self.aliases.items()}
        plain["more_names"] = dict(self.more_names)
        return plain | {"kind": kind}

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> EpochSettings:
        """Inverse of :meth:`to_params`."""
        plain = {name: value for name, value in params.items() if name != "kind"}
        plain["channels"], plain["features"] = tuple(plain["channels"]), feature_settings(plain["features"])
        return cls(**plain)


@dataclass(frozen=True)
class EpochSet:
    """Epochs of one recording."""

    features: NDArray[np.floating]  # (epoch, channel, frequency, time) log power in dB
    stages: NDArray[np.int8]  # (epoch,) UNSCORED where nobody scored and where `usable` is false
    usable: NDArray[np.bool_]  # (epoch,) false where samples are missing or a channel is flat
    onset_s: NDArray[np.float64]  # (epoch,) start of each epoch from the start of the recording
    freqs_hz: NDArray[np.float64]  # of the image's rows
    times_s: NDArray[np.float64]  # of the image's columns
    facts: dict[str, Any]  # counts, what was left out, warnings
    signal: SignalSpec | None = None  # what a file of epochs says that they are: channels, rate, unit, frequencies, …


def epochs_of(recording: Recording, hypnogram: Hypnogram | None, settings: EpochSettings) -> EpochSet:
    """Cut a recording into epochs, label them, and turn them into images.

    With a hypnogram, wake is trimmed and the scoring has to be one that something can be learned
    from. Without, every whole epoch is kept; a last partial one is ``facts["tail_s"]`` long. A recording that is
    shorter than an epoch or at another rate raises :class:`BadInput`.
    """
    features = settings.features
    if recording.fs_hz != features.fs_hz:
        problem = f"recording at {recording.fs_hz:g} Hz, features at {features.fs_hz:g} Hz"
        raise BadInput(recording.source, problem, "resample it when loading")
    n_epochs = recording.samples.shape[1] // features.epoch_samples
    if not n_epochs:
        problem = f"lasts {recording.duration_s:g} s, less than one epoch of {features.epoch_s:g} s"
        raise BadInput(recording.source, problem, "give a longer recording")
    missing, flat = _unusable(recording.samples, features.epoch_samples)
    usable, names = ~(missing | flat), settings.stage_names if hypnogram is None else hypnogram.stage_names
    duration_s, why = n_epochs * features.epoch_s, "missing samples or a flat channel"
    given: dict[str, Any] = {"margin_s": settings.margin_s, "why": why, "start": recording.start}
    stages, kept, facts = label_epochs(hypnogram, usable, features.epoch_s, names, duration_s, **given)
    if hypnogram is not None:
        require_sleep(stages[kept], hypnogram.source, names)
    stretch = recording.samples[:, kept.start * features.epoch_samples : kept.stop * features.epoch_samples]
    facts |= {
        "missing_samples": int(missing[kept].sum()),
        "flat": int(flat[kept].sum()),
        "tail_s": round(recording.duration_s - duration_s, 6),
    }
    images = features.images(stretch, recording.channels)
    if settings.level == "recording":
        images -= _median_level(images, usable[kept])
    return EpochSet(
        features=images,
        stages=stages[kept],
        usable=usable[kept],
        onset_s=np.arange(kept.start, kept.stop) * features.epoch_s,
        freqs_hz=features.freqs_hz,
        times_s=features.times_s,
        facts=facts,
    )


def label_epochs(
    hypnogram: Hypnogram | None,
    usable: NDArray[np.bool_],
    epoch_s: float,
    names: Sequence[str],
    duration_s: float,
    *,
    margin_s: float | None,
    why: str,
    start: datetime | None = None,
) -> tuple[NDArray[np.int8], slice, dict[str, Any]]:
    """The stage of every epoch, those that are kept once wake is trimmed to ``margin_s``, and facts about both.

    Epochs that are not ``usable`` are unscored; a warning counts the scored ones among them and says ``why``.
    """
    scored, kept = np.full(len(usable), UNSCORED, np.int8), slice(0, len(usable))
    facts: dict[str, Any] = {"warnings": []}
    if hypnogram is not None:
        labels, facts = align(hypnogram, duration_s, epoch_s, start=start)
        scored = labels[: len(usable)]
        require_sleep(scored, hypnogram.source, names)
        kept = kept if margin_s is None else trim_wake(scored, margin_s, epoch_s)
    stages = np.where(usable, scored, UNSCORED).astype(np.int8)
    spoiled = int(np.sum((scored != UNSCORED)[kept] & ~usable[kept]))
    if spoiled:
        facts["warnings"].append(f"{spoiled} scored epochs left out: {why}")
    facts |= {
        "epochs": kept.stop - kept.start,
        "trimmed": {"before": kept.start, "after": len(usable) - kept.stop},
        "counts": stage_counts(stages[kept], names),
        "scored_but_unusable": spoiled,
    }
    return stages, kept, facts


def read_epochs(folder: str | Path) -> EpochSet:
    """The epochs that the step wrote into its folder."""
    import h5py

    path = Path(folder) / EPOCHS_FILE
    with explained(path, hint="delete it and prepare it again"), h5py.File(path) as file:
        arrays = {name: file[name][()] for name in _ARRAYS}
        axes, units = (file["features"].attrs[name] for name in ("axes", "units"))
        channels, fs_hz, epoch_s = (file.attrs[name] for name in ("channels", "fs_hz", "epoch_s"))
    signal = SignalSpec(
        tuple(map(str, channels)), float(fs_hz), float(epoch_s), str(units), tuple(map(str, axes[1:])),
        arrays["features"].shape[1:], tuple(arrays["freqs_hz"].tolist()),
    )  # fmt: skip
    return EpochSet(**arrays, facts={}, signal=signal)


def find_prepared(root: str | Path) -> list[Path]:
    """The ``epochs.h5`` files below a folder: finished epochs, of whatever step made them."""
    files = sorted(Path(root).rglob(EPOCHS_FILE))
    if not files:
        raise BadInput(root, f"holds no {EPOCHS_FILE}", "give the folder that a step wrote epochs into")
    return files


def _median_level(images: NDArray[np.float32], usable: NDArray[np.bool_]) -> NDArray[np.float32]:
    """``(channel, 1, 1)`` median over usable epochs of an epoch's mean level; the whole recording shares one gain."""
    levels = images[usable].mean(axis=(2, 3))
    return np.median(levels, axis=0)[:, None, None] if len(levels) else np.zeros((images.shape[1], 1, 1), np.float32)


def _unusable(samples: NDArray[np.floating], epoch_samples: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """``(epoch,)`` each: a sample is missing in some channel; some channel does not move."""
    n_epochs = samples.shape[1] // epoch_samples
    epochs = samples[:, : n_epochs * epoch_samples].reshape(len(samples), n_epochs, epoch_samples)
    low, high = epochs.min(axis=2), epochs.max(axis=2)
    return ~np.isfinite(low + high).all(axis=0), (low == high).any(axis=0)


def _run(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    settings = EpochSettings.from_params(params)
    night = Night.from_inputs(params["kind"], inputs)
    hypnogram = load_scoring(night, settings.scoring)
    if hypnogram is None:
        raise BadInput(night.psg[0], "has no hypnogram", "put one beside it, or leave this recording out of training")
    features = settings.features
    channels = load_channels(night, ChannelRequest(settings.channels, settings.aliases, features.max_hz))
    reports = [check_channel(c.samples[0], c.fs_hz, c.channels[0], c.units[0]) for c in channels]
    recording = join_channels(channels, features.fs_hz)
    epochs = epochs_of(recording, hypnogram, settings)
    facts = {
        "axes": list(AXES),
        "units": f"dB re {'variance' if features.kind == 'bandpower' else f'1 {recording.units[0]}^2/Hz'}",
        "channels": list(recording.channels),
        "fs_hz": recording.fs_hz,
        "epoch_s": features.epoch_s,
        "stage_names": list(hypnogram.stage_names),
        "start": recording.start.isoformat() if recording.start else None,
        "signals": [report.to_dict() for report in reports],
        **epochs.facts,
    }
    facts["warnings"] = [*recording.notes, *facts["warnings"]]
    write_epochs(out_dir / EPOCHS_FILE, epochs, facts)
    return facts


def write_epochs(path: Path, epochs: EpochSet, facts: Mapping[str, Any]) -> None:
    """Write what :func:`read_epochs` reads; ``facts`` has the axes, units, channels, ``fs_hz``, ``epoch_s``, stages."""
    import h5py

    with h5py.File(path, "w") as file:
        # Half precision resolves 0.06 dB at 100 dB; one periodogram bin scatters by 5.6 dB.
        features = file.create_dataset("features", data=epochs.features.astype(np.float16))
        for name in _ARRAYS[1:]:
            file.create_dataset(name, data=getattr(epochs, name))
        features.attrs["axes"], features.attrs["units"] = facts["axes"], facts["units"]
        for name in ("channels", "fs_hz", "epoch_s", "stage_names"):
            file.attrs[name] = facts[name]


SLEEP_EPOCHS = CachedStep("sleep_epochs", 2, _run)
"""Inputs ``Night.inputs()``, parameters ``EpochSettings.to_params(kind)``; writes ``epochs.h5``."""
