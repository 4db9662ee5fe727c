import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from src.models.grids.forecaster import GridForecasting
from src.models.trained_module import ADAMW
from src.signals import BadInput
from tests.forecast_data import grid_data

BASELINES = ("mean rate", "persistence", "autoregression", "linear population")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def model_for(data, kind="grid_embedding", **changes):
    arguments = {
        "kind": kind,
        "network_args": {"width": 8, "hidden": 32} if kind == "grid_embedding" else {"coarsen": 16, "channels": 8},
        "loss": "bernoulli",
        "positive_weight": 1.0,
        "optimizer": ADAMW | {"lr": 1e-2},
    }
    model = GridForecasting(data.signal.to_dict(), data.classes, **(arguments | changes))
    model.set_normalization(data.statistics())
    return model


def trained(cache, tmp_path, epochs=5, kind="grid_embedding", model=None, **changes):
    pl.seed_everything(0, verbose=False)
    data = grid_data(cache, **changes)
    data.setup("fit")
    module = model_for(data, kind, **(model or {}))
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        default_root_dir=str(tmp_path),
    )
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    return module, data


def bits(module):
    return {r["forecast"]: r["bits/spike"] for r in module.results()}


def test_it_beats_every_baseline_on_held_out_blocks(cache, tmp_path):
    module, data = trained(cache, tmp_path, model={"optimizer": ADAMW | {"lr": 1e-3}})
    found = bits(module)
    assert list(found) == [*BASELINES, "model"]
    assert found["model"] > max(found[b] for b in BASELINES[:3]) + 0.3
    assert found["model"] > found["linear population"] - 0.1  # with which the network begins
    over = found["model"] - max(found[b] for b in BASELINES)
    assert module.test_metrics()["test/bits_over_best_baseline"] == pytest.approx(over)
    assert len(module.tune(data)["threshold"]) == 4
    assert {"forecast_gain", "forecast_planes", "forecast_movie"} == set(module.media())


def test_without_structure_it_falls_to_the_baseline(cache, tmp_path):
    module, _ = trained(cache, tmp_path, shuffle=True, epochs=2)
    found = bits(module)
    assert abs(found["persistence"]) < 0.02
    assert found["model"] < 0.03


@pytest.mark.parametrize("loss", [{"loss": "poisson"}, {"positive_weight": 5.0}])
def test_other_losses_stay_calibrated(cache, tmp_path, loss):
    module, data = trained(cache, tmp_path, epochs=1, model=loss, stride=2)
    chance, truth = [], []
    with torch.no_grad():
        for batch in data.val_dataloader():
            for f in module.predict_log_odds(batch):
                chance.append(torch.sigmoid(f.logits).mean().item())
                truth.append(batch.target_counts[f.rows].sum().item() / f.logits.numel())
    assert 0.6 < np.mean(chance) / np.mean(truth) < 1.6


def test_planes_learn_through_the_same_interface(cache, tmp_path):
    module, _ = trained(cache, tmp_path, epochs=1, kind="grid_planes", stride=4)
    assert np.isfinite(list(bits(module).values())).all()


def test_what_makes_no_sense_is_refused(cache):
    data = grid_data(cache)
    data.setup("fit")
    with pytest.raises(BadInput, match="choose from: bernoulli, poisson"):
        model_for(data, loss="mse")
    with pytest.raises(BadInput, match="1 for poisson"):
        model_for(data, loss="poisson", positive_weight=2.0)
