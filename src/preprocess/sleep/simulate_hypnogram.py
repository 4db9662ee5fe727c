"""Hypnograms of whole nights from a Markov chain whose rates change through the night.

The transition probabilities per 30-s epoch were counted in the 20 hypnograms of Sleep-EDF's subjects 00-09
(``benchmarks/simulated_sleep.py measure`` prints them).
"""

from __future__ import annotations

import numpy as np

from src.signals import HUMAN_STAGES

EPOCH_S = 30.0

TRANSITIONS = np.array(
    [
        [
            [0.8981, 0.0925, 0.0047, 0.0016, 0.0031],
            [0.0430, 0.7680, 0.1782, 0.0015, 0.0092],
            [0.0098, 0.0203, 0.8805, 0.0756, 0.0138],
            [0.0040, 0.0052, 0.0937, 0.8959, 0.0012],
            [0.0097, 0.0153, 0.0264, 0.0014, 0.9471],
        ],
        [
            [0.7314, 0.2479, 0.0124, 0.0000, 0.0083],
            [0.0582, 0.5494, 0.3215, 0.0000, 0.0709],
            [0.0078, 0.0198, 0.9114, 0.0465, 0.0144],
            [0.0032, 0.0086, 0.1519, 0.8364, 0.0000],
            [0.0092, 0.0316, 0.0177, 0.0000, 0.9414],
        ],
        [
            [0.7294, 0.2387, 0.0027, 0.0000, 0.0292],
            [0.0490, 0.5972, 0.2591, 0.0000, 0.0948],
            [0.0112, 0.0295, 0.9199, 0.0224, 0.0170],
            [0.0077, 0.0051, 0.1760, 0.8112, 0.0000],
            [0.0193, 0.0470, 0.0102, 0.0000, 0.9235],
        ],
    ]
)
"""``(third of the night, from, to)`` probabilities per epoch, stages in the order of ``HUMAN_STAGES``."""


def simulate_hypnogram(rng: np.random.Generator, hours: float = 8.0) -> np.ndarray:
    """One night: wake, sleep through the cycles, wake.

    Parameters
    ----------
    rng
        Source of every random number.
    hours
        Length of the recording; 20 to 60 minutes of it at each end are wake.

    Returns
    -------
    ndarray
        ``(epoch,)`` int8 stages of 30 s.
    """
    n_epochs = round(hours * 3600 / EPOCH_S)
    longest = min(120, n_epochs // 8)
    before, after = rng.integers(min(40, longest), longest + 1, size=2)
    n_sleep = n_epochs - before - after
    stages = np.zeros(n_epochs, np.int8)
    ladder = np.cumsum(TRANSITIONS / TRANSITIONS.sum(axis=2, keepdims=True), axis=2)
    draws = rng.random(n_sleep)
    stage = HUMAN_STAGES.index("N1")
    for i, draw in enumerate(draws):
        stages[before + i] = stage
        stage = min(int(np.searchsorted(ladder[3 * i // n_sleep, stage], draw, side="right")), len(HUMAN_STAGES) - 1)
    return stages
