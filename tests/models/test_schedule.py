from itertools import pairwise

import pytest
import torch

from src.models.schedule import growing_average, warmup_cosine


def rates(steps, warmup):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    scheduler = warmup_cosine(optimizer, steps=steps, warmup=warmup)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_rises_to_the_full_rate_then_falls_to_the_floor():
    seen = rates(100, 0.1)
    assert seen[0] == pytest.approx(0.2)
    assert max(seen) == pytest.approx(2.0)
    assert seen.index(max(seen)) == 9
    assert all(a >= b for a, b in pairwise(seen[9:]))
    assert seen[-1] == pytest.approx(0.02, rel=0.05)


def test_one_step_is_enough():
    assert rates(1, 0.1) == [pytest.approx(2.0)]


def test_an_average_starts_short_and_grows():
    update = growing_average(0.9)
    zero, one = torch.zeros(1), torch.ones(1)
    shares = [float(update(zero, one, torch.tensor(step))) for step in (1, 10, 1000)]
    assert shares == pytest.approx([1 - 2 / 11, 1 - 11 / 20, 0.1])
    counter = torch.tensor(7)
    assert update(torch.tensor(3), counter, torch.tensor(1)) is counter
