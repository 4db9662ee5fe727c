import numpy as np
import pytest

from src.reports.sleep_agreement import agreement
from src.signals import HUMAN_STAGES, BadInput


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
