import numpy as np
import pytest

from src.preprocess.spikes.clusters import Refractory, Shapes, cluster, followers, merge_similar, split_mixed
from src.recordings.extracellular.spike_trains import SpikeTrain
from tests.preprocess.spikes.bumps import bump

SPAN = Refractory(20, 50, 1_500_000)


def trains(*counts, seed=0):
    rng = np.random.default_rng(seed)
    return [np.sort(rng.integers(0, SPAN.n_samples, count)) for count in counts]


def of_one_neuron(n_spikes, share, seed=0):
    """A regular train, and which of its spikes are in the first of two clusters."""
    index = np.arange(n_spikes) * (SPAN.n_samples // n_spikes)
    first = np.random.default_rng(seed).random(n_spikes) < share
    return [index[first], index[~first]]


def shapes_at(sizes, times):
    templates = np.stack([bump(25, 4, size) for size in sizes])[:, None]
    return Shapes(templates, np.zeros((len(sizes), 2, 1, 100)), times, 25)


def test_units_whose_waveforms_cannot_be_told_apart_are_one():
    shapes = shapes_at([5.0, 5.2, 12.0], trains(40, 60, 50))
    shapes.templates[0] = bump(35, 4, 5.0)
    kept = merge_similar(shapes, 25, SPAN)
    np.testing.assert_array_equal(kept.counts, [100, 50])
    assert kept.templates[0].max() == pytest.approx(5.2)


@pytest.mark.parametrize("sizes", [(32.0, 27.0), (9.0, 7.5)])
def test_spike_times_say_whether_two_sizes_of_one_shape_are_one_neuron(sizes):
    assert len(merge_similar(shapes_at(sizes, trains(877, 908)), 25, SPAN).times) == 2
    (kept,) = merge_similar(shapes_at(sizes, of_one_neuron(1800, 0.5)), 25, SPAN).times
    np.testing.assert_array_equal(kept, np.arange(1800) * (SPAN.n_samples // 1800))


def test_a_cluster_of_two_sizes_is_split_unless_one_neuron_fired_all_its_spikes():
    rng = np.random.default_rng(0)
    size = np.repeat([8.0, 11.5], 600)
    flat = np.outer(size, bump(10, 3, 0.45, 30)) + rng.standard_normal((1200, 30))
    labels = np.zeros(1200, int)
    two = split_mixed(flat, np.concatenate(trains(600, 600)), labels, 10, SPAN)
    assert max(np.mean(two[:600] == k) for k in (0, 1)) > 0.85
    assert np.mean(two[:600] == np.bincount(two[600:]).argmax()) < 0.15
    one = split_mixed(flat, np.concatenate(of_one_neuron(1200, 0.5))[:1200], labels, 10, SPAN)
    assert set(one) == {0}


def test_a_rare_neuron_leaves_a_cluster_that_violates_the_refractory_period():
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((211, 30))
    flat[:200] *= 2.5  # several small neurons in one cluster
    flat[200:] += bump(16, 3, 4.5, 30)
    times = np.concatenate((np.arange(100) * 9_000, np.arange(100) * 9_000 + 30, np.arange(11) * 70_000 + 500))
    labels = split_mixed(flat, times, np.zeros(211, int), 10, SPAN, most_parts=6)
    (rare,) = set(labels[200:])
    assert np.sum(labels == rare) == 11


def test_a_unit_that_follows_another_is_part_of_it():
    rng = np.random.default_rng(0)
    large, free = np.arange(1_000, 200_000, 900), np.sort(rng.integers(0, 200_000, 150))
    index = np.concatenate((large, large[::2] + 60, free))
    unit = np.repeat([1, 2, 3], [len(large), len(large[::2]), len(free)])
    follows = followers(SpikeTrain.sorted(index, unit), np.array([40.0, 6.0, 8.0]), 150)
    np.testing.assert_array_equal(follows, [False, True, False])


def test_clusters_are_numbered_and_a_few_windows_are_none():
    rng = np.random.default_rng(0)
    flat = np.concatenate((rng.standard_normal((60, 20)), rng.standard_normal((40, 20)) + 4))
    labels = cluster(flat, 10, 0)
    assert [set(labels[:60]), set(labels[60:])] in ([{0}, {1}], [{1}, {0}])
    assert set(cluster(flat[:5], 10, 0)) == {-1}
