"""Data, model and trainer from a configuration, ready to be fitted or tested."""

import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import Logger

from src.models.schedule import make_optimizer
from src.runs.callbacks import AtomicCheckpointIO, read_checkpoint
from src.runs.folder import data_identity
from src.runs.targets import check, imported_arguments
from src.signals import BadInput
from src.storage.manifest import digest_of

NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"The '.*_dataloader' does not have many workers",
    r"The number of training batches .* is smaller than the logging interval",
    r"The `srun` command is available on your system but is not used",
    r"You're resuming from a checkpoint that ended before the epoch ended",  # src/runs/callbacks.py sees to it
    r"Checkpoint directory .* exists and is not empty",
)
"""Notices of the trainer that no user can act on."""
_identities: dict[str, str] = {}


def quiet_trainer() -> None:
    """Silence the trainer's advertisements and the warnings that concern its own insides."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)


def assemble(cfg: DictConfig) -> tuple[Any, Any]:
    """The datamodule, prepared and split, and a model with fresh weights that knows its training statistics.

    Raises
    ------
    BadInput
        Before any data are prepared: for a key that no constructor takes, or a network that the module cannot train.
    """
    check(cfg)
    processes = rehearse(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = prepared_data(cfg, processes)
    signal, classes = datamodule.signal.to_dict(), list(datamodule.classes)
    with one_line("model", "make it fit the datamodule, or change its arguments"):
        model = instantiate(cfg.model, signal=signal, classes=classes, _recursive_=False, _convert_="all")
        model.take_over(datamodule)
    return datamodule, model


def rehearse(cfg: DictConfig) -> int:
    """Make the optimizer, its schedule and the trainer once; what they refuse is named before any data are prepared.

    Returns the number of processes that will train.
    """
    processes = 1
    if cfg.get("trainer"):
        monitor = get_object(cfg.model["_target_"]).monitor
        trainer = make_trainer(cfg, folder=Path(cfg.runs_dir), monitor=monitor, loggers=[])
        processes = trainer.world_size
        steps = math.inf if (trainer.max_epochs, trainer.max_steps) == (-1, -1) else 1000
        model: Any = OmegaConf.to_container(cfg.model, resolve=True)
        if "optimizer" in model:
            blocks, weights = (model["optimizer"], model.get("scheduler")), [torch.nn.Parameter(torch.zeros(1))]
            with one_line("optimizer or scheduler"):
                make_optimizer(weights, *blocks, steps=steps, monitor=monitor[0])
    return processes


@contextmanager
def one_line(name: str, hint: str = "change its arguments") -> Iterator[None]:
    """Turn the error of a constructor about its arguments into a :class:`BadInput` about the block ``name``."""
    try:
        yield
    except BadInput:
        raise
    except (InstantiationException, MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        if isinstance(cause, BadInput):
            raise cause from None
        key = re.search(r"full_key: (\S+)", str(error))
        text = " ".join(str(cause).split())[:300].rstrip(".")
        raise BadInput(key[1] if key else name, text or repr(cause), hint) from error


def prepared_data(cfg: DictConfig, processes: int = 1) -> Any:
    """The datamodule of ``cfg`` with its recordings prepared and split."""
    with one_line("datamodule"):
        datamodule = instantiate(cfg.datamodule, _recursive_=False, _convert_="all")
    if hasattr(datamodule, "require_share"):
        datamodule.require_share(processes)
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def prepared_identity(cfg: DictConfig) -> str:
    """:func:`data_identity` of the recordings as they are now; jobs of a sweep with the same data share one look."""
    key = digest_of(OmegaConf.to_container(cfg.datamodule, resolve=True))
    if key not in _identities:
        _identities[key] = data_identity(prepared_data(cfg))
    return _identities[key]


def adopt_checkpoint(model: pl.LightningModule, path: Path) -> None:
    """Give ``model`` the weights of a checkpoint."""
    checkpoint = read_checkpoint(path)
    model.on_load_checkpoint(checkpoint)
    model.load_state_dict(checkpoint["state_dict"])


def make_callbacks(blocks: Mapping[str, Any], *, folder: Path, monitor: str, mode: str) -> list[Callback]:
    """The callbacks of ``conf/callbacks`` and those that the user adds; a name set to ``null`` is left out.

    Those that take ``monitor``, ``mode``, ``dirpath`` or ``folder`` and are not given it get the model's score and the
    run's folder.
    """
    known = {"monitor": monitor, "mode": mode, "dirpath": str(folder / "checkpoints"), "folder": str(folder)}
    made = []
    for name, block in blocks.items():
        if block is None:
            continue
        takes = imported_arguments(f"callbacks.{name}", str(block["_target_"])) or {}
        follows = "monitor" in takes and block.get("monitor", monitor) == monitor  # a mode belongs to its score
        missing = {k: v for k, v in known.items() if k in takes and k not in block and (k != "mode" or follows)}
        with one_line(f"callbacks.{name}"):
            made.append(instantiate(block, **missing, _convert_="all"))
    return made


def make_trainer(cfg: DictConfig, *, folder: Path, monitor: tuple[str, str], loggers: list[Logger]) -> pl.Trainer:
    """The trainer of ``cfg.trainer`` with the run's callbacks and loggers, and what the user adds to them."""
    with one_line("trainer"):
        partial = instantiate(cfg.trainer, _partial_=True, _convert_="all")
    given = partial.keywords
    blocks = dict(cfg.callbacks or {})
    if given.get("enable_progress_bar") is False:
        blocks.pop("progress", None)
    block = blocks.get("checkpoint") or {}
    if block.get("filename") != "best" or "dirpath" in block or block.get("save_top_k", 1) != 1:
        problem = "has to write checkpoints/best.ckpt, which train.py exports"
        raise BadInput("callbacks.checkpoint", problem, "keep it, and add another one: +callbacks.mine={…}")
    callbacks = make_callbacks(blocks, folder=folder, monitor=monitor[0], mode=monitor[1])
    added = given.get("callbacks") or []
    own = {
        "callbacks": [*callbacks, *(added if isinstance(added, list) else [added])],
        "plugins": [AtomicCheckpointIO(), *given.get("plugins", [])],
        "logger": loggers,
    }
    defaults = {"default_root_dir": str(folder), "enable_model_summary": False}
    with one_line("trainer"):
        trainer: pl.Trainer = partial.func(**{**defaults, **given, **own})
    return trainer


def best_score(trainer: pl.Trainer) -> float:
    """The validation score of the best checkpoint."""
    callback = trainer.checkpoint_callback
    if not isinstance(callback, ModelCheckpoint) or callback.best_model_score is None:
        raise BadInput("trainer", "was not validated, so no checkpoint is the best", "train at least one epoch")
    return float(callback.best_model_score)
