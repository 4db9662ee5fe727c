import numpy as np
import torch
from torch.nn import functional

from src.models.grids.active_voxels import (
    active_voxels,
    index_lists,
    last_activity,
    of_subject,
    sparse_loss,
    true_activity,
)
from src.preprocess.calcium.grid_windows import WindowFrames, as_sparse, window_batch
from tests.models.grids.test_networks import BATCH, SUBJECTS, built

VOXELS = torch.cat([torch.from_numpy(s.voxels) for s in SUBJECTS])
OFFSETS = [0, 20, 41]
EMPTY = BATCH._replace(voxel_index=BATCH.voxel_index[:0], counts=BATCH.counts[:0])


def test_active_voxels_name_window_frame_and_voxel():
    found = active_voxels(torch.tensor([4, 2, 9]), torch.tensor([[0, 2], [1, 0]]))
    assert [t.tolist() for t in found] == [[0, 0, 1], [1, 1, 0], [4, 2, 9]]


def test_a_subject_s_voxels_are_numbered_by_its_own_windows():
    found = active_voxels(torch.tensor([4, 2, 9]), torch.tensor([[1], [1], [1]]))
    rows, own = of_subject(found, torch.tensor([1, 0, 1]), 1)
    assert rows.tolist() == [0, 2]
    assert own.window.tolist() == [0, 1]
    assert own.voxel_index.tolist() == [4, 9]


def test_sparse_and_dense_images_become_the_index_lists_they_were_made_of():
    sparse = as_sparse(BATCH, SUBJECTS)
    for image in (sparse, sparse.to_dense()):
        found = index_lists(
            BATCH._replace(voxel_index=BATCH.voxel_index[:0], counts=BATCH.counts[:0], image=image), VOXELS, OFFSETS
        )
        assert torch.equal(found.voxel_index, BATCH.voxel_index.long())
        assert torch.equal(found.counts, BATCH.counts)


def test_what_is_active_outside_the_occupied_voxels_is_left_out():
    dense = as_sparse(BATCH, SUBJECTS).to_dense()
    dense[:, :, 0, :2, -2:] = 1  # a z-marker
    assert not set(range(126, 128)) & set((VOXELS % 128 + 1000 * (VOXELS >= 256)).tolist())
    found = index_lists(EMPTY._replace(image=dense), VOXELS, OFFSETS)
    assert torch.equal(found.counts, BATCH.counts)


def test_truth_and_loss_are_those_of_the_rasters():
    batch = window_batch(SUBJECTS, np.array([[0, 1], [1, 4], [0, 9]]), WindowFrames(5, 2, 3))
    forecasts = built()(batch)
    dense = torch.zeros(())
    for forecast in forecasts:
        truth, last = true_activity(forecast, batch), last_activity(forecast, batch)
        for row, place in enumerate(forecast.rows.tolist()):
            raster = torch.from_numpy(SUBJECTS[forecast.subject].raster(first := int(batch.first[place]), first + 10))
            assert torch.equal(truth[row], raster[7:])
            assert torch.equal(last[row], raster[4])
        dense += functional.binary_cross_entropy_with_logits(forecast.logits, truth.float(), reduction="sum")
    total, count = sparse_loss(forecasts, batch)
    torch.testing.assert_close(total, dense, rtol=1e-4, atol=1e-3)
    assert count == sum(f.logits.numel() for f in forecasts)
