"""What a sleep lab reads off a hypnogram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.signals import UNSCORED

WAKE_NAMES = ("W", "Wake")
LABELS: dict[str, str] = {
    "trt_min": "total recording time (min)",
    "tst_min": "total sleep time, TST (min)",
    "se_percent": "sleep efficiency, TST / recording time (%)",
    "sol_min": "sleep onset latency (min)",
    "rem_latency_min": "REM latency from sleep onset (min)",
    "waso_min": "wake after sleep onset, WASO (min)",
    "awakenings": "awakenings after sleep onset",
    "transitions": "stage transitions",
    "unscored_min": "unscored (min)",
}
"""Name of a statistic → what it is, with its unit; stage minutes and shares come beside them."""
COUNTS = ("awakenings", "transitions")
"""Statistics that are counted."""


def sleep_statistics(stages: NDArray[np.integer], classes: Sequence[str], epoch_s: float) -> dict[str, float | None]:
    """Statistics of one night by the definitions of the AASM manual (Berry et al., ch. 2).

    The recording counts from its first epoch (lights off) to its last (lights on): cut the stages
    first where the lab notes other times.

    Parameters
    ----------
    stages
        ``(epoch,)`` indices into ``classes``, ``UNSCORED`` where there is none.
    classes
        Stage names; ``W`` or ``Wake`` is wake, every other one sleep.
    epoch_s
        Length of an epoch.

    Returns
    -------
    dict
        The keys of :data:`LABELS`, ``min_<stage>``, ``percent_<stage>`` of sleep time for sleep stages,
        ``latency_min_<stage>`` from the start. ``None`` where there is nothing to state, such as the
        latency of a stage that does not occur.
    """
    minute = epoch_s / 60
    names = dict(enumerate(classes))
    wake = np.isin(stages, [i for i, name in names.items() if name in WAKE_NAMES])
    asleep = (stages != UNSCORED) & ~wake
    onset = int(asleep.argmax()) if asleep.any() else None
    tst = float(asleep.sum() * minute)
    rem = stages == next((i for i, name in names.items() if name == "REM"), -2)
    first_rem = int(rem.argmax()) if rem.any() else None
    both = (stages[1:] != UNSCORED) & (stages[:-1] != UNSCORED)
    waking = wake[1:] & asleep[:-1]
    found: dict[str, float | None] = {
        "trt_min": len(stages) * minute,
        "tst_min": tst,
        "se_percent": 100 * tst / (len(stages) * minute) if len(stages) else None,
        "sol_min": None if onset is None else onset * minute,
        "rem_latency_min": None if onset is None or first_rem is None else (first_rem - onset) * minute,
        "waso_min": None if onset is None else float(wake[onset:].sum() * minute),
        "awakenings": float(waking.sum()),
        "transitions": float(((stages[1:] != stages[:-1]) & both).sum()),
        "unscored_min": float((stages == UNSCORED).sum() * minute),
    }
    for index, name in names.items():
        here = stages == index
        found[f"min_{name}"] = float(here.sum() * minute)
        if name not in WAKE_NAMES:
            found[f"percent_{name}"] = 100 * float(here.sum() * minute) / tst if tst else None
            found[f"latency_min_{name}"] = float(here.argmax() * minute) if here.any() else None
    return found


def transition_counts(stages: NDArray[np.integer], n_classes: int) -> NDArray[np.int64]:
    """``(from, to)`` counts of neighbouring scored epochs, the diagonal included."""
    counts = np.zeros((n_classes, n_classes), np.int64)
    before, after = stages[:-1], stages[1:]
    known = (before != UNSCORED) & (after != UNSCORED)
    np.add.at(counts, (before[known], after[known]), 1)
    return counts


def bouts(stages: NDArray[np.integer], classes: Sequence[str], epoch_s: float) -> list[dict[str, Any]]:
    """Number, mean and longest length in seconds of the uninterrupted bouts of every stage."""
    edges = np.flatnonzero(np.diff(stages)) + 1
    first, last = np.r_[0, edges], np.r_[edges, len(stages)]
    lengths = (last - first) * epoch_s
    rows = []
    for index, name in enumerate(classes):
        mine = lengths[stages[first] == index] if len(stages) else np.empty(0)
        mean, longest = (float(mine.mean()), float(mine.max())) if len(mine) else (None, None)
        rows.append({"stage": name, "bouts": len(mine), "mean_s": mean, "longest_s": longest})
    return rows
