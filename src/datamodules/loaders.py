"""DataLoaders whose examples are shared: a step over several processes sees the examples that one process would."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import distributed
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from src.datamodules.splits import Part
from src.signals import BadInput, require_range


@dataclass(frozen=True)
class Execution:
    """Where and how a datamodule works; nothing here but ``seed`` changes what it makes.

    Attributes
    ----------
    cache_dir
        Folder of the cached steps.
    workers
        Processes that prepare recordings.
    seed
        Of the order of training examples.
    """

    cache_dir: str = "artifacts"
    workers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        require_range("datamodule.execution", 0, workers=self.workers, seed=self.seed)


class ShareSampler(DistributedSampler[Any]):
    """This process's share: in torch's order if ``shuffle``, as many for each process; else in order, none twice.

    One that is made before there are processes asks later which of them it serves. Lightning divides the examples of
    any other sampler once more.
    """

    def __init__(self, dataset: Dataset[Any], processes: int, rank: int, *, shuffle: bool, seed: int = 0) -> None:
        super().__init__(dataset, processes, rank, shuffle=shuffle, seed=seed)
        self.asks_later = self.num_replicas == 1 and not _running()

    def _share(self) -> Sequence[int]:
        rank, processes, length = self.rank, self.num_replicas, len(self.dataset)  # type: ignore[arg-type]
        if self.asks_later and _running():
            rank, processes = distributed.get_rank(), distributed.get_world_size()
        if not self.shuffle:
            return range(rank, length, processes)
        order = torch.randperm(length, generator=torch.Generator().manual_seed(self.seed + self.epoch)).tolist()
        return [*order, *order[: -length % processes]][rank::processes]

    def __iter__(self) -> Iterator[int]:
        return iter(self._share())

    def __len__(self) -> int:
        return len(self._share())


def _running() -> bool:
    """Whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized()


def batch_share(batch_size: int, processes: int) -> int:
    """Examples of a step for each process; ``BadInput`` if they cannot be divided evenly."""
    if batch_size % processes:
        problem = f"is {batch_size} for {processes} processes"
        raise BadInput("datamodule.batch_size", problem, f"give a multiple of {processes}")
    return batch_size // processes


def training_loader(
    dataset: Dataset[Any],
    batch_size: int,
    *,
    seed: int,
    trainer: pl.Trainer | None,
    collate: Callable[[Any], Any] | None = None,
) -> DataLoader[Any]:
    """Batches in an order that depends on ``seed`` and epoch alone, so that a resumed epoch repeats an unbroken one.

    Parameters
    ----------
    batch_size
        Examples of one step over all processes together.
    trainer
        Says how many processes there are. With ``overfit_batches`` the order is that of the dataset, always.
    collate
        Makes a batch of examples; by default they are stacked.

    Raises
    ------
    BadInput
        If the processes cannot share a batch evenly.
    """
    rank, processes = _place(trainer)
    share = batch_share(batch_size, processes)
    sampler: Any = None
    if not overfitting(trainer):
        # The factor keeps the orders of neighbouring seeds apart: the sampler draws from seed + epoch.
        sampler = ShareSampler(dataset, processes, rank, shuffle=True, seed=seed * 1_000_003)
    return DataLoader(
        dataset,
        batch_size=share,
        sampler=sampler,
        # A last batch of a handful would upset batch norm; the next epoch shows its examples.
        drop_last=len(dataset) >= batch_size,  # type: ignore[arg-type]
        collate_fn=collate,
        generator=_own_generator(),
    )


def evaluation_loader(
    dataset: Dataset[Any],
    batch_size: int | None,
    *,
    trainer: pl.Trainer | None,
    collate: Callable[[Any], Any] | None = None,
) -> DataLoader[Any]:
    """Everything once, in order; each process takes its share, none twice.

    ``batch_size`` counts examples over all processes; ``None`` gives them one by one, as they are.
    """
    rank, processes = _place(trainer)
    share = None if batch_size is None else max(1, batch_size // processes)
    # What is learned by heart has no order for Lightning to complain of.
    sampler = None if overfitting(trainer) else ShareSampler(dataset, processes, rank, shuffle=False)
    return DataLoader(dataset, batch_size=share, sampler=sampler, collate_fn=collate, generator=_own_generator())


class PartLoaders(pl.LightningDataModule):
    """The loaders of a datamodule whose ``datasets`` are named by parts; see the two functions above."""

    datasets: Mapping[Any, Any]
    batch_size: int
    held_out_batch: int | None
    collate: Callable[[Any], Any] | None = None
    execution: Execution

    def __init__(self, batch_size: int = 1, execution: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        require_range("datamodule", 1, batch_size=batch_size)
        self.batch_size = self.held_out_batch = batch_size
        self.execution = Execution(**execution or {})

    def require_share(self, processes: int) -> None:
        """Raise ``BadInput`` if so many processes cannot share a batch evenly."""
        batch_share(self.batch_size, processes)

    def held_out(self, part: Part) -> Any:
        """The examples of a part that nothing is trained on."""
        return self.datasets[part]

    def _evaluation(self, part: Part) -> DataLoader[Any]:
        return evaluation_loader(self.held_out(part), self.held_out_batch, trainer=self.trainer, collate=self.collate)

    def train_dataloader(self) -> DataLoader[Any]:
        dataset, seed = self.datasets["train"], self.execution.seed
        dataset.same = overfitting(self.trainer)  # for those that draw their examples
        return training_loader(dataset, self.batch_size, seed=seed, trainer=self.trainer, collate=self.collate)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """What is tested."""
        return self._evaluation("test")


def _own_generator() -> torch.Generator:
    # A DataLoader draws a number when an epoch begins, whether it needs one or not, and at another moment where a
    # training is resumed. From torch's global generator it would shift what datasets draw after it.
    return torch.Generator()


def as_is(example: Any) -> Any:
    """A ``collate`` for datasets that make a batch themselves, or give one example at a time."""
    return example


def overfitting(trainer: pl.Trainer | None) -> bool:
    """Whether a few batches are to be learned by heart: they have to be the same ones in every epoch."""
    return bool(getattr(trainer, "overfit_batches", 0))


def _place(trainer: pl.Trainer | None) -> tuple[int, int]:
    """This process's number and how many there are."""
    return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
