"""Callbacks that Lightning lacks: repeatable random numbers, an end when the loss is no number, a narrow progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, RichProgressBar
from rich.progress import TimeRemainingColumn
from rich.table import Column

from src.signals import BadInput
from src.storage.atomic import atomic_file


class ProgressBar(RichProgressBar):
    """Progress with the metrics that matter on one line of 80 columns: what has to give way is the bar."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        shown: dict[str, Any] = super().get_metrics(trainer, pl_module)
        shown.pop("v_num", None)  # the logger's version number
        return {name.removeprefix("val/"): value for name, value in shown.items()}

    def configure_columns(self, trainer: pl.Trainer) -> list[Any]:
        description, bar, batches, *_ = super().configure_columns(trainer)
        left = TimeRemainingColumn(elapsed_when_finished=True)
        for column in (batches, left):
            column._table_column = Column(no_wrap=True)
        return [description, bar, batches, left]

    def _init_progress(self, trainer: pl.Trainer) -> None:
        super()._init_progress(trainer)
        if self._metric_component is not None:
            self._metric_component._table_column = Column(no_wrap=True)


class ReseedEachStep(Callback):
    """Draw an epoch's and a step's random numbers (windows, augmentation, dropout) from (seed, step).

    A resumed run, which begins with an epoch, repeats an unbroken one.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reseed(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._reseed(trainer)

    def _reseed(self, trainer: pl.Trainer) -> None:
        numbers = (self.seed, trainer.global_step, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


class StopOnNonFiniteLoss(Callback):
    """End a run whose loss is no longer a number, and save that batch for inspection."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        if loss is None or bool(torch.isfinite(loss).all()):
            return
        with atomic_file(self.folder / "non_finite_batch.pt") as part:
            torch.save({"batch": batch, "batch_idx": batch_idx, "epoch": trainer.current_epoch}, part)
        raise BadInput(
            self.folder / "non_finite_batch.pt",
            f"the loss was {loss.item()} in epoch {trainer.current_epoch}, batch {batch_idx}",
            "look at the saved batch, lower optimizer.lr",
        )
