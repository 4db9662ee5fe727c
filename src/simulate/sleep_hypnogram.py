"""Hypnograms of whole nights from a semi-Markov chain: how long a stage lasts, and what comes next.

Every number was counted in the sleep periods of Sleep-EDF's subjects 00-09, two nights each (``python
benchmarks/sleep_statistics.py hypnograms``). Two clocks bend the chain as they bend sleep: the third of the night (N3
early, REM late) and the time since REM was last seen (no REM for a while after REM, then ever more).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from src.signals import HUMAN_STAGES

EPOCH_S = 30.0
_WAKE, _N1, _REM = (HUMAN_STAGES.index(name) for name in ("W", "N1", "REM"))
_LONGEST_MARGIN_S = 2700.0
_SHORTEST_MARGIN_S = 1200.0
_SINCE_REM_S = (900.0, 2700.0)

_JUMPS = np.array(
    [
        [0.000, 0.901, 0.030, 0.004, 0.065],
        [0.140, 0.000, 0.697, 0.002, 0.161],
        [0.101, 0.251, 0.000, 0.488, 0.160],
        [0.031, 0.053, 0.910, 0.000, 0.006],
        [0.213, 0.541, 0.242, 0.004, 0.000],
    ]
)
"""``(from, to)`` probability of the stage that follows a bout."""

_JUMPS_BY_THIRD = np.array(
    [
        [
            [0.000, 0.909, 0.045, 0.015, 0.030],
            [0.184, 0.000, 0.770, 0.007, 0.039],
            [0.086, 0.172, 0.000, 0.629, 0.113],
            [0.037, 0.064, 0.888, 0.000, 0.011],
            [0.167, 0.310, 0.500, 0.024, 0.000],
        ],
        [
            [0.000, 0.922, 0.047, 0.000, 0.031],
            [0.129, 0.000, 0.713, 0.000, 0.157],
            [0.085, 0.221, 0.000, 0.524, 0.170],
            [0.026, 0.052, 0.923, 0.000, 0.000],
            [0.203, 0.532, 0.266, 0.000, 0.000],
        ],
        [
            [0.000, 0.882, 0.010, 0.000, 0.108],
            [0.122, 0.000, 0.642, 0.000, 0.236],
            [0.138, 0.382, 0.000, 0.272, 0.207],
            [0.029, 0.029, 0.943, 0.000, 0.000],
            [0.236, 0.626, 0.138, 0.000, 0.000],
        ],
    ]
)
"""The same in each third of the sleep period."""

_JUMPS_BY_CYCLE = np.array(
    [
        [
            [0.000, 0.819, 0.021, 0.000, 0.160],
            [0.108, 0.000, 0.523, 0.000, 0.369],
            [0.146, 0.306, 0.000, 0.188, 0.361],
            [0.048, 0.095, 0.810, 0.000, 0.048],
            [0.213, 0.541, 0.242, 0.004, 0.000],
        ],
        [
            [0.000, 0.937, 0.051, 0.013, 0.000],
            [0.221, 0.000, 0.779, 0.000, 0.000],
            [0.100, 0.257, 0.000, 0.625, 0.018],
            [0.027, 0.038, 0.934, 0.000, 0.000],
            [0.213, 0.541, 0.242, 0.004, 0.000],
        ],
        [
            [0.000, 0.983, 0.017, 0.000, 0.000],
            [0.099, 0.000, 0.864, 0.006, 0.031],
            [0.084, 0.223, 0.000, 0.482, 0.210],
            [0.033, 0.062, 0.900, 0.000, 0.005],
            [0.213, 0.541, 0.242, 0.004, 0.000],
        ],
    ]
)
"""The same within 15 min of REM, within 45 min of it or of sleep onset, and later."""

_QUANTILES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.0)
_DURATIONS = np.array(
    [
        [
            [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 4.0, 8.5, 28.4, 120.0],
            [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 6.0, 9.0, 19.5, 33.0],
            [1.0, 1.0, 1.0, 2.0, 2.0, 4.0, 7.0, 10.0, 15.0, 23.0, 33.9, 71.0],
            [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 5.0, 11.2, 26.6, 63.5, 88.0],
            [1.0, 1.1, 4.2, 9.6, 12.8, 15.5, 18.0, 21.4, 29.8, 43.9, 52.7, 79.0],
        ],
        [
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.5, 2.0, 3.0, 4.0, 7.0, 18.2, 51.0],
            [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 4.0, 7.7, 10.0],
            [1.0, 1.0, 2.0, 2.0, 3.0, 5.0, 9.0, 13.0, 19.0, 32.0, 49.2, 71.0],
            [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 3.0, 6.0, 20.4, 32.8, 77.0],
            [1.0, 2.0, 4.0, 7.0, 9.0, 10.0, 14.0, 20.6, 29.0, 36.6, 44.7, 68.0],
        ],
        [
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.5, 2.0, 2.0, 4.0, 9.9, 20.0, 31.0],
            [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 4.0, 7.1, 17.0],
            [1.0, 1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 14.0, 19.6, 31.8, 47.8, 88.0],
            [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 4.0, 9.0, 38.4, 75.0],
            [1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 13.0, 14.0, 20.2, 31.2, 39.0, 68.0],
        ],
    ]
)
"""``(third, stage, quantile)`` epochs that a bout lasts; one wake bout of 134 min counts as an hour."""


def simulate_hypnogram(
    rng: np.random.Generator, hours: float = 8.0, lengthening: NDArray[np.float64] | None = None
) -> NDArray[np.int8]:
    """One night: wake, sleep through its cycles, wake.

    Parameters
    ----------
    rng
        Source of every random number.
    hours
        Length of the recording; 20 to 45 minutes of it at either end are wake, less in a short one.
    lengthening
        ``(stage,)`` factors on the durations of bouts: what is the sleeper's own.

    Returns
    -------
    ndarray
        ``(epoch,)`` int8 stages of 30 s.
    """
    n_epochs = round(hours * 3600 / EPOCH_S)
    shortest, longest = (min(int(s / EPOCH_S), n_epochs // 8) for s in (_SHORTEST_MARGIN_S, _LONGEST_MARGIN_S))
    before, after = rng.integers(shortest, longest + 1, size=2)
    stages = np.zeros(n_epochs, np.int8)
    asleep = _sleep_period(rng, n_epochs - before - after, np.ones(5) if lengthening is None else lengthening)
    stages[before : n_epochs - after] = asleep
    return stages


def jump_probabilities(third: int, cycle: int) -> NDArray[np.float64]:
    """``(from, to)`` with both clocks at work: the two tables multiply, over what they have in common."""
    odds = _JUMPS_BY_THIRD[third] * _JUMPS_BY_CYCLE[cycle] / np.where(_JUMPS > 0, _JUMPS, 1.0)
    totals = odds.sum(axis=1, keepdims=True)
    return np.where(totals > 0, odds / np.where(totals > 0, totals, 1.0), _JUMPS)


def _sleep_period(rng: np.random.Generator, n_epochs: int, lengthening: NDArray[np.float64]) -> NDArray[np.int8]:
    ladders = np.array([[np.cumsum(jump_probabilities(t, c), axis=1) for c in range(3)] for t in range(3)])
    stages = np.empty(n_epochs, np.int8)
    stage, done, seen_rem, last_rem = _N1, 0, False, 0
    while done < n_epochs:
        third = 3 * done // n_epochs
        drawn = np.interp(rng.random(), _QUANTILES, _DURATIONS[third, stage])
        stop = min(n_epochs, done + max(1, round(float(drawn * lengthening[stage]))))
        stages[done:stop] = stage
        done = stop
        if stage == _REM:
            seen_rem, last_rem = True, done
        cycle = int(np.searchsorted(_SINCE_REM_S, (done - last_rem) * EPOCH_S, side="right"))
        third = min(2, 3 * done // n_epochs)
        ladder = ladders[third, cycle if seen_rem else max(cycle, 1), stage]
        stage = min(int(np.searchsorted(ladder, rng.random() * ladder[-1], side="right")), len(HUMAN_STAGES) - 1)
    return stages
