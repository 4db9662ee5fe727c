"""Where spikes are independent in time and between cells, no forecast may gain anything."""

import numpy as np
import pytest
import torch

from src import schema
from src.models.grids.active_voxels import index_lists, last_activity, true_activity
from src.models.grids.forecaster import GridForecasting
from src.models.grids.linear import all_forecasts
from src.models.grids.scores import ForecastScores
from src.models.trained_module import ADAMW
from tests.forecast_data import WINDOWS, grid_data, subject_grids

REACH = 6


def inferred(seed):
    """Independent spikes, each of which makes its voxel active two frames before and after it, as a filter does."""
    rng = np.random.default_rng(seed)
    spikes = rng.random((6000, 30)) < 0.03
    active = np.stack([np.convolve(column, np.ones(5), "same") > 0 for column in spikes.T], axis=1)
    return subject_grids(active, np.arange(30), 1, frames_after=REACH, is_train=np.arange(6000) < 4500)


def bits(data):
    """Bits per spike of every forecast before any training, on test windows."""
    model = GridForecasting({"fs_hz": data.rate_hz}, ["active"], "grid_planes", {"coarsen": 32, "channels": 4}, ADAMW)
    model.take_over(data)
    methods = all_forecasts(model.network, model.decision)
    scores = {name: ForecastScores(data.frames.horizon) for name in methods}
    with torch.no_grad():
        for batch in data.test_dataloader():
            for name, method in methods.items():
                (forecast,) = method(index_lists(batch, model.network.voxels, model.network.offsets))
                truth, last = true_activity(forecast, batch), last_activity(forecast, batch)
                scores[name].update(forecast.logits, model.network.base(0), truth, last)
    return {name: scored.bits_per_spike().mean() for name, scored in scores.items()}


def gains(cache, gap):
    data = grid_data(cache, windows=WINDOWS | {"gap": gap}, split={"block_frames": 200})
    data.subjects = [inferred(1)]
    data.setup("fit")
    return bits(data)


def test_the_default_gap_leaves_nothing_to_gain_and_without_it_the_filter_is_forecast(tmp_path):
    assert all(abs(bits) < 0.01 for bits in gains(tmp_path, None).values())
    assert gains(tmp_path, 0)["autoregression"] > 0.1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_chain_leaves_nothing_to_gain(tmp_path):
    from benchmarks.grid_control import control, grids_of, independent_spikes

    schema.register()
    raw = independent_spikes(tmp_path / "raw" / "subject_1", cells=60, frames=2600, fs_hz=2.0, seed=5)
    root = grids_of(raw, tmp_path)
    rows = control(tmp_path, root, None, "trainer.max_epochs=3")
    assert len(rows) == 5
    base = next(float(row["AP"]) for row in rows if row["forecast"] == "mean rate")
    for row in rows:
        assert abs(float(row["bits/spike"])) < 0.01, row
        assert abs(float(row["AP"]) - base) < 0.02, row


def test_a_real_whole_brain_goes_through_the_chain(shared_data, tmp_path):
    from benchmarks.grid_forecasting import whole_brain

    root = whole_brain(shared_data).grids(tmp_path)
    data = grid_data(tmp_path, root=str(root), windows={"context": 12, "horizon": 32}, split={"method": "blocks"})
    data.setup("fit")
    (brain,) = data.subjects
    assert (brain.frames, brain.frames_after, data.frames.gap) == (892, 10, 10)
    assert 60 < len(brain.voxels) <= 67
    assert 5 < brain.planes < 20
    assert 0.02 < data.statistics()["rates"].mean() < 0.4
    found = bits(data)
    assert found["mean rate"] == pytest.approx(0, abs=1e-4)
    assert -0.02 < found["persistence"] < 0.1
