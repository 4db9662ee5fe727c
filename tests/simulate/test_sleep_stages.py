"""Simulated nights are built like nights: cycles, N3 early, REM late, durations and jumps as counted."""

import numpy as np
import pytest

from src.recordings.sleep.hypnogram import trim_wake
from src.simulate.sleep import jump_probabilities, simulate_hypnogram

W, N1, N2, N3, REM = range(5)


@pytest.fixture(scope="module")
def sleeps():
    """The sleep periods of 60 nights."""
    nights = [simulate_hypnogram(np.random.default_rng(seed), 8.0) for seed in range(60)]
    return [night[trim_wake(night, margin_s=0.0)] for night in nights]


def test_length_and_margins():
    for seed, hours in enumerate((0.25, 1.0, 8.0, 9.5)):
        night = simulate_hypnogram(np.random.default_rng(seed), hours)
        assert len(night) == round(hours * 120)
        assert night[0] == night[-1] == W
        asleep = np.flatnonzero(night)
        if hours >= 8:
            assert 40 <= asleep[0] <= 90
            assert len(night) - asleep[-1] - 1 >= 40


def test_shares_are_those_of_the_nights_counted(sleeps):
    shares = np.mean([np.bincount(sleep, minlength=5) / len(sleep) for sleep in sleeps], axis=0)
    np.testing.assert_allclose(shares, [0.066, 0.090, 0.477, 0.170, 0.198], atol=0.05)


def test_n3_comes_early_and_rem_late(sleeps):
    thirds = np.mean([[np.bincount(part, minlength=5) for part in np.array_split(s, 3)] for s in sleeps], axis=0)
    assert thirds[0, N3] > 2 * thirds[2, N3]
    assert thirds[2, REM] > 1.5 * thirds[0, REM]


def test_rem_takes_its_time(sleeps):
    latencies = [np.flatnonzero(sleep == REM)[0] / 2 for sleep in sleeps if (sleep == REM).any()]
    assert 60 < np.median(latencies) < 110
    assert min(latencies) > 10


def test_transitions_are_those_counted(sleeps):
    counts = np.zeros((5, 5))
    for sleep in sleeps:
        np.add.at(counts, (sleep[:-1], sleep[1:]), 1)
    measured = [
        [0.815, 0.166, 0.006, 0.001, 0.012],
        [0.049, 0.652, 0.242, 0.001, 0.056],
        [0.010, 0.024, 0.906, 0.046, 0.015],
        [0.004, 0.007, 0.122, 0.866, 0.001],
        [0.014, 0.036, 0.016, 0.000, 0.934],
    ]
    np.testing.assert_allclose(counts / counts.sum(axis=1, keepdims=True), measured, atol=0.06)


@pytest.mark.parametrize("third", [0, 1, 2])
@pytest.mark.parametrize("cycle", [0, 1, 2])
def test_jumps_are_probabilities_and_never_stay(third, cycle):
    jumps = jump_probabilities(third, cycle)
    np.testing.assert_allclose(jumps.sum(axis=1), 1.0, atol=0.01)
    assert (jumps >= 0).all()
    assert not np.diag(jumps).any()


def test_both_clocks_count():
    assert jump_probabilities(0, 1)[N2, N3] > 1.7 * jump_probabilities(2, 1)[N2, N3]
    assert jump_probabilities(1, 1)[N2, REM] < 0.05 < jump_probabilities(1, 2)[N2, REM]


def test_a_sleeper_may_lengthen_a_stage():
    more = np.array([1.0, 1.0, 1.0, 3.0, 1.0])
    plain, deep = (
        np.mean([(simulate_hypnogram(np.random.default_rng(s), 8.0, who) == N3).sum() for s in range(20)])
        for who in (None, more)
    )
    assert deep > 1.4 * plain
