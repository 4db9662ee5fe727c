import numpy as np
import pytest
import torch

from src.models.grids.active_voxels import active_voxels
from src.models.grids.networks import PlaneForecaster
from src.preprocess.calcium.grid_windows import WindowFrames, as_sparse, window_batch
from src.signals import BadInput
from tests.forecast_data import random_subject

SUBJECTS = [random_subject(i, frames=30, planes=2 + i, voxels=20 + i, density=0.2, name=f"fish{i}") for i in range(2)]
FRAMES = WindowFrames(5, 0, 3)
BATCH = window_batch(SUBJECTS, np.array([[0, 1], [1, 4], [0, 9]]), FRAMES)
BRAINS = {"subjects": ["fish0", "fish1"], "n_voxels": [20, 21], "planes": [2, 3]}


def built(**given):
    torch.manual_seed(0)
    network = PlaneForecaster(BRAINS, FRAMES, **({"coarsen": 32, "channels": 4} | given)).eval()
    rates = [torch.from_numpy(s.raster(0, 30).mean(axis=0)).float().clamp_min(0.01) for s in SUBJECTS]
    network.rates, network.linear = torch.cat(rates), torch.full((41, 5, 3), 0.02)
    network.voxels = torch.from_numpy(np.concatenate([s.voxels for s in SUBJECTS]))
    with torch.no_grad():  # a fresh convolution says nothing about the brain
        for name, parameter in network.named_parameters():
            if name.startswith("head"):
                parameter.normal_()
    return network


def test_every_subject_gets_logits_for_its_own_voxels():
    network = built()
    found = network(BATCH)
    assert [(f.subject, f.rows.tolist(), tuple(f.logits.shape)) for f in found] == [
        (0, [0, 2], (2, 3, 20)),
        (1, [1], (1, 3, 21)),
    ]


def test_a_window_s_forecast_does_not_depend_on_its_company():
    network = built()
    alone = window_batch(SUBJECTS, np.array([[1, 4]]), FRAMES)
    torch.testing.assert_close(network(alone)[0].logits, network(BATCH)[1].logits, atol=1e-5, rtol=1e-5)


def test_the_future_is_not_read():
    network = built()
    blind = BATCH._replace(
        target_voxel_index=BATCH.target_voxel_index[:0], target_counts=torch.zeros_like(BATCH.target_counts)
    )
    for a, b in zip(network(BATCH), network(blind), strict=True):
        torch.testing.assert_close(a.logits, b.logits)


def test_a_voxel_s_own_past_is_weighed_by_its_age():
    network = built()
    before = network(BATCH)[0].logits.detach()
    with torch.no_grad():
        network.own_past[2] = torch.tensor([1.0, 2.0, 3.0])
    change = network(BATCH)[0].logits.detach() - before
    active = torch.from_numpy(np.stack([SUBJECTS[0].raster(f, f + 5)[2] for f in (1, 9)])).float()
    torch.testing.assert_close(change, active[:, None] * torch.tensor([1.0, 2.0, 3.0])[None, :, None])


def test_plane_weights_forecast_a_subject_nobody_trained_on():
    network = built()
    rates, voxels = network.rates[network.span(0)], network.voxels[network.span(0)]
    twin = network.for_subject("new", 2, voxels, rates)
    alone = window_batch(SUBJECTS[:1], np.array([[0, 1]]), FRAMES)
    torch.testing.assert_close(twin(alone)[0].logits, network(BATCH)[0].logits[:1], atol=1e-5, rtol=1e-5)
    with pytest.raises(BadInput, match="has 9 planes"):
        network.for_subject("deep", 9, voxels, rates)


def test_a_brain_that_says_nothing_leaves_the_autoregression():
    network = built()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("head"):
                parameter.zero_()
    found = torch.sigmoid(network(BATCH)[0].logits.detach())
    rate = network.rates[network.span(0)]
    for row, first in enumerate((1, 9)):
        active = torch.from_numpy(SUBJECTS[0].raster(first, first + 5)).float()
        expected = rate + 0.02 * (active - rate).sum(0)
        torch.testing.assert_close(found[row], expected.expand(3, -1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", [2, 32])
def test_the_image_is_the_sum_pooled_grid(side):
    network = built(coarsen=side)
    image = network.image(BATCH, active_voxels(BATCH.voxel_index, BATCH.counts)).view(3, 3, 5, 256 // side, 128 // side)
    dense = as_sparse(BATCH, SUBJECTS).to_dense().float().transpose(1, 2)
    pooled = torch.nn.functional.avg_pool2d(dense.flatten(0, 2), side).view(image.shape) * side**2
    torch.testing.assert_close(image, pooled, rtol=0, atol=1e-5)


def test_a_side_that_does_not_divide_the_grid_is_refused():
    with pytest.raises(BadInput, match="power of two"):
        built(coarsen=3)
