import numpy as np
import pytest
import torch

from src.preprocess.calcium.grid import marker_mask
from src.preprocess.calcium.grid_images import GridImages
from src.preprocess.calcium.grid_windows import as_sparse, window_batch
from src.signals import BadInput
from tests.forecast_data import random_subject, subject_grids

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
