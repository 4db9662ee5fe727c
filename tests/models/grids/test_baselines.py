import numpy as np
import pytest
import torch

from src.models.grids.baselines import make_baselines
from src.preprocess.calcium.grid_windows import window_batch
from tests.forecast_data import grid_data, subject_grids


@pytest.fixture(scope="module")
def sticky():
    """One subject whose voxels stay as they are with 80 %, and its statistics."""
    rng = np.random.default_rng(0)
    active = np.zeros((4000, 6), bool)
    for t in range(1, len(active)):
        stays = rng.random(6) < 0.8
        active[t] = np.where(stays, active[t - 1], rng.random(6) < 0.3)
    return subject_grids(active, np.arange(6), 1)


def statistics(grids, context=4, horizon=3):
    active = grids.raster(0, grids.frames).astype(float)
    centred = active - active.mean(axis=0)
    lags = [(centred[: len(centred) - k] * centred[k:]).mean(axis=0) for k in range(context + horizon)]
    return {
        "offsets": np.array([0, len(grids.voxels)]),
        "rates": active.mean(axis=0).astype(np.float32),
        "autocovariance": np.stack([np.stack(lags, axis=1)] * 2).astype(np.float32),
        "context": np.array(context),
        "horizon": np.array(horizon),
    }


def probabilities(baseline, grids, first):
    batch = window_batch([grids], np.array([[0, first]]), 4, 3)
    return torch.sigmoid(baseline(batch)[0].logits)[0].numpy()


def test_the_mean_rate_is_the_mean_rate(sticky):
    found = probabilities(make_baselines(statistics(sticky))["mean rate"], sticky, 7)
    np.testing.assert_allclose(found, np.tile(sticky.raster(0, 4000).mean(axis=0), (3, 1)), rtol=1e-4)


@pytest.mark.parametrize("name", ["persistence", "autoregression"])
def test_a_first_order_process_is_forecast_by_its_last_frame(sticky, name):
    rate = sticky.raster(0, 4000).mean(axis=0)
    for first in (10, 11, 50):
        last = sticky.raster(first + 3, first + 4)[0]
        expected = [rate + 0.8 ** (h + 1) * (last - rate) for h in range(3)]
        np.testing.assert_allclose(
            probabilities(make_baselines(statistics(sticky))[name], sticky, first), np.array(expected), atol=0.09
        )


def test_statistics_of_the_datamodule_fit_in(tmp_path):
    data = grid_data(tmp_path)
    data.setup("fit")
    baselines = make_baselines(data.statistics())
    assert list(baselines) == ["mean rate", "persistence", "autoregression"]
    for forecast in baselines["autoregression"](next(iter(data.val_dataloader()))):
        chance = torch.sigmoid(forecast.logits)
        assert torch.isfinite(chance).all()
        assert chance.min() > 0
        assert chance.max() < 1
