"""Learning-rate schedules that every domain shares."""

from __future__ import annotations

import math

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
