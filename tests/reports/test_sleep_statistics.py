import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.reports.sleep_statistics import bouts, sleep_statistics, transition_counts
from src.signals import HUMAN_STAGES, RODENT_STAGES, UNSCORED

W, N1, N2, N3, REM = range(5)


def test_a_small_night_by_hand():
    stages = np.array([W, W, N1, N2, N2, W, N3, REM, REM, UNSCORED, W, W])
    found = sleep_statistics(stages, HUMAN_STAGES, 30.0)
    assert found["trt_min"] == 6.0
    assert found["tst_min"] == 3.0
    assert found["se_percent"] == pytest.approx(50.0)
    assert found["sol_min"] == 1.0
    assert found["rem_latency_min"] == 2.5
    assert found["waso_min"] == 1.5
    assert found["awakenings"] == 1
    assert found["unscored_min"] == 0.5
    assert found["transitions"] == 5
    assert found["min_N2"] == 1.0
    assert found["percent_REM"] == pytest.approx(100 / 3)
    assert found["latency_min_N3"] == 3.0


def test_without_sleep_there_is_nothing_to_state():
    found = sleep_statistics(np.zeros(10, int), HUMAN_STAGES, 30.0)
    assert found["tst_min"] == 0
    assert found["se_percent"] == 0
    for name in ("sol_min", "rem_latency_min", "waso_min", "latency_min_N2", "percent_N2"):
        assert found[name] is None


def test_a_mouse_has_four_second_epochs_and_three_states():
    found = sleep_statistics(np.array([0, 1, 1, 2, 0]), RODENT_STAGES, 4.0)
    assert found["tst_min"] == pytest.approx(12 / 60)
    assert found["rem_latency_min"] == pytest.approx(8 / 60)
    assert found["min_NREM"] == pytest.approx(8 / 60)


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=60))
def test_minutes_add_up(stages):
    found = sleep_statistics(np.array(stages), HUMAN_STAGES, 30.0)
    parts = sum(found[f"min_{name}"] for name in HUMAN_STAGES)
    assert parts + found["unscored_min"] == pytest.approx(found["trt_min"])
    assert found["tst_min"] + found["min_W"] == pytest.approx(parts)
    counts = transition_counts(np.array(stages), 5)
    assert counts.sum() - np.trace(counts) == found["transitions"]
    lengths = [row["mean_s"] * row["bouts"] for row in bouts(np.array(stages), HUMAN_STAGES, 30.0) if row["bouts"]]
    assert sum(lengths) == pytest.approx(60 * parts)
