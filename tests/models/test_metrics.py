import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, confusion_matrix, f1_score

from src.models.metrics import accuracy, cohen_kappa, f1_per_class, macro_f1, scores


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_scores_agree_with_scikit_learn(pairs):
    true, predicted = np.array(pairs).T
    counts = confusion_matrix(true, predicted, labels=range(4))
    assert accuracy(counts) == pytest.approx(accuracy_score(true, predicted))
    seen = np.union1d(true, predicted)
    assert macro_f1(counts) == pytest.approx(f1_score(true, predicted, labels=seen, average="macro", zero_division=0))
    if len(seen) > 1:
        assert cohen_kappa(counts) == pytest.approx(cohen_kappa_score(true, predicted))


def test_a_class_that_never_occurs_is_no_zero():
    counts = np.array([[5, 0, 0], [1, 4, 0], [0, 0, 0]])
    assert np.isnan(f1_per_class(counts)[2])
    assert macro_f1(counts) == pytest.approx(np.mean(f1_per_class(counts)[:2]))


def test_nothing_scored_is_nan_not_zero():
    summary = scores(np.zeros((2, 2), int), ["a", "b"])
    assert np.isnan(summary["accuracy"])
    assert summary["n"] == 0
