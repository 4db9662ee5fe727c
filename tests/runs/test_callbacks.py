import io
import re

import pytest
import pytorch_lightning as pl
import rich
import torch
from torch.utils.data import DataLoader, TensorDataset

from src.runs.callbacks import ProgressBar, ReseedEachStep, StopOnNonFiniteLoss
from src.signals import BadInput


class Tiny(pl.LightningModule):
    def __init__(self, poison: bool = False) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.poison = poison
        self.draws: list[float] = []

    def training_step(self, batch, batch_idx):
        self.draws.append(float(torch.rand(1)))
        loss = self.layer(batch[0]).mean()
        return loss * float("nan") if self.poison and self.current_epoch else loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(module, callbacks, tmp_path, epochs=2, data=None):
    loader = DataLoader(data or TensorDataset(torch.ones(4, 2)), batch_size=2)
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        default_root_dir=str(tmp_path),
    )
    trainer.fit(module, loader)


def test_every_step_has_its_own_repeatable_random_numbers(tmp_path):
    runs = []
    for _ in range(2):
        module = Tiny()
        torch.rand(17)
        fit(module, [ReseedEachStep(3)], tmp_path)
        runs.append(module.draws)
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 4


def test_an_epoch_s_first_batch_is_drawn_anew_whatever_was_drawn_before(tmp_path):
    drawn = []

    class Drawing(TensorDataset):
        def __getitem__(self, index):
            drawn.append(float(torch.rand(1)))
            return super().__getitem__(index)

    for noise in (3, 5):
        torch.rand(noise)
        fit(Tiny(), [ReseedEachStep(3)], tmp_path, data=Drawing(torch.ones(4, 2)))
    assert drawn[:8] == drawn[8:]


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_batch(tmp_path):
    with pytest.raises(BadInput, match="the loss was nan in epoch 1, batch 0"):
        fit(Tiny(poison=True), [StopOnNonFiniteLoss(tmp_path)], tmp_path)
    saved = torch.load(tmp_path / "non_finite_batch.pt", weights_only=True)
    assert torch.equal(saved["batch"][0], torch.ones(2, 2))


def test_the_metrics_stay_on_one_line_of_80_columns(tmp_path):
    class Told(Tiny):
        def training_step(self, batch, batch_idx):
            self.log_dict({"val/bits_per_spike": 0.1234, "val/average_precision": 0.764}, prog_bar=True)
            return super().training_step(batch, batch_idx)

    screen = io.StringIO()
    fit(Told(), [ProgressBar(console_kwargs={"file": screen, "width": 80, "force_terminal": True})], tmp_path, epochs=1)
    rich.reconfigure()
    shown = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", screen.getvalue()).replace("\r", "\n")
    assert re.search(r"Epoch 0/0 .* 2/2 .*bits_per_spike: 0\.123 average_precision: 0\.764", shown), shown
