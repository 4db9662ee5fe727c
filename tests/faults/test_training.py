"""What happens around a training: a dead data-loader worker, a clock that jumps, a loss that is no number."""

import json
import os
import signal
from datetime import datetime, timedelta

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader, TensorDataset

from tests.runs import toy
from tests.runs.verb import train

FATAL = 2


class Deadly(TensorDataset):
    """Rows whose third access kills the process that makes it, a worker of the loader."""

    served = 0

    def __getitem__(self, index):
        Deadly.served += 1
        if Deadly.served > FATAL:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def weights(folder):
    return load_file(folder / "runs" / "toy" / "latest" / "bundle" / "model.safetensors")


def same(first, second):
    return all(value.equal(second[name]) for name, value in first.items())


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_dead_data_loader_worker_is_said_and_the_run_goes_on_later(tmp_path, monkeypatch):
    def loader(self):
        rows = Deadly(self.points[:32], self.labels[:32])
        return DataLoader(rows, batch_size=8, num_workers=1)

    train(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(toy.Blobs, "train_dataloader", loader)
        with pytest.raises((RuntimeError, SystemExit)):
            train(tmp_path / "told")
    (run,) = [p for p in (tmp_path / "told/runs/toy").iterdir() if not p.is_symlink()]
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "failed"
    assert record["error"]
    assert "DataLoader" in (run / "error.txt").read_text() or "dataloader" in (run / "error.txt").read_text()
    train(tmp_path / "told")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "told"))


@pytest.mark.faults
@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    jumps = iter(range(10**6))

    class Jumping(datetime):
        @classmethod
        def now(cls, tz=None):
            step = next(jumps)
            return datetime.now(tz) + timedelta(days=(-1) ** step * 400 * (step % 7))

    def stop(self, datamodule):
        raise KeyboardInterrupt

    train(tmp_path / "whole")
    monkeypatch.setattr("src.runs.folder.datetime", Jumping)
    with monkeypatch.context() as patch:
        patch.setattr(toy.Classifier, "tune", stop)
        for _ in range(3):
            with pytest.raises((KeyboardInterrupt, SystemExit)):
                train(tmp_path / "told")
    train(tmp_path / "told")
    assert len([p for p in (tmp_path / "told/runs/toy").iterdir() if not p.is_symlink()]) == 1
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "told"))


def test_data_that_is_no_number_stops_the_run_and_keeps_the_batch(tmp_path, monkeypatch, capsys):
    init = toy.Blobs.__init__

    def spoiled(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.points[3] = float("nan")

    monkeypatch.setattr(toy.Blobs, "__init__", spoiled)
    with pytest.raises(SystemExit) as end:
        train(tmp_path)
    assert end.value.code == 2
    assert "non_finite_batch.pt: the loss was nan in epoch 0" in capsys.readouterr().out.replace("\n", "")
    (saved,) = tmp_path.glob("runs/toy/*/non_finite_batch.pt")
    points, labels = torch.load(saved, weights_only=True)["batch"]
    assert len(points) == len(labels) == 8
