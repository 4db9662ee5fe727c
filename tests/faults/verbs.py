"""The three verbs in processes that can be killed at any moment, without the price of a fresh interpreter.

``python -m tests.faults.verbs`` imports what the verbs import, then forks one child per line of its standard
input. A kill is a real SIGKILL: by the clock, or just before a numbered operation on a file.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tests import children
from tests.conftest import REPOSITORY

OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "shutil.rmtree", "fcntl.flock")
"""Audit events that touch the disk; what libraries do in C is met by the clock instead."""


@dataclass(frozen=True)
class Ended:
    """How a verb ended: exit status (-9 when killed), seconds, how many file operations, what it printed."""

    status: int
    seconds: float
    operations: int
    printed: str


class Server:
    """A process that has everything imported; use as a context."""

    def __enter__(self) -> "Server":
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
    for heavy in ("matplotlib.figure", "optuna", "pytorch_lightning", "scipy.signal", "tests.runs.toy"):
        import_module(heavy)
    for line in sys.stdin:
        print(json.dumps(asdict(_run(json.loads(line)))), flush=True)


def _run(wish: dict[str, Any]) -> Ended:
    with tempfile.TemporaryFile() as seen:  # a byte for each operation
        started = time.monotonic()
        ended = children.verb(
            wish["line"],
            Path(wish["folder"]),
            lambda: _watch(wish["folder"], wish["at"], seen.fileno()),
            after_s=wish["after_s"],
        )
        operations = os.fstat(seen.fileno()).st_size
    return Ended(ended.returncode, time.monotonic() - started, operations, ended.stdout + ended.stderr)


def _watch(folder: str, fatal: int | None, seen: int) -> None:
    """Count the operations on files in a folder, and die before a numbered one."""

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS:
            return
        subject = os.fsdecode(arguments[0]) if arguments and isinstance(arguments[0], str | bytes | os.PathLike) else ""
        if event == "fcntl.flock" or str(subject).startswith(folder):
            os.write(seen, b".")
            if fatal is not None and os.fstat(seen).st_size > fatal:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(see)


if __name__ == "__main__":
    serve()
