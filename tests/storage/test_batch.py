import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from src.signals import BadInput
from src.storage.batch import Job, Outcome, Summary, run_batch
from src.storage.parallel import THREADS
from tests.tables import printed


def square(x: int) -> int:
    return x * x


def refuse(name: str) -> None:
    raise BadInput(name, "flat channel", "choose another")


def stumble() -> None:
    raise ZeroDivisionError("division by [zero]")


def leave() -> None:
    sys.exit("a library gave up")


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_killed_late(seconds: float) -> None:
    time.sleep(seconds)
    be_killed()


def count_itself(folder: Path, name: str) -> str:
    with (folder / name).open("a") as log:
        log.write(".")
    return name


def return_a_lock() -> object:
    return threading.Lock()


def thread_settings() -> list[str | None]:
    return [os.environ.get(name) for name in THREADS]


def own_pid() -> int:
    return os.getpid()


@pytest.fixture
def batch():
    with open(os.devnull, "w") as nowhere:
        yield partial(run_batch, title="squares", console=Console(file=nowhere))


@pytest.mark.parametrize("workers", [1, 2])
def test_outcomes_keep_the_order_of_the_jobs(batch, workers):
    jobs = [Job(str(x), square, (x,)) for x in (5, 1, 4, 2, 3)]
    summary = batch(jobs, workers=workers)
    assert summary.values == {"5": 25, "1": 1, "4": 16, "2": 4, "3": 9}
    assert [o.name for o in summary.outcomes] == ["5", "1", "4", "2", "3"]
    assert summary.exit_code == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_one_bad_recording_does_not_stop_the_others(batch, workers):
    jobs = [
        Job("a", square, (2,)),
        Job("b", refuse, ("b.edf",)),
        Job("c", stumble),
        Job("d", leave),
        Job("e", square, (3,)),
    ]
    summary = batch(jobs, workers=workers)
    assert summary.values == {"a": 4, "e": 9}
    assert {o.name: o.reason for o in summary.failures} == {
        "b": "b.edf: flat channel; choose another",
        "c": "ZeroDivisionError: division by [zero]",
        "d": "SystemExit: a library gave up",
    }
    assert summary.exit_code == 1
    details = {o.name: o.detail for o in summary.failures}
    assert "stumble" in details["c"]
    assert details["b"] == ""


@pytest.mark.parametrize("at", [0, 3])
def test_a_killed_worker_is_named_and_the_others_finish(batch, tmp_path, at):
    names = [f"n{i}" for i in range(5)]
    jobs = [Job(name, count_itself, (tmp_path, name)) for name in names]
    jobs.insert(at, Job("killer", be_killed))
    summary = batch(jobs, workers=2)
    assert summary.values == {name: name for name in names}
    assert [o.name for o in summary.failures] == ["killer"]
    assert "killed" in summary.failures[0].reason
    # Only what may have been running beside the killed one is repeated.
    assert sum(len((tmp_path / name).read_text()) for name in names) <= len(names) + 1


def test_every_worker_may_be_killed(batch):
    summary = batch([Job("a", be_killed), Job("b", be_killed_late, (0.05,))], workers=2)
    assert [o.name for o in summary.failures] == ["a", "b"]


def test_what_cannot_travel_is_that_job_s_failure_alone(batch):
    jobs = [Job("value", return_a_lock), Job("call", lambda: 1), Job("good", square, (2,))]
    summary = batch(jobs, workers=2)
    assert summary.values == {"good": 4}
    assert all("pickle" in o.reason for o in summary.failures)


def test_recordings_with_one_name_fail_and_the_others_run(batch):
    summary = batch([Job("night", square, (1,)), Job("other", square, (3,)), Job("night", square, (2,))])
    assert summary.values == {"other": 9}
    assert summary.failures[0].reason == "night: 2 recordings have this name; rename one of them"


def test_no_jobs_is_no_failure(batch):
    assert batch([]) == Summary("squares")


def test_one_worker_is_this_process(batch):
    assert batch([Job("a", own_pid), Job("b", own_pid)]).values == {"a": os.getpid(), "b": os.getpid()}


def test_workers_run_one_thread_each_unless_told_otherwise(batch, monkeypatch):
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(THREADS[0], "3")
    jobs = [Job("a", thread_settings), Job("b", thread_settings)]
    assert batch(jobs, workers=2).values["a"] == ["3", "1", "1", "1"]
    assert [os.environ.get(name) for name in THREADS] == ["3", None, None, None]


def test_the_table_shows_names_and_reasons_as_they_are():
    outcomes = (
        Outcome("[bold]night", value=1, seconds=1.25),
        Outcome("n\udcff", reason="no channel EEG [/x] C4", seconds=0.5),
    )
    text = printed(Summary("/x/[lab]/out", outcomes).table())
    assert "[bold]night" in text
    assert "no channel EEG [/x] C4" in text
    assert "/x/[lab]/out" in text
    assert r"n\xff" in text
    assert "1.2" in text
    assert "done" in text


ORPHANS = """
import pathlib, sys, time
from src.storage.batch import Job, run_batch
from tests.storage.test_batch import sleep_on

if __name__ == "__main__":
    run_batch([Job(str(i), sleep_on, (pathlib.Path(sys.argv[1]), i)) for i in range(2)], title="sleep", workers=2)
"""


def sleep_on(folder: Path, i: int) -> None:
    (folder / str(i)).write_text(str(os.getpid()))
    time.sleep(60)


def test_workers_end_when_their_parent_is_killed(tmp_path, repository):
    script = tmp_path / "script.py"
    script.write_text(ORPHANS)
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    with subprocess.Popen([sys.executable, script, tmp_path], env=environment, stderr=subprocess.DEVNULL) as parent:
        try:
            pids = [int(await_text(tmp_path / str(i))) for i in range(2)]
        finally:
            parent.kill()
    deadline = time.monotonic() + 10
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    alive = list(filter(psutil.pid_exists, pids))
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    assert alive == []


def await_text(path: Path, timeout_s: float = 30.0) -> str:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.02)
    raise TimeoutError(f"{path.name} did not appear")
