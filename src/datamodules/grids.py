"""Grids of one or many subjects as windows of frames to see and frames to forecast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader

from src.datamodules.grid_components import components, score_products
from src.datamodules.grid_examples import GridWindows, PlaneSequences
from src.datamodules.grid_splits import Stretches, shuffled, split_frames
from src.datamodules.loaders import as_is, evaluation_loader, training_loader
from src.datamodules.splits import PARTS, Part, Split
from src.preprocess.calcium.grid import HEIGHT, WIDTH
from src.preprocess.calcium.grid_index import GRID_INDEX, SubjectGrids, find_grids, load_grids
from src.preprocess.calcium.grid_store import COO_FILE
from src.preprocess.calcium.grid_windows import GridImages, WindowBatch
from src.signals import BadInput, Origin, SignalSpec
from src.simulate.grids import POSITIONS, SIMULATED_GRIDS, ChainedActivity
from src.storage.step import ensure

_VOXELS_AT_ONCE = 4096


class GridData(pl.LightningDataModule):
    """Grid files (or simulated subjects) → index lists in memory → batches of windows.

    Parameters
    ----------
    root
        Folder of processed subjects, sparse or dense; ``None`` makes the embedded simulated ones.
    simulated
        For ``root=None``: a list ``subjects`` of changes to ``common``, both with the fields of
        :class:`~src.simulate.grids.ChainedActivity`; ``seed``; and ``positions``, a text
        file of coordinates in place of the simulated brain's.
    context, horizon
        Frames that are seen, and frames to forecast.
    stride, held_out_stride
        Frames between the beginnings of two windows, in training and in the held-out parts.
    split
        Arguments of :func:`~src.datamodules.grid_splits.split_frames` but the seed.
    shuffle
        Permute every voxel's activity in time, over all parts: the control in which nothing can be forecast.
    markers
        Whether images carry the z-markers; index lists never do.
    fs_hz
        Volume rate, where the files do not state it.
    batch_size, workers, cache_dir, seed
        Windows of a step over all processes; loader processes, where the index is kept; seed of the order.
    """

    def __init__(
        self,
        root: str | None,
        simulated: dict[str, Any],
        context: int,
        horizon: int,
        stride: int,
        held_out_stride: int,
        split: dict[str, Any],
        shuffle: bool,
        markers: bool,
        fs_hz: float | None,
        batch_size: int,
        workers: int,
        cache_dir: str,
        seed: int,
    ) -> None:
        super().__init__()
        self.root, self.simulated = root, simulated
        self.context, self.horizon, self.strides = context, horizon, (stride, held_out_stride)
        self.split_options, self.shuffle, self.markers, self.fs_hz = split, shuffle, markers, fs_hz
        self.batch_size, self.workers, self.cache_dir, self.seed = batch_size, workers, Path(cache_dir), seed
        self.classes = ["active"]
        self.subjects: list[SubjectGrids] = []
        self.stretches: list[Stretches] = []
        self.datasets: dict[Part, GridWindows] = {}
        self._images: GridImages | None = None

    def prepare_data(self) -> None:
        """Simulate subjects where no folder is given, and put every file's index into the cache."""
        if self.subjects:
            return
        self.subjects = [load_grids(path, name, self.cache_dir) for name, path in self.files().items()]
        names = [s.subject for s in self.subjects]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise BadInput(self.root or "simulated", f"has several files of {twice[0]}", "give one file per subject")

    def inputs(self) -> dict[str, Path]:
        """The grid files by subject: their content belongs to a run's identity."""
        return self.files()

    def files(self) -> dict[str, Path]:
        """Grid files by subject."""
        if self.root is not None:
            return find_grids(Path(self.root))
        made = {}
        positions = self.simulated["positions"]
        inputs = {POSITIONS: Path(positions)} if positions else {}
        for number, changes in enumerate(self.simulated["subjects"], start=1):
            given = {**self.simulated["common"], **changes}
            known = {f.name: f.default for f in fields(ChainedActivity)}
            if unknown := sorted(set(given) - set(known)):
                hint = f"choose from: {', '.join(known)}"
                raise BadInput("datamodule.simulated", f"has no setting {unknown[0]!r}", hint)
            name = f"simulated_{number}"
            params = {"subject": name, **known, **given}
            seed = int(self.simulated["seed"])
            made[name] = (
                ensure(SIMULATED_GRIDS, inputs, params, label=name, cache=self.cache_dir, seed=seed).path / COO_FILE
            )
        return made

    def setup(self, stage: str) -> None:
        if self.datasets:
            return
        self.prepare_data()
        self.stretches = [split_frames(s, **self.split_options, seed=self.seed) for s in self.subjects]
        if self.shuffle:
            self.subjects = [
                shuffled(s, stretches, self.seed) for s, stretches in zip(self.subjects, self.stretches, strict=True)
            ]
        for part in PARTS:
            self.datasets[part] = GridWindows(
                self.subjects,
                [stretches[part] for stretches in self.stretches],
                context=self.context,
                horizon=self.horizon,
                stride=self.strides[part != "train"],
            )
            if not len(self.datasets[part]):
                needed = self.context + self.horizon
                raise BadInput(
                    "datamodule", f"no stretch of {part} frames is {needed} long", "lower context or horizon"
                )

    @property
    def rate_hz(self) -> float:
        """The volume rate all subjects share.

        Raises
        ------
        BadInput
            If it is not known, or subjects differ.
        """
        rates = {self.fs_hz or s.fs_hz for s in self.subjects}
        rate = rates.pop()
        if rates or rate is None:
            problem = "subjects have different volume rates" if rates else "the files state no volume rate"
            raise BadInput("datamodule.fs_hz", problem, "train on one rate; give it as datamodule.fs_hz")
        return float(rate)

    @property
    def signal(self) -> SignalSpec:
        """A window of grids."""
        axes = ("time", "plane", "row", "column")
        rate = self.rate_hz
        return SignalSpec(
            ("active voxels",), rate, self.context / rate, "0 or 1", axes, (self.context, None, HEIGHT, WIDTH)
        )

    @property
    def split(self) -> Split:
        """Stretches of every subject, named by their frames."""
        parts: dict[str, Part] = {
            f"{subject.subject}[{run.start}:{run.stop}]": part
            for subject, stretches in zip(self.subjects, self.stretches, strict=True)
            for part in PARTS
            for run in stretches[part]
        }
        return Split(f"frames({self.split_options['method']})", self.seed, parts)

    def steps(self) -> list[dict[str, Any]]:
        """What a grid file goes through before the network."""
        return [GRID_INDEX.describe({})]

    def origin(self) -> Origin:
        """What was trained on."""
        cohort = "chained activity" if self.root is None else Path(self.root).name
        runs = [(s, run) for s, st in zip(self.subjects, self.stretches, strict=True) for run in st["train"]]
        hours = sum(len(run) / (s.fs_hz or self.signal.fs_hz) for s, run in runs) / 3600
        return Origin(self.root is not None, (cohort,), len(self.subjects), hours)

    def statistics(self) -> dict[str, np.ndarray]:
        """Occupied voxels and rates of the training frames, and their lagged products for the baselines.

        ``offsets (subject + 1,)`` cuts ``voxels``, ``rates (voxel,)`` and ``autocovariance (part, voxel, lag)``, of
        training and validation frames, into subjects. ``components (voxel, component)`` of the training frames and
        ``score_products (part, subject, …)`` are those of :mod:`~src.datamodules.grid_components`.
        """
        lags = self.context + self.horizon
        moments = [_moments(s, st["train"], lags) for s, st in zip(self.subjects, self.stretches, strict=True)]
        checked = [
            _moments(s, st["val"], lags, rates=rates)[1]
            for s, st, (rates, _) in zip(self.subjects, self.stretches, moments, strict=True)
        ]
        axes, products = [], []
        for s, st, (rates, _) in zip(self.subjects, self.stretches, moments, strict=True):
            axes.append(components(s, st["train"], rates))
            products.append([score_products(s, st[part], rates, axes[-1], lags) for part in ("train", "val")])
        return {
            "subjects": np.array([s.subject for s in self.subjects]),
            "planes": np.array([s.planes for s in self.subjects]),
            "offsets": np.concatenate([[0], np.cumsum([len(s.voxels) for s in self.subjects])]),
            "voxels": np.concatenate([s.voxels for s in self.subjects]),
            "rates": np.concatenate([rates for rates, _ in moments]),
            "autocovariance": np.stack([np.concatenate([c for _, c in moments]), np.concatenate(checked)]),
            "components": np.concatenate(axes),
            "score_products": np.stack(products, axis=1),
            "context": np.array(self.context),
            "horizon": np.array(self.horizon),
        }

    def summary(self) -> dict[str, dict[str, Any]]:
        """Subjects, frames, windows and active voxels of each part."""
        rows: dict[str, dict[str, Any]] = {}
        for part in PARTS:
            runs = [(s, run) for s, st in zip(self.subjects, self.stretches, strict=True) for run in st[part]]
            active = sum(int(np.diff(s.indptr[[r.start * s.planes, r.stop * s.planes]])[0]) for s, r in runs)
            frames = sum(len(run) for _, run in runs)
            per_frame = sum(len(s.voxels) * len(run) for s, run in runs)
            rows[part] = {
                "subjects": len(self.subjects),
                "stretches": len(runs),
                "frames": frames,
                "windows": len(self.datasets[part]),
                "active voxels": active,
                "% of occupied": 100 * active / per_frame,
            }
        return rows

    def sequences(self, part: Part, length: int = 330, stride: int = 330) -> PlaneSequences:
        """The original's sequences of plane-frames of one part."""
        return PlaneSequences(self.subjects, [st[part] for st in self.stretches], length=length, stride=stride)

    def train_dataloader(self) -> DataLoader[WindowBatch]:
        return training_loader(
            self.datasets["train"], self.batch_size, seed=self.seed, trainer=self.trainer, collate=as_is
        )

    def val_dataloader(self) -> DataLoader[WindowBatch]:
        return evaluation_loader(self.datasets["val"], self.batch_size, trainer=self.trainer, collate=as_is)

    def test_dataloader(self) -> DataLoader[WindowBatch]:
        return evaluation_loader(self.datasets["test"], self.batch_size, trainer=self.trainer, collate=as_is)

    def predict_dataloader(self) -> DataLoader[WindowBatch]:
        """The test windows."""
        return self.test_dataloader()

    def on_after_batch_transfer(self, batch: WindowBatch, dataloader_idx: int) -> WindowBatch:
        trainer = self.trainer
        network: Any = trainer.lightning_module.network if trainer is not None else None
        return self.with_image(batch, getattr(network, "coarsen", None))

    def with_image(self, batch: WindowBatch, coarsen: int | None) -> WindowBatch:
        """The batch with its image, where a network states by how much it is to be ``coarsen``\\ ed."""
        if coarsen is None:
            return batch
        if self._images is None or self._images.coarsen != coarsen:
            self._images = GridImages(self.subjects, coarsen=coarsen, markers=self.markers)
        return batch._replace(image=self._images(batch))


def _moments(
    grids: SubjectGrids, runs: Sequence[range], lags: int, *, rates: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rates ``(voxel,)`` and lagged covariances ``(voxel, lag)`` about them, over pairs inside a stretch."""
    count, frames = len(grids.voxels), sum(len(run) for run in runs)
    products, pairs = np.zeros((count, lags)), np.zeros(lags)
    total = np.zeros(count)
    for run in runs:
        raster = grids.raster(run.start, run.stop)
        for first in range(0, count, _VOXELS_AT_ONCE):
            block = slice(first, first + _VOXELS_AT_ONCE)
            active = np.ascontiguousarray(raster[:, block])
            total[block] += active.sum(axis=0)
            for lag in range(min(lags, len(run))):
                products[block, lag] += (active[: len(run) - lag] & active[lag:]).sum(axis=0)
        pairs += np.maximum(len(run) - np.arange(lags), 0)
    # A voxel that never fired in training may still fire: half a spike keeps its log-odds finite.
    fitted = (total + 0.5 * (total == 0)) / frames if rates is None else rates
    own = total / frames
    lagged = products / np.maximum(pairs, 1) - fitted[:, None] * (2 * own - fitted)[:, None]
    return fitted.astype(np.float32), lagged.astype(np.float32)
