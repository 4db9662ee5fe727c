from itertools import pairwise

import pytest
import torch

from src.models.schedule import warmup_cosine


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
