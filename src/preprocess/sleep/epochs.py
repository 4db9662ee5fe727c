"""A night in, labelled log-power images of its epochs out; and the file that holds them.

Training calls the step ``sleep_epochs`` (``prepare.py``), which caches; inference calls :func:`epochs_of`. Both run the
same code.
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
from src.recordings.sleep.hypnogram import Hypnogram, align, require_sleep, stage_counts, trim_wake
from src.recordings.sleep.stage_names import ScoringOptions
from src.signals import STAGE_SETS, UNSCORED, BadInput, Recording, SignalSpec, require_range
from src.storage.foreign_files import explained

if TYPE_CHECKING:
    from src.preprocess.sleep.features import FeatureSettings

EPOCHS_FILE = "epochs.h5"
EPOCHS_STEP, EPOCHS_VERSION = "sleep_epochs", 2
"""Name and version of the step among a bundle's steps."""
PREPARED = "prepared"
"""Kind of source whose epochs another step has made, such as those of an LFP session."""
_ARRAYS = ("stages", "usable", "onset_s", "freqs_hz", "times_s")
LEVELS = ("unit", "recording")
AXES = ("channel", "frequency", "time")
"""Of an epoch."""


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
    scorer: str | None = None  # whose stages to read where a scoring has those of several

    def __post_init__(self) -> None:
        require_range("epochs", 0, margin_s=self.margin_s)
        if isinstance(self.channels, str) or not self.channels:
            raise BadInput("epochs.channels", f"{self.channels or 'none'!r} is no list of names", "give [C3-A2,C4-A1]")
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
        return ScoringOptions(self.text_epoch_s, self.stage_coding, self.stage_names, self.more_names, self.scorer)

    def to_params(self, kind: str) -> dict[str, Any]:
        """Parameters of the step for a night of this kind, plain types."""
        plain = asdict(self) | {"channels": list(self.channels)}
        plain["aliases"] = {name: list(more) for name, more in self.aliases.items()}
        plain["more_names"] = dict(self.more_names)
        if self.scorer is None:
            del plain["scorer"]  # what was made before there was this key is the same
        return plain | {"kind": kind}

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> EpochSettings:
        """Inverse of :meth:`to_params`."""
        plain = {name: value for name, value in params.items() if name != "kind"}
        if not isinstance(plain["channels"], str):
            plain["channels"] = tuple(plain["channels"])
        plain["features"] = feature_settings(plain["features"])
        return cls(**plain)


@dataclass(frozen=True)
class EpochSet:
    """Epochs of one recording."""

    features: NDArray[np.floating]  # (epoch, channel, frequency, time) log power in dB
    stages: NDArray[np.int8]  # (epoch,) UNSCORED where nobody scored and where `usable` is false
    usable: NDArray[np.bool_]  # (epoch,) false where samples are missing or a channel is flat
    onset_s: NDArray[np.float64]  # (epoch,) start of each epoch from the start of the recording
    times_s: NDArray[np.float64]  # of the image's columns
    signal: SignalSpec  # what the epochs are: channels, rate, unit, frequencies of the image's rows, …
    facts: dict[str, Any] = field(default_factory=dict)  # counts, what was left out, warnings

    @property
    def freqs_hz(self) -> NDArray[np.float64]:
        """``(frequency,)`` of the image's rows."""
        return np.array(self.signal.freqs_hz)


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
    cut = recording.samples[:, : n_epochs * features.epoch_samples].reshape(len(recording.samples), n_epochs, -1)
    low, high = cut.min(axis=2), cut.max(axis=2)  # a sample is missing in some channel; some channel does not move
    missing, flat = ~np.isfinite(low + high).all(axis=0), (low == high).any(axis=0)
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
        # The median over usable epochs of an epoch's mean level: the whole recording shares one gain.
        levels = images[usable[kept]].mean(axis=(2, 3))
        images -= np.median(levels, axis=0)[:, None, None] if len(levels) else np.float32(0)
    unit = "variance" if features.kind == "bandpower" else f"1 {recording.units[0]}^2/Hz"
    about = (recording.channels, recording.fs_hz, features.epoch_s, f"dB re {unit}", AXES, images.shape[1:])
    return EpochSet(
        features=images,
        stages=stages[kept],
        usable=usable[kept],
        onset_s=np.arange(kept.start, kept.stop) * features.epoch_s,
        times_s=features.times_s,
        signal=SignalSpec(*about, tuple(features.freqs_hz.tolist())),
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
        features = file["features"][()]
        arrays = {name: file[name][()] for name in _ARRAYS}
        axes, units = (file["features"].attrs[name] for name in ("axes", "units"))
        channels, fs_hz, epoch_s = (file.attrs[name] for name in ("channels", "fs_hz", "epoch_s"))
    signal = SignalSpec(
        tuple(map(str, channels)), float(fs_hz), float(epoch_s), str(units), tuple(map(str, axes[1:])),
        features.shape[1:], tuple(arrays.pop("freqs_hz").tolist()),
    )  # fmt: skip
    return EpochSet(features, **arrays, signal=signal)


def find_prepared(root: str | Path) -> list[Path]:
    """The ``epochs.h5`` files below a folder: finished epochs, of whatever step made them."""
    files = sorted(Path(root).rglob(EPOCHS_FILE))
    if not files:
        raise BadInput(root, f"holds no {EPOCHS_FILE}", "give the folder that a step wrote epochs into")
    return files


def write_epochs(folder: Path, epochs: EpochSet, stage_names: Sequence[str]) -> dict[str, Any]:
    """Write what :func:`read_epochs` reads; returns facts for the manifest: what the epochs are, and their own."""
    import h5py

    spec = epochs.signal
    on_features = {"axes": ["epoch", *spec.axes], "units": spec.units}
    on_file = {"channels": list(spec.channels), "fs_hz": spec.fs_hz, "epoch_s": spec.window_s}
    on_file["stage_names"] = list(stage_names)
    with h5py.File(folder / EPOCHS_FILE, "w") as file:
        # Half precision resolves 0.06 dB at 100 dB; one periodogram bin scatters by 5.6 dB.
        features = file.create_dataset("features", data=epochs.features.astype(np.float16))
        for name in _ARRAYS:
            file.create_dataset(name, data=getattr(epochs, name))
        features.attrs.update(on_features)
        file.attrs.update(on_file)
    return on_features | on_file | epochs.facts
