import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.preprocess.calcium.grid_windows import WindowFrames, as_sparse, window_batch
from tests.forecast_data import random_subject


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), frames=st.builds(WindowFrames, *map(st.integers, (1, 0, 0), (6, 5, 4))))
def test_a_batch_holds_what_the_rasters_hold(seed, frames):
    rng = np.random.default_rng(seed)
    subjects = [random_subject(seed + i, frames=20, planes=2 + i, voxels=10 + i, density=0.2) for i in range(3)]
    windows = np.stack([rng.integers(0, 3, 5), rng.integers(0, 20 - frames.length, 5)], axis=1)
    batch = window_batch(subjects, windows, frames)
    voxel_index, ahead = (
        batch.voxel_index.split(batch.counts.sum(1).tolist()),
        batch.target_voxel_index.split(batch.target_counts.sum(1).tolist()),
    )
    for i, (number, first) in enumerate(windows):
        raster = subjects[number].raster(first, first + frames.length)
        np.testing.assert_array_equal(np.nonzero(raster[: frames.context])[1], voxel_index[i])
        np.testing.assert_array_equal(np.nonzero(raster[frames.target :])[1], ahead[i])


def test_a_sparse_tensor_is_coalesced_and_equals_the_grid():
    subjects = [random_subject(i, frames=9, planes=2 + i, voxels=15, density=0.3) for i in range(2)]
    batch = window_batch(subjects, np.array([[0, 1], [1, 4]]), WindowFrames(3, 0, 2))
    sparse = as_sparse(batch, subjects)
    assert sparse.is_coalesced()
    assert sparse.shape == (2, 3, 3, 256, 128)
    assert int(sparse.values().max()) == 1
    dense = sparse.to_dense().numpy().reshape(2, 3, -1)
    for i, (number, first) in enumerate([(0, 1), (1, 4)]):
        np.testing.assert_array_equal(
            dense[i][:, subjects[number].voxels].astype(bool), subjects[number].raster(first, first + 3)
        )
    assert dense.sum() == len(batch.voxel_index)


def test_a_duplicate_is_refused():
    fish = random_subject(0, density=0.3)
    batch = window_batch([fish], np.array([[0, 0]]), WindowFrames(2, 0, 1))
    doubled = batch._replace(
        voxel_index=torch.cat([batch.voxel_index[:1], batch.voxel_index]), counts=batch.counts + torch.tensor([[1, 0]])
    )
    with pytest.raises(ValueError, match="listed twice"):
        as_sparse(doubled, [fish])


def test_frames_beyond_the_end_are_empty():
    fish = random_subject(0, frames=10)
    batch = window_batch([fish], np.array([[0, 6]]), WindowFrames(4, 0, 3))
    assert batch.target_counts.tolist() == [[0, 0, 0]]
    assert len(batch.target_voxel_index) == 0
