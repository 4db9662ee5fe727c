"""One training job, alone or in a sweep: its folder, its errors, and what a sweep learns about it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from src.runs.assemble import prepared_identity, quiet_trainer
from src.runs.command import exit_with, user_errors
from src.runs.folder import RUN_FILE, DataChanged, RunFolder, open_run, process_rank, read_record
from src.runs.repeat import differences, present_code
from src.runs.targets import check_targets
from src.signals import BadInput
from src.storage.atomic import atomic_file
from src.storage.progress import say

Work = Callable[[DictConfig, dict[str, Any], RunFolder, Console], float]
HYDRAS_OWN = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def run_job(cfg: DictConfig, work: Work) -> float:
    """Open the folder of the run that ``cfg`` describes, ``work`` in it, and return the validation score.

    A finished job of the same sweep is not repeated. A job of a sweep that fails writes its reason into ``run.json``
    and ``error.txt`` and does not end the sweep. A run that had to leave recordings out ends with status 1.
    """
    quiet_trainer()
    console = Console(quiet=process_rank() > 0)
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    with user_errors(console):
        check_targets(config)
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    if hydra is None or hydra.mode != RunMode.MULTIRUN:
        with user_errors(console):
            score, left_out = _run(cfg, config, work, console, resume=cfg.resume)
        if left_out:
            say(console, f"trained without {', '.join(left_out)} (see above); exit status 1", style="yellow")
            exit_with(1)
        return score
    sweep, number = Path(hydra.sweep.dir), int(hydra.job.num)
    config["group"] = config["group"] or f"{cfg.name}-sweep-{sweep.name}"
    try:
        overrides = list(hydra.overrides.task)
        return _run(cfg, config, work, console, sweep=sweep, number=number, overrides=overrides)[0]
    except Exception as error:
        reason = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
        say(console, reason, label=f"job {number} failed:", style="red")
        if hydra.sweeper["_target_"] != HYDRAS_OWN:
            raise  # other sweepers count failures themselves
        return float("nan")  # Hydra's own would end at the error, after the last job, without a table


def _run(
    cfg: DictConfig, config: dict[str, Any], work: Work, console: Console, **place: Any
) -> tuple[float, list[str]]:
    """Open the run's folder and work in it; returns the score and the recordings that could not be used.

    A run that was trained on other recordings than there are now is not continued: another folder is opened.
    """
    try:
        with open_run(config, runs_dir=Path(cfg.runs_dir), name=cfg.name, **place) as run:
            score = _work(cfg, config, work, run, console)
            return score, run.left_out()
    except DataChanged as changed:
        say(console, f"{changed}: a new run is started, and that folder stays as it is", style="yellow")
        return _run(cfg, config, work, console, **{**place, "data": changed.data})


def _work(cfg: DictConfig, config: dict[str, Any], work: Work, run: RunFolder, console: Console) -> float:
    if run.finished and run.previous is not None:
        if run.previous.get("data") is not None:
            run.settle(prepared_identity(cfg))
        say(console, f"finished before: {run.path}")
        return float(run.previous["score"])
    if run.attempt:
        say(console, f"continuing the interrupted run {run.path}")
    earlier = {"what the run began with": run.previous, "the run that is repeated": repeated_record()}
    for what, record in earlier.items():
        for line in differences(record, present_code()) if record and "source" in record else ():
            say(console, line, label=f"differs from {what}:", style="yellow")
    try:
        return work(cfg, config, run, console)
    except DataChanged:
        raise
    except Exception:
        with atomic_file(run.path / "error.txt") as part:
            part.write_text(traceback.format_exc())
        raise


def repeated_record() -> dict[str, Any] | None:
    """``run.json`` of the run whose recipe was given as ``--config-dir <run folder> --config-name run``."""
    if not HydraConfig.initialized() or HydraConfig.get().job.config_name != "run":
        return None
    for source in HydraConfig.get().runtime.config_sources:
        path = Path(source.path) / RUN_FILE
        if source.provider == "command-line" and path.is_file():
            return read_record(path)
    return None
