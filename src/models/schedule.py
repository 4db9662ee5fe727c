"""The optimizer, and how learning rates and averaged weights change from step to step; every domain shares them."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from hydra.utils import get_object, instantiate
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from src.signals import BadInput, require_range


def make_optimizer(
    parameters: Any,
    optimizer: Mapping[str, Any] | None,
    scheduler: Mapping[str, Any] | None,
    *,
    steps: float,
    monitor: str,
) -> dict[str, Any]:
    """What ``configure_optimizers`` returns, from two ``_target_`` blocks.

    A schedule with an argument ``steps`` or ``total_steps`` gets the number of training steps and advances with each
    step, any other with each epoch; ``ReduceLROnPlateau`` watches ``monitor``.

    Raises
    ------
    BadInput
        Without an optimizer, or where a schedule needs the number of steps and it is infinite.
    """
    if not optimizer:
        raise BadInput("model.optimizer", "is empty", "choose one of conf/optimizer, such as optimizer=adamw")
    made: dict[str, Any] = {"optimizer": instantiate(optimizer, parameters, _convert_="all")}
    if scheduler:
        takes = inspect.signature(get_object(scheduler["_target_"])).parameters
        counts = [name for name in ("steps", "total_steps") if name in takes]
        if counts and math.isinf(steps):
            hint = "give Trainer max_epochs or max_steps, or scheduler=None (scheduler=constant in conf/)"
            raise BadInput("scheduler", f"{scheduler['_target_']} needs the number of steps", hint)
        total = {name: int(steps) for name in counts if name not in scheduler}
        schedule = instantiate(scheduler, made["optimizer"], **total, _convert_="all")
        interval = "step" if counts else "epoch"
        made["lr_scheduler"] = {"scheduler": schedule, "interval": interval, "monitor": monitor}
    return made


def warmup_cosine(optimizer: Optimizer, *, steps: int, warmup: float, floor: float = 0.01) -> LambdaLR:
    """Linear rise over the first ``warmup`` share of ``steps``, then a half cosine down to ``floor``.

    Both are factors of the optimiser's own learning rate; the schedule advances once per step.
    """
    require_range("scheduler", 0, 1, warmup=warmup, floor=floor)
    rise = max(1, round(warmup * steps))

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        progress = min(1.0, (step - rise) / max(1, steps - rise))
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def growing_average(decay: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Exponential moving average for Lightning's ``WeightAveraging(avg_fn=…)`` that forgets the first steps.

    After n steps the average keeps min(``decay``, (1 + n) / (10 + n)) of itself: it starts short and grows, so that
    the untrained weights of the first steps have no share in it.
    """
    require_range("avg_fn", 0, 1, decay=decay)

    def update(average: Tensor, current: Tensor, steps: Tensor) -> Tensor:
        if not average.is_floating_point():
            return current
        kept = min(decay, (1 + int(steps)) / (10 + int(steps)))
        return average.lerp(current, 1 - kept)

    return update
