"""The smallest training that train.py can run: blobs in a plane, in milliseconds."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.utils.data import TensorDataset

from src.datamodules.loaders import Execution, PartLoaders
from src.datamodules.splits import make_split
from src.models.confusion import ConfusionByRecording
from src.models.metrics import scores
from src.models.parallel import global_mean
from src.models.trained_module import TrainedModule
from src.signals import Origin, SignalSpec

CONFIG = """\
# @package _global_
name: toy
datamodule:
  _target_: tests.runs.toy.Blobs
  seed: ${seed}
  batch_size: 8
model:
  _target_: tests.runs.toy.Classifier
  lr: 0.1
trainer:
  max_epochs: 3
  enable_progress_bar: false
"""


class Blobs(PartLoaders):
    classes = ("left", "right")

    def __init__(self, seed: int, batch_size: int, fold: int = 0, shift: str | None = None) -> None:
        super().__init__()
        self.execution, self.shift = Execution(seed=seed), shift
        self.batch_size = self.held_out_batch = batch_size
        generator = torch.Generator().manual_seed(seed + 100 * fold)
        self.labels = torch.arange(48) % 2
        self.points = torch.randn(48, 2, generator=generator) + 1.5 * self.labels[:, None]
        if shift is not None:
            self.points += float(Path(shift).read_text())

    def inputs(self) -> dict[str, Path]:
        return {} if self.shift is None else {"shift": Path(self.shift)}

    def prepare_data(self) -> None:
        pass

    def setup(self, stage: str) -> None:
        parts = {"train": slice(0, 32), "val": slice(32, 40), "test": slice(40, 48)}
        self.datasets = {name: TensorDataset(self.points[part], self.labels[part]) for name, part in parts.items()}
        self.split = make_split(
            [f"s{i}" for i in range(6)], method="fraction", val=0.2, test=0.2, seed=self.execution.seed
        )

    @property
    def signal(self) -> SignalSpec:
        return SignalSpec(("x", "y"), 1.0, 1.0, "a.u.", ("axis",), (2,))

    def statistics(self) -> dict[str, np.ndarray]:
        return {"mean": self.points[:32].mean(0).numpy()}

    def steps(self) -> list[dict[str, Any]]:
        return [{"step": "blobs", "version": 1, "params": {}}]

    def origin(self) -> Origin:
        return Origin(False, ("blobs",), 4, 0.0)

    def summary(self) -> dict[str, dict[str, Any]]:
        return {"train": {"points": 32}, "val": {"points": 8}, "test": {"points": 8}}


class Classifier(TrainedModule):
    mean: torch.Tensor
    task = kind = "toy"
    monitor = ("val/loss", "min")

    def __init__(self, signal: dict[str, Any], classes: list[str], lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network_args = {}
        self.network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
        self.register_buffer("mean", torch.zeros(2))
        self.confusion = ConfusionByRecording(1, 2)

    def set_normalization(self, statistics: Any) -> None:
        self.mean.copy_(torch.as_tensor(statistics["mean"]))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        weights = torch.tensor([1.0, 3.0])
        total = functional.cross_entropy(self.network(batch[0] - self.mean), batch[1], weights, reduction="sum")
        loss = global_mean(total, weights[batch[1]].sum())
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss = functional.cross_entropy(self.network(batch[0] - self.mean), batch[1])
        self.log("val/loss", loss, sync_dist=True, batch_size=len(batch[1]))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        predicted = self.network(batch[0] - self.mean).argmax(1)
        self.confusion.update(predicted, batch[1], torch.zeros_like(batch[1]))

    def on_test_epoch_end(self) -> None:
        self.counts = self.confusion.compute()[0].numpy()

    def test_metrics(self) -> dict[str, float]:
        return {"test/accuracy": scores(self.counts, ["left", "right"])["accuracy"]}

    def results(self) -> list[dict[str, Any]]:
        return [{"recording": "pooled", "accuracy": self.test_metrics()["test/accuracy"]}]

    def media(self) -> dict[str, dict[str, Any]]:
        return {"confusion": {"tables": {"test": self.counts}, "classes": ["left", "right"]}}

    def tune(self, datamodule: Any) -> dict[str, Any]:
        return {"examples": sum(len(labels) for _, labels in datamodule.val_dataloader())}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.hparams["lr"])
