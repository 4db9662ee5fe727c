"""Which Python objects a configuration may name: a folder of a colleague is data, not code.

Hydra calls whatever ``_target_`` names. Here a configuration is searched for such names before anything is called.
Allowed are the classes of this repository that a configuration is meant to name and a short list of libraries; a
user's own package is allowed by the environment variable ``NEUROLIT_TRUST``, which no configuration can set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from src.signals import BadInput

TRUST = "NEUROLIT_TRUST"
"""Environment variable with the names of packages to trust besides, separated by commas."""

CLASSES_OF = (
    "src.datamodules.",
    "src.models.",
    "src.runs.callbacks.",
    "pytorch_lightning.callbacks.",
    "pytorch_lightning.loggers.",
    "pytorch_lightning.profilers.",
    "pytorch_lightning.strategies.",
    "pytorch_lightning.trainer.",
    "lightning_fabric.",
    "torch.nn.",
    "torch.optim.",
    "torchmetrics.",
    "optuna.samplers.",
    "hydra._internal.core_plugins.",
    "hydra_plugins.",
)
"""Modules of which any class may be named, provided that it is defined there."""

NAMED = (
    "pytorch_lightning.Trainer",
    "src.runs.search.RepeatableTPE",
    "src.runs.sweep.SweepCallback",
)

FUNCTIONS_OF = ("src.models.schedule.", "src.runs.tracking.")
"""Modules of which a public function may be named: trackers and schedules."""

_LOGGING = ("logging.", "colorlog.")


def check_targets(config: Any, *, within: str = "") -> None:
    """Refuse a configuration that names an object it may not.

    Parameters
    ----------
    config
        A configuration, or a part of one.
    within
        Where the part stands in the whole, for the message: ``"hydra"``.

    Raises
    ------
    BadInput
        Naming the key and the object.
    """
    plain: Any = OmegaConf.to_container(config) if isinstance(config, DictConfig) else config
    for key, block in blocks(plain):
        key, found = f"{key}._target_" if key else "_target_", block["_target_"]
        target = OmegaConf.select(config, key) if isinstance(found, str) and "${" in found else found
        key = f"{within}.{key}" if within else key
        if not _is_allowed(target):
            package = str(target).partition(".")[0]
            hint = f"look where this configuration comes from; if you trust {package}: export {TRUST}={package}"
            raise BadInput(key, f"names {target}, which a configuration may not run", hint)
    if within == "hydra":
        _check_logging(plain)


def blocks(value: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every block with a ``_target_`` at any depth, with its full key."""
    if isinstance(value, dict):
        if value.get("_target_") is not None:
            yield key, value
        for name, below in value.items():
            yield from blocks(below, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for place, below in enumerate(value):
            yield from blocks(below, f"{key}[{place}]")


def _is_allowed(target: Any) -> bool:
    if not isinstance(target, str):
        return False
    trusted = [name.strip() for name in os.environ.get(TRUST, "").split(",") if name.strip()]
    if any(target == name or target.startswith(f"{name}.") for name in trusted) or target in NAMED:
        return True
    if not target.startswith(CLASSES_OF + FUNCTIONS_OF):
        return False  # nothing of a package that is not listed is even imported
    found = _located(target)
    if found is None:
        return True  # there is no such object, and whoever builds it says so
    home = f"{getattr(found, '__module__', '')}."
    if isinstance(found, type):
        return home.startswith(CLASSES_OF)
    function = type(found).__name__ == "function" and not found.__name__.startswith("_")
    return function and home.startswith(FUNCTIONS_OF)


def _located(target: str) -> Any:
    """The object that a dotted name stands for; ``None`` if there is none."""
    parts = target.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found: Any = import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for name in parts[end:]:
            found = getattr(found, name, None)
        return found
    return None


def _check_logging(hydra: dict[str, Any]) -> None:
    """Python's own logging calls what ``()`` and ``class`` name; only handlers of known packages are allowed."""

    def look(value: Any, key: str) -> None:
        if not isinstance(value, dict):
            return
        for name, below in value.items():
            if name in ("()", "class") and not str(below).startswith(_LOGGING):
                raise BadInput(f"{key}.{name}", f"names {below}, which a configuration may not run", "remove it")
            look(below, f"{key}.{name}")

    for name in ("job_logging", "hydra_logging"):
        look(hydra.get(name), f"hydra.{name}")
