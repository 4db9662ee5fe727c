"""Loggers of a run: a CSV file always, and one tracker beside it that mirrors, never stores."""

import csv
import json
import netrc
import os
import queue
import re
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from rich.console import Console

from src.runs.folder import RunFolder, process_rank
from src.storage.atomic import atomic_file
from src.storage.manifest import read_record
from src.storage.progress import say

LIMIT_S = 15.0
"""Seconds after which a tracker that does not answer is given up."""
PROBE_S, INIT_S, FINISH_S = 3, 7, 30
"""Seconds that W&B's server has for its first answer, for opening a run, and for taking what is left at its end."""
DATABASE_S = 60.0
"""Seconds for making a local MLflow database, which needs no network and is slow on a busy machine."""


def _forwarded(name: str) -> Any:
    """A method that has the tracker's own logger do the same."""

    def call(self: "Mirror", *args: Any, **kwargs: Any) -> None:
        self.attempt(lambda: getattr(self.inner, name)(*args, **kwargs))

    return call


class Mirror(Logger):
    """A tracker that can fail at any moment without any effect on the training.

    Every call goes to one thread of its own and is waited for at most :data:`LIMIT_S` seconds. After the first
    failure, which is said in one line, nothing is passed on.

    Parameters
    ----------
    build
        Makes the logger.
    name
        What the user calls it.
    start_s
        Seconds that ``build`` may take.
    """

    def __init__(self, build: Callable[[], Logger], name: str, console: Console, start_s: float | None = None) -> None:
        super().__init__()
        self.inner: Any = None
        self._label, self._console, self._lost = name, console, False
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._serve, daemon=True).start()
        self.inner = self.attempt(build, limit_s=start_s)

    def _serve(self) -> None:
        while True:
            call, answer = self._calls.get()
            try:
                answer.put((call(), None))
            except (Exception, SystemExit) as error:
                answer.put((None, error))

    def attempt(self, call: Callable[[], Any], limit_s: float | None = None) -> Any:
        """What ``call`` returns; ``None`` if the tracker fails or has failed before."""
        if self._lost:
            return None
        limit_s = LIMIT_S if limit_s is None else limit_s
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._calls.put((call, answer))
        try:
            value, error = answer.get(timeout=limit_s)
        except queue.Empty:
            value, error = None, TimeoutError(f"no answer within {limit_s:.0f} s")
        if error is not None:
            self._lost = True
            error = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            text = f"tracker {self._label} failed ({reason}); training goes on without it, metrics.csv has everything"
            say(self._console, text, style="yellow")
        return value

    log_metrics, log_hyperparams, log_graph = map(_forwarded, ("log_metrics", "log_hyperparams", "log_graph"))
    save, after_save_checkpoint, finalize = map(_forwarded, ("save", "after_save_checkpoint", "finalize"))

    @property
    def name(self) -> str | None:
        return self._label

    @property
    def version(self) -> str | int | None:
        return None

    @property
    def experiment(self) -> Any:
        return self.attempt(lambda: getattr(self.inner, "experiment", None))


@contextmanager
def open_loggers(
    tracker: dict[str, Any] | None,
    run: RunFolder,
    *,
    config: dict[str, Any],
    console: Console | None = None,
) -> Iterator[list[Logger]]:
    """Yield the CSV logger and, if one is configured, the tracker; the tracker is always finished.

    Parameters
    ----------
    tracker
        A ``_target_`` block for one of the functions below or for any of Lightning's loggers; ``None`` for CSV alone.
    config
        The resolved configuration; ``name``, ``group`` and ``tags`` are read from it.
    console
        Where a failure of the tracker is said.
    """
    console = console or Console()
    loggers: list[Logger] = [CSVLogger(run.path, name="csv", version=f"attempt_{run.attempt}")]
    mirror = None
    if tracker and process_rank() == 0:
        kind = "sweep" if run.swept else "train"
        name = str(tracker["_target_"]).rpartition(".")[2].removesuffix("_tracker")
        start_s = DATABASE_S if str(tracker.get("uri", "")).startswith("sqlite:") else None
        mirror = Mirror(lambda: _built(dict(tracker), run, config, kind, console), name, console, start_s)
        loggers.append(mirror)
    try:
        yield loggers
    finally:
        for logger in loggers:
            logger.finalize("success")
        wandb: Any = sys.modules.get("wandb")
        if mirror is not None and wandb is not None:
            mirror.attempt(lambda: wandb.run and wandb.finish(), limit_s=FINISH_S + LIMIT_S)


def _built(tracker: dict[str, Any], run: RunFolder, config: dict[str, Any], kind: str, console: Console) -> Logger:
    if not str(tracker["_target_"]).startswith(f"{__name__}."):
        logger: Logger = instantiate(tracker)
        return logger
    build = instantiate(tracker, _partial_=True)
    made: Logger = build(run.path, config, kind)
    if isinstance(made, WandbLogger) and made._wandb_init["mode"] == "online":
        try:
            import wandb

            # Its address is in the environment, in the user's settings file, or the default.
            url = os.environ.get("WANDB_BASE_URL") or str(wandb.setup().settings.base_url)
            with suppress(urllib.error.HTTPError):  # an answer too
                urllib.request.urlopen(url, timeout=PROBE_S).close()
            _ = made.experiment
        except Exception as error:
            reason = " ".join(str(error).split())[:100]
            say(console, f"W&B does not answer ({reason}): the run is logged offline", style="yellow")
            made = build(run.path, config, kind, mode="offline")
    return made


def _known_id(file: Path) -> str | None:
    """The id that a tracker gave to this run; ``None`` where none was written, or what is there is none."""
    known = read_record(file).get("id")
    return known if isinstance(known, str) and re.fullmatch(r"[0-9a-f]{12,32}", known) else None


def _write_id(file: Path, known: str | None) -> None:
    with atomic_file(file) as part:
        part.write_text(json.dumps({"id": known}))


def wandb_tracker(
    folder: Path,
    config: dict[str, Any],
    job_type: str,
    project: str = "neurolit",
    entity: str | None = None,
    mode: str | None = None,
) -> Logger:
    """A Weights & Biases run: offline unless the user is logged in and the server answers, or as ``WANDB_MODE`` says.

    Its id is kept in the run folder, so a resumed online run goes on in the same W&B run; offline,
    where W&B cannot append, each attempt is a run of its own in the same group.
    """
    from wandb import Settings

    mode = mode or os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
    id_file = folder / "wandb_id.json"
    known = _known_id(id_file) if mode == "online" else None
    if known is None:
        known = uuid4().hex[:12]
        _write_id(id_file, known)
    logger = WandbLogger(
        project=project,
        entity=entity,
        name=f"{config['name']}-{folder.name}",
        id=known,
        save_dir=str(folder),
        group=config.get("group") or config["name"],
        job_type=job_type,
        tags=list(config.get("tags") or []),
        config=config,
        mode=mode,
        resume="allow" if mode == "online" else None,
        log_model=False,
        settings=Settings(
            silent=True,
            console="off",
            init_timeout=INIT_S,
            finish_timeout=FINISH_S,
            finish_timeout_raises=True,
        ),
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
    known = _known_id(id_file)
    group = str(config.get("group") or config["name"])
    tags = {"group": group, "job_type": job_type, **{str(tag): "true" for tag in config.get("tags") or []}}
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    logger = MLFlowLogger(
        experiment_name=project,
        run_name=f"{config['name']}-{folder.name}",
        tracking_uri=uri,
        tags=tags,
        run_id=known,
        artifact_location=(folder.parent / "mlflow").resolve().as_uri(),
    )
    _write_id(id_file, logger.run_id)
    logger.log_hyperparams(config)
    return logger


def log_media(loggers: list[Logger], figures: dict[str, Path]) -> None:
    """Show the tracker the figures that were drawn."""

    def show(logger: Any, name: str, path: Path) -> None:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [str(path)])
        elif isinstance(logger, TensorBoardLogger):
            from matplotlib.image import imread

            logger.experiment.add_image(name, imread(path)[..., :3], dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifact(logger.run_id, str(path), "figures")

    for mirror in (logger for logger in loggers if isinstance(logger, Mirror)):
        for name, path in figures.items():
            mirror.attempt(partial(show, mirror.inner, f"figures/{name}", path))


def log_bundle(loggers: list[Logger], bundle: Path, metrics: dict[str, float]) -> None:
    """Give the tracker the one artifact of a run: the bundle, with its metrics."""

    def give(logger: Any) -> None:
        if isinstance(logger, WandbLogger):
            import wandb

            artifact = wandb.Artifact(f"bundle-{logger.experiment.id}", type="bundle", metadata=metrics)
            # Immutable: it is read from the run folder when it is uploaded, not copied to a cache elsewhere.
            artifact.add_dir(str(bundle), policy="immutable")
            logger.experiment.log_artifact(artifact)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifacts(logger.run_id, str(bundle), "bundle")

    for mirror in (logger for logger in loggers if isinstance(logger, Mirror)):
        mirror.attempt(partial(give, mirror.inner))


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
