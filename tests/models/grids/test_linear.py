from types import SimpleNamespace

import numpy as np
import pytest
import torch

from src.datamodules.grid_statistics import COMPONENTS, training_statistics
from src.models.grids.linear import LINEAR, fit_linear, linear_forecasts
from src.preprocess.calcium.grid_windows import WindowFrames, window_batch
from tests.forecast_data import grid_data, subject_grids

FRAMES = WindowFrames(4, 0, 3)


@pytest.fixture(scope="module")
def sticky():
    """One subject whose voxels stay as they are with 80 %, and its statistics."""
    rng = np.random.default_rng(0)
    active = np.zeros((4000, 6), bool)
    for t in range(1, len(active)):
        stays = rng.random(6) < 0.8
        active[t] = np.where(stays, active[t - 1], rng.random(6) < 0.3)
    return subject_grids(active, np.arange(6), 1)


def statistics(grids, train=None, val=None):
    whole = [range(grids.frames)]
    return training_statistics([grids], [{"train": train or whole, "val": val or whole}], FRAMES)


def forecasts(known):
    offsets, components = known["offsets"].tolist(), known["components"].shape[1]
    return linear_forecasts(SimpleNamespace(offsets=offsets, components=components, **fit_linear(known)))


def probabilities(baseline, grids, first):
    batch = window_batch([grids], np.array([[0, first]]), FRAMES)
    return torch.sigmoid(baseline(batch)[0].logits)[0].numpy()


def test_the_mean_rate_is_the_mean_rate(sticky):
    found = probabilities(forecasts(statistics(sticky))["mean rate"], sticky, 7)
    np.testing.assert_allclose(found, np.tile(sticky.raster(0, 4000).mean(axis=0), (3, 1)), rtol=1e-4)


@pytest.mark.parametrize("name", ["persistence", "autoregression"])
def test_a_first_order_process_is_forecast_by_its_last_frame(sticky, name):
    rate = sticky.raster(0, 4000).mean(axis=0)
    for first in (10, 11, 50):
        last = sticky.raster(first + 3, first + 4)[0]
        expected = [rate + 0.8 ** (h + 1) * (last - rate) for h in range(3)]
        np.testing.assert_allclose(
            probabilities(forecasts(statistics(sticky))[name], sticky, first), np.array(expected), atol=0.09
        )


def test_statistics_of_the_datamodule_fit_in(tmp_path):
    data = grid_data(tmp_path)
    data.setup("fit")
    baselines = forecasts(data.statistics())
    assert tuple(baselines) == LINEAR
    for forecast in baselines["linear population"](next(iter(data.val_dataloader()))):
        chance = torch.sigmoid(forecast.logits)
        assert torch.isfinite(chance).all()
        assert chance.min() > 0
        assert chance.max() < 1


TRAIN, VAL = [range(3000)], [range(3000, 4000)]


def fitted(active):
    grids = subject_grids(active, np.arange(active.shape[1]), 1)
    known = statistics(grids, train=TRAIN, val=VAL)
    return grids, known["components"], forecasts(known)["linear population"]


@pytest.fixture(scope="module")
def chain():
    """Voxel 0 fires at random, and voxel 1 two frames after it."""
    active = np.random.default_rng(0).random((4000, 6)) < 0.2
    active[2:, 1] = active[:-2, 0]
    return fitted(active)


def test_who_calls_whom_is_found(chain):
    grids, axes, model = chain
    assert axes.shape == (6, COMPONENTS)
    np.testing.assert_allclose(axes[:, :6].T @ axes[:, :6], np.eye(6), atol=1e-5)
    firsts = range(20, 3900, 40)
    batch = window_batch([grids], np.array([[0, first] for first in firsts]), FRAMES)
    chance = torch.sigmoid(model(batch)[0].logits).numpy()
    called = np.stack([grids.raster(first + 2, first + 4)[:, 0] for first in firsts])
    assert np.sqrt(np.mean((chance[:, :2, 1] - called) ** 2)) < 0.12
    assert np.sqrt(np.mean((chance[:, 2, 1] - 0.2) ** 2)) < 0.06
    assert np.sqrt(np.mean((chance[:, :, 2:] - 0.2) ** 2)) < 0.06


def test_floors_change_nothing_else(chain):
    grids, _, model = chain
    batch = window_batch([grids], np.array([[0, 5], [0, 9]]), FRAMES)
    low, high = (torch.sigmoid(model.cut_at(floor)(batch)[0].logits) for floor in (0.02, 0.9))
    torch.testing.assert_close(torch.maximum(low, 0.9 * model.rates), high)


def test_without_structure_it_stays_with_the_autoregression():
    grids, _, model = fitted(np.random.default_rng(1).random((4000, 6)) < 0.2)
    batch = window_batch([grids], np.array([[0, first] for first in range(0, 3900, 100)]), FRAMES)
    chance = torch.sigmoid(model(batch)[0].logits).numpy()
    assert np.sqrt(np.mean((chance - 0.2) ** 2)) < 0.05
