"""A recording before and after every step of its conditioning, for a look at what each step does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from src.storage.atomic import atomic_file


def draw_conditioning(
    path: Path, *, title: str, steps: Mapping[str, np.ndarray], fs_hz: float, shown_s: float = 0.1
) -> Path:
    """A stretch of a recording before and after every step of the chain."""
    figure, panels = plt.subplots(
        len(steps), 1, figsize=(12, 1.7 * len(steps) + 0.6), sharex=True, squeeze=False, layout="constrained"
    )
    length = round(shown_s * fs_hz)
    start = _liveliest(next(iter(steps.values())), length)
    for axes, (name, trace) in zip(panels[:, 0], steps.items(), strict=True):
        shown = trace[start : start + length]
        axes.plot(np.arange(len(shown)) / fs_hz * 1000, shown, color="#333333", lw=0.7)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.margins(x=0)
    panels[-1, 0].set_xlabel("time (ms)")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    with atomic_file(Path(path)) as part:
        figure.savefig(part, dpi=130)
    plt.close(figure)
    return Path(path)


def _liveliest(trace: np.ndarray, length: int) -> int:
    if len(trace) <= length:
        return 0
    blocks = trace[: len(trace) // length * length].reshape(-1, length)
    return int(np.argsort(np.ptp(blocks, axis=1))[len(blocks) * 3 // 4]) * length
