"""A sweep, a preprocessing array and a pre-empted training on a real SLURM cluster of one node."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from src.storage.manifest import MANIFEST
from tests.conftest import REPOSITORY
from tests.runs.verb import command
from tests.tables import read_csv

CLUSTER = REPOSITORY / "setup" / "slurm_one_node.sh"
SMALL = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1")
LONG = ("trainer.max_epochs=300", "patience=300", "model.lr=0.001")

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"SLURM is not installed ({', '.join(missing)}): apt install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("starting the daemons of a SLURM cluster needs root")
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([CLUSTER, "start", folder], capture_output=True, text=True, timeout=120)
    if started.returncode:
        pytest.skip(f"a SLURM cluster cannot be started here: {started.stderr.strip().splitlines()[-1]}")
    yield {"SLURM_CONF": started.stdout.strip().splitlines()[-1]}
    subprocess.run([CLUSTER, "stop", folder], check=True, timeout=60)
    left = [pid.read_text() for pid in folder.glob("*.pid")]
    assert left == []


@pytest.fixture
def start():
    """Start a verb; whatever is still running at the end of the test is ended."""
    processes = []

    def begin(cluster, line):
        environment = {**os.environ, **cluster, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, *map(str, line)], cwd=REPOSITORY, env=environment, stdout=pipe, stderr=pipe, text=True
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def slurm(cluster, *line):
    return subprocess.run(line, env={**os.environ, **cluster}, check=True, capture_output=True, text=True).stdout


def wait_for(condition, what, seconds=240):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"waited {seconds} s in vain for {what}")


def test_a_sweep_and_its_failing_job(cluster, start, tmp_path):
    process = start(cluster, command(tmp_path, "-m", "model.lr=0.1,-1", "seed=1,2", *SMALL))
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 1, printed
    sweep = (tmp_path / "runs" / "sweeps" / "latest").resolve()
    jobs = read_csv(sweep / "jobs.csv")
    assert [job["status"] for job in jobs] == ["finished", "finished", "failed", "failed"]
    assert read_csv(sweep / "sweep.csv")[0]["test/accuracy"]
    ids = {json.loads((sweep / str(i) / "run.json").read_text())["launch"] for i in range(4)}
    assert len(ids) == 4
    assert all("SLURM_JOB_ID" in one for one in ids)


def test_a_preprocessing_array_of_one_job_per_recording(cluster, start, tmp_path):
    wires, out = tmp_path / "wires", tmp_path / "out"
    wires.mkdir()
    for seed, name in enumerate("abc"):
        np.save(wires / f"{name}.npy", np.random.default_rng(seed).standard_normal(25_000))
    line = [REPOSITORY / "preprocess.py", "-m", "preprocess=spike_conditioning", "figures=false", *SMALL]
    process = start(cluster, [*line, f"input_dir={wires}", f"output_dir={out}", "part=range(1,4)", "parts=3"])
    printed, errors = process.communicate(timeout=400)
    assert process.returncode == 0, printed + errors
    assert {p.parent.name for p in out.glob(f"*/{MANIFEST}")} == {"a", "b", "c"}
    logs = [p.read_text() for p in out.glob(".jobs/*/.submitit/*/*_log.out")]
    assert sorted(name for log in logs for name in re.findall(r"^│ ([abc]) ", log, re.MULTILINE)) == ["a", "b", "c"]


def test_a_pre_empted_job_checkpoints_is_requeued_and_ends_like_an_unbroken_one(cluster, start, tmp_path):
    alone = start({}, command(tmp_path / "alone", *LONG))
    alone.communicate(timeout=400)
    process = start(cluster, command(tmp_path / "told", "-m", *LONG, *SMALL))
    job = tmp_path / "told" / "runs" / "sweeps" / "latest" / "0"
    wait_for((job / "checkpoints" / "last.ckpt").is_file, "the first checkpoint")
    (number,) = slurm(cluster, "squeue", "-h", "-o", "%A").split()
    slurm(cluster, "scancel", "--signal=USR2", number)  # what a cluster sends before it takes the machine back
    wait_for(lambda: "Restarts=1" in slurm(cluster, "scontrol", "show", "job", number), "the requeued job")
    wait_for(lambda: json.loads((job / "run.json").read_text())["attempts"] == 2, "the second attempt")
    epochs = len(read_csv(job / "csv" / "attempt_0" / "metrics.csv"))
    slurm(cluster, "scontrol", "requeue", number)  # and a machine that is lost without a warning
    printed, errors = process.communicate(timeout=500)
    assert process.returncode == 0, printed + errors
    record = json.loads((job / "run.json").read_text())
    assert (record["status"], record["attempts"]) == ("finished", 3)
    assert 0 < epochs < 300
    expected = load_file(tmp_path / "alone" / "runs" / "toy" / "latest" / "bundle" / "model.safetensors")
    found = load_file(job / "bundle" / "model.safetensors")
    assert all(value.equal(found[name]) for name, value in expected.items())


def test_nothing_is_left_running(cluster):
    assert slurm(cluster, "squeue", "-h") == ""
    pid = int((Path(cluster["SLURM_CONF"]).parent / "slurmd.pid").read_text())
    os.kill(pid, signal.SIG_DFL)  # alive until the fixture stops it
