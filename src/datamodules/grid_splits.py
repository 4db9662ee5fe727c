"""Which frames of a recording train, validate and test, and the control in which nothing can be forecast."""

from __future__ import annotations

import itertools

import numpy as np

from src.datamodules.splits import PARTS, Part, split_blocks
from src.preprocess.calcium.grid_index import SubjectGrids
from src.preprocess.calcium.sampling import seeded_rng
from src.signals import BadInput

Stretches = dict[Part, list[range]]


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


def split_frames(
    grids: SubjectGrids, *, method: str, val: float, test: float, block_frames: int, gap_frames: int | None, seed: int
) -> Stretches:
    """Training, validation and test stretches of one subject.

    Parameters
    ----------
    method
        ``recorded``: test frames are those of the file, and validation blocks are drawn from its training
        frames. ``blocks``: three consecutive blocks of the recording, for files that have no test frames.
    val, test
        Shares; ``test`` is read by ``blocks`` alone.
    block_frames
        Length of a validation block (``recorded``).
    gap_frames
        Frames left out between parts; by default as many as the file leaves around its test blocks.

    Raises
    ------
    BadInput
        If a part would be empty.
    """
    gap = grids.guard_frames if gap_frames is None else gap_frames
    parts: dict[Part, np.ndarray] = {part: np.zeros(grids.frames, bool) for part in PARTS}
    if method == "blocks":
        for part, block in split_blocks(grids.frames, val=val, test=test, gap=gap).items():
            parts[part][block.start : block.stop] = grids.is_valid[block.start : block.stop]
    elif method == "recorded":
        trainable = grids.is_train & grids.is_valid
        blocks = [
            range(first, min(first + block_frames, run.stop))
            for run in consecutive(trainable, grids.timepoints)
            for first in range(run.start, run.stop, block_frames)
        ]
        blocks = [b for b in blocks if 2 * len(b) > block_frames]
        count = max(1, round(val * trainable.sum() / block_frames))
        if len(blocks) <= count:
            hint = f"lower split.block_frames ({block_frames}), or take split.method=blocks"
            raise BadInput(grids.source, f"has {len(blocks)} blocks to train and validate on", hint)
        for number in seeded_rng(seed, grids.subject, "validation").permutation(len(blocks))[:count]:
            parts["val"][blocks[number].start : blocks[number].stop] = True
        near = np.convolve(parts["val"], np.ones(2 * gap + 1), "same" if grids.frames > 2 * gap else "full") > 0.5
        parts["train"] = trainable & ~(near[: grids.frames] | parts["val"])
        parts["test"] = grids.is_test & grids.is_valid
    else:
        raise BadInput("datamodule.split.method", f"unknown method {method!r}", "choose recorded or blocks")
    for part in PARTS:
        if not parts[part].any():
            raise BadInput(grids.source, f"no frame is left for {part}", "take split.method=blocks, or other shares")
    return {part: consecutive(parts[part], grids.timepoints) for part in PARTS}


def shuffled(grids: SubjectGrids, stretches: Stretches, seed: int) -> SubjectGrids:
    """Every voxel's activity permuted in time over all frames of all parts: rates stay, structure goes.

    Permuting inside each stretch would leave that some voxels fire more in one stretch than in another, from
    which a network forecasts quite well.
    """
    frames = np.array([t for part in PARTS for run in stretches[part] for t in run])
    active = grids.raster(0, grids.frames)
    active[frames] = seeded_rng(seed, grids.subject, "shuffle").permuted(active[frames], axis=0)
    return grids.with_raster(active)
