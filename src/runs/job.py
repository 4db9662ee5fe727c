"""One training job, alone or in a sweep: its folder, its refusals, and what a sweep is told about it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from src.runs.assemble import prepared_identity
from src.runs.console import quiet_trainer
from src.runs.folder import RUN_FILE, DataChanged, RunFolder, open_run, process_rank, read_record
from src.runs.repeat import differences, source_digests
from src.runs.targets import check_targets
from src.runs.user_errors import exit_with, user_errors
from src.signals import BadInput
from src.storage.atomic import atomic_file
from src.storage.progress import say
from src.storage.provenance import provenance

Work = Callable[[DictConfig, dict[str, Any], RunFolder, Console], float]
HYDRAS_OWN = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True)
class SweepJob:
    """The place of a job in its sweep; ``tolerant`` says that its sweeper wants to see errors itself."""

    folder: Path
    number: int
    overrides: list[str]
    tolerant: bool


def run_job(cfg: DictConfig, work: Work) -> float:
    """Open the folder of the run that ``cfg`` describes, ``work`` in it, and return the validation score.

    A finished job of the same sweep is not repeated. A job of a sweep that fails leaves its reason in
    ``run.json`` and ``error.txt`` and does not end the sweep. A run that had to leave recordings out ends
    with status 1, so that a script notices.
    """
    quiet_trainer()
    job = sweep_job()
    console = Console(quiet=process_rank() > 0)
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    with user_errors(console):
        check_targets(config)
    if job is None:
        with user_errors(console):
            score, left_out = _run(cfg, config, work, console, resume=cfg.resume)
        if left_out:
            say(console, f"trained without {', '.join(left_out)} (see above); exit status 1", style="yellow")
            exit_with(1)
        return score
    config["group"] = config["group"] or f"{cfg.name}-sweep-{job.folder.name}"
    try:
        place: dict[str, Any] = {"sweep": job.folder, "number": job.number, "overrides": job.overrides}
        return _run(cfg, config, work, console, **place)[0]
    except Exception as error:
        reason = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
        say(console, reason, label=f"job {job.number} failed:", style="red")
        if job.tolerant:
            raise
        return float("nan")  # Hydra's own sweeper would end at the error, after the last job, without a table


def _run(
    cfg: DictConfig, config: dict[str, Any], work: Work, console: Console, data: str | None = None, **place: Any
) -> tuple[float, list[str]]:
    """Open the run's folder and work in it; returns the score and the recordings that could not be used.

    A run that was trained on other recordings than there are now is not continued: another folder is opened.
    """
    try:
        with open_run(config, runs_dir=Path(cfg.runs_dir), name=cfg.name, data=data, **place) as run:
            score = _work(cfg, config, work, run, console)
            return score, run.left_out()
    except DataChanged as changed:
        say(console, f"{changed}: a new run is started, and that folder stays as it is", style="yellow")
        return _run(cfg, config, work, console, changed.data, **place)


def _work(cfg: DictConfig, config: dict[str, Any], work: Work, run: RunFolder, console: Console) -> float:
    if run.finished and run.previous is not None:
        if run.previous.get("data") is not None:
            run.settle(prepared_identity(cfg))
        say(console, f"finished before: {run.path}")
        return float(run.previous["score"])
    if run.attempt:
        say(console, f"continuing the interrupted run {run.path}")
        _warn_of_differences(run.previous or {}, "what the run began with", console)
    if (original := repeated_record()) is not None:
        _warn_of_differences(original, "the run that is repeated", console)
    try:
        return work(cfg, config, run, console)
    except DataChanged:
        raise
    except Exception:
        with atomic_file(run.path / "error.txt") as part:
            part.write_text(traceback.format_exc())
        raise


def sweep_job() -> SweepJob | None:
    """This job's place in its sweep, or ``None`` outside one."""
    if not HydraConfig.initialized() or (hydra := HydraConfig.get()).mode != RunMode.MULTIRUN:
        return None
    tolerant = str(hydra.sweeper["_target_"]) != HYDRAS_OWN
    return SweepJob(Path(hydra.sweep.dir), int(hydra.job.num), list(hydra.overrides.task), tolerant)


def repeated_record() -> dict[str, Any] | None:
    """``run.json`` of the run whose recipe was given as ``--config-dir <run folder> --config-name run``."""
    if not HydraConfig.initialized() or HydraConfig.get().job.config_name != "run":
        return None
    for source in HydraConfig.get().runtime.config_sources:
        path = Path(source.path) / RUN_FILE
        if source.provider == "command-line" and path.is_file():
            return read_record(path)
    return None


def _warn_of_differences(recorded: dict[str, Any], what: str, console: Console) -> None:
    for line in differences(recorded, {**provenance(), "source": source_digests()}):
        say(console, line, label=f"differs from {what}:", style="yellow")
