import numpy as np

from src.datamodules.grid_statistics import components, deviation, score_products
from src.preprocess.calcium.grid_windows import WindowFrames
from tests.forecast_data import subject_grids


def test_components_and_products_are_those_of_the_whole_matrix():
    rng = np.random.default_rng(0)
    common = rng.random((600, 2)) < 0.3
    active = np.repeat(common, 10, axis=1) & (rng.random((600, 20)) < 0.7)
    grids = subject_grids(active, np.arange(20), 1)
    rates = active[:500].mean(axis=0)
    axes = components(grids, [range(200), range(200, 500)], rates)
    deviations = (active[:500] - rates) / deviation(rates)
    truth = np.linalg.svd(deviations, full_matrices=False)[2][:2].T
    np.testing.assert_allclose(np.linalg.svd(truth.T @ axes[:, :2])[1], 1, atol=1e-3)
    assert not axes[:, 20:].any()
    scores = deviations[100:400] @ axes[:, :3]
    stacked = np.concatenate([scores[:-3], scores[3:]], axis=1)
    frames = WindowFrames(1, 2, 1)
    found = score_products(grids, [range(100, 400), range(1)], rates, axes[:, :3], frames)
    np.testing.assert_allclose(found, stacked.T @ stacked / len(stacked), rtol=1e-3, atol=1e-3)
