import math

import pytest
import torch
from torch.nn import functional

from src.models.grids.losses import as_log_odds, future, sparse_loss, true_activity
from tests.models.grids.test_networks import BATCH, SUBJECTS, EmbeddingForecaster, built


@pytest.fixture(scope="module")
def forecasts():
    network = built(EmbeddingForecaster, width=4, hidden=8)
    return [f._replace(logits=f.logits.detach()) for f in network(BATCH)]


def test_truth_is_what_the_raster_says(forecasts):
    for forecast in forecasts:
        for row, place in enumerate(forecast.rows.tolist()):
            first = int(BATCH.first[place]) + 5
            expected = torch.from_numpy(SUBJECTS[forecast.subject].raster(first, first + 3))
            assert torch.equal(true_activity(forecast, BATCH)[row], expected)


@pytest.mark.parametrize("weight", [1.0, 7.0])
def test_the_sparse_bernoulli_loss_is_the_dense_one(forecasts, weight):
    total, count = sparse_loss(forecasts, BATCH, kind="bernoulli", positive_weight=weight)
    dense = sum(
        functional.binary_cross_entropy_with_logits(
            f.logits + math.log(weight),
            true_activity(f, BATCH).float(),
            pos_weight=torch.tensor(weight),
            reduction="sum",
        )
        for f in forecasts
    )
    torch.testing.assert_close(total, dense, rtol=1e-4, atol=1e-3)
    assert count == sum(f.logits.numel() for f in forecasts)


def test_the_sparse_poisson_loss_is_the_dense_one(forecasts):
    total, _ = sparse_loss(forecasts, BATCH, kind="poisson", positive_weight=1.0)
    dense = sum(
        functional.poisson_nll_loss(f.logits, true_activity(f, BATCH).float(), reduction="sum") for f in forecasts
    )
    torch.testing.assert_close(total, dense, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("weight", [1.0, 20.0])
def test_a_weighted_loss_leaves_the_probability_where_it_is(weight):
    """The minimum over one logit lies at the log-odds of the activity, whatever active voxels weigh."""
    logit = torch.linspace(-4, 0, 4001)
    share = 0.1
    shifted = logit + math.log(weight)
    loss = share * weight * functional.softplus(-shifted) + (1 - share) * functional.softplus(shifted)
    assert abs(torch.sigmoid(logit[loss.argmin()]).item() - share) < 1e-3


def test_picked_logits_are_those_of_active_voxels(forecasts):
    for f in forecasts:
        picked = f.logits[future(f, BATCH)]
        torch.testing.assert_close(picked.sum(), f.logits[true_activity(f, BATCH)].sum(), rtol=1e-4, atol=1e-4)


def test_a_poisson_expectation_is_a_probability():
    chance = torch.sigmoid(as_log_odds(torch.log(torch.tensor([0.2, 3.0])), "poisson"))
    torch.testing.assert_close(chance, torch.tensor([0.2, 1 - 1e-4]), rtol=1e-3, atol=1e-4)
