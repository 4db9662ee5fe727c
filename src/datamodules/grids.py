"""Grids of one or many subjects as windows of frames to see and to forecast, and as the original's plane-frames."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from torch import Tensor
from torch.utils.data import Dataset

from src.datamodules.grid_splits import GridSplit, Stretches, look_ahead, shuffled, split_frames
from src.datamodules.grid_statistics import training_statistics
from src.datamodules.loaders import PartLoaders, as_is
from src.datamodules.splits import PARTS, Part, Split
from src.preprocess.calcium.grid import HEIGHT, PIXELS, WIDTH
from src.preprocess.calcium.grid_index import GRID_INDEX, SubjectGrids, find_grids, read_grids
from src.preprocess.calcium.grid_store import COO_FILE
from src.preprocess.calcium.grid_windows import WindowBatch, WindowFrames, as_dense, as_sparse, window_batch
from src.signals import BadInput, Origin, SignalSpec, require_range
from src.simulate.grids import POSITIONS, SIMULATED_GRIDS, ChainedActivity
from src.storage.step import ensure

LAYOUTS = ("indices", "sparse_coo", "dense")
"""How a batch may hold the frames that are seen."""


class GridWindows(Dataset[WindowBatch]):
    """All windows inside the stretches of one part. A DataLoader needs ``collate_fn=as_is``: batches are made here.

    Parameters
    ----------
    subjects, stretches
        The subjects, and of each its usable stretches.
    frames
        Frames that are seen, passed over and forecast.
    stride
        Frames between the beginnings of two windows.

    Attributes
    ----------
    layout
        One of :data:`LAYOUTS`. But for ``indices`` a batch has ``image`` in place of ``voxel_index`` and ``counts``.
    recordings
        Names of the subjects, in the order in which batches count them.
    statistics
        Gives what was fitted on the training frames; the datamodule fills it in.
    """

    def __init__(
        self,
        subjects: Sequence[SubjectGrids],
        stretches: Sequence[Sequence[range]],
        frames: WindowFrames,
        stride: int = 1,
    ) -> None:
        self.subjects, self.frames = list(subjects), frames
        self.layout = LAYOUTS[0]
        self.recordings = [grids.subject for grids in subjects]
        self.statistics: Callable[[], Mapping[str, np.ndarray]] = dict
        pairs = [
            (number, first)
            for number, runs in enumerate(stretches)
            for run in runs
            for first in range(run.start, run.stop - frames.length + 1, stride)
        ]
        self.windows = np.array(pairs, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> WindowBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> WindowBatch:
        batch = window_batch(self.subjects, self.windows[indices], self.frames)
        if self.layout == "indices":
            return batch
        image = (as_dense if self.layout == "dense" else as_sparse)(batch, self.subjects)
        return batch._replace(voxel_index=batch.voxel_index[:0], counts=batch.counts[:0], image=image)


class PlaneSequences(Dataset[tuple[Tensor, Tensor]]):
    """The original's examples: ``length`` plane-frames in a row, time-major and z-minor, of one stretch.

    An example is ``(pixel, counts)``: int32 pixel numbers, plane-frame by plane-frame, and how many each has. It
    is made from one slice of the subject's arrays. :meth:`dense` is its image stack.
    """

    def __init__(
        self,
        subjects: Sequence[SubjectGrids],
        stretches: Sequence[Sequence[range]],
        *,
        length: int = 330,
        stride: int = 330,
    ) -> None:
        self.subjects, self.length = list(subjects), length
        pairs = [
            (number, first)
            for number, (subject, runs) in enumerate(zip(subjects, stretches, strict=True))
            for run in runs
            for first in range(run.start * subject.planes, run.stop * subject.planes - length + 1, stride)
        ]
        self.sequences = np.array(pairs, np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixel, sizes = self._pixels(index)
        return torch.from_numpy(pixel.astype(np.int32)), torch.from_numpy(sizes)

    def dense(self, index: int, *, markers: bool, out: Tensor | None = None) -> Tensor:
        """``(plane-frame, 256, 128)`` uint8; ``out`` is filled and returned where given."""
        pixel, sizes = self._pixels(index)
        out = torch.empty(self.length, HEIGHT, WIDTH, dtype=torch.uint8) if out is None else out
        image = out.numpy().reshape(-1)
        image.fill(0)
        image[np.repeat(np.arange(self.length) * PIXELS, sizes) + pixel] = 1
        if markers:
            number, first = self.sequences[index]
            for place in range(self.length):
                plane = int(first + place) % self.subjects[number].planes
                out[place, :2, WIDTH - min(plane + 2, WIDTH) :] = 1
        return out

    def _pixels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        number, first = self.sequences[index]
        subject = self.subjects[number]
        pointer = subject.indptr[first : first + self.length + 1]
        return subject.pixels[subject.voxel_index[pointer[0] : pointer[-1]]], np.diff(pointer)


@dataclass(frozen=True)
class Windows:
    """Which frames make an example.

    Attributes
    ----------
    context, horizon
        Frames that are seen, and frames to forecast, counted after the gap.
    gap
        Frames between context and target. ``None``: as many later frames as the activity of a frame was inferred from,
        which the grid file states (``frames_after``). With fewer, the context knows the target's fluorescence.
    stride, held_out_stride
        Frames between the beginnings of two windows, in training and in the held-out parts.
    """

    context: int = 12
    horizon: int = 8
    gap: int | None = None
    stride: int = 1
    held_out_stride: int = 2

    def __post_init__(self) -> None:
        require_range("datamodule.windows", 0, gap=self.gap)
        require_range("datamodule.windows", 1, **{k: v for k, v in vars(self).items() if k != "gap"})


class GridData(PartLoaders):
    """Grid files (or simulated subjects) → index lists in memory → batches of windows.

    Parameters
    ----------
    root
        Folder of processed subjects, sparse or dense; ``None`` makes the embedded simulated ones.
    simulated
        For ``root=None``: a list ``subjects`` of changes to ``common``, both with the fields of
        :class:`~src.simulate.grids.ChainedActivity`; ``seed``; and ``positions``, a text
        file of coordinates in place of the simulated brain's.
    windows
        Arguments of :class:`Windows`.
    split
        Arguments of :class:`~src.datamodules.grid_splits.GridSplit`.
    layout
        How a batch holds the frames that are seen: ``indices`` (lists of active voxels), ``sparse_coo`` (a coalesced
        ``torch.sparse_coo_tensor``) or ``dense``, both ``(window, frame, plane, 256, 128)`` uint8 without z-markers.
        The networks of this repository train on all three alike.
    batch_size
        Windows of a step over all processes.
    execution
        :class:`~src.datamodules.loaders.Execution`: cache, seed of the order and of the split.
    """

    def __init__(
        self,
        root: str | None,
        simulated: dict[str, Any],
        windows: dict[str, Any],
        split: dict[str, Any],
        layout: str = "indices",
        batch_size: int = 32,
        execution: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(batch_size, execution)
        if layout not in LAYOUTS:
            raise BadInput("datamodule.layout", f"is {layout!r}", f"choose from: {', '.join(LAYOUTS)}")
        self.root, self.simulated = root, simulated
        self.windows, self.layout = Windows(**windows), layout
        self.collate, self.split_options = as_is, GridSplit(**split)
        self.classes = ["active"]
        self.subjects: list[SubjectGrids] = []
        self.stretches: list[Stretches] = []
        self.datasets: dict[Part, GridWindows] = {}

    def prepare_data(self) -> None:
        """Simulate subjects where no folder is given, and read the active voxels of all."""
        if self.subjects:
            return
        self.subjects = [read_grids(path, name) for name, path in self.inputs().items()]
        if (gap := self.windows.gap) is not None:  # what the user says of files that do not say it themselves
            self.subjects = [replace(s, frames_after=gap) if s.frames_after is None else s for s in self.subjects]
        names = [s.subject for s in self.subjects]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise BadInput(self.root or "simulated", f"has several files of {twice[0]}", "give one file per subject")

    def inputs(self) -> dict[str, Path]:
        """The grid files by subject: their content belongs to a run's identity."""
        if self.root is not None:
            return find_grids(Path(self.root))
        expected = ("seed", "positions", "common", "subjects")
        if set(self.simulated) != set(expected) or not self.simulated["subjects"]:
            hint = "give subjects: [{cells: 900, planes: 5}] and whatever differs from conf/datamodule/grids.yaml"
            raise BadInput("datamodule.simulated", f"has to hold {', '.join(expected)}, and one subject or more", hint)
        made = {}
        positions = self.simulated["positions"]
        inputs = {POSITIONS: Path(positions)} if positions else {}
        cache, seed = Path(self.execution.cache_dir), int(self.simulated["seed"])
        for number, changes in enumerate(self.simulated["subjects"], start=1):
            given = {**self.simulated["common"], **changes}
            known = {f.name for f in fields(ChainedActivity)}
            if unknown := sorted(set(given) - known):
                hint = f"choose from: {', '.join(sorted(known))}"
                raise BadInput("datamodule.simulated", f"has no setting {unknown[0]!r}", hint)
            name = f"simulated_{number}"
            params = {"subject": name, **asdict(ChainedActivity(**given))}
            folder = ensure(SIMULATED_GRIDS, inputs, params, label=name, cache=cache, seed=seed).path
            made[name] = folder / COO_FILE
        return made

    def setup(self, stage: str) -> None:
        if self.datasets:
            return
        self.prepare_data()
        seed, length = self.execution.seed, self.frames.length
        self._warn_of_leaks()
        self.stretches = [split_frames(s, self.split_options, window_frames=length, seed=seed) for s in self.subjects]
        if self.split_options.shuffle:
            pairs = zip(self.subjects, self.stretches, strict=True)
            self.subjects = [shuffled(grids, stretches, seed) for grids, stretches in pairs]
        self.datasets = {part: self._windows(part) for part in PARTS}

    @cached_property
    def frames(self) -> WindowFrames:
        """Frames of a window, with the gap that the files ask for."""
        given = self.windows
        return WindowFrames(given.context, look_ahead(self.subjects) if given.gap is None else given.gap, given.horizon)

    @rank_zero_only
    def _warn_of_leaks(self) -> None:
        for grids in self.subjects:
            for key, gap in (("windows.gap", self.frames.gap), ("split.gap_frames", self.split_options.gap(grids))):
                if gap < (grids.frames_after or 0):
                    text = (
                        f"leaky: datamodule.{key} is {gap}, and {grids.source} was inferred from {grids.frames_after} "
                        "later frames, so that scores measure the inference too; null takes the file's number"
                    )
                    Console(stderr=True).print(text, style="yellow", soft_wrap=True)

    def _windows(self, part: Part) -> GridWindows:
        stride = self.windows.stride if part == "train" else self.windows.held_out_stride
        stretches = [stretches[part] for stretches in self.stretches]
        dataset = GridWindows(self.subjects, stretches, self.frames, stride)
        if not len(dataset):
            length, gap = self.frames.length, self.frames.gap
            problem = f"no stretch of {part} frames is {length} long (of which {gap} are the gap)"
            hint = "lower context or horizon, take split.method=blocks, or make grids with longer test blocks"
            raise BadInput("datamodule.windows", problem, hint)
        dataset.layout, dataset.statistics = self.layout, self.statistics
        return dataset

    @property
    def rate_hz(self) -> float:
        """The volume rate all subjects share.

        Raises
        ------
        BadInput
            If it is not known, or subjects differ.
        """
        rates = {s.fs_hz for s in self.subjects}
        rate = rates.pop()
        if rates or rate is None:
            problem = "has subjects of different volume rates" if rates else "has files that state no volume rate"
            hint = "train on one rate, which the files state in Hz (attribute sampling_rate)"
            raise BadInput(self.root or "simulated", problem, hint)
        return float(rate)

    @property
    def signal(self) -> SignalSpec:
        """A window of grids."""
        axes, context = ("time", "plane", "row", "column"), self.windows.context
        rate = self.rate_hz
        return SignalSpec(("active voxels",), rate, context / rate, "0 or 1", axes, (context, None, HEIGHT, WIDTH))

    @property
    def split(self) -> Split:
        """Stretches of every subject, named by their frames."""
        parts: dict[str, Part] = {
            f"{subject.subject}[{run.start}:{run.stop}]": part
            for subject, stretches in zip(self.subjects, self.stretches, strict=True)
            for part in PARTS
            for run in stretches[part]
        }
        return Split(f"frames({self.split_options.method}, gap {self.frames.gap})", self.execution.seed, parts)

    def steps(self) -> list[dict[str, Any]]:
        """What a grid file goes through before the network."""
        return [GRID_INDEX]

    def origin(self) -> Origin:
        """What was trained on."""
        cohort = "chained activity" if self.root is None else Path(self.root).name
        runs = [(s, run) for s, st in zip(self.subjects, self.stretches, strict=True) for run in st["train"]]
        hours = sum(len(run) for _, run in runs) / self.rate_hz / 3600
        recorded = self.root is not None and not any(s.simulated for s in self.subjects)
        return Origin(recorded, (cohort,), len(self.subjects), hours)

    def statistics(self) -> Mapping[str, np.ndarray]:
        """See :func:`~src.datamodules.grid_statistics.training_statistics`; computed when first asked for."""
        return self._statistics

    @cached_property
    def _statistics(self) -> dict[str, np.ndarray]:
        return training_statistics(self.subjects, self.stretches, self.frames)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Subjects, frames, windows, active voxels of each part, and the frames between context and target."""
        rows: dict[str, dict[str, Any]] = {}
        for part in PARTS:
            runs = [(s, run) for s, st in zip(self.subjects, self.stretches, strict=True) for run in st[part]]
            active = sum(int(np.diff(s.indptr[[r.start * s.planes, r.stop * s.planes]])[0]) for s, r in runs)
            per_frame = sum(len(s.voxels) * len(run) for s, run in runs)
            rows[part] = {
                "subjects": len(self.subjects),
                "stretches": len(runs),
                "frames": sum(len(run) for _, run in runs),
                "windows": len(self.datasets[part]),
                "active voxels": active,
                "% of occupied": 100 * active / per_frame,
                "gap": self.frames.gap,
            }
        return rows

    def sequences(self, part: Part, length: int = 330, stride: int = 330) -> PlaneSequences:
        """The original's sequences of plane-frames of one part."""
        return PlaneSequences(self.subjects, [st[part] for st in self.stretches], length=length, stride=stride)
