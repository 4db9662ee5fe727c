import numpy as np
import pytest

from src.predict.sleep_agreement import agreement, expected_accuracy, reliability, review_list
from src.signals import HUMAN_STAGES, RODENT_STAGES, UNSCORED, BadInput


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
    assert first.benefit > second.benefit


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
