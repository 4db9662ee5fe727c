"""Callbacks that Lightning does not have, and checkpoints that are written as a whole and refused when damaged."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, RichProgressBar
from rich.progress import TimeRemainingColumn
from rich.table import Column

from src.signals import BadInput
from src.storage.atomic import atomic_file


class ProgressBar(RichProgressBar):
    """Progress and metrics on one line of 80 columns; the bar is shortened where there is no room."""

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

    def _reseed(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        numbers = (self.seed, trainer.global_step, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))

    on_train_epoch_start = on_train_batch_start = _reseed


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


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a hidden file beside it: after a kill while saving, the previous checkpoint is still there."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with atomic_file(Path(path)) as part:
            super().save_checkpoint(checkpoint, part, storage_options)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A trainer's checkpoint, on the CPU; plain types and tensors only, so no file can run code.

    Raises
    ------
    BadInput
        If the file is damaged, or holds anything else.
    """
    try:
        with path.open("rb") as handle:
            with zipfile.ZipFile(handle) as archive:  # torch does not look at the checksums
                if archive.testzip() is not None:
                    raise _damaged(path)
            handle.seek(0)
            found = torch.load(handle, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadInput(path, "does not exist", "check the path") from None
    except BadInput:
        raise
    except Exception as error:  # zip archives and the pickles in them are broken in many ways
        raise _damaged(path) from error
    if not isinstance(found, dict) or not isinstance(found.get("state_dict"), dict):
        raise _damaged(path)
    return found


def _damaged(path: Path) -> BadInput:
    return BadInput(path, "is damaged, or no checkpoint of ours", "delete it, and its run starts from the beginning")
