"""The three verbs in processes that can be killed at any moment, without the price of a fresh interpreter.

``python -m tests.faults.verbs`` imports what the verbs import, then forks one child per line of its standard
input. A kill is a real SIGKILL: by the clock, or just before a numbered operation on a file.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY

OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "shutil.rmtree", "fcntl.flock")
"""Audit events that touch the disk; what libraries do in C is met by the clock instead."""


NOTES = Path(tempfile.mkdtemp(prefix="verbs-"))
"""Where the server keeps what a verb prints: not on the disk that is filled up."""


@dataclass(frozen=True)
class Ended:
    """How a verb ended: exit status (-9 when killed), seconds, how many file operations, what it printed."""

    status: int
    seconds: float
    operations: int
    printed: str


class Server:
    """A process that has everything imported; use as a context."""

    def __enter__(self) -> Server:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.verbs"],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()

    def run(self, folder: Path, *line: str, after_s: float | None = None, at: int | None = None) -> Ended:
        """Run ``line`` in ``folder``; kill it after ``after_s`` seconds or before its ``at``-th operation on a file."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        folder.mkdir(parents=True, exist_ok=True)
        wish = {"line": line, "folder": str(folder), "after_s": after_s, "at": at}
        self.process.stdin.write(json.dumps(wish) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        return Ended(**json.loads(answer))


def serve() -> None:
    import matplotlib.pyplot  # noqa: F401
    import optuna  # noqa: F401
    import pytorch_lightning  # noqa: F401
    import scipy.signal  # noqa: F401

    import tests.runs.toy  # noqa: F401

    for line in sys.stdin:
        print(json.dumps(_fork(json.loads(line))), flush=True)


def _fork(wish: dict[str, Any]) -> dict[str, Any]:
    folder = Path(wish["folder"])
    log, count = NOTES / "log", NOTES / "count"
    count.unlink(missing_ok=True)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _be(wish, folder, log, count)
    ended = 0
    while ended == 0:
        ended, status = os.waitpid(child, os.WNOHANG)
        if wish["after_s"] is not None and time.monotonic() - started > wish["after_s"]:
            os.kill(child, signal.SIGKILL)
            ended, status = os.waitpid(child, 0)
        time.sleep(0.001)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - started,
        "operations": int(count.read_text()) if count.exists() else 0,
        "printed": log.read_text(errors="backslashreplace"),
    }


def _be(wish: dict[str, Any], folder: Path, log: Path, count: Path) -> None:
    """In the child: be the verb, and never come back."""
    status = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        operations = _count_operations(str(folder), wish["at"])
        sys.argv = list(wish["line"])
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        count.write_text(str(len(operations)))
    finally:
        os._exit(status)


def _count_operations(folder: str, fatal: int | None) -> list[str]:
    seen: list[str] = []

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS:
            return
        subject = arguments[0] if event == "fcntl.flock" else os.fsdecode(arguments[0]) if _is_path(arguments) else ""
        if event == "fcntl.flock" or str(subject).startswith(folder):
            seen.append(event)
            if fatal is not None and len(seen) > fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(see)
    return seen


def _is_path(arguments: tuple[Any, ...]) -> bool:
    return bool(arguments) and isinstance(arguments[0], str | bytes | os.PathLike)


if __name__ == "__main__":
    serve()
