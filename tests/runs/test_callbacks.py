import io
import pickle
import re

import pytest
import pytorch_lightning as pl
import rich
import torch
from torch.utils.data import DataLoader, TensorDataset

from src.runs.callbacks import AtomicCheckpointIO, ProgressBar, ReseedEachStep, read_checkpoint
from src.signals import BadInput
from tests.runs import toy
from tests.runs.verb import train
from tests.trainers import quiet_trainer


class Tiny(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.draws: list[float] = []

    def training_step(self, batch, batch_idx):
        self.draws.append(float(torch.rand(1)))
        return self.layer(batch[0]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(module, callbacks, tmp_path, epochs=2, data=None):
    loader = DataLoader(data or TensorDataset(torch.ones(4, 2)), batch_size=2)
    bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
    quiet_trainer(tmp_path, max_epochs=epochs, callbacks=callbacks, enable_progress_bar=bar).fit(module, loader)


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


WHOLE = {"state_dict": {"w": torch.ones(2)}, "epoch": 3}


def test_a_failing_save_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": 1}, path)

    def half(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_fabric.plugins.TorchCheckpointIO.save_checkpoint", half)
    with pytest.raises(BadInput, match="no space left"):
        AtomicCheckpointIO().save_checkpoint({"a": 2}, path)
    assert torch.load(path, weights_only=True) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


class Bomb:
    def __reduce__(self):
        return eval, ("1 / 0",)


def saved(checkpoint):
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    return stream.getvalue()


ONE = torch.ones(2).numpy().tobytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        pickle.dumps(Bomb()),
        pickle.dumps({"state_dict": 1}),
        saved(WHOLE | {"more": Bomb()}),
        saved(WHOLE).replace(ONE, ONE[:-1] + b"\x40"),
    ],
    ids=["empty", "cut", "code", "foreign", "code inside", "a changed weight"],
)
def test_a_spoiled_checkpoint_is_refused_and_runs_nothing(tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"is damaged.* delete it, and its run starts from the beginning"):
        read_checkpoint(path)
    path.write_bytes(saved(WHOLE))
    assert read_checkpoint(path)["epoch"] == 3


def test_a_run_whose_checkpoint_was_spoiled_says_what_to_do(tmp_path, capsys, monkeypatch):
    def stop(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(toy.Classifier, "tune", lambda *_: stop(None))
        with pytest.raises(SystemExit, match="130"):  # interrupted, as by Ctrl-C
            train(tmp_path)
    (last,) = tmp_path.glob("runs/toy/*/checkpoints/last.ckpt")
    last.write_bytes(b"")
    with pytest.raises(SystemExit):
        train(tmp_path)
    assert "last.ckpt: is damaged, or no checkpoint of ours; delete it" in capsys.readouterr().out
    last.unlink()
    train(tmp_path)
    assert (tmp_path / "runs/toy/latest/results.json").is_file()
