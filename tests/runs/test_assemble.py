"""What a configuration becomes, and what is refused before any data are touched."""

import warnings
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, ModelSummary, WeightAveraging

from src.runs.assemble import adopt_checkpoint, assemble, make_trainer, quiet_trainer
from src.runs.callbacks import ProgressBar, ReseedEachStep
from src.runs.targets import check
from src.signals import BadInput
from tests.composed import composed

CONFIG = {
    "seed": 3,
    "datamodule": {"_target_": "tests.runs.toy.Blobs", "seed": 3, "batch_size": 8},
    "model": {"_target_": "tests.runs.toy.Classifier", "lr": 0.1},
}
MONITOR = ("val/macro_f1", "max")
SECOND = "+callbacks.second={_target_: pytorch_lightning.callbacks.ModelCheckpoint, monitor: val/loss}"


def configured(*overrides, experiment="sleep_cnn"):
    return composed("train", f"experiment={experiment}", "logger=csv", *overrides)


def test_the_same_seed_gives_the_same_weights_and_the_statistics(tmp_path):
    data, first = assemble(OmegaConf.create(CONFIG))
    _, second = assemble(OmegaConf.create(CONFIG))
    _, other = assemble(OmegaConf.create(CONFIG | {"seed": 4}))
    key = "network.0.weight"
    assert torch.equal(first.state_dict()[key], second.state_dict()[key])
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])
    assert torch.equal(first.mean, torch.as_tensor(data.statistics()["mean"]))
    torch.save({"state_dict": first.state_dict()}, tmp_path / "best.ckpt")
    adopt_checkpoint(other, tmp_path / "best.ckpt")
    assert torch.equal(first.state_dict()[key], other.state_dict()[key])


def trainer(folder, *overrides, experiment="sleep_cnn"):
    cfg = configured(*overrides, experiment=experiment)
    check(cfg)
    return make_trainer(cfg, folder=folder, monitor=MONITOR, loggers=[])


def only(made, kind):
    (found,) = [callback for callback in made.callbacks if type(callback) is kind]
    return found


def test_callbacks_know_the_model_s_score_and_the_run_s_folder(tmp_path):
    made = trainer(tmp_path, "patience=3")
    assert (only(made, EarlyStopping).monitor, only(made, EarlyStopping).patience) == ("val/macro_f1", 3)
    saved = only(made, ModelCheckpoint)
    assert (saved.monitor, saved.mode, saved.dirpath) == (*MONITOR, str(tmp_path / "checkpoints"))
    assert only(made, ReseedEachStep).seed == 42
    assert only(made, ProgressBar)
    assert Path(made.default_root_dir) == tmp_path


def test_what_the_user_adds_to_the_trainer_is_obeyed(tmp_path):
    made = trainer(
        tmp_path,
        "+trainer.enable_model_summary=true",
        f"+trainer.default_root_dir={tmp_path / 'mine'}",
        "+trainer.callbacks={_target_: pytorch_lightning.callbacks.LearningRateFinder}",
        "+trainer.accumulate_grad_batches=2",
        "trainer.gradient_clip_val=0.5",
    )
    assert any(isinstance(callback, ModelSummary) for callback in made.callbacks)
    assert Path(made.default_root_dir) == tmp_path / "mine"
    assert any(type(callback).__name__ == "LearningRateFinder" for callback in made.callbacks)
    assert only(made, ReseedEachStep)
    assert (made.accumulate_grad_batches, made.gradient_clip_val) == (2, 0.5)


def test_callbacks_are_added_changed_and_left_out_by_name(tmp_path):
    made = trainer(
        tmp_path,
        SECOND,
        "+callbacks.finder={_target_: pytorch_lightning.callbacks.LearningRateFinder}",
        "callbacks.early_stopping=null",
        "callbacks.checkpoint.save_last=false",
        "+trainer.enable_progress_bar=false",
    )
    first, second = [c for c in made.callbacks if isinstance(c, ModelCheckpoint)]
    assert (first.save_last, second.monitor, second.dirpath) == (False, "val/loss", first.dirpath)
    assert (first.mode, second.mode) == ("max", "min")
    assert not any(isinstance(c, EarlyStopping | ProgressBar) for c in made.callbacks)


def test_averaged_weights_are_lightning_s_own(tmp_path):
    made = trainer(tmp_path, experiment="sleep_context")
    assert only(made, WeightAveraging)
    assert not any(isinstance(c, WeightAveraging) for c in trainer(tmp_path).callbacks)


@pytest.mark.parametrize("change", ["=null", ".filename=x", ".save_top_k=-1"])
def test_a_training_without_its_checkpoint_is_refused(tmp_path, change):
    with pytest.raises(BadInput, match=r"callbacks.checkpoint: has to write checkpoints/best.ckpt"):
        trainer(tmp_path, f"++callbacks.checkpoint{change}")


def test_a_batch_that_two_processes_cannot_share_is_refused_before_any_data_are_touched(monkeypatch):
    monkeypatch.setattr("src.datamodules.sleep.prepare_nights", None)
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.precision=32-true")
    with pytest.raises(BadInput, match=r"datamodule.batch_size: is 15 for 2 processes; give a multiple of 2"):
        assemble(configured("datamodule.batch_size=15", "trainer.sync_batchnorm=false", SECOND, *two))


def test_a_tracker_is_kept_in_a_debug_mode():
    cfg = composed("train", "experiment=sleep_cnn", "debug=fast", "logger=wandb", "+logger.entity=lab")
    assert cfg.logger == {"_target_": "src.runs.tracking.wandb_tracker", "project": "neurolit", "entity": "lab"}
    assert not composed("train", "experiment=sleep_cnn", "debug=overfit").logger


def test_a_model_that_does_not_fit_the_data_is_one_line(tmp_path):
    cfg = configured("source.subjects=4", "source.hours=0.5", "datamodule=sleep_sequences", f"cache_dir={tmp_path}")
    with pytest.raises(BadInput, match=r"model: .* argument 'window_epochs'; make it fit the datamodule"):
        assemble(cfg)


def test_the_trainers_notices_are_silent_and_other_warnings_are_not():
    with warnings.catch_warnings(record=True) as seen:
        warnings.resetwarnings()
        quiet_trainer()
        warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck", stacklevel=1)
        warnings.warn("the learning rate is odd", stacklevel=1)
    assert [str(w.message) for w in seen] == ["the learning rate is odd"]
