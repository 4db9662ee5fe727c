"""How learning rates and averaged weights change from step to step; every domain shares them."""

import math
from collections.abc import Callable

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(optimizer: Optimizer, *, steps: int, warmup: float, floor: float = 0.01) -> LambdaLR:
    """Linear rise over the first ``warmup`` share of ``steps``, then a half cosine down to ``floor``.

    Both are factors of the optimiser's own learning rate; the schedule advances once per step.
    """
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

    def update(average: Tensor, current: Tensor, steps: Tensor) -> Tensor:
        if not average.is_floating_point():
            return current
        kept = min(decay, (1 + int(steps)) / (10 + int(steps)))
        return average.lerp(current, 1 - kept)

    return update
