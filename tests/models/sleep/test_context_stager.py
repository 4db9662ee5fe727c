import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from torch.utils.data import DataLoader

from src.datamodules.loaders import training_loader
from src.datamodules.sleep import NightEpochs
from src.datamodules.sleep_sequences import NightDataset, WindowDataset
from src.models.confusion import ConfusionByRecording
from src.models.schedule import growing_average
from src.models.sleep.context_stager import SleepContextStager
from src.runs.callbacks import ReseedEachStep
from src.signals import UNSCORED, BadInput
from tests.trainers import quiet_trainer

CLASSES = ["W", "N1", "N2", "N3", "REM"]


def stager(causal=False, **arguments):
    torch.manual_seed(0)
    network = {"width": 8, "hidden": 6, "layers": 1, "causal": causal}
    model = SleepContextStager({"shape": [6, 1, 3, 1]}, CLASSES, network_args=network, **arguments)
    model.set_normalization(
        {"mean_db": np.full((1, 3), 2.0), "std_db": np.ones((1, 3)), "class_counts": np.array([5, 5, 5, 5, 5])}
    )
    return model


class Data(pl.LightningDataModule):
    """Three windows of one night, and the night."""

    views: tuple[str, ...] = ("absolute",)

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        stages = torch.randint(0, 5, (40,), generator=generator)
        stages[7] = UNSCORED
        levels = torch.randn(40, 1, 3, 1, generator=generator)
        night = NightEpochs("night", "subject", levels, stages, None)
        self.windows, self.nights = WindowDataset([night], 8), NightDataset([night])

    def statistics(self):
        return {"mean_db": np.full((1, 3), 2.0), "std_db": np.ones((1, 3)), "class_counts": np.full(5, 5)}

    def train_dataloader(self):
        return training_loader(self.windows, 2, seed=0, trainer=self.trainer)

    def val_dataloader(self):
        return DataLoader(self.nights, batch_size=None)


def trainer(tmp_path, *callbacks):
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    return quiet_trainer(
        tmp_path, max_epochs=2, enable_checkpointing=saves, callbacks=list(callbacks), log_every_n_steps=1
    )


def test_the_average_is_what_is_kept_and_saved(tmp_path):
    model, average = stager(), WeightAveraging(avg_fn=growing_average(0.98))
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    run = trainer(tmp_path, average, seen := Latest())
    run.fit(model, Data())
    run.save_checkpoint(tmp_path / "a.ckpt")
    loaded = SleepContextStager.load_from_checkpoint(tmp_path / "a.ckpt").network.state_dict()
    kept = model.network.state_dict()
    moved = [name for name in before if not torch.equal(before[name], kept[name])]
    assert "head.weight" in moved
    assert not any("standardize" in name for name in moved)
    assert not torch.equal(kept["head.weight"], seen.latest)
    assert all(torch.equal(loaded[name], value) for name, value in kept.items())


class Latest(pl.Callback):
    """Remember what the optimizer has made of a weight."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.latest = pl_module.network.head.weight.detach().clone()


class Killed(Exception):
    pass


class Kill(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise Killed


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_an_interrupted_training_ends_like_an_unbroken_one(tmp_path):
    def fit(folder, *extra, checkpoint=None):
        model = stager()
        saved = ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=True)
        run = trainer(folder, ReseedEachStep(1), WeightAveraging(avg_fn=growing_average(0.98)), saved, *extra)
        run.fit(model, Data(), ckpt_path=checkpoint, weights_only=True)
        return model

    whole = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "killed", Kill())
    resumed = fit(tmp_path / "killed", checkpoint=tmp_path / "killed" / "last.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_causal_network_is_not_given_what_the_whole_night_says(tmp_path):
    data = Data()
    data.views = ("absolute", "night")
    with pytest.raises(BadInput, match="views absolute, night know the whole night"):
        trainer(tmp_path).fit(stager(causal=True), data)
    data.views = ("absolute",)
    trainer(tmp_path).fit(stager(causal=True), data)


def test_the_loss_passes_over_epochs_that_nobody_scored():
    model = stager()
    model.eval()
    model.log = lambda *_, **__: None
    levels, stages = torch.randn(2, 6, 1, 3, 1), torch.randint(0, 5, (2, 6))
    stages[0, 3] = UNSCORED
    loss = model.training_step((levels, stages, None), 0)
    with torch.no_grad():
        logits = model.network(levels).flatten(0, 1)
    kept = stages.flatten() >= 0
    expected = torch.nn.functional.cross_entropy(logits[kept], stages.flatten()[kept], label_smoothing=0.05)
    torch.testing.assert_close(loss, expected)
    assert model.training_step((levels, torch.full_like(stages, UNSCORED), None), 0) == 0
    logged: dict[str, tuple[float, int]] = {}
    model.log = lambda name, value, batch_size, **_: logged.setdefault(name, (float(value), batch_size))
    model.confusion = ConfusionByRecording(1, 5)
    model.validation_step((levels[0], torch.full((6,), UNSCORED), torch.zeros(6, dtype=torch.long)), 0)
    assert logged == {"val/loss": (0.0, 0)}


def test_the_temperature_comes_from_scored_epochs_of_whole_nights():
    model = stager()
    assert 0.1 <= model.tune(Data())["temperature"] <= 10
