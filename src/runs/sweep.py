"""Hydra's callback around a sweep: its folder, found again after an interruption, and its conclusion."""

import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn

from filelock import AcquireReturnProxy
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from rich.console import Console

from src.runs.command import hydra_quoted
from src.runs.folder import (
    EXECUTION_KEYS,
    LOCK_FILE,
    SWEEP_FILE,
    fresh_folder,
    interrupted,
    lock_folder,
    now,
    read_record,
    replace_link,
    write_record,
)
from src.signals import BadInput
from src.storage.manifest import digest_of
from src.storage.progress import say

EFFORT_KEYS = ("n_trials", "n_jobs", "max_batch_size", "max_failure_rate", "storage")
"""How much of a search is done and how, not which search it is."""
_locks: list[AcquireReturnProxy] = []
"""Held until the process ends; not in the callback, which travels to other machines."""


class SweepCallback(Callback):
    """Give every multirun a folder of its own, or that of the same sweep if it did not finish.

    The folder reaches the jobs as an override of ``hydra.sweep.dir``, which every launcher passes on. A folder given on
    the command line is used as it is, so more values can be added to a sweep.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            folder = open_sweep(config)
            with read_write(config), open_dict(config):
                config.hydra.sweep.dir = str(folder)
                if "optuna" in config.hydra.sweeper["_target_"]:
                    from src.runs.search import prepare_search

                    mode = get_object(config.model["_target_"]).monitor[1]
                    prepare_search(config.hydra.sweeper, mode, config.hydra.overrides.hydra)
                config.hydra.overrides.hydra.append(f"hydra.sweep.dir={hydra_quoted(str(folder))}")
        except BadInput as error:
            _stop(error)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            from src.runs.ranking import write_tables

            write_tables(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from src.runs.conclusion import finalize_sweep

        console = Console()
        try:
            failures = finalize_sweep(Path(config.hydra.sweep.dir), console)
            release()
        except BadInput as error:
            _stop(error)
        except Exception:  # Hydra would make a warning of it
            console.print_exception()
            sys.exit(1)
        if failures:
            sys.exit(1)


def release() -> None:
    """Release the sweep's lock, as the end of the process would."""
    while _locks:
        _locks.pop().lock.release()


def open_sweep(config: DictConfig) -> Path:
    """The folder of this sweep, locked: that of the same sweep if it was interrupted, or a new one.

    Raises
    ------
    BadInput
        If the folder cannot be written, or another process is at it.
    """
    key, home = sweep_key(config), Path(config.runs_dir) / "sweeps"
    try:
        if any(override.startswith("hydra.sweep.dir=") for override in config.hydra.overrides.hydra):
            path = Path(config.hydra.sweep.dir)
            held = [p.name for p in path.iterdir() if p.name != LOCK_FILE] if path.is_dir() else []
            if held and not (path / SWEEP_FILE).exists():
                problem = f"already holds {held[0]!r}, which no sweep wrote"
                raise BadInput(path, problem, "choose another hydra.sweep.dir")
            path.mkdir(parents=True, exist_ok=True)
            lock = lock_folder(path)
        else:
            home.mkdir(parents=True, exist_ok=True)
            found = interrupted(home, SWEEP_FILE, lambda record: record.get("key") == key) if config.resume else None
            path, lock = found or fresh_folder(home)
    except OSError as error:
        raise BadInput(home, f"cannot be written ({error.strerror})", "choose another runs_dir") from error
    if lock is None:
        raise BadInput(path, "another process is at this sweep", "wait for it, or choose another folder")
    _locks.append(lock)
    record: dict[str, Any] = {"key": key, "started": now(), "attempts": 0}
    if (path / SWEEP_FILE).exists():
        record = read_record(path / SWEEP_FILE)
        say(Console(), f"continuing the sweep {path}")
    record |= {
        "status": "running",
        "attempts": record["attempts"] + 1,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "overrides": list(config.hydra.overrides.task),
    }
    write_record(path / SWEEP_FILE, record)
    replace_link(path.parent / "latest", path.name)
    return path


def sweep_key(config: DictConfig) -> str:
    """SHA-256 of what the sweep searches: its overrides, its sweeper, and the configuration they change."""
    root: Any = OmegaConf.to_container(config, resolve=False)
    sweeper = root.pop("hydra")["sweeper"]
    names = {override: override.lstrip("+~").partition("=")[0] for override in config.hydra.overrides.task}
    return digest_of(
        {
            "config": {k: v for k, v in root.items() if k not in EXECUTION_KEYS},
            "sweeper": {k: str(v) for k, v in sweeper.items() if k not in EFFORT_KEYS},
            "overrides": sorted(override for override, name in names.items() if name not in EXECUTION_KEYS),
        }
    )


def _stop(error: BadInput) -> NoReturn:
    say(Console(), str(error), label="error", style="red")
    sys.exit(2)
