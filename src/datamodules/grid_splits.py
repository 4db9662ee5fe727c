"""Which frames of a recording train, validate and test, and the control in which nothing can be forecast."""

import csv
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.datamodules.splits import PARTS, Part, split_blocks
from src.preprocess.calcium.grid_index import SubjectGrids
from src.preprocess.calcium.sampling import seeded_rng
from src.signals import BadInput, counted, require_range

Stretches = dict[Part, list[range]]
METHODS = ("recorded", "condition", "blocks")
BLOCK_FRAMES = 200


@dataclass(frozen=True)
class GridSplit:
    """How the frames of a recording are split.

    Attributes
    ----------
    method
        ``recorded``: test frames are those of the file. ``condition``: test frames are those of one experimental
        condition. Both draw validation blocks from the other frames. ``blocks``: three consecutive blocks of the
        recording, for files that have no test frames.
    val, test
        Shares; ``test`` is read by ``blocks`` alone.
    block_frames
        Frames of a validation block; ``None``: 200, or two windows if these are longer.
    gap_frames
        Frames left out between parts; ``None``: as many as the file leaves around its test blocks, and at least as
        many as the activity of a frame was inferred from after it.
    conditions, held_out
        For ``condition``: a CSV file, see :func:`read_conditions`, and the condition that is tested.
    shuffle
        Permute every voxel's activity in time, over all parts: see :func:`shuffled`.
    """

    method: str = "recorded"
    val: float = 0.15
    test: float = 0.2
    block_frames: int | None = None
    gap_frames: int | None = None
    conditions: str | None = None
    held_out: str | None = None
    shuffle: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            hint = f"choose from: {', '.join(METHODS)}"
            raise BadInput("datamodule.split.method", f"is {self.method!r}", hint)
        require_range("datamodule.split", 0, 1, val=self.val, test=self.test)
        require_range("datamodule.split", 0, gap_frames=self.gap_frames)
        require_range("datamodule.split", 1, block_frames=self.block_frames)
        if self.method == "condition" and not (self.conditions and self.held_out):
            hint = "give split.conditions=<CSV file> and split.held_out=<condition>"
            raise BadInput("datamodule.split", "method=condition needs the conditions and the one to test", hint)

    def gap(self, grids: SubjectGrids) -> int:
        """Frames between two parts of this recording."""
        return max(grids.guard_frames, grids.frames_after or 0) if self.gap_frames is None else self.gap_frames


def look_ahead(subjects: Sequence[SubjectGrids]) -> int:
    """The most later frames that the activity of a frame was inferred from, over all subjects.

    Raises
    ------
    BadInput
        If a file does not say.
    """
    for grids in subjects:
        if grids.frames_after is None:
            problem = "does not say from how many later frames the spikes of a frame were inferred (frames_after)"
            hint = (
                "give datamodule.windows.gap=<frames>: for CASCADE 32 and half of the baseline's window, "
                "0 if the spikes were recorded, not inferred"
            )
            raise BadInput(grids.source, problem, hint)
    return max(grids.frames_after or 0 for grids in subjects)


def consecutive(usable: np.ndarray, timepoints: np.ndarray) -> list[range]:
    """Maximal stretches of usable frames whose original numbers follow one another."""
    edges = np.flatnonzero(np.diff(timepoints) != 1) + 1
    marks = usable.astype(np.int8)
    starts = np.flatnonzero(np.diff(marks, prepend=0) == 1)
    stops = np.flatnonzero(np.diff(marks, append=0) == -1) + 1
    found = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        cuts = [start, *edges[(edges > start) & (edges < stop)].tolist(), stop]
        found += [range(a, b) for a, b in itertools.pairwise(cuts)]
    return found


def split_frames(grids: SubjectGrids, split: GridSplit, *, window_frames: int, seed: int) -> Stretches:
    """Training, validation and test stretches of one subject.

    Parameters
    ----------
    window_frames
        Frames of a window, from the first context frame to the last that is forecast.

    Raises
    ------
    BadInput
        If a part would be empty.
    """
    gap = split.gap(grids)
    parts: dict[Part, np.ndarray] = {part: np.zeros(grids.frames, bool) for part in PARTS}
    if split.method == "blocks":
        for part, block in split_blocks(grids.frames, val=split.val, test=split.test, gap=gap).items():
            parts[part][block.start : block.stop] = grids.is_valid[block.start : block.stop]
    else:
        is_test, may_train = grids.is_test, grids.is_train
        if split.method == "condition":
            is_test = read_conditions(Path(str(split.conditions)), grids) == split.held_out
            may_train = ~is_test
        parts["test"] = is_test & grids.is_valid
        trainable = may_train & grids.is_valid & ~_near(is_test, gap)
        length = split.block_frames or max(BLOCK_FRAMES, 2 * window_frames)
        for block in _validation_blocks(grids, trainable, split.val, length, seed):
            parts["val"][block.start : block.stop] = True
        parts["train"] = trainable & ~_near(parts["val"], gap)
    for part in PARTS:
        if not parts[part].any():
            raise BadInput(grids.source, f"no frame is left for {part}", "take split.method=blocks, or other shares")
    return {part: consecutive(parts[part], grids.timepoints) for part in PARTS}


def _near(chosen: np.ndarray, gap: int) -> np.ndarray:
    """Frames that are chosen or at most ``gap`` frames from one that is."""
    near: np.ndarray = np.convolve(chosen, np.ones(2 * gap + 1))[gap : gap + len(chosen)] > 0.5
    return near


def _validation_blocks(grids: SubjectGrids, trainable: np.ndarray, share: float, length: int, seed: int) -> list[range]:
    blocks = [
        range(first, min(first + length, run.stop))
        for run in consecutive(trainable, grids.timepoints)
        for first in range(run.start, run.stop, length)
    ]
    blocks = [b for b in blocks if 2 * len(b) > length]
    count = max(1, round(share * trainable.sum() / length))
    if len(blocks) <= count:
        hint = f"lower split.block_frames ({length}), or take split.method=blocks"
        raise BadInput(grids.source, f"has {counted(len(blocks), 'block')} to train and validate on", hint)
    order = seeded_rng(seed, grids.subject, "validation").permutation(len(blocks))
    return [blocks[number] for number in order[:count]]


def read_conditions(path: Path, grids: SubjectGrids) -> np.ndarray:
    """``(time,)`` condition of every frame of a recording; empty text where the file names none.

    Parameters
    ----------
    path
        CSV file with a row per stretch of frames: ``first_frame`` and ``last_frame`` (both included, the numbers of
        ``timepoint_indices``), ``condition``, and, where the stretches are not those of all recordings, ``subject``.

    Raises
    ------
    BadInput
        If the file cannot be read or has no row for the recording.
    """
    labels = np.full(grids.frames, "", object)
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            for row in csv.DictReader(handle):
                if row.get("subject") in (None, "", grids.subject):
                    first, last = int(row["first_frame"]), int(row["last_frame"])
                    labels[(grids.timepoints >= first) & (grids.timepoints <= last)] = row["condition"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        hint = "give a CSV file with the columns subject, first_frame, last_frame, condition"
        raise BadInput(path, f"is no table of conditions ({error})", hint) from error
    if not (labels != "").any():
        raise BadInput(path, f"has no condition for {grids.subject}", "add rows with its name in the column subject")
    return labels


def shuffled(grids: SubjectGrids, stretches: Stretches, seed: int) -> SubjectGrids:
    """Every voxel's activity permuted in time over all frames of all parts: its rate stays, its structure is destroyed.

    Permuting inside each stretch would leave that some voxels fire more in one stretch than in another, from
    which a network forecasts quite well.
    """
    frames = np.array([t for part in PARTS for run in stretches[part] for t in run])
    active = grids.raster(0, grids.frames)
    active[frames] = seeded_rng(seed, grids.subject, "shuffle").permuted(active[frames], axis=0)
    return grids.with_raster(active)
