"""The split: the original's to the bit without a gap, and no shared sample with one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.preprocess.calcium.block_split import block_split
from src.signals import BadInput

ORIGINAL = {
    5: (1,), 6: (0,), 8: (1,), 9: (7,), 10: (8,), 11: (5,), 12: (10,), 15: (9,),
    18: (0,), 20: (0,), 21: (0,), 30: (27,), 40: (16, 19),
}  # fmt: skip


@pytest.mark.parametrize(("blocks", "tests"), ORIGINAL.items())
@pytest.mark.parametrize("leftover", [0, 1, 329])
def test_without_a_gap_it_is_the_originals(blocks, tests, leftover):
    frames = blocks * 330 + leftover
    split = block_split(frames, 0.95, 42, "any", guard_frames=0)
    expected = np.ones(frames, np.uint8)
    for number in tests:
        expected[number * 330 : (number + 1) * 330] = 0
    assert split.test_blocks == tests
    assert split.is_train.dtype == np.uint8
    np.testing.assert_array_equal(split.is_train, expected)
    np.testing.assert_array_equal(split.is_test, 1 - expected)


@pytest.mark.parametrize(("frames", "testing"), [(0, 0), (1, 0), (329, 0), (330, 330), (659, 330)])
def test_short_recordings_behave_as_the_originals(frames, testing):
    split = block_split(frames, 0.95, 42, "any", guard_frames=0)
    assert split.is_test.sum() == testing
    assert split.is_train.sum() == frames - testing


@given(
    frames=st.integers(1, 3000),
    ratio=st.sampled_from([0.5, 0.8, 0.9, 0.95]),
    seed=st.integers(0, 99),
    guard=st.integers(0, 400),
)
@settings(deadline=None)
def test_training_and_test_frames_keep_their_distance(frames, ratio, seed, guard):
    split = block_split(frames, ratio, seed, "s", guard)
    train, test = np.flatnonzero(split.is_train), np.flatnonzero(split.is_test)
    assert not (split.is_train & split.is_test).any()
    assert len(test) == 330 * len(split.test_blocks)
    if len(test):
        distance = np.abs(np.arange(frames)[:, None] - test[None]).min(axis=1)
        np.testing.assert_array_equal(train, np.flatnonzero(distance > guard))
    else:
        assert len(train) == frames


def test_subjects_draw_their_own_blocks_and_repeat_them():
    drawn = {block_split(330 * 40, 0.95, 42, f"subject_{k}", 124).test_blocks for k in range(8)}
    assert len(drawn) > 4
    again = block_split(330 * 40, 0.95, 42, "subject_0", 124)
    assert again.test_blocks == block_split(330 * 40, 0.95, 42, "subject_0", 124).test_blocks


def test_the_share_of_blocks_is_not_lost_to_rounding():
    # In floating point 10 * (1 - 0.9) is a little less than one, and 20 * (1 - 0.9) than two.
    assert len(block_split(3300, 0.9, 0, "s", 1).test_blocks) == 1
    assert len(block_split(6600, 0.9, 0, "s", 1).test_blocks) == 2


@pytest.mark.parametrize(("ratio", "guard"), [(0, 0), (1, 0), (1.5, 0), (0.9, -1)])
def test_senseless_settings_are_refused(ratio, guard):
    with pytest.raises(BadInput, match="give"):
        block_split(1000, ratio, 0, "s", guard)
