"""A run's folder: found again when the same command is repeated after an interruption.

The key of a run is the hash of everything in its configuration that can change its result. A new run gets a folder
named by the time. A repeated command whose earlier run did not finish continues in that run's folder, from its last
checkpoint. A job of a sweep gets a folder named by its number; a finished job with its key is not repeated.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock, Timeout
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from rich.console import Console

from src.runs.callbacks import read_checkpoint
from src.signals import BadInput
from src.storage.atomic import atomic_file, folder_lock
from src.storage.manifest import digest_of, fingerprint
from src.storage.output import plain_name
from src.storage.progress import say

RUN_FILE = "run.json"
SWEEP_FILE = "sweep.json"
CHECKSUM = "checksum"
LOCK_FILE = ".lock"
SHARED_RUN = "NEUROLIT_RUN"
"""Environment variable in which the first process of a run gives the folder to the processes that it starts."""
EXECUTION_KEYS = ("logger", "runs_dir", "cache_dir", "workers", "resume", "tags", "group")
"""Configuration that says where and how a run is executed, not what it computes."""

Locked = tuple[Path, AcquireReturnProxy]
"""A folder and the lock that this process holds on it."""
_reported: set[Path] = set()


@dataclass(frozen=True)
class RunFolder:
    """An open run.

    Attributes
    ----------
    path, key
        Its folder and the hash of what it computes.
    attempt
        How many times it was started before.
    swept
        Whether it is a job of a sweep that chooses among its jobs: then the sweep tests the chosen one, once. A sweep
        over folds chooses nothing; its jobs have test data of their own, and test them.
    previous
        The record that its earlier attempt left in ``run.json``.
    """

    path: Path
    key: str
    attempt: int
    swept: bool = False
    previous: dict[str, Any] | None = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def bundle(self) -> Path:
        return self.path / "bundle"

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.previous is not None and self.previous.get("status") == "finished"

    def last_checkpoint(self) -> Path | None:
        """Where an interrupted run stopped, if it got as far as a checkpoint; ``BadInput`` if that is damaged."""
        last = self.checkpoints / "last.ckpt"
        if not last.is_file():
            return None
        read_checkpoint(last)
        return last

    def left_out(self) -> list[str]:
        """The recordings that could not be used, as the finished run recorded them."""
        record = read_record(self.path / RUN_FILE) if (self.path / RUN_FILE).is_file() else {}
        return list(record.get("left_out", []))

    def write(self, name: str, value: dict[str, Any]) -> None:
        """Write a record as ``<name>`` into the folder, atomically; the first process alone does."""
        if process_rank() == 0:
            write_record(self.path / name, value)

    def settle(self, data: str) -> None:
        """Record what the run is trained on (:func:`data_identity`), before anything else is written.

        Raises
        ------
        DataChanged
            If an earlier attempt was trained on other recordings or another split.
        """
        if (self.previous or {}).get("data") not in (None, data):
            raise DataChanged(self.path, data)
        if not self.finished:
            self.note(data=data)

    def note(self, **facts: Any) -> None:
        """Add facts to ``run.json``; the first process alone does."""
        if process_rank() == 0:
            self.write(RUN_FILE, {**read_record(self.path / RUN_FILE), **facts})

    def finish(self, **facts: Any) -> None:
        """Mark the run as finished and point ``latest`` beside it to it."""
        self.note(**facts, status="finished", finished=now())
        if not self.swept:
            replace_link(self.path.parent / "latest", self.path.name)


class DataChanged(RuntimeError):
    """The run that would be continued was trained on other recordings than there are now; it is left as it is."""

    def __init__(self, path: Path, data: str) -> None:
        super().__init__(f"the recordings or their split are not those that {path} was trained on")
        self.path, self.data = path, data


def data_identity(datamodule: Any) -> str:
    """SHA-256 of the split and of the content of every file that a prepared datamodule reads."""
    inputs = {name: fingerprint(path) for name, path in sorted(getattr(datamodule, "inputs", dict)().items())}
    return digest_of({"split": datamodule.split.to_dict(), "inputs": inputs})


def process_rank() -> int:
    """This process's place among those of a distributed run; 0 where there is only one."""
    return int(getattr(rank_zero_only, "rank", 0))


def run_key(config: dict[str, Any]) -> str:
    """SHA-256 of the resolved configuration without :data:`EXECUTION_KEYS`."""
    return digest_of({k: v for k, v in config.items() if k not in EXECUTION_KEYS})


@contextmanager
def open_run(
    config: dict[str, Any],
    *,
    runs_dir: Path,
    name: str,
    resume: bool = True,
    sweep: Path | None = None,
    number: int = 0,
    overrides: Sequence[str] = (),
    data: str | None = None,
) -> Iterator[RunFolder]:
    """Yield the folder to run in: that of an interrupted run of the same configuration, or a new one.

    The folder is locked while it is open, so two processes never share one; the kernel releases the lock of a killed
    process. Only the first process of a distributed run decides and writes; the others read the same folder.

    Parameters
    ----------
    sweep, number, overrides
        For a job of a sweep: the sweep's folder, the job's number and its overrides. A finished job with this key is
        yielded as it is (``finished``); one that another process is running is waited for.
    data
        :func:`data_identity` where it is known: a run that was trained on other data is not continued.

    Raises
    ------
    BadInput
        If ``runs_dir`` cannot be written.
    """
    key, home = run_key(config), sweep or Path(runs_dir) / plain_name(name)
    swept = sweep is not None and not any(override.startswith("split.fold=") for override in overrides)
    if process_rank() > 0:
        yield _join(key, home, swept)
        return

    def is_same(record: dict[str, Any]) -> bool:
        return record.get("key") == key and (data is None or record.get("data") in (None, data))

    try:
        home.mkdir(parents=True, exist_ok=True)
        if sweep is not None:
            path, lock = _claim(home, number, key, is_same)
        else:
            path, lock = (interrupted(home, RUN_FILE, is_same) if resume else None) or fresh_folder(home)
    except OSError as error:
        raise BadInput(home, f"cannot be written ({error.strerror})", "choose another runs_dir") from error
    with lock:
        run = _start(RunFolder(path, key, 0, swept), config, list(overrides))
        if run.finished:
            yield run
        else:
            with _under_way(run):
                yield run


@contextmanager
def _under_way(run: RunFolder) -> Iterator[None]:
    """Name the folder to the other processes of the run, and note in ``run.json`` how it failed."""
    os.environ[SHARED_RUN] = str(run.path.resolve())
    try:
        yield
    except DataChanged:
        if run.previous is not None:
            run.write(RUN_FILE, run.previous)
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
        run.note(status="failed", error=reason, finished=now())
        raise
    finally:
        os.environ.pop(SHARED_RUN, None)


def _start(run: RunFolder, config: dict[str, Any], overrides: list[str]) -> RunFolder:
    """Write into ``run.json`` that the run is under way, unless it is finished."""
    record: dict[str, Any] = {"key": run.key, "started": now(), "attempts": 0}
    file = run.path / RUN_FILE
    if file.exists():
        record = read_record(file)
        if not isinstance(attempts := record.get("attempts"), int):
            raise BadInput(file, "is damaged: its attempts are not counted", "remove the run's folder")
        run = replace(run, attempt=attempts, previous=dict(record))
    if run.finished:
        return run
    record.pop("error", None)
    record |= {
        "status": "running",
        "attempts": run.attempt + 1,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "overrides": overrides,
        "launch": _launch(),
        "config": config,
    }
    run.write(RUN_FILE, record)
    return run


def interrupted(home: Path, name: str, is_same: Callable[[dict[str, Any]], bool]) -> Locked | None:
    """The newest folder whose record is the same, not finished, and of no living process; locked."""
    for path, record in records(home, name):
        if is_same(record) and record.get("status") != "finished" and (lock := lock_folder(path)):
            return path, lock
    return None


def _claim(sweep: Path, number: int, key: str, is_same: Callable[[dict[str, Any]], bool]) -> Locked:
    """A job's folder in its sweep, locked: the newest with its key and data, or the first free one from its number."""
    with folder_lock(sweep / "claims"):
        same = [(path, record) for path, record in records(sweep, RUN_FILE) if is_same(record)]
        if same:
            path = max(same, key=lambda found: (found[1].get("data") is not None, int(found[0].name)))[0]
        else:
            while (sweep / str(number) / RUN_FILE).exists():
                number += 1
            path = sweep / str(number)
            path.mkdir(exist_ok=True)
            write_record(path / RUN_FILE, {"key": key, "status": "claimed", "started": now(), "attempts": 0})
    lock = lock_folder(path, wait=True)
    assert lock is not None
    return path, lock


def _join(key: str, home: Path, swept: bool) -> RunFolder:
    """The folder that the first process of this run has chosen.

    Where that process started this one, the environment names it. Otherwise (``torchrun``, ``srun``) it is found by
    the key and the identity of the launch.
    """
    if given := os.environ.get(SHARED_RUN):
        return RunFolder(Path(given), key, int(read_record(Path(given) / RUN_FILE)["attempts"]) - 1, swept)
    expected, deadline = (key, "running", _launch()), time.monotonic() + 120
    while time.monotonic() < deadline:
        for path, record in records(home, RUN_FILE):
            if (record.get("key"), record.get("status"), record.get("launch")) == expected:
                return RunFolder(path, key, int(record["attempts"]) - 1, swept)
        time.sleep(0.2)
    raise BadInput(home, "the first process of this run opened no folder", "look at its messages")


def _launch() -> str:
    """What all processes of one distributed launch, and no others, have in common."""
    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "MASTER_PORT")
    return " ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ)


def fresh_folder(home: Path) -> Locked:
    """A new folder named by the time, locked."""
    stamp, number = datetime.now().strftime("%Y-%m-%d_%H-%M-%S"), 0
    while True:
        path = home / (f"{stamp}_{number}" if number else stamp)
        number += 1
        try:
            path.mkdir()
        except FileExistsError:
            continue
        if lock := lock_folder(path):
            return path, lock


def records(home: Path, name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders in ``home`` that hold a record called ``name``, newest first."""
    for file in sorted(home.glob(f"*/{name}"), reverse=True):
        if file.parent.is_symlink():
            continue
        try:
            yield file.parent, read_record(file)
        except FileNotFoundError:  # another process moves its folder
            continue
        except (BadInput, OSError) as error:
            if file not in _reported:
                _reported.add(file)
                say(Console(stderr=True), f"{error}; it counts as absent", label="warning", style="yellow")


def lock_folder(path: Path, *, wait: bool = False) -> AcquireReturnProxy | None:
    """Hold a folder as long as this process does; ``None`` if another process has it."""
    try:
        return FileLock(path / LOCK_FILE, timeout=-1 if wait else 0, fallback_to_soft=False).acquire()
    except Timeout:
        return None


def replace_link(link: Path, target: str) -> None:
    """Make ``link`` a symbolic link to ``target``; what is there and is no link stays."""
    if link.exists() and not link.is_symlink():
        return
    part = link.with_name(f".{link.name}-{secrets.token_hex(4)}")
    part.symlink_to(target)
    os.replace(part, link)


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object that :func:`write_record` wrote, without its checksum.

    Raises
    ------
    BadInput
        If the file holds anything else, or one bit of it has changed.
    """
    damaged = BadInput(path, "is damaged", "take it from a backup, or move its folder away")
    try:
        record = json.loads(path.read_text())
    except (ValueError, RecursionError):
        raise damaged from None
    if not isinstance(record, dict) or record.pop(CHECKSUM, None) != digest_of(record):
        raise damaged
    return record


def write_record(path: Path, record: dict[str, Any]) -> Path:
    """Write a record with a checksum of itself, atomically."""
    with atomic_file(path) as part:
        part.write_text(json.dumps({**record, CHECKSUM: digest_of(record)}, indent=2, allow_nan=False) + "\n")
    return path


def now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
