"""What a Lightning and Hydra user types: Trainer's verbs, debug modes of every experiment, a script without a guard."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import get_class, instantiate
from safetensors.torch import load_file

from src.models.bundle import export_bundle
from src.signals import BadInput
from tests.composed import composed
from tests.conftest import REPOSITORY
from tests.runs.verb import execute
from tests.trainers import quiet_trainer

pytestmark = pytest.mark.timeout(600)

NIGHTS = ("source.subjects=4", "source.hours=1.5", "datamodule.batch_size=16")
TINY = {
    "sleep_cnn": (*NIGHTS, "model.network_args.width=8", "model.network_args.filters=4"),
    "sleep_context": (
        *("source.subjects=4", "source.hours=1.5", "datamodule.window_epochs=20", "datamodule.batch_size=2"),
        *("model.network_args.width=8", "model.network_args.hidden=4"),
    ),
    "sleep_context_bandpower": (
        *("source.root={bandpower}", "split=fraction", "datamodule.window_epochs=10", "datamodule.batch_size=2"),
        *("model.network_args.width=8", "model.network_args.hidden=4", "model.network_args.window_epochs=10"),
    ),
    "sleep_excerpts": (
        *("source=simulated_nights", "split=fraction", *NIGHTS, "datamodule.epochs.channels=[EEG Fpz-Cz]"),
        *("datamodule.epochs.aliases={{}}", "model.network_args.width=8", "model.network_args.filters=4"),
    ),
    "sleep_rodent": (
        *("source.root={mouse}", "split.gap_epochs=5", "datamodule.window_epochs=10", "datamodule.batch_size=2"),
        *("model.network_args.width=8", "model.network_args.hidden=4"),
    ),
    "grid_forecast": (
        *("datamodule.simulated.common.frames=900", "datamodule.simulated.subjects=[{{cells: 120, planes: 2}}]"),
        *("datamodule.split.block_frames=60", "model.network_args.coarsen=32", "model.network_args.channels=4"),
    ),
    "spike_detector": ("datamodule.data_dir={spikes}", "datamodule.targets=[D2,D5]", "datamodule.examples.batches=4"),
    "spike_classifier": ("datamodule.data_dir={spikes}", "datamodule.targets=[D2]", "datamodule.examples.batches=4"),
}
"""Overrides that make an experiment train in seconds."""
MODULES = ("sleep_cnn", "sleep_context", "grid_forecast", "spike_detector", "spike_classifier")
"""An experiment for each LightningModule."""
EXPERIMENTS = sorted(path.stem for path in (REPOSITORY / "conf" / "experiment").glob("*.yaml"))


@pytest.fixture(scope="module")
def places(tmp_path_factory, spike_folder):
    """Small recordings for the experiments whose own are fetched, and the folders of this module's trainings."""
    folder = tmp_path_factory.mktemp("user")
    rng = np.random.default_rng(0)
    (folder / "bandpower").mkdir()
    for subject in range(6):
        labels = rng.integers(0, 5, 40)
        features = rng.normal(size=(40, 3, 10)).astype(np.float32)
        name = folder / "bandpower" / f"{subject:02d}__1.npz"
        np.savez(name, features=features, labels=labels, onsets_sec=30.0 * np.arange(40))
    (folder / "mouse").mkdir()
    days, epochs = np.repeat([1, 2], 120), np.tile(np.arange(120), 2)
    np.savez(
        folder / "mouse" / "sampleData.npz",
        bandsD=rng.random((240, 6)).astype(np.float32) + 0.5,
        epochsLinked=np.column_stack([np.arange(240), epochs, rng.integers(1, 4, 240), np.full(240, 61)]),
        epochTime=np.column_stack([np.arange(240), days, epochs * 4 / 86_400]),
    )
    known = {name: folder / name for name in ("bandpower", "mouse", "cache", "runs")}
    return known | {"spikes": spike_folder}


def overrides(experiment, places):
    given = [override.format(**places) for override in TINY[experiment]]
    return [f"experiment={experiment}", f"cache_dir={places['cache']}", "workers=1", *given]


def configured(experiment, places):
    return composed("train", *overrides(experiment, places))


@pytest.mark.filterwarnings("ignore:D5 was not in the validation")  # overfit_batches cuts validation, not the test
@pytest.mark.parametrize("debug", ["fast", "overfit"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_debug_modes_run_for_every_experiment(experiment, debug, places, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    short = ["trainer.max_epochs=2", "trainer.overfit_batches=1"] if debug == "overfit" else []
    quiet = ["+trainer.enable_progress_bar=false", f"runs_dir={tmp_path}", f"debug={debug}"]
    execute([str(REPOSITORY / "train.py"), *overrides(experiment, places), *quiet, *short])
    folder = (tmp_path / experiment / "latest").resolve()
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert load_file(folder / "bundle" / "model.safetensors")
    if (experiment, debug) == ("spike_detector", "overfit"):
        rows = json.loads((folder / "results.json").read_text())["rows"]
        assert {row["target"]: row["own_threshold"] for row in rows} == {"D2": True, "D5": False}


def trainer(folder, **arguments):
    limits = {f"limit_{phase}_batches": 2 for phase in ("train", "val", "test", "predict")}
    return quiet_trainer(folder, max_epochs=1, **limits | arguments)


@pytest.mark.parametrize(
    "experiment", ["sleep_cnn", "sleep_context", "grid_forecast", "spike_detector", "spike_classifier"]
)
def test_trainer_s_verbs_need_nothing_but_a_module_and_data(experiment, places, tmp_path):
    cfg = configured(experiment, places)

    def data():
        return instantiate(cfg.datamodule)

    def module():
        signal, classes = given.signal.to_dict(), list(given.classes)
        return instantiate(cfg.model, signal=signal, classes=classes)

    given = data()
    given.prepare_data()
    given.setup("fit")
    model, run = module(), trainer(tmp_path)
    run.fit(model, datamodule=given)
    run.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    kind: Any = get_class(cfg.model["_target_"])
    loaded = kind.load_from_checkpoint(tmp_path / "a.ckpt")
    assert checkpoint["hyper_parameters"] == dict(loaded.hparams)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    trainer(tmp_path).validate(loaded, datamodule=data(), verbose=False)
    scores = trainer(tmp_path).test(loaded, datamodule=data(), verbose=False)
    assert all(name.startswith("test/") for name in scores[0])
    assert trainer(tmp_path).predict(loaded, datamodule=data())
    loaders = {name: getattr(given, f"{name}_dataloader")() for name in ("train", "val", "test", "predict")}
    assert trainer(tmp_path).test(loaded, dataloaders=loaders["test"], verbose=False) == scores != [{}]
    trainer(tmp_path, precision="bf16-mixed").validate(loaded, datamodule=data(), verbose=False)
    assert trainer(tmp_path).predict(loaded, dataloaders=loaders["predict"])
    fresh = module()
    trainer(tmp_path).fit(fresh, train_dataloaders=loaders["train"], val_dataloaders=loaders["val"])
    assert fresh.has_statistics
    with pytest.raises(BadInput, match="has no statistics of its training data"):
        trainer(tmp_path).test(module(), dataloaders=loaders["test"], verbose=False)


def prepared(experiment, places, *changes):
    cfg = composed("train", *overrides(experiment, places), *changes)
    made = instantiate(cfg.datamodule)
    made.prepare_data()
    made.setup("fit")
    pl.seed_everything(0, verbose=False)
    module = instantiate(cfg.model, signal=made.signal.to_dict(), classes=list(made.classes))
    return module, made


@pytest.mark.filterwarnings("ignore:You requested to overfit")
@pytest.mark.parametrize("experiment", ["sleep_context", "spike_detector"])
def test_batches_to_be_learned_by_heart_stay_the_same_from_loaders_too(experiment, places, tmp_path):
    weights = []
    for name in ("datamodule", "loaders"):
        model, made = prepared(experiment, places)
        loaders = {f"{part}_dataloaders": getattr(made, f"{part}_dataloader")() for part in ("train", "val")}
        given = {"datamodule": made} if name == "datamodule" else loaders
        quiet_trainer(tmp_path, overfit_batches=1, max_epochs=2, limit_val_batches=0).fit(model, **given)
        weights.append(model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("experiment", "changes", "says"),
    [
        ("sleep_cnn", ["datamodule.epochs.level=recording"], "sleep_epochs.level recording, the module .* unit"),
        ("sleep_cnn", ["datamodule.epochs.features.max_hz=30.0"], "shape .1, 60, 29., the module"),
        ("sleep_context", ["datamodule.views=[relative]"], "night_view.views .'relative'., the module .*absolute"),
        ("spike_detector", ["datamodule.conditioning.low_hz=300"], "spike_conditioning.low_hz 300"),
        ("grid_forecast", ["datamodule.windows.context=6"], "window_s 3.0, the module was made for 6.0"),
        ("grid_forecast", ["datamodule.simulated.seed=9"], "other subjects or voxels than the network"),
    ],
)
def test_data_that_are_prepared_otherwise_are_refused(experiment, changes, says, places, tmp_path):
    model, made = prepared(experiment, places)
    model.take_over(made)
    checkpoint: dict = {}
    model.on_save_checkpoint(checkpoint)
    again, other = prepared(experiment, places, *changes)
    again, _ = prepared(experiment, places)
    again.take_over(made)
    again.on_load_checkpoint(checkpoint)
    with pytest.raises(BadInput, match=says):
        trainer(tmp_path).test(again, datamodule=other, verbose=False)


def test_a_bundle_is_trained_further_with_the_weights_of_classes_of_the_new_data(places, tmp_path):
    model, made = prepared("sleep_cnn", places)
    model.take_over(made)
    folder = export_bundle(tmp_path / "bundle", model.to_bundle(made, {}), model.network.state_dict())
    further = type(model).from_bundle(folder)
    normalization = further.network.standardize.mean.clone()
    trainer(tmp_path).fit(further, datamodule=made)
    assert torch.equal(further.class_weights, model.class_weights)
    assert torch.equal(further.network.standardize.mean, normalization)


def test_a_grid_checkpoint_keeps_its_network(places, tmp_path):
    model, made = prepared("grid_forecast", places)
    model.take_over(made)
    checkpoint: dict = {}
    model.on_save_checkpoint(checkpoint)
    model.hparams["network_args"] = {"coarsen": 16, "channels": 4}
    with pytest.raises(BadInput, match="has coarsen=32, not 16; load it without network_args"):
        model.on_load_checkpoint(checkpoint)


SCRIPT = """
from src.datamodules.sleep import SleepData
data = SleepData({source}, {epochs}, {split}, execution={execution})
data.prepare_data()
data.setup("fit")
print(len(data.datasets["train"].recordings), "nights")
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_prepares_with_several_processes(places, tmp_path):
    cfg = configured("sleep_cnn", places)
    parts = {name: dict(cfg.datamodule[name]) for name in ("source", "split")}
    parts["epochs"] = {"channels": ["EEG Fpz-Cz"], "features": {"max_hz": 40.0}}
    parts["execution"] = {"cache_dir": str(tmp_path / "cache"), "workers": 2}
    (tmp_path / "script.py").write_text(SCRIPT.format(**parts))
    line = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=300, env={"PYTHONPATH": str(REPOSITORY)}, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == "2 nights"
