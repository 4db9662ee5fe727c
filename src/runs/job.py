"""One training job, alone or in a sweep: its folder, its ``run.yaml``, its errors, and its result for the sweep."""

import hashlib
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from src.runs.assemble import prepared_identity, quiet_trainer
from src.runs.command import exit_with, user_errors
from src.runs.folder import RUN_FILE, DataChanged, RunFolder, open_run, process_rank, read_record
from src.runs.targets import check_targets
from src.signals import BadInput
from src.storage.atomic import atomic_file
from src.storage.manifest import provenance
from src.storage.output import refuse_overlap
from src.storage.progress import say

Work = Callable[[DictConfig, dict[str, Any], RunFolder, Console], float]
HYDRAS_OWN = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
RECIPE = "run.yaml"
RECORDINGS = (("source", "root"), ("datamodule", "root"), ("datamodule", "data_dir"))
_HEAD = """\
# Repeats this run: python train.py --config-dir <this folder> --config-name run
defaults:
  - train_schema
  - frame
  - _self_

"""


def run_job(cfg: DictConfig, work: Work) -> float:
    """Open the folder of the run that ``cfg`` describes, ``work`` in it, and return the validation score.

    A finished job of the same sweep is not repeated. A job of a sweep that fails writes its reason into ``run.json``
    and ``error.txt`` and does not end the sweep. A run that had to leave recordings out ends with status 1.
    """
    quiet_trainer()
    console = Console(quiet=process_rank() > 0)
    with user_errors(console):
        config: Any = OmegaConf.to_container(cfg, resolve=True)
        check_targets(config)
        read = [(config.get(block) or {}).get(key) for block, key in RECORDINGS]
        for option in ("runs_dir", "cache_dir"):
            if config.get(option):  # nothing would stand for the working directory
                refuse_overlap(Path(config[option]), read, option, may_contain=True)
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
    run.note(**present_code())
    if process_rank() == 0:
        with atomic_file(run.path / RECIPE) as part:
            part.write_text(_HEAD + OmegaConf.to_yaml(OmegaConf.create(config)))
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


@cache
def source_digests() -> dict[str, str]:
    """The first 12 digits of SHA-256 of every Python file that a run may use, by relative path."""
    root = Path(__file__).resolve().parents[2]
    files = [*root.glob("*.py"), *root.glob("src/**/*.py")]
    return {f.relative_to(root).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest()[:12] for f in sorted(files)}


def present_code() -> dict[str, Any]:
    """Commit, Python, packages and ``source`` (digests by file) of this process, as ``run.json`` records them."""
    return {**provenance(), "source": source_digests()}


def differences(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """What can make the numbers of a repeated run differ, a line each; both are as :func:`present_code` gives them."""
    old, new = recorded.get("source") or {}, present.get("source") or {}
    files = {
        "changed": [f for f in old if f in new and old[f] != new[f]],
        "removed": [f for f in old if f not in new],
        "added": [f for f in new if f not in old],
    }
    lines = [f"{verdict} since: {', '.join(names)}" for verdict, names in files.items() if names]
    old, new = ({"python": r.get("python"), **(r.get("packages") or {})} for r in (recorded, present))
    changed = [name for name in old | new if old.get(name) != new.get(name)]
    return lines + [f"{name} {old.get(name)} then, {new.get(name)} now" for name in changed]
