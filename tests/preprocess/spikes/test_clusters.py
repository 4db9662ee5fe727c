from dataclasses import replace

import numpy as np
import pytest

from src.preprocess.spikes.clusters import Shapes, cluster, followers, merge_similar
from src.recordings.extracellular.spike_trains import SpikeTrain


def bump(at, width, height, length=100):
    return height * np.exp(-0.5 * ((np.arange(length) - at) / width) ** 2)


def test_units_whose_waveforms_cannot_be_told_apart_are_one():
    templates = np.stack([bump(25, 4, 5.0), bump(35, 4, 5.2), bump(25, 4, 12.0)])[:, None]
    shapes = Shapes(templates, np.zeros((3, 2, 1, 100)), np.array([40, 60, 50]), 25)
    kept = merge_similar(shapes, 25)
    np.testing.assert_array_equal(kept.counts, [100, 50])
    assert kept.templates[0].max() == pytest.approx(5.2)
    apart = replace(shapes, templates=shapes.templates * np.array([1, 3, 1])[:, None, None])
    assert len(merge_similar(apart, 25).counts) == 3


def test_large_units_of_one_shape_and_two_sizes_stay_two():
    templates = np.stack([bump(25, 4, 32.0), bump(25, 4, 27.0)])[:, None]
    shapes = Shapes(templates, np.zeros((2, 2, 1, 100)), np.array([877, 908]), 25)
    assert len(merge_similar(shapes, 25).counts) == 2


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
