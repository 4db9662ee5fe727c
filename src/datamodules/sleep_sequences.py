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
from src.datamodules.loaders import overfitting
from src.datamodules.sleep import Batch, NightEpochs, SleepData, SleepDataset
from src.datamodules.sleep_spans import VIEWS as SPAN_VIEWS
from src.datamodules.sleep_spans import SpanOptions, draw_windows
from src.datamodules.splits import Part
from src.preprocess.sleep.epochs import read_epochs
from src.preprocess.sleep.night_normalization import NIGHT_VIEW, NIGHT_VIEW_VERSION, night_view
from src.preprocess.sleep.prepare import EpochArtifact
from src.signals import UNSCORED, BadInput, SignalSpec


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

    With ``spans`` the nights hold levels as they are, and every window draws its span of the night and its variation,
    see :mod:`src.datamodules.sleep_spans`.
    """

    def __init__(self, nights: Sequence[NightEpochs], window_epochs: int, spans: SpanOptions | None = None) -> None:
        super().__init__(nights)
        self.window_epochs, self.spans, self.anywhere = window_epochs, spans, True
        lengths = [len(night.stages) for night in nights]
        self.windows = [(n, first) for n, length in enumerate(lengths) for first in range(0, length, window_epochs)]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Batch:
        number, first = self.windows[index]
        night = self.nights[number]
        if self.spans is not None:
            seed = int(torch.randint(2**31, ())) if self.anywhere else index
            return *self._drawn(np.random.default_rng(seed), number), torch.tensor(number)
        if self.anywhere:
            first = int(torch.randint(max(1, len(night.stages) - self.window_epochs + 1), ()))
        found = slice(first, first + self.window_epochs)
        levels = torch.full((self.window_epochs, *night.levels.shape[1:]), torch.nan)
        stages = torch.full((self.window_epochs,), UNSCORED, dtype=torch.long)
        present = len(night.stages[found])
        levels[:present], stages[:present] = night.levels[found].float(), night.stages[found]
        return levels, stages, torch.tensor(number)

    def _drawn(self, rng: np.random.Generator, number: int) -> tuple[Tensor, Tensor]:
        night, options = self.nights[number], replace(self.spans or SpanOptions(), windows=1)
        levels, stages = draw_windows(rng, night.levels.float().numpy(), night.stages.numpy(), options)
        return torch.from_numpy(levels[0]), torch.from_numpy(stages[0])

    def levels(self) -> Tensor:
        if self.spans is None:
            return super().levels()
        rng = np.random.default_rng(0)
        numbers = rng.integers(len(self.nights), size=200).tolist()
        levels = torch.cat([self._drawn(rng, number)[0] for number in numbers])
        return levels[~levels.isnan().flatten(1).any(1)]


class SleepSequenceData(SleepData):
    """Nights → windows of consecutive epochs for training, whole nights for validation and test.

    Parameters are those of :class:`~src.datamodules.sleep.SleepData`, and:

    Parameters
    ----------
    augment
        Arguments of :class:`~src.datamodules.augment.LevelAugment`, and ``spans``: arguments of
        :class:`~src.datamodules.sleep_spans.SpanOptions`, for training windows whose levels are relative to random
        spans of the night (views ``relative`` and ``night``); without it they are relative to the night.
    window_epochs, batch_size
        Epochs of a training window; windows of a step.
    views
        One or several of ``absolute``, ``relative``, ``night``: see
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
        options = dict(augment or {})
        spans = options.pop("spans", None)
        self.spans = None if spans is None else SpanOptions(window_epochs=window_epochs, **spans)
        if spans is not None and tuple(views) != SPAN_VIEWS:
            raise BadInput("datamodule.views", f"is {list(views)} with spans", f"give {list(SPAN_VIEWS)}")
        self.augment, self.held_out_batch = LevelAugment(**options), None
        self.window_epochs, self.views = window_epochs, list(views)
        self.classes = self.settings.stage_names

    def _load(self, artifact: EpochArtifact) -> NightEpochs:
        epochs = read_epochs(artifact.path)
        # With spans the views are taken when a window is drawn.
        levels = night_view(epochs.features, epochs.usable, self.views if self.spans is None else "absolute")
        seen, stages = torch.from_numpy(levels.astype(np.float16)), torch.from_numpy(epochs.stages).long()
        return NightEpochs(artifact.recording_id, artifact.subject_id, seen, stages, epochs.signal)

    def _dataset(self, part: Part, nights: Sequence[NightEpochs]) -> SleepDataset:
        if part == "train":
            return WindowDataset(nights, self.window_epochs, self.spans)
        return NightDataset(nights if self.spans is None else [self._seen(night) for night in nights])

    def _seen(self, night: NightEpochs) -> NightEpochs:
        levels = night.levels.float().numpy()
        seen = night_view(levels, np.isfinite(levels).any(axis=(1, 2, 3)), self.views)
        return replace(night, levels=torch.from_numpy(seen.astype(np.float16)))

    @property
    def signal(self) -> SignalSpec:
        """What the network sees: a window of epochs."""
        held_out = self.datasets["val"]
        assert isinstance(held_out, NightDataset)
        epoch = held_out.nights[0].levels.shape[1:]
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
