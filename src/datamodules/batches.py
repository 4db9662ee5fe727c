"""Which examples make up each batch: a function of seed, epoch and position alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import Sampler

from src.signals import BadInput


@contextmanager
def repeatable_draws(*numbers: int) -> Iterator[None]:
    """Within the block torch's global generators are seeded by ``numbers``; afterwards they are as before."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
        yield


class Batches(Sampler[list[int]]):
    """Index lists for a dataset that answers a list of indices with a whole batch.

    Parameters
    ----------
    length
        Number of examples.
    batch_size
        Examples of one step over all processes together.
    seed
        Shuffles every epoch anew; ``None`` keeps the order.
    rank, world_size
        This process takes every ``world_size``-th example of each batch, so that a step over several
        processes sees exactly the examples that one process would. Where a last batch has fewer examples
        than there are processes, those without one sit it out in evaluation and get an empty list in training.
    """

    def __init__(
        self, length: int, batch_size: int, *, seed: int | None = None, rank: int = 0, world_size: int = 1
    ) -> None:
        if batch_size < world_size:
            raise BadInput("datamodule.batch_size", f"{batch_size} for {world_size} processes", "give one example each")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before every epoch."""
        self.epoch = epoch

    def resume(self, steps: int) -> None:
        """Begin the next epoch after its first ``steps`` batches, which a checkpoint already has."""
        self.skip = steps

    def __len__(self) -> int:
        # A shuffled last batch of a handful would upset batch norm; the next epoch shows its examples.
        whole, rest = divmod(self.length, self.batch_size)
        steps = whole + bool(rest and (self.seed is None or whole == 0))
        idle = self.seed is None and 0 < rest <= self.rank
        return steps - idle

    def __iter__(self) -> Iterator[list[int]]:
        if self.seed is None:
            order = torch.arange(self.length)
        else:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.length, generator=generator)
        first, self.skip = self.skip, 0
        for step in range(first, len(self)):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield batch[self.rank :: self.world_size].tolist()
