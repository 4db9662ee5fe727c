"""Draws that belong to a cell, not to a process, a batch or an order."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.preprocess.calcium.sampling import SpikeSampler, stream


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


@given(st.lists(st.integers(1, 2**40), min_size=2, max_size=6, unique=True), st.integers(0, 2**31))
@settings(deadline=None)
def test_what_was_drawn_before_leaves_no_trace(cells, seed):
    sampler = SpikeSampler(seed, "s")
    first = {cell: sampler.uniform(cell, 37) for cell in cells}
    for cell in reversed(cells):
        np.testing.assert_array_equal(sampler.uniform(cell, 37), first[cell])
        np.testing.assert_array_equal(sampler.uniform(cell, 11), first[cell][:11])


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


def test_an_unknown_way_of_sampling_is_refused():
    with pytest.raises(ValueError, match="neither"):
        SpikeSampler(0, "s", "binomial")  # type: ignore[arg-type]


def test_neighbouring_cells_and_purposes_are_independent():
    sampler = SpikeSampler(7, "s")
    draws = np.stack([sampler.uniform(cell, 4000) for cell in range(1, 9)])
    correlation = np.corrcoef(draws)[np.triu_indices(8, 1)]
    assert np.abs(correlation).max() < 0.06
    assert stream(7, "s", "split").random() != stream(7, "s", "figures").random()


def test_golden_draws_do_not_move():
    drawn = SpikeSampler(42, "subject_1").sample(np.full((3, 64), 0.25), np.array([1, 2, 1000]))
    digest = hashlib.sha256(np.packbits(drawn).tobytes()).hexdigest()
    assert digest[:16] == "ffdd3c8b854ad957"
