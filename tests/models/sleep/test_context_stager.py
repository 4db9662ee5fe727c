import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from src.models.sleep.context_stager import SleepContextStager
from src.signals import UNSCORED, BadInput

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
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.levels = torch.randn(40, 1, 3, 1, generator=generator)
        self.stages = torch.randint(0, 5, (40,), generator=generator)
        self.stages[7] = UNSCORED

    def recordings(self, part):
        return ["night"]

    def train_dataloader(self):
        batch = (self.levels.unflatten(0, (5, 8)), self.stages.unflatten(0, (5, 8)), torch.zeros(5, dtype=torch.long))
        return DataLoader([batch] * 3, batch_size=None)

    def val_dataloader(self):
        return DataLoader([(self.levels, self.stages, torch.zeros(40, dtype=torch.long))], batch_size=None)


def trainer(tmp_path):
    return pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, default_root_dir=tmp_path, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip


def test_the_average_follows_the_learner_and_is_what_is_kept(tmp_path):
    model = stager(average_decay=0.5)
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    trainer(tmp_path).fit(model, Data())
    average, latest = model.network.state_dict(), model.learner.state_dict()
    moved = [name for name in before if not torch.equal(before[name], average[name])]
    assert "members.0.head.weight" in moved
    assert not any("standardize" in name for name in moved)
    assert any(not torch.equal(average[name], latest[name]) for name in moved)
    assert not any(p.requires_grad for p in model.network.parameters())


def test_a_causal_network_is_not_given_what_the_whole_night_says(tmp_path):
    data = Data()
    data.views = ["absolute", "rank"]
    with pytest.raises(BadInput, match="views absolute, rank know the whole night"):
        trainer(tmp_path).fit(stager(causal=True), data)
    data.views = ["absolute"]
    trainer(tmp_path).fit(stager(causal=True), data)


def test_without_averaging_the_two_are_the_same(tmp_path):
    model = stager(average_decay=0.0)
    trainer(tmp_path).fit(model, Data())
    for name, average in model.network.state_dict().items():
        torch.testing.assert_close(average, model.learner.state_dict()[name])


def test_the_loss_passes_over_epochs_that_nobody_scored():
    model = stager()
    model.eval()
    model.log = lambda *_, **__: None
    levels, stages = torch.randn(2, 6, 1, 3, 1), torch.randint(0, 5, (2, 6))
    stages[0, 3] = UNSCORED
    loss = model.training_step((levels, stages, None), 0)
    with torch.no_grad():
        logits = model.learner.member_logits(levels)[0].flatten(0, 1)
    kept = stages.flatten() >= 0
    expected = torch.nn.functional.cross_entropy(logits[kept], stages.flatten()[kept], label_smoothing=0.05)
    torch.testing.assert_close(loss, expected)


def test_the_temperature_comes_from_scored_epochs_of_whole_nights():
    model = stager()
    assert 0.1 <= model.tune(Data())["temperature"] <= 10
