"""Draws that belong to a cell, not to a process, a batch or an order."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.preprocess.calcium.sampling import SpikeSampler, block_split, seeded_rng, split_recording
from src.signals import BadInput


def test_draws_depend_on_seed_subject_and_cell_alone():
    expected = np.full((5, 300), 0.3, np.float16)
    ids = np.array([3, 9, 27, 81, 243])
    together = SpikeSampler(42, "subject_1").sample(expected, ids)
    backwards = SpikeSampler(42, "subject_1").sample(expected[::-1], ids[::-1])[::-1]
    one_by_one = [SpikeSampler(42, "subject_1").sample(expected[i : i + 1], ids[i : i + 1])[0] for i in range(5)]
    np.testing.assert_array_equal(together, backwards)
    np.testing.assert_array_equal(together, one_by_one)
    assert (together != SpikeSampler(43, "subject_1").sample(expected, ids)).any()
    assert (together != SpikeSampler(42, "subject_2").sample(expected, ids)).any()
    assert len(np.unique(together, axis=0)) == 5


def test_rates_come_out_as_asked_for():
    rate = np.array([0.0, 0.05, 0.5, 1.0, 2.5])
    expected = np.repeat(rate[:, None], 40_000, axis=1)
    ids = np.arange(1, 6)
    bernoulli = SpikeSampler(0, "s", "bernoulli").sample(expected, ids).mean(axis=1)
    poisson = SpikeSampler(0, "s", "poisson").sample(expected, ids).mean(axis=1)
    np.testing.assert_allclose(bernoulli, np.minimum(rate, 1), atol=0.01)
    np.testing.assert_allclose(poisson, 1 - np.exp(-rate), atol=0.01)
    assert bernoulli[0] == poisson[0] == 0
    assert bernoulli[3] == bernoulli[4] == 1


def test_frames_without_a_prediction_never_spike():
    expected = np.full((2, 50), np.nan, np.float16)
    expected[1, 20:30] = 5
    spikes = SpikeSampler(1, "s").sample(expected, np.array([1, 2]))
    assert not spikes[0].any()
    assert spikes[1].nonzero()[0].tolist() == list(range(20, 30))


def test_neighbouring_cells_and_purposes_are_independent():
    sampler = SpikeSampler(7, "s")
    draws = np.stack([sampler.uniform(cell, 4000) for cell in range(1, 9)])
    correlation = np.corrcoef(draws)[np.triu_indices(8, 1)]
    assert np.abs(correlation).max() < 0.06
    assert seeded_rng(7, "s", "split").random() != seeded_rng(7, "s", "figures").random()


def test_golden_draws_do_not_move():
    drawn = SpikeSampler(42, "subject_1").sample(np.full((3, 64), 0.25), np.array([1, 2, 1000]))
    digest = hashlib.sha256(np.packbits(drawn).tobytes()).hexdigest()
    assert digest[:16] == "ffdd3c8b854ad957"


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


def test_a_short_recording_gets_shorter_test_blocks():
    split, notes = split_recording(400, 0.95, 42, "s", 62, None)
    assert (split.block_frames, int(split.is_test.sum())) == (20, 20)
    assert split.is_train.mean() >= 0.95 / 2
    assert notes == ["test blocks have 20 frames, not 330: the recording is short"]
    assert split_recording(3000, 0.95, 42, "s", 62, None)[0].block_frames == 330


@pytest.mark.parametrize(
    ("frames", "guard", "block", "hint"),
    [(400, 62, 330, "give split_block_frames=20, or null"), (100, 62, None, "split_guard_frames or baseline_window_s")],
)
def test_a_split_that_leaves_too_little_to_train_is_refused_with_a_hint(frames, guard, block, hint):
    with pytest.raises(BadInput, match=r"to train .* less than half of split_ratio=0\.95") as caught:
        split_recording(frames, 0.95, 42, "s", guard, block)
    assert hint in caught.value.hint


def test_the_originals_split_of_a_short_recording_is_said_and_kept():
    split, notes = split_recording(400, 0.95, 42, "s", 0, None)
    np.testing.assert_array_equal(split.is_train, block_split(400, 0.95, 42, "s", 0).is_train)
    assert "70 training and 330 test frames" in notes[0]
