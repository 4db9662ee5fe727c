"""Processes that are forked from the tests' own, and so start at once."""

import os
import runpy
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.core.global_hydra import GlobalHydra


def fork(work: Callable[[], object]) -> int:
    """Start a process that does ``work`` and ends with its exit status, or 1 after an error; returns its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child needs none of the other threads
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ended(child: int) -> int:
    """The status with which a process ends: its own, or the signal that killed it, below 0."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Ended(NamedTuple):
    """How a verb ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def printed(self) -> str:
        """All of it in one line."""
        return " ".join((self.stdout + self.stderr).split())


def verb(
    line: Sequence[str | Path], cwd: Path, prepare: Callable[[], object] = lambda: None, *, after_s: float | None = None
) -> Ended:
    """Run ``python <line>`` in ``cwd`` as a shell would; ``prepare`` is called in the process before.

    After ``after_s`` seconds it is killed.
    """
    with tempfile.TemporaryDirectory() as notes:

        def be() -> None:
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(Path(notes, name), os.O_CREAT | os.O_WRONLY), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
            os.environ["COLUMNS"] = "200"  # what a table says stands on one line
            os.chdir(cwd)
            warnings.resetwarnings()
            GlobalHydra.instance().clear()
            sys.argv = [str(word) for word in line]
            prepare()
            runpy.run_path(sys.argv[0], run_name="__main__")

        child = fork(be)
        if after_s is not None:
            timer = threading.Timer(after_s, os.kill, (child, signal.SIGKILL))
            timer.start()
        status = ended(child)
        if after_s is not None:
            timer.cancel()
        texts = [Path(notes, name) for name in ("stdout", "stderr")]
        return Ended(status, *(p.read_text(errors="backslashreplace") if p.exists() else "" for p in texts))
