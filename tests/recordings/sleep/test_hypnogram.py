"""Scorings on the epochs of a recording: who wins an epoch, where wake is cut, what is refused."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.recordings.sleep.hypnogram import Hypnogram, align, rasterise, require_sleep, stage_counts, trim_wake
from src.signals import UNSCORED, BadInput

START = datetime(2003, 11, 17, 23, 0)
some_stages = st.lists(st.integers(-1, 4), min_size=1, max_size=60).map(lambda s: np.array(s, np.int8))


def hypnogram(*stages, epoch_s=30.0, **more):
    return Hypnogram(np.array(stages, np.int8), epoch_s, source="h.csv", **more)


@given(some_stages)
def test_segments_and_raster_are_inverse(stages):
    night = Hypnogram(stages, 30.0, 90.0)
    np.testing.assert_array_equal(rasterise(night.segments(), 30.0, len(stages), onset_s=90.0), stages)


@pytest.mark.parametrize(
    ("five_second_stages", "expected"),
    [
        ([2, 2, 2, 2, 3, 3], 2),
        ([2, 2, 3, 3, 3, 3], 3),
        ([2, 2, 2, 3, 3, 3], UNSCORED),
        ([1, 1, 2, 2, 3, 3], UNSCORED),
        ([1, 1, 1, 2, 2, 0], 1),
        ([-1, -1, -1, -1, 2, 2], UNSCORED),
        ([-1, -1, 2, 2, 2, 2], 2),
        ([-1, -1, -1, 2, 2, 2], UNSCORED),
    ],
)
def test_six_short_epochs_vote(five_second_stages, expected):
    stages, _ = align(hypnogram(*five_second_stages, epoch_s=5.0), 30.0, 30.0)
    np.testing.assert_array_equal(stages, [expected])


@given(some_stages, st.sampled_from([1, 2, 3, 6]))
def test_finer_and_back_is_the_same(stages, factor):
    fine, _ = align(Hypnogram(stages, 30.0), 30.0 * len(stages), 30.0 / factor)
    back, _ = align(Hypnogram(fine, 30.0 / factor), 30.0 * len(stages), 30.0)
    np.testing.assert_array_equal(back, stages)


def test_a_shifted_scoring_goes_to_the_epochs_it_covers_most():
    stages, facts = align(hypnogram(1, 2, 3, onset_s=40.0), 150.0, 30.0)
    np.testing.assert_array_equal(stages, [UNSCORED, 1, 2, 3, UNSCORED])
    assert facts["without_score"] == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("minutes", [-1, 1])
def test_clocks_within_a_day_are_believed(minutes):
    night = hypnogram(1, 2, 3, 4, start=START + timedelta(minutes=minutes))
    stages, facts = align(night, 180.0, 30.0, start=START)
    expected = [UNSCORED, UNSCORED, 1, 2, 3, 4] if minutes > 0 else [3, 4] + [UNSCORED] * 4
    np.testing.assert_array_equal(stages, expected)
    assert facts["offset_s"] == 60.0 * minutes


def test_clocks_of_different_days_are_not():
    stages, facts = align(hypnogram(1, 2, start=datetime(1985, 1, 1)), 60.0, 30.0, start=START)
    np.testing.assert_array_equal(stages, [1, 2])
    assert "onsets taken from the start of the signal" in facts["warnings"][0]


def test_longer_and_shorter_than_the_signal():
    stages, facts = align(hypnogram(0, 1, 2, 3), 75.0, 30.0)
    np.testing.assert_array_equal(stages, [0, 1])
    assert facts["beyond_signal"] == 1.5
    assert facts["warnings"] == ["hypnogram exceeds the signal by 45 s of scored time, left out"]
    stages, facts = align(hypnogram(0, 1), 120.0, 30.0)
    np.testing.assert_array_equal(stages, [0, 1, UNSCORED, UNSCORED])
    assert facts["without_score"] == 2.0
    assert facts["warnings"] == ["hypnogram leaves 60 s of the signal unscored"]


def test_an_unscored_tail_beyond_the_signal_is_no_news():
    _, facts = align(hypnogram(0, 1, -1, -1), 60.0, 30.0)
    assert facts["warnings"] == []


@pytest.mark.parametrize("onset_s", [-90.0, 300.0, 1e6])
def test_a_scoring_of_another_time_is_refused(onset_s):
    with pytest.raises(BadInput, match="they share no time; pair the hypnogram with the recording it was made for"):
        align(hypnogram(0, 1, 2, onset_s=onset_s), 300.0, 30.0)


def test_wake_is_cut_to_exactly_half_an_hour_at_both_ends():
    stages = np.zeros(1000, np.int8)
    stages[400:600] = 2
    stages[450:460] = 0
    assert trim_wake(stages) == slice(340, 660)


def test_the_last_sleep_epoch_counts_to_its_end():
    stages = np.zeros(300, np.int8)
    stages[100] = 1
    kept = trim_wake(stages)
    assert kept == slice(40, 161)
    assert (100 - kept.start, kept.stop - 1 - 100) == (60, 60)


def test_less_wake_than_the_margin_is_kept_whole():
    stages = np.array([0, 0, 2, 2, 4, 0], np.int8)
    assert trim_wake(stages) == slice(0, 6)
    stages[0] = 1
    stages[-1] = 1
    assert trim_wake(stages, margin_s=0.0) == slice(0, 6)


def test_margins_in_other_epochs():
    stages = np.zeros(2000, np.int8)
    stages[1000:1100] = 1
    assert trim_wake(stages, epoch_s=4.0) == slice(550, 1550)
    assert trim_wake(stages, margin_s=0.0, epoch_s=4.0) == slice(1000, 1100)
    assert trim_wake(stages, margin_s=10.0, epoch_s=4.0) == slice(997, 1103)


def test_unscored_epochs_are_no_sleep():
    stages = np.full(300, UNSCORED, np.int8)
    stages[100:110] = 3
    assert trim_wake(stages) == slice(40, 170)
    with pytest.raises(ValueError, match="no sleep"):
        trim_wake(np.array([0, -1, 0], np.int8))


@given(some_stages, st.integers(0, 20))
def test_trimming_keeps_all_sleep_and_trims_no_further_twice(stages, margin):
    if not (stages > 0).any():
        return
    kept = trim_wake(stages, 30.0 * margin)
    assert (stages[kept] > 0).sum() == (stages > 0).sum()
    again = trim_wake(stages[kept], 30.0 * margin)
    assert (again.start, again.stop) == (0, kept.stop - kept.start)


def test_counts():
    assert stage_counts(np.array([0, 0, 4, -1])) == {"W": 2, "N1": 0, "N2": 0, "N3": 0, "REM": 1, "unscored": 1}
    assert stage_counts(np.array([1]), ("Wake", "NREM", "REM")) == {"Wake": 0, "NREM": 1, "REM": 0, "unscored": 0}


@pytest.mark.parametrize(
    ("stages", "problem"),
    [
        ([0, 0, -1], "has no sleep at all (every one of its epochs is W)"),
        ([3, 3, -1], "has one class only (N3)"),
        ([-1, -1], "has no scored epoch"),
    ],
)
def test_a_useless_scoring_is_refused(stages, problem):
    with pytest.raises(BadInput) as caught:
        require_sleep(np.array(stages, np.int8), "h.csv")
    assert str(caught.value) == f"h.csv: {problem}; leave this night out, or give the right hypnogram"
