import numpy as np
import pytest
import torch

from src.models.grids.networks import EmbeddingForecaster, PlaneForecaster, entries
from src.preprocess.calcium.grid_windows import GridImages, window_batch
from src.signals import BadInput
from tests.forecast_data import random_subject

SUBJECTS = [random_subject(i, frames=30, planes=2 + i, voxels=20 + i, density=0.2, name=f"fish{i}") for i in range(2)]
BATCH = window_batch(SUBJECTS, np.array([[0, 1], [1, 4], [0, 9]]), 5, 3)
ARGS = {"subjects": ["fish0", "fish1"], "n_voxels": [20, 21], "planes": [2, 3], "context": 5, "horizon": 3}


def built(kind, **given):
    torch.manual_seed(0)
    network = kind(**ARGS, **given).eval()
    rates = [torch.from_numpy(s.raster(0, 30).mean(axis=0)).float().clamp_min(0.01) for s in SUBJECTS]
    voxels = torch.from_numpy(np.concatenate([s.voxels for s in SUBJECTS]))
    network.adopt(torch.cat(rates), voxels, torch.full((41, 5, 3), 0.02))
    with torch.no_grad():  # a fresh convolution says nothing about the brain
        for name, parameter in network.named_parameters():
            if name.startswith("head"):
                parameter.normal_()
    if network.coarsen is None:
        return network, BATCH
    return network, BATCH._replace(image=GridImages(SUBJECTS, coarsen=network.coarsen, markers=False)(BATCH))


KINDS = [(EmbeddingForecaster, {"width": 4, "hidden": 8}), (PlaneForecaster, {"coarsen": 32, "channels": 4})]


def test_entries_name_window_frame_and_slot():
    found = entries(torch.tensor([4, 2, 9]), torch.tensor([[0, 2], [1, 0]]))
    assert [t.tolist() for t in found] == [[0, 0, 1], [1, 1, 0], [4, 2, 9]]


@pytest.mark.parametrize(("kind", "given"), KINDS)
def test_every_subject_gets_logits_for_its_own_voxels(kind, given):
    network, batch = built(kind, **given)
    found = network(batch)
    assert [(f.subject, f.rows.tolist(), tuple(f.logits.shape)) for f in found] == [
        (0, [0, 2], (2, 3, 20)),
        (1, [1], (1, 3, 21)),
    ]


@pytest.mark.parametrize(("kind", "given"), KINDS)
def test_a_window_s_forecast_does_not_depend_on_its_company(kind, given):
    network, batch = built(kind, **given)
    alone = window_batch(SUBJECTS, np.array([[1, 4]]), 5, 3)
    if batch.image is not None:
        alone = alone._replace(image=batch.image[1:2])
    torch.testing.assert_close(network(alone)[0].logits, network(batch)[1].logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "given"), KINDS)
def test_the_future_is_not_read(kind, given):
    network, batch = built(kind, **given)
    blind = batch._replace(target_slots=batch.target_slots[:0], target_counts=torch.zeros_like(batch.target_counts))
    for a, b in zip(network(batch), network(blind), strict=True):
        torch.testing.assert_close(a.logits, b.logits)


def test_the_sum_of_vectors_is_a_linear_layer_on_the_grid():
    network, batch = built(EmbeddingForecaster, width=4, hidden=8)
    seen = entries(batch.slots, batch.counts)
    state = network.observe(batch, seen)
    series = []
    for window, (number, first) in enumerate(zip(batch.subject.tolist(), batch.first.tolist(), strict=True)):
        span = network.span(number)
        active = torch.from_numpy(SUBJECTS[number].raster(first, first + 5)).float()
        centred = (active - network.rates[span]) @ network.vectors[span]
        series.append(centred / network.rates[span].sum().sqrt())
        assert window < 3
    _, hidden = network.trunk(torch.stack(series))
    torch.testing.assert_close(state, network.ahead(hidden[-1]).view(3, 3, 4), atol=1e-5, rtol=1e-5)


def test_a_voxel_s_own_past_is_weighed_by_its_age():
    network, batch = built(EmbeddingForecaster, width=4, hidden=8)
    before = network(batch)[0].logits.detach()
    with torch.no_grad():
        network.own_past[2] = torch.tensor([1.0, 2.0, 3.0])
    change = network(batch)[0].logits.detach() - before
    active = torch.from_numpy(np.stack([SUBJECTS[0].raster(f, f + 5)[2] for f in (1, 9)])).float()
    torch.testing.assert_close(change, active[:, None] * torch.tensor([1.0, 2.0, 3.0])[None, :, None])


def test_plane_weights_forecast_a_subject_nobody_trained_on():
    network, batch = built(PlaneForecaster, coarsen=32, channels=4)
    rates, voxels = network.rates[network.span(0)], network.voxels[network.span(0)]
    twin = network.for_subject("new", 2, voxels, rates)
    alone = window_batch(SUBJECTS[:1], np.array([[0, 1]]), 5, 3)
    images = GridImages(SUBJECTS[:1], coarsen=32, markers=False, planes=3)
    torch.testing.assert_close(
        twin(alone._replace(image=images(alone)))[0].logits, network(batch)[0].logits[:1], atol=1e-5, rtol=1e-5
    )
    with pytest.raises(BadInput, match="has 9 planes"):
        network.for_subject("deep", 9, voxels, rates)


@pytest.mark.parametrize(("kind", "given"), KINDS)
def test_a_brain_that_says_nothing_leaves_the_autoregression(kind, given):
    network, batch = built(kind, **given)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(("ahead", "head")):
                parameter.zero_()
    found = torch.sigmoid(network(batch)[0].logits.detach())
    rate = network.rates[network.span(0)]
    for row, first in enumerate((1, 9)):
        active = torch.from_numpy(SUBJECTS[0].raster(first, first + 5)).float()
        expected = rate + 0.02 * (active - rate).sum(0)
        torch.testing.assert_close(found[row], expected.expand(3, -1), atol=1e-5, rtol=1e-4)
