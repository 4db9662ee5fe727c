"""What a training does at the borders of its epochs: save atomically, reseed, stop on nonsense."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, LearningRateMonitor, ModelCheckpoint, RichProgressBar
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
    """Draw every step's random numbers (dropout) from (seed, step), so that a resumed run repeats an unbroken one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        numbers = (self.seed, trainer.global_step, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


class KeepEpochMetrics(Callback):
    """Carry an epoch's last metrics in the checkpoint that ends it.

    The trainer logs an epoch's training metrics after it has saved the checkpoint. A run killed between
    the two would go on with the next epoch, and the row would be in neither attempt's log.
    """

    def __init__(self) -> None:
        self.row: dict[str, float] = {}
        self.step = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.row = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Validation's are in the log already.
        self.row = {n: float(value) for n, value in trainer.logged_metrics.items() if not n.startswith("val/")}
        self.row["epoch"], self.step = trainer.current_epoch, trainer.global_step - 1

    def state_dict(self) -> dict[str, Any]:
        return {"row": self.row, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.row, self.step = state_dict["row"], state_dict["step"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.row and trainer.loggers:  # the CSV log; of a row that is there twice the last counts
            trainer.loggers[0].log_metrics(self.row, self.step)


class StopWhenTold(Callback):
    """Checkpoint inside an epoch when a cluster announces the end of the job, and go on from there later.

    A cluster that wants the machine back sends SIGUSR2 some time before it takes it. The handler that was
    there before (submitit's, which puts the job back into the queue) is called once the running step is
    done and saved; in validation the announcement waits for the end of the pass. Data whose sampler has no
    ``resume(steps)`` goes back to the last whole epoch.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.previous: Any = None
        self.told: tuple[int, Any] | None = None
        self.training = self.resumable = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Never put back: the trainer itself restores, at its end, the handlers that it found.
        self.previous = signal.getsignal(signal.SIGUSR2)
        if callable(self.previous) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR2, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self.told = (number, frame)
        if not self.training:
            self._pass_on()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        done = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        resume = getattr(getattr(trainer.train_dataloader, "sampler", None), "resume", None)
        self.training, self.resumable = True, resume is not None
        if resume is not None and 0 < done < trainer.num_training_batches:
            resume(done)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.told is not None and batch_idx + 1 < trainer.num_training_batches:  # the end of an epoch saves itself
            if self.resumable:
                trainer.save_checkpoint(self.checkpoint)
            self._pass_on()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.told is not None:
            self._pass_on()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.training = False
        if self.told is not None:
            self._pass_on()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.training = False

    def _pass_on(self) -> None:
        assert self.told is not None
        told, self.told = self.told, None
        self.previous(*told)


class StopOnNonFiniteLoss(Callback):
    """End a run whose loss is no longer a number, and keep the batch that did it for inspection."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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
            "look at the saved batch, lower model.lr",
        )


def training_callbacks(
    folder: Path, *, monitor: str, mode: str, patience: int, seed: int, bar: bool = True
) -> list[Callback]:
    """The callbacks of every training; ``patience`` counts epochs without a better ``monitor``."""
    return [
        *([ProgressBar()] if bar else []),
        ModelCheckpoint(
            folder / "checkpoints",
            "best",
            monitor=monitor,
            mode=mode,
            save_last=True,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        EarlyStopping(monitor, patience=patience, mode=mode),
        LearningRateMonitor("epoch"),
        ReseedEachStep(seed),
        KeepEpochMetrics(),
        StopWhenTold(folder / "checkpoints" / "last.ckpt"),
        StopOnNonFiniteLoss(folder),
    ]
