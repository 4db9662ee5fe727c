from itertools import pairwise

import pytest
import torch

from src.models.schedule import growing_average, make_optimizer, warmup_cosine


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


def test_a_schedule_of_steps_advances_with_steps_and_a_plateau_watches_the_score():
    weights, sgd = [torch.nn.Parameter(torch.zeros(1))], {"_target_": "torch.optim.SGD", "lr": 0.1}
    made = {}
    for name in ("OneCycleLR", "ReduceLROnPlateau"):
        block = {"_target_": f"torch.optim.lr_scheduler.{name}", **({"max_lr": 1.0} if name == "OneCycleLR" else {})}
        made[name] = make_optimizer(weights, sgd, block, steps=7.0, monitor="val/f1")["lr_scheduler"]
    assert made["OneCycleLR"]["scheduler"].total_steps == 7
    assert [made[name]["interval"] for name in made] == ["step", "epoch"]
    assert made["ReduceLROnPlateau"]["monitor"] == "val/f1"
    assert "lr_scheduler" not in make_optimizer(weights, sgd, None, steps=7.0, monitor="val/f1")
