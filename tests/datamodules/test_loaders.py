from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import TensorDataset

from src.datamodules.loaders import evaluation_loader, training_loader
from src.signals import BadInput


def examples(length):
    return TensorDataset(torch.arange(length))


def trainer(rank=0, processes=1, overfit=0):
    return SimpleNamespace(global_rank=rank, world_size=processes, overfit_batches=overfit)


def batches(loader, epoch=0):
    if hasattr(loader.sampler, "set_epoch"):
        loader.sampler.set_epoch(epoch)
    return [batch[0].tolist() for batch in loader]


def test_the_order_depends_on_seed_and_epoch_alone():
    first, again, other = (training_loader(examples(50), 10, seed=s, trainer=None) for s in (1, 1, 2))
    batches(first)
    assert batches(first, 3) == batches(again, 3)
    assert batches(first, 3) != batches(first, 4)
    assert batches(first, 0) != batches(other, 0)
    assert batches(first, 1) != batches(other, 0)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_the_batch_that_one_would_see(processes):
    whole = batches(training_loader(examples(103), 12, seed=4, trainer=trainer()), 2)
    parts = [
        batches(training_loader(examples(103), 12, seed=4, trainer=trainer(rank, processes)), 2)
        for rank in range(processes)
    ]
    assert [sorted(i for part in step for i in part) for step in zip(*parts, strict=True)] == [sorted(b) for b in whole]


def test_a_small_last_batch_is_dropped_unless_it_is_the_only_one():
    assert [len(b) for b in batches(training_loader(examples(25), 10, seed=0, trainer=None))] == [10, 10]
    assert [len(b) for b in batches(training_loader(examples(7), 10, seed=0, trainer=None))] == [7]


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(BadInput, match=r"datamodule.batch_size: is 7 for 2 processes; give a multiple of 2"):
        training_loader(examples(20), 7, seed=0, trainer=trainer(0, 2))


def test_batches_to_be_learned_by_heart_are_the_same_ones_in_every_epoch():
    loader = training_loader(examples(20), 5, seed=0, trainer=trainer(overfit=2))
    assert batches(loader)[0] == batches(loader, 1)[0] == [0, 1, 2, 3, 4]


def test_loaders_made_before_the_processes_are_shared_by_them(monkeypatch):
    trained = training_loader(examples(20), 5, seed=0, trainer=None)
    tested, shares = evaluation_loader(examples(9), 2, trainer=None), []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        assert len(tested) == 3 - rank
        shares.append([[i for batch in batches(loader) for i in batch] for loader in (trained, tested)])
    assert batches(evaluation_loader(examples(9), 9, trainer=None)) == [list(range(9))]
    assert sorted(shares[0][0] + shares[1][0]) == list(range(20))
    assert [share[1] for share in shares] == [[0, 2, 4, 6, 8], [1, 3, 5, 7]]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_everything_is_evaluated_once(processes):
    seen = [
        i
        for rank in range(processes)
        for batch in batches(evaluation_loader(examples(20), 6, trainer=trainer(rank, processes)))
        for i in batch
    ]
    assert sorted(seen) == list(range(20))
