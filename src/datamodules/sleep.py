"""Scored nights as batches of epoch spectrograms, split by subject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.datamodules.augment import SpectrogramAugment
from src.datamodules.batches import Batches, repeatable_draws
from src.datamodules.splits import Part, Split, make_split
from src.preprocess.sleep.epochs import SLEEP_EPOCHS, EpochSettings, read_epochs
from src.preprocess.sleep.prepare import EpochArtifact, input_signal, prepare_nights, source_origin
from src.signals import HUMAN_STAGES, BadInput, Origin, SignalSpec
from src.storage.batch import Summary

Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class NightEpochs:
    """One night in memory: ``decibels (epoch, channel, freq, time)``, ``stages (epoch,)``."""

    recording_id: str
    subject_id: str
    decibels: Tensor
    stages: Tensor


class EpochDataset(Dataset[Batch]):
    """Scored epochs of several nights; a list of indices is answered with a batch."""

    def __init__(self, nights: Sequence[NightEpochs]) -> None:
        self.recordings = [night.recording_id for night in nights]
        scored = [night.stages >= 0 for night in nights]
        self.decibels = torch.cat([n.decibels[s] for n, s in zip(nights, scored, strict=True)])
        self.stages = torch.cat([n.stages[s] for n, s in zip(nights, scored, strict=True)])
        self.recording = torch.cat([torch.full((int(s.sum()),), i) for i, s in enumerate(scored)])

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, index: list[int]) -> Batch:
        return self.decibels[index].float(), self.stages[index], self.recording[index]


class SleepData(pl.LightningDataModule):
    """Nights from a folder (or the simulator) → cached epoch spectrograms → batches.

    Parameters
    ----------
    source
        ``kind`` and ``root`` of the recordings, or ``kind: simulated`` with the simulator's arguments.
    epochs
        Arguments of :class:`~src.preprocess.sleep.epochs.EpochSettings`: channels, features, margins.
    split
        ``method``, ``seed`` and parameters of :func:`~src.datamodules.splits.make_split`.
    augment
        Arguments of :class:`~src.datamodules.augment.SpectrogramAugment`.
    batch_size, cache_dir, workers, seed
        Epochs of a step over all processes; where stages are kept; processes that make them; seed of
        the order.
    """

    classes: Sequence[str] = HUMAN_STAGES

    def __init__(
        self,
        source: dict[str, Any],
        epochs: dict[str, Any],
        split: dict[str, Any],
        augment: dict[str, Any],
        batch_size: int,
        cache_dir: str,
        workers: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.source, self.settings = source, EpochSettings.from_params(epochs)
        self.split_options, self.batch_size, self.seed = split, batch_size, seed
        self.augment = SpectrogramAugment(**augment)
        self.cache_dir, self.workers = Path(cache_dir), workers
        self.artifacts: list[EpochArtifact] = []
        self.preparation = Summary("recordings")
        self.datasets: dict[Part, EpochDataset] = {}
        self.split: Split
        self.mean_db: Tensor
        self.std_db: Tensor

    def prepare_data(self) -> None:
        """Run the cached stages; a bad recording is reported in ``preparation`` and left out."""
        if self.artifacts:
            return
        self.artifacts, self.preparation = prepare_nights(
            self.source, self.settings, cache=self.cache_dir, workers=self.workers
        )
        if self.preparation.failures:
            Console().print(self.preparation.table())
        if not self.artifacts:
            raise BadInput(
                self.source.get("root") or "source", "no recording could be used", "mend the ones listed above"
            )

    def left_out(self) -> list[str]:
        """Names of the recordings that could not be used."""
        return [outcome.name for outcome in self.preparation.failures]

    def setup(self, stage: str) -> None:
        if self.datasets:
            return
        self.prepare_data()
        nights = [_load(artifact) for artifact in self.artifacts]
        self.split = make_split([n.subject_id for n in nights], **self.split_options)
        for part in ("train", "val", "test"):
            wanted = set(self.split.subjects(part))
            self.datasets[part] = EpochDataset([n for n in nights if n.subject_id in wanted])
            if not len(self.datasets[part]):
                raise BadInput(
                    "datamodule.split", f"the {part} subjects have no scored epoch", "choose another split seed"
                )
        self._fit_statistics()

    def _fit_statistics(self) -> None:
        counts = self._class_counts("train")
        if (counts > 0).sum() < 2:
            only = ", ".join(c for c, n in zip(self.classes, counts, strict=True) if n)
            raise BadInput("datamodule", f"the training subjects have one stage only ({only})", "add scored recordings")
        decibels = self.datasets["train"].decibels.float()
        self.mean_db, self.std_db = decibels.mean((0, 3)), decibels.std((0, 3))

    @property
    def signal(self) -> SignalSpec:
        """What the network sees."""
        return input_signal(self.settings)

    def training_statistics(self) -> Mapping[str, np.ndarray]:
        """Mean and standard deviation per channel and frequency, class counts: training subjects only."""
        counts = self._class_counts("train")
        return {"mean_db": self.mean_db.numpy(), "std_db": self.std_db.numpy(), "class_counts": counts}

    def steps(self) -> list[dict[str, Any]]:
        """The preprocessing a bundle has to repeat."""
        return [SLEEP_EPOCHS.describe(self.settings.to_params(self.source["kind"]))]

    def origin(self) -> Origin:
        """What was trained on: cohorts and licences are those that ``conf/source`` states."""
        counts = self.summary()["train"]
        hours = counts["epochs"] * self.signal.window_s / 3600
        return source_origin(self.source, subjects=counts["subjects"], hours=hours)

    def recordings(self, part: Part) -> list[str]:
        """Recording ids in the order that the batches' third element counts."""
        return self.datasets[part].recordings

    def summary(self) -> dict[str, dict[str, Any]]:
        """Subjects, nights, epochs and epochs per stage of each part."""
        return {
            part: {
                "subjects": len(self.split.subjects(part)),
                "nights": len(dataset.recordings),
                "epochs": len(dataset),
                **{c: int(n) for c, n in zip(self.classes, self._class_counts(part), strict=True)},
            }
            for part, dataset in self.datasets.items()
        }

    def _class_counts(self, part: Part) -> np.ndarray:
        return torch.bincount(self.datasets[part].stages, minlength=len(self.classes)).numpy()

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader("train", self.seed)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("val", None)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader("test", None)

    def _loader(self, part: Part, seed: int | None) -> DataLoader[Batch]:
        dataset, trainer = self.datasets[part], self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        sampler = Batches(len(dataset), self.batch_size, seed=seed, rank=rank, world_size=world)
        # The epochs are in memory: a worker process could only copy them once more.
        return DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=0)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.trainer is None or not self.trainer.training:
            return batch
        decibels, stages, recording = batch
        with repeatable_draws(self.seed, self.trainer.global_step, self.trainer.global_rank):
            return self.augment(decibels, self.mean_db), stages, recording


def _load(artifact: EpochArtifact) -> NightEpochs:
    epochs = read_epochs(artifact.path)
    decibels, stages = torch.from_numpy(epochs.features), torch.from_numpy(epochs.stages).long()
    return NightEpochs(artifact.recording_id, artifact.subject_id, decibels, stages)
