"""A run's folder: found again when the same command is repeated after an interruption.

The key of a run is the hash of everything in its configuration that can change its result. A new run
gets a folder named by the time; a repeated command whose earlier run did not finish continues in that
run's folder, from its last checkpoint.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from src.preprocess.atomic import atomic_file
from src.preprocess.stage import canonical_json, provenance
from src.signals import BadInput

RUN_FILE = "run.json"
EXECUTION_KEYS = ("logger", "runs_dir", "cache_dir", "workers", "resume", "tags", "group")
"""Configuration that says where and how a run is carried out, not what it computes."""


@dataclass(frozen=True)
class RunFolder:
    """An open run: its ``path``, its ``key`` and how many times it was ``attempt``-ed before."""

    path: Path
    key: str
    attempt: int

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"

    def last_checkpoint(self) -> Path | None:
        """Where an interrupted run stopped, if it got as far as a checkpoint."""
        last = self.checkpoints / "last.ckpt"
        return last if last.is_file() else None

    def write(self, name: str, value: Any) -> Path:
        """Write a plain value as ``<name>`` (JSON) into the folder, atomically."""
        return _write_json(self.path / name, value)

    def finish(self, **facts: Any) -> None:
        """Mark the run as finished and point ``latest`` beside it to it."""
        record = json.loads((self.path / RUN_FILE).read_text())
        self.write(RUN_FILE, {**record, **facts, "status": "finished", "finished": _now()})
        link = self.path.parent / f".latest-{os.getpid()}"
        with suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(self.path.name)
        os.replace(link, self.path.parent / "latest")


def run_key(config: dict[str, Any]) -> str:
    """SHA-256 of the resolved configuration without :data:`EXECUTION_KEYS`."""
    return hashlib.sha256(
        canonical_json({k: v for k, v in config.items() if k not in EXECUTION_KEYS}).encode()
    ).hexdigest()


@contextmanager
def open_run(config: dict[str, Any], *, runs_dir: Path, name: str, resume: bool = True) -> Iterator[RunFolder]:
    """Yield the folder to run in: that of an interrupted run of the same configuration, or a new one.

    The folder is locked while it is open, so two processes never share one; the kernel drops the lock
    of a killed process.

    Raises
    ------
    BadInput
        If ``runs_dir`` cannot be written.
    """
    key = run_key(config)
    home = Path(runs_dir) / name
    try:
        home.mkdir(parents=True, exist_ok=True)
        path, lock = (_interrupted(home, key) if resume else None) or _fresh(home)
    except OSError as error:
        raise BadInput(home, f"cannot be written ({error.strerror})", "choose another runs_dir") from error
    with lock:
        run_file = path / RUN_FILE
        record: dict[str, Any] = {"key": key, "started": _now(), "attempts": 0}
        if run_file.exists():
            record = json.loads(run_file.read_text())
        attempt = int(record["attempts"])
        command = [Path(sys.argv[0]).name, *sys.argv[1:]]
        record |= {"status": "running", "attempts": attempt + 1, "command": command, "config": config, **provenance()}
        _write_json(run_file, record)
        yield RunFolder(path, key, attempt)


def _interrupted(home: Path, key: str) -> tuple[Path, IO[str]] | None:
    for run_file in sorted(home.glob(f"*/{RUN_FILE}"), reverse=True):
        if run_file.parent.is_symlink():
            continue
        with suppress(OSError, ValueError):
            record = json.loads(run_file.read_text())
            if record.get("key") == key and record.get("status") != "finished" and (lock := _try_lock(run_file.parent)):
                return run_file.parent, lock
    return None


def _fresh(home: Path) -> tuple[Path, IO[str]]:
    stamp, number = datetime.now().strftime("%Y-%m-%d_%H-%M-%S"), 0
    while True:
        path = home / (f"{stamp}_{number}" if number else stamp)
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            continue
        if lock := _try_lock(path):
            return path, lock
        number += 1


def _try_lock(path: Path) -> IO[str] | None:
    handle = (path / ".lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


def _write_json(path: Path, value: Any) -> Path:
    with atomic_file(path) as part:
        part.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")
    return path


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
