import numpy as np

from src.predict.grid_output import is_contiguous
from tests.forecast_data import random_subject


def test_a_window_is_contiguous_without_gaps_and_invalid_frames():
    timepoints = np.r_[np.arange(10), np.arange(20, 30)]
    fish = random_subject(0, frames=20, timepoints=timepoints)
    assert is_contiguous(fish, 0, 10)
    assert not is_contiguous(fish, 5, 12)
    fish.is_valid[3] = False
    assert not is_contiguous(fish, 0, 10)
    assert is_contiguous(fish, 4, 10)
