"""Data, model and trainer from a configuration, ready to be fitted or tested."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import Logger

from src.models.bundle import NETWORKS, network_class
from src.runs.checkpoints import AtomicCheckpointIO, read_checkpoint
from src.runs.folder import data_identity
from src.signals import BadInput
from src.storage.fingerprint import digest_of

_identities: dict[str, str] = {}
OURS = {"logger": "logger", "fast_dev_run": "debug=fast", "enable_checkpointing": "callbacks.checkpoint"}
"""Arguments of ``Trainer`` that ``train.py`` has to decide itself, and what to give instead."""


def assemble(cfg: DictConfig) -> tuple[Any, Any]:
    """The datamodule, prepared and split, and a model with fresh weights that knows its training statistics.

    Raises
    ------
    BadInput
        Before any data are prepared: for a key that no constructor takes, or a network that the module cannot train.
    """
    check(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = instantiate(cfg.datamodule, _recursive_=False, _convert_="all")
    datamodule.prepare_data()
    datamodule.setup("fit")
    signal, classes = datamodule.signal.to_dict(), list(datamodule.classes)
    model = instantiate(cfg.model, signal=signal, classes=classes, _recursive_=False, _convert_="all")
    model.take_over(datamodule)
    return datamodule, model


def prepared_identity(cfg: DictConfig) -> str:
    """:func:`data_identity` of the recordings as they are now; jobs of a sweep with the same data share one look."""
    plain = OmegaConf.to_container(cfg.datamodule, resolve=True)
    key = digest_of(plain)
    if key not in _identities:
        datamodule = instantiate(cfg.datamodule, _recursive_=False, _convert_="all")
        datamodule.prepare_data()
        datamodule.setup("fit")
        _identities[key] = data_identity(datamodule)
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
        takes = _arguments(f"callbacks.{name}", block) or []
        missing = {k: v for k, v in known.items() if k in takes and k not in block}
        made.append(instantiate(block, **missing, _convert_="all"))
    return made


def make_trainer(cfg: DictConfig, *, folder: Path, monitor: tuple[str, str], loggers: list[Logger]) -> pl.Trainer:
    """The trainer of ``cfg.trainer`` with the run's callbacks and loggers, and what the user adds to them."""
    partial = instantiate(cfg.trainer, _partial_=True, _convert_="all")
    given = partial.keywords
    blocks = dict(cfg.callbacks or {})
    if given.get("enable_progress_bar") is False:
        blocks.pop("progress", None)
    if not blocks.get("checkpoint"):
        raise BadInput("callbacks.checkpoint", "is missing, and train.py exports the best checkpoint", "keep it")
    callbacks = make_callbacks(blocks, folder=folder, monitor=monitor[0], mode=monitor[1])
    own = {
        "callbacks": [*callbacks, *given.get("callbacks", [])],
        "plugins": [AtomicCheckpointIO(), *given.get("plugins", [])],
        "logger": loggers,
    }
    defaults = {"default_root_dir": str(folder), "enable_model_summary": False}
    trainer: pl.Trainer = partial.func(**{**defaults, **given, **own})
    return trainer


def best_score(trainer: pl.Trainer) -> float:
    """The validation score of the best checkpoint."""
    callback = trainer.checkpoint_callback
    if not isinstance(callback, ModelCheckpoint) or callback.best_model_score is None:
        raise BadInput("trainer", "was not validated, so no checkpoint is the best", "let limit_val_batches be above 0")
    return float(callback.best_model_score)


def check(cfg: DictConfig) -> None:
    """Refuse what no constructor of the configuration takes, naming the nearest key that one does.

    Raises
    ------
    BadInput
        For an unknown key or target, an unknown network, or a network that the module does not train.
    """
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    _check_source(plain.get("source") or {})
    for name in ("datamodule", "model", "optimizer", "scheduler", "trainer", "logger"):
        if block := plain.get(name):
            _check_block(name, block)
    for name, block in (plain.get("callbacks") or {}).items():
        if block is not None:
            _check_block(f"callbacks.{name}", block)
    for key, instead in OURS.items():
        if key in plain.get("trainer", {}):
            raise BadInput(f"trainer.{key}", "is set by train.py", f"give {instead} instead")
    _check_network(plain["model"])


def _check_source(source: Mapping[str, Any]) -> None:
    """Say how recordings are fetched that nobody has given."""
    for part in source.get("sources", [source]):
        fetch = part.get("fetch")
        if fetch and part.get("root") in (None, "???"):
            raise BadInput("source", f"{part.get('cohort', part['kind'])}: no folder is given", fetch)


def _check_block(name: str, block: Mapping[str, Any]) -> None:
    takes = _arguments(name, block)
    for key in block:
        if takes is None or key in takes or (key.startswith("_") and key.endswith("_")):
            continue
        near = get_close_matches(key, takes, 1)
        hint = f"did you mean {name}.{near[0]}?" if near else f"it takes {', '.join(takes)}"
        if name == "model" and key in ("lr", "weight_decay"):
            hint = f"give optimizer.{key}"
        raise BadInput(f"{name}.{key}", f"is no argument of {block['_target_'].rpartition('.')[2]}", hint)


def _arguments(name: str, block: Any) -> list[str] | None:
    """Names of the arguments of the constructor or function that a block names; ``None`` where it takes any."""
    target = block.get("_target_") if isinstance(block, Mapping) else None
    if target is None:
        raise BadInput(name, "names no _target_", f"give {name}._target_=<module.Class> and its arguments")
    try:
        found = get_object(target)
    except (ImportError, ValueError, AttributeError, InstantiationException) as error:
        raise BadInput(f"{name}._target_", f"{target!r} cannot be imported", "give <module.Class>") from error
    parameters = inspect.signature(found).parameters
    return None if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) else list(parameters)


def _check_network(model: Mapping[str, Any]) -> None:
    module = get_object(model["_target_"])
    kinds = getattr(module, "kinds", ())
    if not kinds:
        return
    named = inspect.signature(module).parameters.get("kind")
    kind = kinds[0] if named is None else model.get("kind", named.default)
    if kind not in kinds:
        near = get_close_matches(str(kind), kinds, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from: {', '.join(kinds)}"
        problem = "is known, but trained by another module" if kind in NETWORKS else "is no network"
        raise BadInput("model.kind", f"{kind!r} {problem}", hint)
    network = network_class(kind)
    _check_block(
        "model.network_args",
        {"_target_": f"{network.__module__}.{network.__name__}", **(model.get("network_args") or {})},
    )
