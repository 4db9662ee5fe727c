import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.models.spikes.scores import (
    Detection,
    chance_comb,
    chance_random,
    confusion,
    count_pairs,
    detection,
    final_score,
    has_neighbour,
    match,
    score,
)

TRAIN = st.lists(st.integers(0, 120), max_size=6)


def brute_force(truth, found, tolerance):
    """Most pairs, then the smallest total distance, by trying everything."""
    best = (0, 0)
    for size in range(min(len(truth), len(found)), 0, -1):
        sums = [
            sum(abs(truth[i] - found[j]) for i, j in zip(rows, columns, strict=True))
            for rows in itertools.combinations(range(len(truth)), size)
            for columns in itertools.permutations(range(len(found)), size)
            if all(abs(truth[i] - found[j]) <= tolerance for i, j in zip(rows, columns, strict=True))
        ]
        if sums:
            return size, min(sums)
    return best


@settings(max_examples=80, deadline=None)
@given(TRAIN, TRAIN)
def test_matching_is_one_to_one_of_maximum_size_and_shortest(truth, found):
    truth, found = np.array(truth, np.int64), np.array(found, np.int64)
    pairs = match(truth, found, 20)
    assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
    distances = np.abs(truth[pairs[:, 0]] - found[pairs[:, 1]])
    assert np.all(distances <= 20)
    assert (len(pairs), int(distances.sum())) == brute_force(truth.tolist(), found.tolist(), 20)
    assert count_pairs(truth, found, 20) == len(pairs)


def test_matching_beats_the_greedy_rule_on_random_trains():
    rng = np.random.default_rng(0)
    truth, found = (np.sort(rng.integers(0, 100_000, 1_000)) for _ in range(2))
    taken: set[int] = set()
    greedy = 0
    for f in found:  # the original's rule: the nearest truth, or nothing
        nearest = int(np.abs(truth - f).argmin())
        if abs(truth[nearest] - f) <= 50 and nearest not in taken:
            taken.add(nearest)
            greedy += 1
    assert len(match(truth, found, 50)) > greedy


def test_identical_trains_match_fully_and_the_tolerance_is_what_it_says():
    train = np.array([5, 5, 9, 100])
    assert detection(train, train, 0) == Detection(4, 4, 4)
    assert detection(np.array([100]), np.array([150]), 50).n_matched == 1
    assert detection(np.array([100]), np.array([151]), 50).n_matched == 0
    assert len(match(np.zeros(0, int), train, 5)) == len(match(train, np.zeros(0, int), 5)) == 0


def test_coincident_spikes_are_paired_by_neuron():
    truth, found = (np.array([100, 102]), np.array([1, 4])), (np.array([101, 101]), np.array([4, 1]))
    assert score(truth, found, 1_000).class_accuracy == 1
    worse = (np.array([100, 102]), np.array([4, 1]))  # distance comes first
    assert score(truth, worse, 1_000).class_accuracy == 0


def test_numbers_of_a_worked_example():
    truth = (np.array([100, 200, 210, 400]), np.array([1, 2, 3, 3]))
    found = (np.array([104, 230, 700, 800]), np.array([1, 3, 2, 2]))
    result = score(truth, found, 1_000, n_units=3)
    assert (result.loose.precision, result.loose.recall, result.loose.f1) == (0.5, 0.5, 0.5)
    assert result.strict.n_matched == 1
    assert result.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert result.class_accuracy == result.class_f1 == 1
    assert result.weighted == pytest.approx(0.3 * 0.5 + 0.7)
    assert result.close_recall == 0.5
    assert set(result.row()) >= {"f1_loose", "f1_strict", "chance_random", "chance_comb"}


def test_nothing_found_and_nothing_to_find_have_scores():
    truth = (np.array([100, 200]), np.array([1, 2]))
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.int64))
    empty = score(truth, nothing, 1_000)
    assert (empty.loose.f1, empty.class_accuracy, empty.weighted) == (0, 0, 0)
    assert np.isnan(score((np.array([5]), np.array([1])), nothing, 100).close_recall)
    assert score(nothing, truth, 1_000).loose.f1 == 0
    assert score(nothing, nothing, 1_000).loose.f1 == 0


def test_chance_is_what_was_published_for_these_rates():
    rng = np.random.default_rng(0)
    sparse, dense = (np.sort(rng.integers(0, 1_440_000, n)) for n in (2176, 3984))
    assert chance_random(sparse, 2176, 1_440_000, 50) == pytest.approx(0.14, abs=0.01)
    assert chance_random(dense, 3984, 1_440_000, 50) == pytest.approx(0.22, abs=0.01)
    assert chance_comb(sparse, 1_440_000, 50) == pytest.approx(0.25, abs=0.02)
    assert chance_comb(dense, 1_440_000, 50) == pytest.approx(0.38, abs=0.02)


def test_the_final_score_weighs_the_noisy_recordings_most():
    assert final_score({f"D{k}": 1.0 for k in range(1, 7)}) == pytest.approx(1)
    assert final_score({"D2": 0.0, "D3": 0.0, "D4": 0.0, "D5": 0.0, "D6": 1.0}) == pytest.approx(0.3)
    assert np.isnan(final_score({"D1": 1.0}))


def test_neighbours_and_confusion():
    assert has_neighbour(np.array([0, 10, 40, 100, 124]), 25).tolist() == [True, True, False, True, True]
    assert has_neighbour(np.zeros(0, int), 25).tolist() == []
    assert confusion(np.array([1, 1, 2]), np.array([1, 2, 2]), 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
