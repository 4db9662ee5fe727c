import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from src.preprocess.calcium.grid import marker_mask
from src.preprocess.calcium.grid_windows import GridImages, as_sparse, window_batch
from src.signals import BadInput
from tests.forecast_data import random_subject, subject_grids


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), context=st.integers(1, 6), horizon=st.integers(0, 4))
def test_a_batch_holds_what_the_rasters_hold(seed, context, horizon):
    rng = np.random.default_rng(seed)
    subjects = [random_subject(seed + i, frames=20, planes=2 + i, voxels=10 + i, density=0.2) for i in range(3)]
    windows = np.stack([rng.integers(0, 3, 5), rng.integers(0, 20 - context - horizon, 5)], axis=1)
    batch = window_batch(subjects, windows, context, horizon)
    slots, ahead = (
        batch.slots.split(batch.counts.sum(1).tolist()),
        batch.target_slots.split(batch.target_counts.sum(1).tolist()),
    )
    for i, (number, first) in enumerate(windows):
        raster = subjects[number].raster(first, first + context + horizon)
        np.testing.assert_array_equal(np.nonzero(raster[:context])[1], slots[i])
        np.testing.assert_array_equal(np.nonzero(raster[context:])[1], ahead[i])


def test_a_sparse_tensor_is_coalesced_and_equals_the_grid():
    subjects = [random_subject(i, frames=9, planes=2 + i, voxels=15, density=0.3) for i in range(2)]
    batch = window_batch(subjects, np.array([[0, 1], [1, 4]]), 3, 2)
    sparse = as_sparse(batch, subjects)
    assert sparse.is_coalesced()
    assert sparse.shape == (2, 3, 3, 256, 128)
    assert int(sparse.values().max()) == 1
    dense = sparse.to_dense().numpy().reshape(2, 3, -1)
    for i, (number, first) in enumerate([(0, 1), (1, 4)]):
        np.testing.assert_array_equal(
            dense[i][:, subjects[number].voxels].astype(bool), subjects[number].raster(first, first + 3)
        )
    assert dense.sum() == len(batch.slots)


def test_a_duplicate_is_refused():
    fish = random_subject(0, density=0.3)
    batch = window_batch([fish], np.array([[0, 0]]), 2, 1)
    doubled = batch._replace(
        slots=torch.cat([batch.slots[:1], batch.slots]), counts=batch.counts + torch.tensor([[1, 0]])
    )
    with pytest.raises(ValueError, match="listed twice"):
        as_sparse(doubled, [fish])


def test_frames_beyond_the_end_are_empty():
    fish = random_subject(0, frames=10)
    batch = window_batch([fish], np.array([[0, 6]]), 4, 3)
    assert batch.target_counts.tolist() == [[0, 0, 0]]
    assert len(batch.target_slots) == 0


SUBJECTS = [random_subject(i, frames=9, planes=2 + i, voxels=40, density=0.3) for i in range(2)]
BATCH = window_batch(SUBJECTS, np.array([[0, 1], [1, 4]]), 3, 2)


def dense():
    return as_sparse(BATCH, SUBJECTS).to_dense().float()


def test_the_image_is_the_grid():
    torch.testing.assert_close(GridImages(SUBJECTS, coarsen=1, markers=False)(BATCH), dense())


@pytest.mark.parametrize("side", [2, 8])
def test_a_coarse_image_is_the_sum_pooled_grid(side):
    pooled = torch.nn.functional.avg_pool2d(dense().flatten(0, 2), side) * side**2
    image = GridImages(SUBJECTS, coarsen=side, markers=False)(BATCH)
    torch.testing.assert_close(image.flatten(0, 2), pooled, rtol=0, atol=1e-5)


def test_markers_cover_spikes_on_a_subject_s_own_planes():
    corner = subject_grids(np.ones((4, 1), bool), [127], 2)
    batch = window_batch([corner, SUBJECTS[1]], np.array([[0, 0], [1, 0]]), 2, 1)
    image = GridImages([corner, SUBJECTS[1]], coarsen=1, markers=True)(batch)
    np.testing.assert_array_equal(image[0, 0, :2].numpy(), marker_mask(2))
    assert image.max() == 1
    assert image[0, :, 2].sum() == 0
    assert image[1, 0, 2, :2, -4:].min() == 1


def test_the_buffer_is_reused_and_clean():
    images = GridImages(SUBJECTS, coarsen=4, markers=False)
    first = images(BATCH).clone()
    place = images.buffer.data_ptr()
    images(window_batch(SUBJECTS, np.array([[0, 3]]), 3, 2))
    torch.testing.assert_close(images(BATCH), first)
    assert images.buffer.data_ptr() == place


def test_odd_sides_are_refused():
    with pytest.raises(BadInput, match="power of two"):
        GridImages(SUBJECTS, coarsen=3, markers=False)
