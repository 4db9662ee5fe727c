"""Raw recordings to predictions through the three verbs, in fresh processes, as a user runs them."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from src.models.bundle import load_bundle
from src.predict.sleep import stage_probabilities
from src.preprocess.sleep.epochs import EpochSettings, epochs_of
from src.recordings.sleep.nights import Night
from src.runs.job import run_job
from src.simulate.sleep import write_night
from tests.composed import composed
from tests.conftest import REPOSITORY
from tests.nights import load
from tests.tables import read_csv
from train import train

pytestmark = pytest.mark.timeout(600)  # a crowded machine starts a process in half a minute

TINY = (
    "experiment=sleep_cnn",
    "logger=csv",
    "workers=1",
    "trainer.max_epochs=2",
    "model.network_args.width=16",
    "model.network_args.filters=8",
)
COHORT = ("source.subjects=4", "source.hours=2.0")


def command(verb, *overrides, cache, runs=None):
    runs_dir = [f"runs_dir={runs}"] if runs else []
    cached = [f"cache_dir={cache}"] if verb == "train.py" else []
    return [sys.executable, verb, *overrides, *cached, *runs_dir]


def run(verb, *overrides, cache=None, runs=None, code=0):
    done = subprocess.run(
        command(verb, *overrides, cache=cache, runs=runs), cwd=REPOSITORY, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="session")
def trained(tmp_path_factory, cache):
    """One tiny training through ``train.py``; what it printed and where its run is."""
    runs = tmp_path_factory.mktemp("runs")
    printed = run("train.py", *TINY, *COHORT, cache=cache, runs=runs)
    return printed, (runs / "sleep_cnn" / "latest").resolve()


@pytest.fixture(scope="session")
def night(tmp_path_factory):
    return write_night(tmp_path_factory.mktemp("unseen"), 50, 1, seed=3, hours=1.3)[0]


@pytest.fixture(scope="session")
def predicted(tmp_path_factory, trained, night):
    folder = tmp_path_factory.mktemp("predictions")
    return run("infer.py", f"bundle={trained[1]}", f"input={night}", f"output_dir={folder}"), folder / night.stem


def test_a_training_prints_totals_scores_and_where_its_bundle_is(trained):
    printed, folder = trained
    for expected in ("train", "val", "test", "pooled", "majority stage", "SIMULATED", str(folder / "bundle")):
        assert expected in printed
    assert "human scorers" not in printed  # nobody scored simulated sleepers
    for name in ("run.json", "split.json", "results.json", "metrics.csv", "bundle/bundle.json"):
        assert (folder / name).is_file()
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_inference_writes_a_row_per_epoch_a_figure_and_a_manifest(predicted):
    printed, folder = predicted
    rows = read_csv(folder / "hypnogram.csv")
    assert list(rows[0]) == ["onset_s", "duration_s", "stage", "p_W", "p_N1", "p_N2", "p_N3", "p_REM"]
    assert len(rows) == 156
    sums = [sum(float(row[f"p_{s}"]) for s in ("W", "N1", "N2", "N3", "REM")) for row in rows]
    np.testing.assert_allclose(sums, 1.0, atol=1e-4)
    assert (folder / "night.png").read_bytes()[:4] == b"\x89PNG"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sum(manifest["epochs"].values()) == 156
    assert str(folder / "night.png") in printed


def test_a_fresh_process_gives_the_probabilities_of_this_one(trained, night, predicted):
    bundle = load_bundle(trained[1])
    settings = EpochSettings.from_params(bundle.steps[0]["params"])
    recording, _ = load(Night("x", "x", (night,), None, "edf_folder"), settings.channels, settings.features.fs_hz)
    here = stage_probabilities(
        bundle.network(), epochs_of(recording, None, settings), temperature=bundle.decision["temperature"]
    )
    written = np.genfromtxt(predicted[1] / "hypnogram.csv", delimiter=",", skip_header=1)[:, 3:]
    np.testing.assert_allclose(written, here, atol=6e-6)


def test_a_training_killed_and_repeated_ends_like_an_unbroken_one(trained, cache, tmp_path):
    process = subprocess.Popen(
        command("train.py", *TINY, *COHORT, cache=cache, runs=tmp_path),
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("sleep_cnn/*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    printed = run("train.py", *TINY, *COHORT, cache=cache, runs=tmp_path)
    assert "continuing the interrupted run" in printed
    (folder,) = [p for p in (tmp_path / "sleep_cnn").iterdir() if not p.is_symlink()]
    assert (folder / "results.json").read_text() == (trained[1] / "results.json").read_text()
    resumed = load_file(folder / "bundle" / "model.safetensors")
    for name, value in load_file(trained[1] / "bundle" / "model.safetensors").items():
        assert torch.equal(value, resumed[name]), name


def test_a_training_that_cannot_work_says_why_in_one_line(cache, tmp_path):
    printed = run("train.py", *TINY, "source=edf_folder", "source.root=/nowhere", cache=cache, runs=tmp_path, code=2)
    (line,) = [line for line in printed.splitlines() if line.startswith("error")]
    assert "/nowhere: does not exist" in line
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["source.hours=1.0", "source.subjects=2"], "cannot be split"),
        ([*COHORT, "datamodule.epochs.channels=[C9-X]"], "no recording could be used"),
    ],
)
def test_data_that_cannot_be_learnt_from_end_a_training_with_status_2(overrides, problem, cache, tmp_path, capsys):
    cfg = composed("train", *TINY, *overrides, f"cache_dir={cache}", f"runs_dir={tmp_path}")
    with pytest.raises(SystemExit) as end:
        run_job(cfg, train)
    assert end.value.code == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error")]
    assert problem in line


def test_an_inference_that_cannot_work_says_why_and_leaves_nothing(trained, night, tmp_path):
    bundle = trained[1] / "bundle"
    truncated = tmp_path / "cut.edf"
    truncated.write_bytes(night.read_bytes()[:100_000])
    out = tmp_path / "out"
    printed = run("infer.py", f"bundle={bundle}", f"input={truncated}", f"output_dir={out}", code=1)
    assert "cut.edf" in printed.replace("\n", "")
    assert "Traceback" not in printed
    assert not [p for p in out.rglob("*") if p.is_file() and not p.name.endswith(".lock")]
    printed = run("infer.py", f"bundle={tmp_path}", f"input={night}", code=2)
    assert "holds no bundle" in printed
