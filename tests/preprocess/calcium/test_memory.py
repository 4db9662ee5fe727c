"""Peak memory of a stretch of work."""

import numpy as np

from src.preprocess.calcium.memory import PeakMemory


def test_a_large_array_shows_and_is_forgotten_by_the_next_stretch():
    small = PeakMemory().megabytes()
    during = PeakMemory()
    np.ones(20_000_000).sum()
    peak = during.megabytes()
    assert peak > small + 100
    after = PeakMemory()
    if after._restarted:
        assert after.megabytes() < peak - 100
