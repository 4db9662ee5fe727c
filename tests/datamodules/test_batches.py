import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.datamodules.batches import Batches, repeatable_draws


@given(st.integers(1, 200), st.integers(1, 50))
def test_unshuffled_batches_show_everything_once_in_order(length, batch_size):
    batches = list(Batches(length, batch_size))
    assert [i for batch in batches for i in batch] == list(range(length))
    assert len(batches) == len(Batches(length, batch_size))


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 5))
def test_an_epoch_depends_on_seed_and_epoch_only(length, batch_size, epoch):
    first, second = Batches(length, batch_size, seed=1), Batches(length, batch_size, seed=1)
    list(first)
    for batches in (first, second):
        batches.set_epoch(epoch)
    assert list(first) == list(second)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_batch_that_one_process_would_see(world_size):
    whole = list(Batches(103, 12, seed=4))
    parts = [list(Batches(103, 12, seed=4, rank=r, world_size=world_size)) for r in range(world_size)]
    assert [sorted(i for part in parts for i in part[step]) for step in range(len(whole))] == [sorted(b) for b in whole]


def test_shuffling_changes_with_the_epoch():
    batches = Batches(50, 10, seed=0)
    first = list(batches)
    batches.set_epoch(1)
    assert list(batches) != first


def test_repeatable_draws_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    draws = []
    for numbers in ((1, 2), (1, 2), (2, 1)):
        with repeatable_draws(*numbers):
            draws.append(float(torch.rand(1)))
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(torch.rand(3), expected)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 4), st.sampled_from([None, 3]))
def test_every_process_makes_as_many_steps_as_it_says(length, batch_size, world_size, seed):
    batch_size = max(batch_size, world_size)
    parts = [Batches(length, batch_size, seed=seed, rank=r, world_size=world_size) for r in range(world_size)]
    assert [len(list(part)) for part in parts] == [len(part) for part in parts]
    if seed is None:
        assert all(batch for part in parts for batch in part)
        assert sorted(i for part in parts for batch in part for i in batch) == list(range(length))
    else:
        assert len({len(part) for part in parts}) == 1
