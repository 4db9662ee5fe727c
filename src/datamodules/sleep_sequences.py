"""Scored nights as stretches of consecutive epochs: what a network with context is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from src.datamodules.augment import LevelAugment
from src.datamodules.loaders import evaluation_loader, overfitting
from src.datamodules.sleep import Batch, NightEpochs, SleepData, SleepDataset
from src.datamodules.splits import Part
from src.preprocess.sleep.epochs import read_epochs
from src.preprocess.sleep.night_normalization import NIGHT_VIEW, NIGHT_VIEW_VERSION, night_view
from src.preprocess.sleep.prepare import EpochArtifact
from src.signals import UNSCORED, SignalSpec


class NightDataset(SleepDataset):
    """Whole nights: ``levels (epoch, channel, freq, time)``, ``stages (epoch,)``, number of the night per epoch."""

    def __init__(self, nights: Sequence[NightEpochs]) -> None:
        super().__init__(nights)
        self.nights = list(nights)

    def __len__(self) -> int:
        return len(self.nights)

    def __getitem__(self, index: int) -> Batch:
        night = self.nights[index]
        return night.levels.float(), night.stages, torch.full_like(night.stages, index)

    def levels(self) -> Tensor:
        levels = torch.cat([night.levels for night in self.nights]).float()
        return levels[~levels.isnan().flatten(1).any(1)]


class WindowDataset(NightDataset):
    """Windows at random places: ``levels (epoch, …)``, ``stages (epoch,)``, number of the night.

    A night gets as many windows as would cover it once. They begin anywhere, drawn from torch's global generator, so
    that where in its window an epoch stands tells nothing about the night: recordings are trimmed by their scoring
    to half an hour of wake at either end, and a network that knows where it is in the night would know the stage.
    A night shorter than a window ends in absent, unscored epochs. Epochs that nobody scored stay in their place with
    their signal; only the loss passes over them.
    """

    def __init__(self, nights: Sequence[NightEpochs], window_epochs: int) -> None:
        super().__init__(nights)
        self.window_epochs, self.anywhere = window_epochs, True
        lengths = [len(night.stages) for night in nights]
        self.windows = [(n, first) for n, length in enumerate(lengths) for first in range(0, length, window_epochs)]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Batch:
        number, first = self.windows[index]
        night = self.nights[number]
        if self.anywhere:
            first = int(torch.randint(max(1, len(night.stages) - self.window_epochs + 1), ()))
        found = slice(first, first + self.window_epochs)
        levels = torch.full((self.window_epochs, *night.levels.shape[1:]), torch.nan)
        stages = torch.full((self.window_epochs,), UNSCORED, dtype=torch.long)
        present = len(night.stages[found])
        levels[:present], stages[:present] = night.levels[found].float(), night.stages[found]
        return levels, stages, torch.tensor(number)


class SleepSequenceData(SleepData):
    """Nights → windows of consecutive epochs for training, whole nights for validation and test.

    Parameters are those of :class:`~src.datamodules.sleep.SleepData`, and:

    Parameters
    ----------
    augment
        Arguments of :class:`~src.datamodules.augment.LevelAugment`.
    window_epochs, batch_size
        Epochs of a training window; windows of a step.
    views
        One or several of ``absolute``, ``night``, ``rank``, ``shape``: see
        :func:`src.preprocess.sleep.night_normalization.night_view`.
    """

    def __init__(
        self,
        source: dict[str, Any],
        epochs: dict[str, Any],
        split: dict[str, Any],
        augment: dict[str, Any] | None = None,
        window_epochs: int = 100,
        views: Sequence[str] = ("absolute",),
        batch_size: int = 6,
        execution: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(source, epochs, split, None, batch_size, execution)
        self.augment = LevelAugment(**augment or {})
        self.window_epochs, self.views = window_epochs, list(views)
        self.classes = self.settings.stage_names

    def _load(self, artifact: EpochArtifact) -> NightEpochs:
        epochs = read_epochs(artifact.path)
        levels = night_view(epochs.features, epochs.usable, self.views)
        stages = torch.from_numpy(epochs.stages).long()
        return NightEpochs(
            artifact.recording_id, artifact.subject_id, torch.from_numpy(levels.astype(np.float16)), stages
        )

    def _dataset(self, part: Part, nights: Sequence[NightEpochs]) -> SleepDataset:
        return WindowDataset(nights, self.window_epochs) if part == "train" else NightDataset(nights)

    @property
    def signal(self) -> SignalSpec:
        """What the network sees: a window of epochs."""
        training = self.datasets["train"]
        assert isinstance(training, NightDataset)
        epoch = training.nights[0].levels.shape[1:]
        spec = super().signal
        return replace(spec, axes=("epoch", *spec.axes), shape=(self.window_epochs, *epoch))

    def steps(self) -> list[dict[str, Any]]:
        """The preprocessing a bundle has to repeat."""
        view = {"step": NIGHT_VIEW, "version": NIGHT_VIEW_VERSION, "params": {"views": self.views}}
        return [*super().steps(), view]

    def train_dataloader(self) -> DataLoader[Batch]:
        training = self.datasets["train"]
        assert isinstance(training, WindowDataset)
        training.anywhere = not overfitting(self.trainer)
        return super().train_dataloader()

    def val_dataloader(self) -> DataLoader[Batch]:
        return evaluation_loader(self.datasets["val"], None, trainer=self.trainer)

    def test_dataloader(self) -> DataLoader[Batch]:
        return evaluation_loader(self.datasets["test"], None, trainer=self.trainer)
