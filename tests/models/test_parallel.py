"""Two processes on one machine give the curves that one process gives with the same batches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import distributed, multiprocessing, nn

from src.models.parallel import global_mean, processes
from tests.conftest import REPOSITORY
from tests.runs.verb import command
from tests.tables import read_csv

PAIR = (
    *("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"),
    *("trainer.precision=32-true", "trainer.sync_batchnorm=false"),
)
SHARDS = ([0, 2, 3, 5, 6], [1, 4])
"""Which examples of a batch of seven each process has."""


class FixedBatchNorm(pl.Callback):
    """Batch normalisation by its running values: on a CPU each process would normalise with its half of a batch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        for layer in pl_module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 3, 3), nn.GELU(), nn.Flatten(), nn.Linear(12, 2)).double()


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(7, 2, 6, generator=generator, dtype=torch.double), torch.tensor([0, 1, 1, 0, 1, 1, 1])


def backward(model, points, labels):
    weights = torch.tensor([1.0, 4.0], dtype=torch.double)
    total = nn.functional.cross_entropy(model(points), labels, weights, reduction="sum")
    loss = global_mean(total, weights[labels].sum())
    loss.backward()
    return loss.detach()


def one_process(rank, folder):
    distributed.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    model = network()
    points, labels = (t[SHARDS[rank]] for t in batch())
    loss = backward(model, points, labels)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for gradient in [loss, *gradients.values()]:
        distributed.all_reduce(gradient)
        gradient /= 2  # as DistributedDataParallel does
    torch.save((loss, gradients), Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_uneven_shards_give_the_loss_and_gradients_of_the_whole_batch(tmp_path):
    multiprocessing.spawn(one_process, args=(str(tmp_path),), nprocs=2)
    model = network()
    loss = backward(model, *batch())
    for rank in range(2):
        shared, gradients = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(shared, loss)
        torch.testing.assert_close(gradients, {name: p.grad for name, p in model.named_parameters()})


def test_alone_the_mean_is_the_mean():
    assert processes() == 1
    assert global_mean(torch.tensor(6.0), torch.tensor(4.0)) == 1.5


def run(folder, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, *command(folder, *arguments)], env=environment, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = [p for p in (folder / "runs" / "toy").iterdir() if p.is_dir() and not p.is_symlink()]
    return path, done.stdout


def curves(path):
    rows = read_csv(path / "metrics.csv")
    return {name: np.array([float(r[name]) for r in rows if r[name]]) for name in ("train/loss", "val/loss")}


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path):
    uneven = ("datamodule.batch_size=6", "trainer.max_epochs=4")  # the last validation batch is smaller
    one, _ = run(tmp_path / "one", *uneven)
    two, printed = run(tmp_path / "two", *uneven, *PAIR)
    expected, found = curves(one), curves(two)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, err_msg=name)
    weights = [load_file(path / "bundle" / "model.safetensors") for path in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)
    records = [json.loads((path / "run.json").read_text()) for path in (one, two)]
    assert records[0]["metrics"]["test/accuracy"] == records[1]["metrics"]["test/accuracy"]
    bundles = [json.loads((path / "bundle" / "bundle.json").read_text()) for path in (one, two)]
    assert bundles[0]["decision"] == bundles[1]["decision"] == {"examples": 8}
    assert printed.count("run     ") == 1


@pytest.mark.slow
def test_the_sleep_network_trains_alike_on_two_processes(tmp_path):
    quiet = [f"datamodule.augment.{n}=0" for n in ("time_warp_frames", "freq_mask_bins", "time_mask_frames", "gain_db")]
    arguments = [
        *("experiment=sleep_cnn", "logger=csv", "workers=1", "source.subjects=4", "source.hours=1.5"),
        *("trainer.max_epochs=3", "model.network_args.dropout=0", "datamodule.batch_size=34", *quiet),
        "+callbacks.still={_target_: tests.models.test_parallel.FixedBatchNorm}",
        f"cache_dir={tmp_path / 'cache'}",
    ]
    found = []
    for name, extra in (("one", ()), ("two", PAIR)):
        line = [sys.executable, "train.py", *arguments, *extra, f"runs_dir={tmp_path / name}"]
        subprocess.run(line, cwd=REPOSITORY, check=True, capture_output=True, timeout=600)
        found.append(curves((tmp_path / name / "sleep_cnn" / "latest").resolve()))
    for name, values in found[0].items():
        np.testing.assert_allclose(found[1][name], values, rtol=2e-3, err_msg=name)


@pytest.mark.slow
def test_sparse_batches_train_alike_on_two_processes(tmp_path):
    """Index lists of both subjects, in batches that two processes share."""
    arguments = [
        *("experiment=grid_forecast", "logger=csv", "trainer.max_epochs=2", "datamodule.batch_size=34"),
        *("datamodule.simulated.common.frames=700", f"cache_dir={tmp_path / 'cache'}"),
    ]
    found = []
    for name, extra in (("one", ()), ("two", PAIR)):
        line = [sys.executable, "train.py", *arguments, *extra, f"runs_dir={tmp_path / name}"]
        subprocess.run(line, cwd=REPOSITORY, check=True, capture_output=True, timeout=600)
        folder = (tmp_path / name / "grid_forecast" / "latest").resolve()
        rows = read_csv(folder / "metrics.csv")
        wanted = ("train/loss", "val/bits_per_spike", "val/average_precision")
        curve = {score: [float(row[score]) for row in rows if row[score]] for score in wanted}
        found.append(curve | {"test": list(json.loads((folder / "run.json").read_text())["metrics"].values())})
    for name, values in found[0].items():
        assert len(values) > 1
        np.testing.assert_allclose(found[1][name], values, rtol=2e-3, atol=1e-4, err_msg=name)
