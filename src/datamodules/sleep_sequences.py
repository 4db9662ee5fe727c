"""Scored nights as stretches of consecutive epochs: what a network with context is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from src.datamodules.augment_levels import LevelAugment
from src.datamodules.sleep import Batch, NightEpochs, SleepData
from src.datamodules.splits import PARTS, Part, Split, make_split, split_blocks
from src.preprocess.sleep.epochs import read_epochs
from src.preprocess.sleep.night_normalization import NIGHT_VIEW, NIGHT_VIEW_VERSION, night_view
from src.preprocess.sleep.prepare import EpochArtifact
from src.signals import UNSCORED, BadInput, SignalSpec

Windows = list[tuple[int, int]]


class NightDataset(Dataset[Batch]):
    """Whole nights, one at a time: ``levels (epoch, channel, freq, time)``, ``stages (epoch,)``, position."""

    def __init__(self, nights: Sequence[NightEpochs]) -> None:
        self.nights = list(nights)
        self.recordings = [night.recording_id for night in nights]
        self.stages = torch.cat([night.stages for night in nights]) if nights else torch.empty(0, dtype=torch.long)

    def __len__(self) -> int:
        return len(self.nights)

    def __getitem__(self, index: int) -> Batch:
        night = self.nights[index]
        return night.decibels.float(), night.stages, torch.full_like(night.stages, index)


class WindowDataset(Dataset[Batch]):
    """Stretches of nights: a list of ``(night, first epoch)`` is answered with a batch of windows.

    A night shorter than a window ends in absent, unscored epochs. Epochs that nobody scored stay in
    their place with their signal; only the loss passes over them.
    """

    def __init__(self, nights: Sequence[NightEpochs], window_epochs: int) -> None:
        self.nights, self.window_epochs = list(nights), window_epochs

    def __len__(self) -> int:
        return len(self.nights)

    def __getitem__(self, index: Windows) -> Batch:
        shape = self.nights[0].decibels.shape[1:]
        levels = torch.full((len(index), self.window_epochs, *shape), torch.nan)
        stages = torch.full((len(index), self.window_epochs), UNSCORED, dtype=torch.long)
        for row, (night, first) in enumerate(index):
            part = slice(first, first + self.window_epochs)
            found = self.nights[night].decibels[part]
            levels[row, : len(found)], stages[row, : len(found)] = found.float(), self.nights[night].stages[part]
        return levels, stages, torch.tensor([night for night, _ in index])


class RandomWindows(Sampler[Windows]):
    """Batches of windows at random places: a function of seed and epoch alone.

    A night gets as many windows as would cover it once. They begin anywhere, so that where in its
    window an epoch stands tells nothing about the night: recordings are trimmed by their scoring to half an
    hour of wake at either end, and a network that knows where it is in the night would know the stage.

    Parameters
    ----------
    lengths
        Epochs of each night.
    window_epochs, batch_size
        Epochs of a window; windows of one step over all processes.
    seed
        Draws order and places anew every epoch.
    rank, world_size
        This process takes every ``world_size``-th window of each batch.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        window_epochs: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.lengths, self.window_epochs, self.batch_size, self.seed = list(lengths), window_epochs, batch_size, seed
        self.rank, self.world_size, self.epoch = rank, world_size, 0
        self.n_windows = sum(-(-length // window_epochs) for length in self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, self.n_windows // self.batch_size)

    def __iter__(self) -> Iterator[Windows]:
        rng = np.random.default_rng((self.seed, self.epoch))
        windows = [
            (night, int(rng.integers(max(1, length - self.window_epochs + 1))))
            for night, length in enumerate(self.lengths)
            for _ in range(-(-length // self.window_epochs))
        ]
        order = rng.permutation(len(windows))
        for step in range(len(self)):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield [windows[i] for i in batch[self.rank :: self.world_size]]


class SleepSequenceData(SleepData):
    """Nights → windows of consecutive epochs for training, whole nights for validation and test.

    Parameters are those of :class:`~src.datamodules.sleep.SleepData`, and:

    Parameters
    ----------
    split
        As there, or ``{method: blocks, val, test, gap_epochs}``: three stretches of every recording with
        a gap between them, for data of too few subjects. Say so beside the result.
    augment
        Arguments of :class:`~src.datamodules.augment_levels.LevelAugment`.
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
        augment: dict[str, Any],
        window_epochs: int,
        views: Sequence[str],
        batch_size: int,
        cache_dir: str,
        workers: int,
        seed: int,
    ) -> None:
        super().__init__(source, epochs, split, {}, batch_size, cache_dir, workers, seed)
        self.levels_augment = LevelAugment(**augment)
        self.window_epochs, self.views = window_epochs, list(views)
        self.classes = self.settings.stage_names
        self.nights: dict[Part, NightDataset] = {}

    def setup(self, stage: str) -> None:
        if self.nights:
            return
        self.prepare_data()
        nights = [self._load(artifact) for artifact in self.artifacts]
        if len({night.decibels.shape[1:] for night in nights}) > 1:
            raise BadInput("datamodule.source", "has recordings of different layout", "give one kind of recording")
        if self.split_options["method"] == "blocks":
            nights, self.split = _blocks(nights, **self.split_options)
        else:
            self.split = make_split([n.subject_id for n in nights], **self.split_options)
        for part in PARTS:
            wanted = set(self.split.subjects(part))
            self.nights[part] = NightDataset([n for n in nights if n.subject_id in wanted])
            if not (self.nights[part].stages != UNSCORED).any():
                raise BadInput(
                    "datamodule.split", f"the {part} subjects have no scored epoch", "choose another split seed"
                )
        self._fit_statistics()

    def _load(self, artifact: EpochArtifact) -> NightEpochs:
        epochs = read_epochs(artifact.path)
        levels = night_view(epochs.features, epochs.usable, self.views)
        stages = torch.from_numpy(epochs.stages).long()
        return NightEpochs(
            artifact.recording_id, artifact.subject_id, torch.from_numpy(levels.astype(np.float16)), stages
        )

    def _fit_statistics(self) -> None:
        counts = self._class_counts("train")
        if (counts > 0).sum() < 2:
            only = ", ".join(c for c, n in zip(self.classes, counts, strict=True) if n)
            raise BadInput("datamodule", f"the training subjects have one stage only ({only})", "add scored recordings")
        levels = torch.cat([night.decibels for night in self.nights["train"].nights]).float()
        known = levels[~levels.isnan().flatten(1).any(1)]
        self.mean_db, self.std_db = known.mean((0, 3)), known.std((0, 3))

    @property
    def signal(self) -> SignalSpec:
        """What the network sees: a window of epochs."""
        epoch = self.nights["train"].nights[0].decibels.shape[1:]
        spec = super().signal
        return replace(spec, axes=("epoch", *spec.axes), shape=(self.window_epochs, *epoch))

    def steps(self) -> list[dict[str, Any]]:
        """The preprocessing a bundle has to repeat."""
        view = {"step": NIGHT_VIEW, "version": NIGHT_VIEW_VERSION, "params": {"views": self.views}}
        return [*super().steps(), view]

    def recordings(self, part: Part) -> list[str]:
        """Recording ids in the order that the batches' third element counts."""
        return self.nights[part].recordings

    def summary(self) -> dict[str, dict[str, Any]]:
        """Subjects, nights, scored epochs and epochs per stage of each part."""
        return {
            part: {
                "subjects": len(self.split.subjects(part)),
                "nights": len(nights),
                "epochs": int((nights.stages != UNSCORED).sum()),
                **{c: int(n) for c, n in zip(self.classes, self._class_counts(part), strict=True)},
            }
            for part, nights in self.nights.items()
        }

    def _class_counts(self, part: Part) -> np.ndarray:
        stages = self.nights[part].stages
        return torch.bincount(stages[stages != UNSCORED], minlength=len(self.classes)).numpy()

    def train_dataloader(self) -> DataLoader[Batch]:
        dataset = WindowDataset(self.nights["train"].nights, self.window_epochs)
        rank, world = self._place()
        windows = RandomWindows(
            [len(n.stages) for n in dataset.nights],
            self.window_epochs,
            self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world,
        )
        return DataLoader(dataset, batch_size=None, sampler=windows, num_workers=0)

    def _loader(self, part: Part, seed: int | None) -> DataLoader[Batch]:
        rank, world = self._place()
        nights = range(rank, len(self.nights[part]), world)
        return DataLoader(self.nights[part], batch_size=None, sampler=list(nights), num_workers=0)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.trainer is None or not self.trainer.training:
            return batch
        levels, stages, recording = batch
        return self.levels_augment(levels, self.mean_db, self.std_db), stages, recording


def _blocks(
    nights: Sequence[NightEpochs], *, method: str, val: float, test: float, gap_epochs: int, seed: int
) -> tuple[list[NightEpochs], Split]:
    """Every recording as three, one for each part."""
    blocks, parts = [], {}
    for night in nights:
        for part, places in split_blocks(len(night.stages), val=val, test=test, gap=gap_epochs).items():
            name, some = f"{night.recording_id} {part}", slice(places.start, places.stop)
            blocks.append(NightEpochs(name, name, night.decibels[some], night.stages[some]))
            parts[name] = part
    return blocks, Split(f"{method}(val={val}, test={test}, gap_epochs={gap_epochs})", seed, parts)
