import numpy as np

from src.predict.grid_output import whole
from tests.forecast_data import random_subject


def test_a_window_is_whole_without_gaps_and_invalid_frames():
    timepoints = np.r_[np.arange(10), np.arange(20, 30)]
    fish = random_subject(0, frames=20, timepoints=timepoints)
    assert whole(fish, 0, 10)
    assert not whole(fish, 5, 12)
    fish.is_valid[3] = False
    assert not whole(fish, 0, 10)
    assert whole(fish, 4, 10)
