import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrained.make_sleep_human import interval_margins
from src.predict.sleep_statistics import (
    agreement,
    bouts,
    draw_hypnograms,
    expected_accuracy,
    reliability,
    review_list,
    sleep_statistics,
    statistic_intervals,
)
from src.recordings.sleep.hypnogram import transition_counts
from src.signals import HUMAN_STAGES, RODENT_STAGES, UNSCORED, BadInput

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


def test_latencies_by_three_definitions():
    stages = [W] * 4 + [N1] + [W] * 4 + [N2] * 3 + [W] + [N2] * 30 + [REM] + [N2] * 2 + [REM] * 4
    found = sleep_statistics(np.array(stages), HUMAN_STAGES, 30.0)
    assert (found["sol_min"], found["sol_three_min"], found["sol_persistent_min"]) == (2.0, 4.5, 6.5)
    assert (found["rem_latency_min"], found["rem_latency_three_min"]) == (19.5, 18.5)
    assert found["rem_latency_persistent_min"] == 15.0


TRANSITIONS = np.array([[90, 8, 1, 0, 1], [3, 60, 30, 0, 7], [2, 2, 90, 4, 2], [1, 0, 10, 89, 0], [2, 4, 2, 0, 92]])


def test_drawn_hypnograms_keep_what_is_certain_and_follow_the_transitions():
    rows = np.full((60, 5), 0.001)
    rows[:, N2] = 0.996
    rows[30] = np.nan
    drawn = draw_hypnograms(rows, TRANSITIONS, draws=50)
    assert (drawn[:, 30] == UNSCORED).all()
    assert (np.delete(drawn, 30, 1) == N2).mean() > 0.95
    shares = TRANSITIONS.sum(1) / TRANSITIONS.sum()
    free = draw_hypnograms(np.tile(shares, (400, 1)), TRANSITIONS, draws=100)
    stays = (free[:, 1:] == free[:, :-1]).mean()
    assert stays == pytest.approx(np.trace(TRANSITIONS) / TRANSITIONS.sum(), abs=0.03)


def test_an_interval_is_as_wide_as_the_doubt():
    rows = np.full((400, 5), 0.001)
    rows[:60, W], rows[60:, N2] = 0.996, 0.996
    low, high = statistic_intervals(rows, TRANSITIONS, HUMAN_STAGES, 30.0)["sol_min"]
    assert low <= 30.0 <= high
    assert high - low < 2
    rows[20:60] = (0.5, 0.0, 0.5, 0.0, 0.0)
    low, high = statistic_intervals(rows, TRANSITIONS, HUMAN_STAGES, 30.0)["sol_min"]
    assert high - low > 5
    assert statistic_intervals(rows, TRANSITIONS, HUMAN_STAGES, 30.0)["rem_latency_min"] is None


def test_margins_make_intervals_cover_as_many_nights_as_they_state():
    rng = np.random.default_rng(0)
    true = rng.normal(100, 20, 400)
    stated = true + 10 + rng.normal(0, 15, 400)  # off by a night's own error, and by 10 min in every night
    narrow = [{"tst_min": (value - 1, value + 1)} for value in stated]
    truths = [{"tst_min": value} for value in true]
    (below, above) = interval_margins(narrow[:200], truths[:200])["tst_min"]
    low, high = stated[200:] - 1 - below, stated[200:] + 1 + above
    assert np.mean((low <= true[200:]) & (true[200:] <= high)) == pytest.approx(0.9, abs=0.05)
    assert interval_margins([{"rem_latency_min": None}] * 3, [{"rem_latency_min": 90.0}] * 3) == {}


def test_margins_widen_an_interval_within_what_is_possible():
    rows = np.full((40, 5), 0.001)
    rows[:, N2] = 0.996
    plain = statistic_intervals(rows, TRANSITIONS, HUMAN_STAGES, 30.0)
    wide = statistic_intervals(rows, TRANSITIONS, HUMAN_STAGES, 30.0, {"min_N2": (5.0, 100.0), "percent_N2": (0, 9)})
    assert wide["min_N2"] == (plain["min_N2"][0] - 5, 20.0)
    assert wide["percent_N2"][1] == 100.0
    assert wide["tst_min"] == plain["tst_min"]


def compare(reference, stages):
    probabilities = np.full((len(stages), 5), 0.05)
    probabilities[np.arange(len(stages)), np.maximum(stages, 0)] = 0.8
    return agreement(np.array(reference), np.array(stages), probabilities, HUMAN_STAGES, 30.0)


def test_a_scoring_agrees_with_itself():
    stages = [0, 0, 1, 2, 2, 3, 3, 4, 4, 0]
    found = compare(stages, stages)
    assert found["scores"]["kappa"] == 1.0
    assert all(row["difference"] in (0, None) for row in found["statistics"].values())
    assert np.trace(found["confusion"]) == 10


def test_differences_have_the_sign_of_too_much():
    found = compare([0, 0, 2, 2, 2, 0], [0, 2, 2, 2, -1, 0])
    assert np.sum(found["confusion"]) == 5
    assert found["statistics"]["tst_min"] == {"reference": 1.0, "scored": 1.5, "difference": 0.5}
    assert found["statistics"]["sol_min"]["difference"] == -0.5
    assert found["scores"]["f1_REM"] is None
    assert "over 5 epochs" in found["lines"][0]


def test_nothing_in_common_is_refused():
    with pytest.raises(BadInput, match="no scored epoch in common"):
        compare([-1, 0], [0, -1])
    with pytest.raises(BadInput, match="3 epochs"):
        compare([0, 0, 0], [0, 0])


def test_human_scorers_are_quoted_under_human_epochs_alone():
    rows, stages = np.tile([0.9, 0.05, 0.05], (20, 1)), np.zeros(20, int)
    assert "human scorers" in compare([0] * 20, [0] * 20)["lines"][0]
    assert "human" not in agreement(stages, stages, rows, RODENT_STAGES, 4.0)["lines"][0]
    assert "human" not in agreement(stages, stages, np.eye(5)[stages], HUMAN_STAGES, 10.0)["lines"][0]


def night():
    rows = np.array([[0.95, 0.05], [0.6, 0.4], [0.55, 0.45], [0.9, 0.1], [0.45, 0.55], [np.nan, np.nan], [0.1, 0.9]])
    return rows, np.array([0, 0, 0, 0, 1, UNSCORED, 1])


def test_neighbouring_doubts_are_one_stretch_and_the_most_rewarding_comes_first():
    first, second = review_list(*night())
    assert (first.first, first.last, first.stage, first.alternative) == (1, 3, 0, 1)
    assert first.expected_errors == pytest.approx(0.85)
    assert (second.first, second.last) == (4, 5)


def test_a_sure_night_needs_no_review():
    rows = np.tile([0.99, 0.01], (5, 1))
    assert review_list(rows, np.zeros(5, int)) == []
    assert expected_accuracy(rows) == pytest.approx(0.99)


def test_reviewing_the_least_certain_epochs_helps_most():
    rows, _ = night()
    plain, some, everything = (expected_accuracy(rows, share) for share in (0.0, 1 / 3, 1.0))
    assert plain == pytest.approx((0.95 + 0.6 + 0.55 + 0.9 + 0.55 + 0.9) / 6)
    assert some == pytest.approx(plain + (0.45 + 0.45) / 6)
    assert everything == 1.0
    assert expected_accuracy(np.full((3, 2), np.nan)) is None


def test_honest_probabilities_lie_on_the_diagonal_and_overconfident_ones_do_not():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1.0, 20_000)
    rows = np.stack([sure, 1 - sure], axis=1)
    true = np.where(rng.random(20_000) < sure, 0, 1)
    table, ece = reliability(rows, true)
    filled = table[:, 2] > 0
    np.testing.assert_allclose(table[filled, 0], table[filled, 1], atol=0.03)
    assert ece < 0.02
    harder = rows**4 / (rows**4).sum(1, keepdims=True)
    assert reliability(harder, true)[1] > 0.05
    assert np.nansum(table[:, 2]) == 20_000
