import numpy as np

from src.reports.sleep_reliability import reliability_picture


def test_a_picture_comes_even_when_some_confidences_do_not_occur():
    rows = np.array([[0.9, 0.1], [0.95, 0.05], [np.nan, np.nan]])
    assert reliability_picture(rows, np.array([0, 1, -1]))[:4] == b"\x89PNG"
