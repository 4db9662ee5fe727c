"""Scored nights as batches of epoch spectrograms, split by subject."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from rich.console import Console
from torch import Tensor
from torch.utils.data import Dataset

from src.datamodules.augment import SpectrogramAugment
from src.datamodules.loaders import PartLoaders
from src.datamodules.splits import PARTS, Part, Split, check_split, make_split, split_blocks
from src.preprocess.sleep.epochs import EpochSettings, read_epochs
from src.preprocess.sleep.prepare import SLEEP_EPOCHS, EpochArtifact, prepare_nights, recordings_table, source_origin
from src.recordings.sleep.hypnogram import transition_counts
from src.signals import HUMAN_STAGES, UNSCORED, BadInput, Origin, SignalSpec
from src.storage.batch import Summary
from src.storage.progress import show

Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class NightEpochs:
    """One night in memory: ``levels (epoch, channel, freq, time)`` in dB, ``stages (epoch,)``."""

    recording_id: str
    subject_id: str
    levels: Tensor
    stages: Tensor
    signal: SignalSpec


class SleepDataset(Dataset[Batch]):
    """What datasets of nights share."""

    views: Sequence[str] = ("absolute",)  # what the levels are relative to, see night_normalization.night_view
    augment: Any = None  # how training examples are varied, from the datamodule

    def __init__(self, nights: Sequence[NightEpochs]) -> None:
        self.recordings = [night.recording_id for night in nights]  # the third element of an example counts them
        self.stages = torch.cat([night.stages for night in nights]) if nights else torch.empty(0, dtype=torch.long)
        self.fitted: Mapping[str, np.ndarray] = {}  # statistics of the training subjects, from the datamodule

    def statistics(self) -> Mapping[str, np.ndarray]:
        """``mean_db`` and ``std_db (channel, freq)``, ``class_counts (class,)``: of training subjects only."""
        return self.fitted

    def levels(self) -> Tensor:
        """``(epoch, channel, freq, time)`` of all epochs that the statistics are fitted on."""
        raise NotImplementedError


class EpochDataset(SleepDataset):
    """Scored epochs of several nights, one by one: ``levels (channel, freq, time)``, stage, number of the night."""

    def __init__(self, nights: Sequence[NightEpochs]) -> None:
        super().__init__(nights)
        scored = [night.stages != UNSCORED for night in nights]
        self.decibels = torch.cat([n.levels[s] for n, s in zip(nights, scored, strict=True)] or [torch.empty(0)])
        self.night = torch.cat([torch.full((int(s.sum()),), i) for i, s in enumerate(scored)] or [torch.empty(0)])
        self.stages = self.stages[self.stages != UNSCORED]

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, index: Any) -> Batch:
        return self.decibels[index].float(), self.stages[index], self.night[index]

    def __getitems__(self, indices: list[int]) -> list[Batch]:
        # A DataLoader asks for a batch at once where it can: one look-up for all.
        return list(zip(*self[indices], strict=True))

    def levels(self) -> Tensor:
        return self.decibels.float()


class SleepData(PartLoaders):
    """Nights from a folder (or the simulator) → cached epoch spectrograms → batches of single epochs.

    Parameters
    ----------
    source
        ``kind`` and ``root`` of the recordings, or ``kind: simulated`` with the simulator's arguments.
    epochs
        Arguments of :class:`~src.preprocess.sleep.epochs.EpochSettings`: channels, features, margins.
    split
        ``method``, ``seed`` and parameters of :func:`~src.datamodules.splits.make_split`, or ``{method: blocks, val,
        test, gap_epochs}``: three stretches of every recording with a gap between them, for data of too few
        subjects. Say so beside the result.
    augment
        Arguments of :class:`~src.datamodules.augment.SpectrogramAugment`.
    batch_size
        Epochs of a step over all processes.
    execution
        :class:`~src.datamodules.loaders.Execution`: cache, workers, seed of the order.
    """

    views: Sequence[str] = ("absolute",)

    def __init__(
        self,
        source: dict[str, Any],
        epochs: dict[str, Any],
        split: dict[str, Any],
        augment: dict[str, Any] | None = None,
        batch_size: int = 128,
        execution: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(batch_size, execution)
        check_split(**split)
        default = {"channels": EpochSettings.channels, "features": {}}
        self.source, self.settings = source, EpochSettings.from_params({**default, **epochs})
        self.split_options = split
        self.augment: Any = SpectrogramAugment(**augment or {})
        self.classes: Sequence[str] = HUMAN_STAGES
        self.artifacts: list[EpochArtifact] = []
        self.preparation = Summary("recordings")
        self.datasets: dict[Part, SleepDataset] = {}
        self.split: Split
        self.read: SignalSpec
        self._transitions: list[list[int]] = []

    def prepare_data(self) -> None:
        """Run the cached steps; a bad recording is reported in ``preparation`` and left out."""
        if self.artifacts:
            return
        self.artifacts, self.preparation = prepare_nights(
            self.source, self.settings, cache=Path(self.execution.cache_dir), workers=self.execution.workers
        )
        report(self.preparation, self.artifacts, simulated=self.source.get("kind") == "simulated")
        if not self.artifacts:
            raise BadInput(
                self.source.get("root") or "source", "no recording could be used", "fix the ones listed above"
            )

    def inputs(self) -> dict[str, Path]:
        """The prepared recordings by name: their content belongs to a run's identity."""
        return {artifact.recording_id: artifact.path for artifact in self.artifacts}

    def left_out(self) -> list[str]:
        """Names of the recordings that could not be used."""
        return [outcome.name for outcome in self.preparation.failures]

    def setup(self, stage: str) -> None:
        if self.datasets:
            return
        self.prepare_data()
        nights = [self._load(artifact) for artifact in self.artifacts]
        self._require_one_layout(nights)
        nights, self.split = split_nights(nights, self.split_options)
        taught = set(self.split.subjects("train"))
        counts = [transition_counts(n.stages.numpy(), len(self.classes)) for n in nights if n.subject_id in taught]
        self._transitions = np.sum(counts, axis=0).tolist()
        datasets: dict[Part, SleepDataset] = {}
        for part in PARTS:
            wanted = set(self.split.subjects(part))
            datasets[part] = self._dataset(part, [n for n in nights if n.subject_id in wanted])
            if not (datasets[part].stages != UNSCORED).any():
                raise BadInput(
                    "datamodule.split", f"the {part} subjects have no scored epoch", "choose another split seed"
                )
        fitted = self._fit(datasets["train"])
        for dataset in datasets.values():
            dataset.fitted, dataset.augment, dataset.views = fitted, self.augment, self.views
        self.datasets = datasets

    def _load(self, artifact: EpochArtifact) -> NightEpochs:
        epochs = read_epochs(artifact.path)
        levels, stages = torch.from_numpy(epochs.features), torch.from_numpy(epochs.stages).long()
        return NightEpochs(artifact.recording_id, artifact.subject_id, levels, stages, epochs.signal)

    def _dataset(self, part: Part, nights: Sequence[NightEpochs]) -> SleepDataset:
        return EpochDataset(nights)

    def _fit(self, training: SleepDataset) -> dict[str, np.ndarray]:
        counts = self._class_counts(training)
        if (counts > 0).sum() < 2:
            only = ", ".join(c for c, n in zip(self.classes, counts, strict=True) if n)
            raise BadInput("datamodule", f"the training subjects have one stage only ({only})", "add scored recordings")
        levels = training.levels()
        mean, std = levels.mean((0, 3)).numpy(), levels.std((0, 3)).numpy()
        return {"mean_db": mean, "std_db": std, "class_counts": counts}

    def statistics(self) -> Mapping[str, np.ndarray]:
        """What was fitted on the training subjects; see :meth:`SleepDataset.statistics`."""
        return self.datasets["train"].statistics()

    @property
    def signal(self) -> SignalSpec:
        """What the network sees, as the artifacts of the recordings state it."""
        return self.read

    def transitions(self) -> list[list[int]]:
        """``(from, to)`` counts of neighbouring epochs in the recordings of the training subjects."""
        return self._transitions

    def _require_one_layout(self, nights: Sequence[NightEpochs]) -> None:
        """Refuse recordings that differ in channels, rate, unit, epoch length or frequencies."""
        self.read = nights[0].signal
        for night in nights[1:]:
            # Levels relative to the recording do not depend on its unit.
            units = self.read.units if self.settings.level == "recording" else night.signal.units
            if replace(night.signal, units=units) != self.read:
                problem = f"has recordings of different layout ({nights[0].recording_id}: {self.read};"
                problem += f" {night.recording_id}: {night.signal})"
                raise BadInput("datamodule.source", problem, "give one kind of recording")

    def steps(self) -> list[dict[str, Any]]:
        """The preprocessing a bundle has to repeat."""
        return [SLEEP_EPOCHS.describe(self.settings.to_params(self.source["kind"]))]

    def origin(self) -> Origin:
        """What was trained on: cohorts and licences are those that ``conf/source`` states."""
        counts = self.summary()["train"]
        hours = counts["epochs"] * self.signal.window_s / 3600
        # Split in time, every recording trains: its parts are no subjects.
        blocks = self.split_options["method"] == "blocks"
        subjects = len({a.subject_id for a in self.artifacts}) if blocks else counts["subjects"]
        return source_origin(self.source, subjects=subjects, hours=hours)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Subjects, nights, scored epochs and epochs per stage of each part."""
        return {
            part: {
                "subjects": len(self.split.subjects(part)),
                "nights": len(dataset.recordings),
                "epochs": int((dataset.stages != UNSCORED).sum()),
                **{c: int(n) for c, n in zip(self.classes, self._class_counts(dataset), strict=True)},
            }
            for part, dataset in self.datasets.items()
        }

    def _class_counts(self, dataset: SleepDataset) -> np.ndarray:
        stages = dataset.stages[dataset.stages != UNSCORED]
        return torch.bincount(stages, minlength=len(self.classes)).numpy()


def split_nights(nights: Sequence[NightEpochs], options: Mapping[str, Any]) -> tuple[list[NightEpochs], Split]:
    """The nights and who of them trains; with ``method: blocks`` every night is cut into three."""
    if options["method"] != "blocks":
        return list(nights), make_split([n.subject_id for n in nights], **options)
    val, test, gap = (options[name] for name in ("val", "test", "gap_epochs"))
    blocks, parts = [], {}
    for night in nights:
        for part, places in split_blocks(len(night.stages), val=val, test=test, gap=gap).items():
            name, some = f"{night.recording_id} {part}", slice(places.start, places.stop)
            blocks.append(NightEpochs(name, name, night.levels[some], night.stages[some], night.signal))
            parts[name] = part
    return blocks, Split(f"blocks(val={val}, test={test}, gap_epochs={gap})", options["seed"], parts)


@rank_zero_only
def report(preparation: Summary, artifacts: Sequence[EpochArtifact], *, simulated: bool) -> None:
    """Print which recordings could not be used, and what the signal check and the preparation say of the others."""
    console = Console()
    if preparation.failures:
        show(console, preparation.table())
    if artifacts and not simulated:
        show(console, recordings_table(artifacts))
