"""Loggers of a run: a CSV file always, and one tracker beside it that mirrors, never stores."""

from __future__ import annotations

import csv
import json
import netrc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from hydra.utils import instantiate
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from src.runs.folder import RunFolder, process_rank
from src.storage.atomic import atomic_file


@contextmanager
def open_loggers(
    tracker: dict[str, Any] | None, run: RunFolder, *, config: dict[str, Any], job_type: str = ""
) -> Iterator[list[Logger]]:
    """Yield the CSV logger and, if one is configured, the tracker; the tracker is always finished.

    Parameters
    ----------
    tracker
        A ``_target_`` block for one of the functions below, or ``None`` for CSV alone.
    config
        The resolved configuration; ``name``, ``group`` and ``tags`` are read from it.
    job_type
        What the tracker calls this kind of run: by default ``"sweep"`` for a job of a sweep, else ``"train"``.
    """
    loggers: list[Logger] = [CSVLogger(run.path, name="csv", version=f"attempt_{run.attempt}")]
    tracker = tracker if process_rank() == 0 else None
    if tracker:
        job_type = job_type or ("sweep" if run.swept else "train")
        loggers.append(instantiate(tracker, _partial_=True)(run.path, config, job_type))
    try:
        yield loggers
    finally:
        for logger in loggers:
            logger.finalize("success")
        if tracker:
            _finish_wandb()


def wandb_tracker(folder: Path, config: dict[str, Any], job_type: str, project: str = "neurolit") -> Logger:
    """A Weights & Biases run: offline unless the user is logged in or sets ``WANDB_MODE``.

    Its id is kept in the run folder, so a resumed online run goes on in the same W&B run; offline,
    where W&B cannot append, each attempt is a run of its own in the same group.
    """
    from wandb import Settings

    mode = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
    id_file = folder / "wandb_id.json"
    if not id_file.exists() or mode != "online":
        with atomic_file(id_file) as part:
            part.write_text(json.dumps({"id": uuid4().hex[:12]}))
    logger = WandbLogger(
        project=project,
        name=f"{config['name']}-{folder.name}",
        id=json.loads(id_file.read_text())["id"],
        save_dir=str(folder),
        group=config.get("group") or config["name"],
        job_type=job_type,
        tags=list(config.get("tags") or []),
        config=config,
        mode=mode,
        resume="allow" if mode == "online" else None,
        log_model=False,
        settings=Settings(silent=True, console="off"),
    )
    logger._wandb_init.pop("anonymous", None)  # Lightning hands it on though W&B warns of it even when it is None
    return logger


def tensorboard_tracker(folder: Path, config: dict[str, Any], job_type: str) -> Logger:
    """Event files in ``<run>/tensorboard``, with the configuration as text: ``tensorboard --logdir runs``."""
    logger = TensorBoardLogger(str(folder), name="tensorboard", version="", default_hp_metric=False)
    text = json.dumps({"job_type": job_type, "folder": folder.name, **config}, indent=2)
    logger.experiment.add_text("config", f"```json\n{text}\n```")
    return logger


def mlflow_tracker(
    folder: Path,
    config: dict[str, Any],
    job_type: str,
    uri: str = "sqlite:///runs/mlflow.db",
    project: str = "neurolit",
) -> Logger:
    """An MLflow run in the database at ``uri``, continued when the run is: ``mlflow ui --backend-store-uri <uri>``."""
    id_file = folder / "mlflow_id.json"
    known = json.loads(id_file.read_text())["id"] if id_file.exists() else None
    group = str(config.get("group") or config["name"])
    tags = {"group": group, "job_type": job_type, **{str(tag): "true" for tag in config.get("tags") or []}}
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logger = MLFlowLogger(
        experiment_name=project,
        run_name=f"{config['name']}-{folder.name}",
        tracking_uri=uri,
        tags=tags,
        run_id=known,
        artifact_location=(folder.parent / "mlflow").resolve().as_uri(),
    )
    with atomic_file(id_file) as part:
        part.write_text(json.dumps({"id": logger.run_id}))
    logger.log_hyperparams(config)
    return logger


def log_media(loggers: list[Logger], figures: dict[str, Path]) -> None:
    """Show the tracker the figures that were drawn."""
    for logger in loggers:
        for name, path in figures.items():
            if isinstance(logger, WandbLogger):
                logger.log_image(f"figures/{name}", [str(path)])
            elif isinstance(logger, TensorBoardLogger):
                from matplotlib.image import imread

                logger.experiment.add_image(f"figures/{name}", imread(path)[..., :3], dataformats="HWC")
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.log_artifact(logger.run_id, str(path), "figures")


def log_bundle(loggers: list[Logger], bundle: Path, metrics: dict[str, float]) -> None:
    """Give the tracker the one artifact of a run: the bundle, with its metrics."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            artifact = wandb.Artifact(f"bundle-{logger.experiment.id}", type="bundle", metadata=metrics)
            # Immutable: it is read from the run folder when it is uploaded, not copied to a cache elsewhere.
            artifact.add_dir(str(bundle), policy="immutable")
            logger.experiment.log_artifact(artifact)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifacts(logger.run_id, str(bundle), "bundle")


def merge_csv(run: RunFolder) -> Path:
    """Join the CSV logs of all attempts into ``metrics.csv``; of a repeated step the last attempt counts."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    columns: set[str] = set()
    attempts = sorted((run.path / "csv").glob("attempt_*/metrics.csv"), key=lambda p: int(p.parent.name.split("_")[1]))
    for attempt in attempts:
        with attempt.open(newline="") as handle:
            for row in csv.DictReader(handle):
                columns |= set(row)
                filled = {k: v for k, v in row.items() if v}
                rows[(row["step"], ",".join(sorted(filled)))] = filled
    with atomic_file(run.path / "metrics.csv") as part, part.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, sorted(columns, key=lambda c: (c not in ("epoch", "step"), c)))
        writer.writeheader()
        writer.writerows(sorted(rows.values(), key=lambda r: int(r["step"])))
    return run.path / "metrics.csv"


def _logged_in() -> bool:
    """Whether W&B would find a key without asking: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return any("wandb" in host for host in netrc.netrc(os.environ.get("NETRC")).hosts)
    except (OSError, netrc.NetrcParseError):
        return False


def _finish_wandb() -> None:
    import wandb

    if wandb.run is not None:
        wandb.finish()
