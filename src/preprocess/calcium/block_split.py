"""Training and test stretches of one recording: whole blocks of time, with a gap around every test block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from src.preprocess.calcium.sampling import stream
from src.signals import BadInput

BLOCK_FRAMES = 330


@dataclass(frozen=True)
class BlockSplit:
    """Which frames train and which test; a frame in the gap does neither.

    Attributes
    ----------
    is_train, is_test
        ``(time,)`` uint8, never both 1.
    test_blocks
        Numbers of the blocks that test.
    guard_frames
        Frames left out on each side of a test block.
    """

    is_train: np.ndarray
    is_test: np.ndarray
    test_blocks: tuple[int, ...]
    guard_frames: int


def block_split(
    frames: int, split_ratio: float, seed: int, subject: str, guard_frames: int, block_frames: int = BLOCK_FRAMES
) -> BlockSplit:
    """Choose test blocks at random and leave a gap around them.

    Parameters
    ----------
    frames
        Length of the recording.
    split_ratio
        Share of the blocks that train. At least one block tests, if there is one; the frames after
        the last whole block train.
    seed, subject
        With a gap, every subject draws its own blocks. ``guard_frames=0`` reproduces the original
        pipeline to the bit: no gap, and the legacy generator with the bare seed, so that subjects of
        equal length share their test blocks.
    guard_frames
        Frames on each side of a test block that are taken out of the training set.
    block_frames
        Length of a block.

    Raises
    ------
    BadInput
        For a ratio outside (0, 1), or negative lengths.
    """
    if not 0 < split_ratio < 1:
        raise BadInput("split_ratio", f"{split_ratio} is not between 0 and 1", "give the training share, such as 0.95")
    if guard_frames < 0 or block_frames < 1:
        raise BadInput("split", f"guard {guard_frames} and block {block_frames} frames", "give lengths in frames")
    blocks = frames // block_frames
    is_test = np.zeros(frames, bool)
    numbers: np.ndarray = np.zeros(0, np.int64)
    if blocks:
        order = np.arange(blocks)
        if guard_frames == 0:
            np.random.RandomState(seed).shuffle(order)
            tests = max(1, int(blocks * (1 - split_ratio)))
        else:
            stream(seed, subject, "split").shuffle(order)
            # The small term undoes the rounding of 1 - ratio: 10 blocks at 0.9 are one block, not none.
            tests = max(1, int(blocks * (1 - split_ratio) + 1e-9))
        numbers = np.sort(order[:tests])
        for number in numbers:
            is_test[number * block_frames : (number + 1) * block_frames] = True
    reach = np.ones(2 * guard_frames + 1, bool)
    near_test = np.convolve(is_test, reach)[guard_frames : guard_frames + frames] > 0 if frames else is_test
    return BlockSplit(
        (~near_test).astype(np.uint8), is_test.astype(np.uint8), tuple(int(n) for n in numbers), guard_frames
    )
