import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging

from src.models.grids.forecaster import MARGIN, GridForecasting
from src.models.grids.linear import LINEAR, MODEL, linear_forecasts
from src.models.trained_module import ADAMW
from tests.forecast_data import SPLIT, grid_data
from tests.trainers import quiet_trainer


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def model_for(data, **changes):
    arguments = {
        "kind": "grid_planes",
        "network_args": {"coarsen": 32, "channels": 4},
        "optimizer": ADAMW | {"lr": 1e-2},
    }
    return GridForecasting(data.signal.to_dict(), data.classes, **(arguments | changes))


def trainer(folder, **arguments):
    return quiet_trainer(folder, max_epochs=1, gradient_clip_val=1.0, **arguments)


def trained(cache, tmp_path, model=None, **changes):
    pl.seed_everything(0, verbose=False)
    data = grid_data(cache, **changes)
    data.setup("fit")
    module = model_for(data, **(model or {}))
    trainer(tmp_path).fit(module, data)
    trainer(tmp_path).test(module, data, verbose=False)
    return module, data


def bits(module):
    return {r["forecast"]: r["bits/spike"] for r in module.results()}


def test_it_beats_every_baseline_on_held_out_blocks(cache, tmp_path):
    module, data = trained(cache, tmp_path, model={"optimizer": ADAMW | {"lr": 1e-3}})
    found = bits(module)
    assert list(found) == [*LINEAR, "model"]
    assert found["model"] > max(found[b] for b in LINEAR[:3]) + 0.3
    assert found["model"] > found["linear population"] - 0.1  # with which the network begins
    over = found["model"] - max(found[b] for b in LINEAR)
    assert module.test_metrics()["test/bits_over_best_baseline"] == pytest.approx(over)
    assert len(module.tune(data)["threshold"]) == 4
    assert {"forecast_gain", "forecast_planes", "forecast_movie"} == set(module.media())


def test_without_structure_it_falls_to_the_baseline(cache, tmp_path):
    module, _ = trained(cache, tmp_path, split=SPLIT | {"shuffle": True})
    found = bits(module)
    assert abs(found["persistence"]) < 0.02
    assert found["model"] < 0.03
    used, gains = module.decision["forecast"], module.decision["validation"]
    best = max(LINEAR, key=gains.get)
    assert used == (MODEL if gains[MODEL] > gains[best] + MARGIN else best)
    assert module.test_metrics()["test/bits_of_used_forecast"] == pytest.approx(found[used])


def test_every_layout_trains_alike(cache, tmp_path):
    losses = []
    for layout in ("indices", "sparse_coo", "dense"):
        pl.seed_everything(0, verbose=False)
        data = grid_data(cache, layout=layout, batch_size=8)
        data.setup("fit")
        model = model_for(data)
        run = trainer(tmp_path, limit_train_batches=3, limit_val_batches=2)
        run.fit(model, data)
        losses.append([float(run.callback_metrics[name]) for name in ("train/loss", "val/bits_per_spike")])
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, rtol=1e-5)


def test_a_loaded_module_tests_with_data_or_loaders_alike(cache, tmp_path):
    data = grid_data(cache)
    data.setup("fit")
    model, run = model_for(data), trainer(tmp_path, limit_train_batches=2, limit_val_batches=2)
    run.fit(model, train_dataloaders=data.train_dataloader(), val_dataloaders=data.val_dataloader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    loaded = GridForecasting.load_from_checkpoint(tmp_path / "a.ckpt")
    assert loaded.decision == model.decision
    assert set(loaded.decision["validation"]) == {*LINEAR, MODEL}
    given = ({"datamodule": grid_data(cache)}, {"dataloaders": data.test_dataloader()})
    (whole,), (again,) = (trainer(tmp_path, limit_test_batches=2).test(loaded, verbose=False, **g) for g in given)
    assert whole == again


def test_averaged_weights_include_the_network_that_the_data_build(cache, tmp_path):
    data = grid_data(cache)
    data.setup("fit")
    model = model_for(data)
    with pytest.warns(UserWarning, match="overrides the configure_model"):
        trainer(tmp_path, limit_train_batches=2, limit_val_batches=1, callbacks=[WeightAveraging()]).fit(model, data)
    assert model.network.own_past.abs().sum() > 0


def test_the_network_is_used_only_where_it_beats_the_linear_forecasts(cache):
    data = grid_data(cache)
    data.setup("fit")
    model = model_for(data)
    model.take_over(data)
    batch = next(iter(data.val_dataloader()))
    for chosen, expected in (("persistence", linear_forecasts(model.network)["persistence"]), (MODEL, model.network)):
        model.decision["forecast"] = chosen
        for found, wanted in zip(model.predict_step(batch, 0), expected(batch), strict=True):
            torch.testing.assert_close(found.logits, wanted.logits)
