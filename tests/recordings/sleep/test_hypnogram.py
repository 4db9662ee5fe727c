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


def test_longer_and_shorter_than_the_signal():
    stages, facts = align(hypnogram(0, 1, 2, 3), 75.0, 30.0)
    np.testing.assert_array_equal(stages, [0, 1])
    assert facts["beyond_signal"] == 1.5
    assert facts["warnings"] == ["hypnogram exceeds the signal by 45 s of scored time, left out"]
    stages, facts = align(hypnogram(0, 1), 120.0, 30.0)
    np.testing.assert_array_equal(stages, [0, 1, UNSCORED, UNSCORED])
    assert facts["without_score"] == 2.0
    assert facts["warnings"] == ["hypnogram leaves 60 s of the signal unscored"]


def test_times_that_may_be_ends_and_stages_with_gaps_are_said():
    _, facts = align(hypnogram(*[0, 1] * 10, onset_s=30.0), 610.0, 30.0)
    assert facts["doubts"] == ["it is as long as the recording and begins 30 s later: are its times ends of epochs?"]
    _, facts = align(hypnogram(0, -1, -1, -1, 2), 150.0, 30.0)
    assert facts["warnings"] == ["its stages last 40% of the time from its first to its last: the rest is unscored"]


def test_an_unscored_tail_beyond_the_signal_is_no_news():
    _, facts = align(hypnogram(0, 1, -1, -1), 60.0, 30.0)
    assert facts["warnings"] == []


@pytest.mark.parametrize("onset_s", [-90.0, 300.0, 1e6])
def test_a_scoring_of_another_time_is_refused(onset_s):
    with pytest.raises(BadInput, match="they share no time; pair the hypnogram with the recording it was made for"):
        align(hypnogram(0, 1, 2, onset_s=onset_s), 300.0, 30.0)


@pytest.mark.parametrize(
    ("n", "rest", "sleep", "more", "kept"),
    [
        (1000, 0, (400, 600), {}, (340, 660)),
        (300, 0, (100, 101), {}, (40, 161)),  # the last sleep epoch counts to its end
        (6, 0, (2, 5), {}, (0, 6)),  # less wake than the margin
        (2000, 0, (1000, 1100), {"epoch_s": 4.0}, (550, 1550)),
        (2000, 0, (1000, 1100), {"epoch_s": 4.0, "margin_s": 0.0}, (1000, 1100)),
        (2000, 0, (1000, 1100), {"epoch_s": 4.0, "margin_s": 10.0}, (997, 1103)),
        (300, UNSCORED, (100, 110), {}, (40, 170)),  # unscored epochs are no sleep
    ],
)
def test_wake_is_cut_to_half_an_hour_at_both_ends(n, rest, sleep, more, kept):
    stages = np.full(n, rest, np.int8)
    stages[slice(*sleep)] = 2
    stages[sum(sleep) // 2 + 1 : sleep[1] - 1] = 0  # wake within sleep
    assert trim_wake(stages, **more) == slice(*kept)


def test_without_sleep_there_is_nothing_to_trim_around():
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
