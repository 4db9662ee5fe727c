import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from src.models.bundle import export_bundle, load_bundle
from src.models.grids.forecaster import GridForecasting
from src.predict.grids import SubjectForecast, is_contiguous, known_voxels, predict
from src.preprocess.calcium.grid_index import read_grids
from src.preprocess.calcium.grid_store import COO_FILE, open_grids, write_coo
from src.signals import BadInput
from tests.forecast_data import WINDOWS, as_batch, grid_data, header_of, random_subject


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    made = grid_data(tmp_path_factory.mktemp("cache"), windows=WINDOWS | {"gap": 2})
    made.setup("fit")
    return made


@pytest.fixture(scope="module")
def bundle(data, tmp_path_factory):
    torch.manual_seed(0)
    small = {"coarsen": 32, "channels": 4}
    model = GridForecasting(data.signal.to_dict(), data.classes, "grid_planes", small)
    model.take_over(data)
    made = model.to_bundle(data, {})
    folder = export_bundle(tmp_path_factory.mktemp("bundles") / "planes", made, model.network.state_dict())
    return load_bundle(folder)


def test_a_bundle_forecasts_a_recording_into_a_grid_file(bundle, data, tmp_path):
    path = data.inputs()["simulated_1"]
    summary = predict(bundle, path.parent, tmp_path)
    assert summary.exit_code == 0
    (folder,) = tmp_path.iterdir()
    grids = open_grids(folder)
    assert grids.shape[0] == 700 + 2 + 4
    assert grids.shape[1] == data.subjects[0].planes
    with h5py.File(folder / COO_FILE) as file:
        steps = file["forecast_step"][()]
        assert len(file["probability"]) == len(file["pixel"]) == len(file["spike_values"])
    assert (steps[:10] == 0).all()
    assert (steps[10:] > 0).all()
    assert steps[-4:].tolist() == [3, 4, 5, 6]
    record = json.loads((folder / "manifest.json").read_text())
    assert record["subject"] == "simulated_1"
    assert record["forecast"] == "model"
    assert record["gap_frames"] == 2
    assert not record["leaky"]
    assert record["scores"]["over"] == "the file's test frames"
    forecasts = {"mean rate", "persistence", "autoregression", "linear population", "model"}
    assert set(record["scores"]) == {"windows", "over"} | forecasts
    assert all(method in "\n".join(summary.values[path.parent.name]) for method in ("persistence", "model"))
    figures = {"gain.png", "planes.png", "movie.gif"}
    assert {p.name for p in folder.iterdir()} == {COO_FILE, "manifest.json"} | figures


def test_a_file_gives_the_logits_of_the_datamodule(bundle, data):
    network = bundle.network()
    grids = read_grids(data.inputs()["simulated_2"], "simulated_2")
    forecast = SubjectForecast(bundle, network, grids, None)
    dataset = data.datasets["test"]
    mine = np.flatnonzero(dataset.windows[:, 0] == 1)[:5]
    batch = dataset.__getitems__(mine.tolist())
    with torch.no_grad():
        expected = network(batch)[0].logits
    found = torch.cat([f["model"] for _, f, *_ in forecast.pieces(dataset.windows[mine, 1])])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_forecast_that_validation_chose_is_the_one_that_is_written(bundle, data, tmp_path):
    path = data.inputs()["simulated_2"]
    written = {}
    for chosen in ("model", "mean rate"):
        decided = replace(bundle, decision=bundle.decision | {"forecast": chosen, "threshold": [-9.0] * 4})
        assert predict(decided, path, tmp_path / chosen, figures=False).exit_code == 0
        (folder,) = (tmp_path / chosen).iterdir()
        assert json.loads((folder / "manifest.json").read_text())["forecast"] == chosen
        with h5py.File(folder / COO_FILE) as file:
            written[chosen] = file["probability"][()]
    rates = torch.from_numpy(data.statistics()["rates"])
    assert (torch.from_numpy(written["mean rate"]).float().max() if len(written["mean rate"]) else 0) <= rates.max()
    assert len(written["model"]) > len(written["mean rate"])


def test_a_subject_nobody_trained_on_is_forecast_unless_it_is_named_as_another(bundle, tmp_path):
    fish = random_subject(5, frames=40, planes=3, voxels=30, name="stranger")
    path = tmp_path / "stranger" / COO_FILE
    path.parent.mkdir()
    write_coo(path, [as_batch(fish)], header_of(fish))
    summary = predict(bundle, path, tmp_path / "out", figures=False)
    assert summary.exit_code == 0
    assert (tmp_path / "out" / "stranger" / COO_FILE).is_file()
    (failure,) = predict(bundle, path, tmp_path / "out2", subject="simulated_2").failures
    assert "planes" in failure.reason or "none of simulated_2's" in failure.reason


def test_a_recording_that_looks_farther_than_the_gap_is_called_leaky(bundle, tmp_path):
    for after, text in ((9, "9 later frames, the bundle's gap is 2"), (None, "an unknown number of later frames")):
        fish = random_subject(5, frames=40, planes=3, voxels=30, name="stranger", frames_after=after)
        path = tmp_path / str(after) / COO_FILE
        path.parent.mkdir()
        write_coo(path, [as_batch(fish)], header_of(fish))
        summary = predict(bundle, path, tmp_path / "out", figures=False)
        assert text in "\n".join(summary.values[str(after)])


def test_unknown_voxels_are_left_out():
    fish = random_subject(0, frames=20, planes=2, voxels=12, density=0.4)
    kept = known_voxels(fish, fish.voxels[::2], 2)
    np.testing.assert_array_equal(kept.raster(0, 20), fish.raster(0, 20)[:, ::2])
    assert known_voxels(fish, fish.voxels, 2) is fish
    with pytest.raises(BadInput, match="has 2 planes"):
        known_voxels(fish, fish.voxels, 3)


def test_options_are_checked(bundle, tmp_path):
    with pytest.raises(BadInput, match="give 1 to 4 frames"):
        predict(bundle, tmp_path, tmp_path, stride=9)


def test_a_window_is_contiguous_without_gaps_and_invalid_frames():
    timepoints = np.r_[np.arange(10), np.arange(20, 30)]
    fish = random_subject(0, frames=20, timepoints=timepoints)
    assert is_contiguous(fish, 0, 10)
    assert not is_contiguous(fish, 5, 12)
    fish.is_valid[3] = False
    assert not is_contiguous(fish, 0, 10)
    assert is_contiguous(fish, 4, 10)
