"""Statistics come from the data, or from a checkpoint, or the user is told."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.tuner import Tuner
from torch.utils.data import DataLoader, TensorDataset

from src.models.bundle import load_bundle
from src.models.sleep.context_stager import SleepContextStager
from src.models.sleep.stager import SleepStager
from src.models.trained_module import TrainedModule, recordings_of
from src.signals import BadInput
from tests.trainers import quiet_trainer


class Rows(TensorDataset):
    recordings = ("a", "b")

    def statistics(self):
        return {"mean": self.tensors[0].mean(0).numpy()}


class Plain(TrainedModule):
    mean: torch.Tensor

    def __init__(self, optimizer=None, scheduler=None):
        super().__init__()
        self.save_hyperparameters()
        self.network = torch.nn.Linear(2, 1)
        self.register_buffer("mean", torch.zeros(2))

    def set_normalization(self, statistics):
        self.mean.copy_(torch.from_numpy(statistics["mean"]))

    def training_step(self, batch, batch_idx):
        return self.network(batch[0] - self.mean).square().mean()

    def test_step(self, batch, batch_idx):
        pass


class Data(pl.LightningDataModule):
    def statistics(self):
        return {"mean": np.array([5.0, 6.0], np.float32)}

    def train_dataloader(self):
        return loader()


def loader(dataset=Rows, shift=2.0):
    return DataLoader(dataset(torch.randn(8, 2) + shift), batch_size=4)


def module(**changes):
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.5}
    return Plain(**({"optimizer": sgd} | changes))


def trainer(folder):
    return quiet_trainer(folder, max_epochs=2)


def test_the_statistics_are_those_of_the_datamodule_or_of_the_training_loader(tmp_path):
    given, alone = module(), module()
    trainer(tmp_path).fit(given, datamodule=Data())
    assert given.mean.tolist() == [5.0, 6.0]
    batches = loader()
    trainer(tmp_path).fit(alone, batches)
    torch.testing.assert_close(alone.mean, batches.dataset.tensors[0].mean(0))


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_nothing_runs_on_input_that_is_not_normalised(tmp_path, verb):
    with pytest.raises(BadInput, match=r"has no statistics of its training data.*give Trainer a datamodule"):
        getattr(trainer(tmp_path), verb)(module(), loader(TensorDataset))


def test_a_loaded_module_keeps_the_statistics_that_it_was_trained_with(tmp_path):
    model, first = module(), trainer(tmp_path)
    first.fit(model, datamodule=Data())
    first.save_checkpoint(tmp_path / "a.ckpt")
    loaded = Plain.load_from_checkpoint(tmp_path / "a.ckpt")
    trainer(tmp_path).test(loaded, loader(TensorDataset), verbose=False)
    trainer(tmp_path).fit(loaded, loader())
    assert loaded.mean.tolist() == [5.0, 6.0]


def rates(model, folder):
    run = trainer(folder)
    run.fit(model, datamodule=Data())
    return run.optimizers[0], run.lr_scheduler_configs


def test_optimizer_and_scheduler_are_whatever_is_configured(tmp_path):
    warmup = {"_target_": "src.models.schedule.warmup_cosine", "warmup": 0.5}
    optimizer, (schedule,) = rates(module(scheduler=warmup), tmp_path)
    assert isinstance(optimizer, torch.optim.SGD)
    assert schedule.interval == "step"
    assert schedule.scheduler.last_epoch == 4
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * 0.01)
    step = {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 1, "gamma": 0.1}
    optimizer, (schedule,) = rates(module(scheduler=step), tmp_path)
    assert schedule.interval == "epoch"
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    optimizer, schedules = rates(module(), tmp_path)
    assert schedules == []
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_schedule_has_to_know_its_end(tmp_path):
    warmup = {"_target_": "src.models.schedule.warmup_cosine", "warmup": 0.5}
    with pytest.raises(BadInput, match="needs the number of steps; give Trainer max_epochs"):
        quiet_trainer(tmp_path, max_epochs=-1).fit(module(scheduler=warmup), datamodule=Data())


def test_the_tuner_finds_and_sets_the_learning_rate(tmp_path):
    model = module()
    found = Tuner(quiet_trainer(tmp_path, max_epochs=30)).lr_find(model, datamodule=Data(), num_training=30)
    assert found.suggestion() == model.lr != 0.5
    assert rates(model, tmp_path)[0].param_groups[0]["lr"] == model.lr


def test_input_that_is_not_normalised_is_said_outside_a_trainer_too():
    model = module()
    with pytest.warns(UserWarning, match=r"Plain has no statistics.*call take_over"):
        model(torch.ones(1, 2))
    model.take_over(Data())
    model(torch.ones(1, 2))


def test_evaluation_data_have_to_name_their_recordings():
    assert recordings_of(loader()) == recordings_of([loader()]) == ["a", "b"]
    with pytest.raises(BadInput, match="do not say which recordings they hold"):
        recordings_of(loader(TensorDataset))


def test_a_module_is_made_from_a_bundle_and_refuses_one_of_another_kind(repository):
    bundle = load_bundle(repository / "pretrained" / "sleep_human")
    model = SleepContextStager.from_bundle(bundle, scheduler=None)
    expected = bundle.network().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.network.state_dict().items())
    assert model.has_statistics
    assert model.network_args == bundle.network_args
    with pytest.raises(BadInput, match="holds a network of kind sleep_sequence; SleepStager trains"):
        SleepStager.from_bundle(repository / "pretrained" / "sleep_human")
