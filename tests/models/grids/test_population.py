import numpy as np
import pytest
import torch

from src.datamodules.grid_components import COMPONENTS, components, score_products
from src.models.grids.baselines import make_baselines
from src.models.grids.population import fit_population
from src.preprocess.calcium.grid_windows import window_batch
from tests.forecast_data import subject_grids
from tests.models.grids.test_baselines import statistics

TRAIN, VAL = [range(3000)], [range(3000, 4000)]


def fitted(active):
    grids = subject_grids(active, np.arange(active.shape[1]), 1)
    rates = active[:3000].mean(axis=0).astype(np.float32)
    axes = components(grids, TRAIN, rates)
    products = [score_products(grids, runs, rates, axes, 7)[None] for runs in (TRAIN, VAL)]
    known = statistics(grids) | {"rates": rates, "components": axes, "score_products": np.stack(products)}
    return grids, axes, fit_population(make_baselines(known)["autoregression"], known)


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
    batch = window_batch([grids], np.array([[0, first] for first in firsts]), 4, 3)
    chance = torch.sigmoid(model(batch)[0].logits).numpy()
    called = np.stack([grids.raster(first + 2, first + 4)[:, 0] for first in firsts])
    assert np.sqrt(np.mean((chance[:, :2, 1] - called) ** 2)) < 0.12
    assert np.sqrt(np.mean((chance[:, 2, 1] - 0.2) ** 2)) < 0.06
    assert np.sqrt(np.mean((chance[:, :, 2:] - 0.2) ** 2)) < 0.06


def test_floors_change_nothing_else(chain):
    grids, _, model = chain
    batch = window_batch([grids], np.array([[0, 5], [0, 9]]), 4, 3)
    low, high = (torch.sigmoid(model.cut_at(floor)(batch)[0].logits) for floor in (0.02, 0.9))
    torch.testing.assert_close(torch.maximum(low, 0.9 * model.rates), high)


def test_without_structure_it_stays_with_the_autoregression():
    grids, _, model = fitted(np.random.default_rng(1).random((4000, 6)) < 0.2)
    batch = window_batch([grids], np.array([[0, first] for first in range(0, 3900, 100)]), 4, 3)
    chance = torch.sigmoid(model(batch)[0].logits).numpy()
    assert np.sqrt(np.mean((chance - 0.2) ** 2)) < 0.05
