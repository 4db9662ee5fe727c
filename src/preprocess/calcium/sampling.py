"""What is drawn at random: binary spikes, and the blocks of time that test.

Every draw depends on the seed, the subject and its purpose, and on nothing that ran before: workers, batches and
the order of the cells change nothing.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from src.signals import BadInput

BLOCK_FRAMES = 330
"""Length of a test block in the original pipeline."""


def seeded_rng(seed: int, subject: str, purpose: str, cell: int = 0) -> np.random.Generator:
    """A generator of its own for every seed, subject, purpose and cell."""
    digest = hashlib.sha256(f"{seed}/{subject}/{purpose}".encode()).digest()
    # The highest of the four counter words names the cell, so no cell's numbers can run into the next one's.
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], "<u8"), counter=[0, 0, 0, cell]))


class SpikeSampler:
    """Draws the spikes of one subject; two subjects never share draws.

    ``bernoulli``: a frame has a spike with probability min(λ, 1), as the original pipeline does; ``poisson``: with
    1 − exp(−λ), the chance of at least one spike when the count is Poisson. λ is CASCADE's output, the expected number
    of spikes in the frame.
    """

    def __init__(self, seed: int, subject: str, sampling: Literal["bernoulli", "poisson"] = "bernoulli") -> None:
        self.seed, self.subject, self.sampling = seed, subject, sampling

    def uniform(self, cell_id: int, frames: int) -> np.ndarray:
        """The cell's draws: ``(time,)`` float32 in [0, 1), multiples of 2⁻²⁴."""
        return seeded_rng(self.seed, self.subject, "spikes", cell_id).random(frames, dtype=np.float32)

    def sample(self, expected_spikes: np.ndarray, cell_ids: np.ndarray) -> np.ndarray:
        """Binary spikes ``(neuron, time)`` bool of the cells with these numbers; where NaN is expected, none."""
        rate = np.asarray(expected_spikes, dtype=np.float32)
        chance = rate if self.sampling == "bernoulli" else -np.expm1(-rate)
        spikes = np.zeros(rate.shape, dtype=bool)
        for row in np.flatnonzero((chance > 0).any(axis=1)):
            np.less(self.uniform(int(cell_ids[row]), rate.shape[1]), chance[row], out=spikes[row])
        return spikes


@dataclass(frozen=True)
class BlockSplit:
    """Which frames train and which test, ``(time,)`` uint8; a frame in the gap does neither.

    ``test_blocks`` are the numbers of the blocks that test.
    """

    is_train: np.ndarray
    is_test: np.ndarray
    test_blocks: tuple[int, ...]
    guard_frames: int
    block_frames: int

    def shares(self) -> dict[str, float]:
        """Percent of the frames that train, test, and lie in the gap."""
        train, test = 100 * float(self.is_train.mean()), 100 * float(self.is_test.mean())
        return {"train_percent": train, "test_percent": test, "gap_percent": 100 - train - test}


def block_split(
    frames: int, split_ratio: float, seed: int, subject: str, guard_frames: int, block_frames: int = BLOCK_FRAMES
) -> BlockSplit:
    """Choose test blocks at random and take ``guard_frames`` on each side of them out of training.

    Of the whole blocks, ``1 − split_ratio`` test, at least one; the frames after the last whole block train. With a
    gap, every subject draws its own blocks. ``guard_frames=0`` reproduces the original pipeline to the bit: no gap, and
    the legacy generator with the bare seed, so that subjects of equal length share their test blocks.
    """
    blocks = frames // block_frames
    order, share = np.arange(blocks), blocks * (1 - split_ratio)
    if guard_frames == 0:
        np.random.RandomState(seed).shuffle(order)
    else:
        seeded_rng(seed, subject, "split").shuffle(order)
        share += 1e-9  # undoes the rounding of 1 - ratio: 10 blocks at 0.9 are one block, not none
    numbers = np.sort(order[: max(1, int(share))])
    is_test, near_test = np.zeros(frames, bool), np.zeros(frames, bool)
    for first in numbers * block_frames:
        is_test[first : first + block_frames] = True
        near_test[max(first - guard_frames, 0) : first + block_frames + guard_frames] = True
    chosen = tuple(numbers.tolist())
    return BlockSplit((~near_test).astype(np.uint8), is_test.astype(np.uint8), chosen, guard_frames, block_frames)


def split_recording(
    frames: int, split_ratio: float, seed: int, subject: str, guard_frames: int, block_frames: int | None
) -> tuple[BlockSplit, list[str]]:
    """The split of one recording, and what a person should know about it.

    ``block_frames=None`` stands for 330, or for what ``split_ratio`` asks for where 330 leave too little to train.

    Raises
    ------
    BadInput
        If less than half of what ``split_ratio`` asks for is left to train.
    """
    split = block_split(frames, split_ratio, seed, subject, guard_frames, block_frames or BLOCK_FRAMES)
    if _leaves_enough(split, split_ratio):
        return split, []
    if guard_frames == 0 and block_frames is None:
        return split, [f"{split.is_train.sum()} training and {split.is_test.sum()} test frames: the recording is short"]
    shorter = max(1, round(frames * (1 - split_ratio)))
    found = block_split(frames, split_ratio, seed, subject, guard_frames, shorter)
    if block_frames is None and _leaves_enough(found, split_ratio):
        return found, [f"test blocks have {shorter} frames, not {BLOCK_FRAMES}: the recording is short"]
    hint = "give a smaller split_guard_frames or baseline_window_s, or record longer"
    if _leaves_enough(found, split_ratio):
        hint = f"give split_block_frames={shorter}, or null"
    shares = split.shares()
    problem = (
        f"leaves {shares['train_percent']:.0f} % of {frames} frames to train ({shares['test_percent']:.0f} % test, "
        f"{shares['gap_percent']:.0f} % are within {guard_frames} frames of a test block), less than half of "
        f"split_ratio={split_ratio:g}"
    )
    raise BadInput(f"{subject}: the split", problem, hint)


def _leaves_enough(split: BlockSplit, split_ratio: float) -> bool:
    return bool(split.is_train.mean() >= split_ratio / 2) and bool(split.is_test.any())
