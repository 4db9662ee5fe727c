import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.models.spikes.events import Bumps, EventStream, extract_events, in_order, merge, outside_refractory
from src.recordings.extracellular.spike_trains import SpikeTrain

WIDTH = 7


def curves(spikes, n=400, units=3, height=1.0):
    probability = np.zeros((units, n), np.float32)
    for index, unit in spikes:
        probability[unit - 1, index - 3 : index + 4] = height
    return probability


def found(probability, threshold=0.5, refractory=25):
    train, strength = extract_events(probability, threshold=threshold, refractory=refractory, width=WIDTH)
    return list(zip(train.index.tolist(), train.unit.tolist(), strict=True)), strength


def test_a_spike_is_read_at_the_middle_of_its_bump_not_at_its_first_crossing():
    spikes, strength = found(curves([(100, 2), (200, 1)]))
    assert spikes == [(100, 2), (200, 1)]
    np.testing.assert_allclose(strength, 1, rtol=1e-6)


def test_overlapping_spikes_of_two_neurons_stay_two():
    assert found(curves([(100, 1), (100, 3)]))[0] == [(100, 1), (100, 3)]
    assert found(curves([(100, 1), (104, 3)]))[0] == [(100, 1), (104, 3)]


def test_doubt_between_two_neurons_is_one_spike():
    doubt = curves([(100, 1)], height=0.45) + curves([(100, 2)], height=0.5)
    spikes, strength = found(doubt)
    assert spikes == [(100, 2)]
    assert strength[0] == pytest.approx(0.95, abs=0.01)


def test_less_than_the_threshold_is_nothing():
    assert found(curves([(100, 1)], height=0.3))[0] == []
    assert found(curves([(100, 1)], height=0.3), threshold=0.25)[0] == [(100, 1)]
    assert found(np.zeros((2, 50), np.float32))[0] == []


def test_one_neuron_rests_after_a_spike():
    close = curves([(100, 1)]) + 0.8 * curves([(115, 1)])
    assert found(close)[0] == [(100, 1)]
    assert found(close, refractory=10)[0] == [(100, 1), (115, 1)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 399), max_size=6))
def test_blocks_do_not_matter(seed, cuts):
    rng = np.random.default_rng(seed)
    probability = np.zeros((3, 400), np.float32)
    for _ in range(12):
        unit, at = rng.integers(0, 3), rng.integers(0, 390)
        probability[unit, at : at + 9] = np.maximum(probability[unit, at : at + 9], rng.random(9) * rng.random())
    whole = extract_events(probability, threshold=0.3, refractory=20, width=WIDTH)
    stream = EventStream(threshold=0.3, refractory=20, width=WIDTH)
    for block in np.split(probability, sorted(cuts), axis=1):
        stream.push(block)
    train, strength = stream.finish()
    np.testing.assert_array_equal(train.index, whole[0].index)
    np.testing.assert_array_equal(train.unit, whole[0].unit)
    np.testing.assert_allclose(strength, whole[1], atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 1.2), st.integers(2, 60))
def test_one_look_serves_all_thresholds(seed, threshold, refractory):
    rng = np.random.default_rng(seed)
    probability = np.where(rng.random((3, 400)) < 0.7, 0, rng.random((3, 400)) ** 2).astype(np.float32)
    bumps = Bumps.of(probability, width=WIDTH)
    train, strength = in_order(bumps.spikes(threshold, refractory), refractory)
    whole = extract_events(probability, threshold=threshold, refractory=refractory, width=WIDTH)
    np.testing.assert_array_equal(train.index, whole[0].index)
    np.testing.assert_array_equal(train.unit, whole[0].unit)
    np.testing.assert_allclose(strength, whole[1])
    assert (strength >= min(threshold, 1) - 1e-6).all()


def test_a_spike_beside_another_bump_counts_nothing_of_it():
    probability = np.zeros((1, 30), np.float32)
    probability[0, 5:9], probability[0, 10:14] = 0.9, 0.9  # one quiet sample between them
    bumps = Bumps.of(probability, width=WIDTH)
    assert bumps.starts.tolist() == [5, 10]
    assert bumps.level.max() == pytest.approx(4 * 0.9)


def test_spikes_at_the_ends_are_found():
    probability = np.zeros((1, 60), np.float32)
    probability[0, :4] = probability[0, -4:] = 1
    spikes, _ = found(probability)
    assert [index for index, _ in spikes] == [1, 58] or len(spikes) == 2


def test_of_two_in_a_refractory_period_the_stronger_stays():
    index, unit = np.array([10, 20, 30, 90]), np.array([1, 1, 1, 1])
    assert outside_refractory(index, unit, np.array([0.5, 0.9, 0.6, 0.1]), 10).tolist() == [False, True, False, True]
    assert outside_refractory(index, unit, np.array([0.9, 0.5, 0.8, 0.1]), 10).tolist() == [True, False, True, True]
    assert outside_refractory(index, np.array([1, 2, 1, 2]), np.ones(4), 10).all()


def test_a_second_look_adds_and_never_replaces():
    first = SpikeTrain(np.array([100, 300]), np.array([1, 2])), np.array([0.3, 0.4])
    second = SpikeTrain(np.array([105, 110, 200]), np.array([1, 3, 2])), np.array([0.9, 0.8, 0.7])
    train, strength = merge(first, second, 20)
    assert train.index.tolist() == [100, 110, 200, 300]
    assert train.unit.tolist() == [1, 3, 2, 2]
    assert strength.tolist() == [0.3, 0.8, 0.7, 0.4]
