"""Keys of a training's blocks against the constructors they name, before anything is computed.

``check_keys`` reads the constructors' source and imports nothing, so a mistyped key is reported within a second.
``check`` imports them: it also knows the networks, and constructors whose source is not Python.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from src.signals import BadInput

OURS = {"logger": "logger", "fast_dev_run": "debug=fast", "enable_checkpointing": "callbacks.checkpoint"}
"""Arguments of ``Trainer`` that ``train.py`` has to decide itself, and what to give instead."""
BLOCKS = ("datamodule", "model", "optimizer", "scheduler", "trainer", "logger")


def check(cfg: DictConfig) -> None:
    """Refuse what no constructor of the configuration takes, naming the nearest key that one does.

    Raises
    ------
    BadInput
        For an unknown key or target, an unknown network, or a network that the module does not train.
    """
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    for part in (source := plain.get("source") or {}).get("sources", [source]):
        if part.get("fetch") and part.get("root") in (None, "???"):
            raise BadInput("source", f"{part.get('cohort', part['kind'])}: no folder is given", part["fetch"])
    check_keys(plain, imported_arguments)
    for key, instead in OURS.items():
        if key in plain.get("trainer", {}):
            raise BadInput(f"trainer.{key}", "is set by train.py", f"give {instead} instead")
    _check_network(plain["model"])


def check_keys(plain: Mapping[str, Any], arguments: Callable[[str, str], list[str] | None] | None = None) -> None:
    """Refuse keys that the constructors of the blocks do not take; ``arguments(key, target)`` lists what they take."""
    blocks = {name: plain[name] for name in BLOCKS if plain.get(name)}
    blocks |= {f"callbacks.{n}": block for n, block in (plain.get("callbacks") or {}).items() if block is not None}
    for name, block in blocks.items():
        target = block.get("_target_") if isinstance(block, Mapping) else None
        if target is None and arguments is None:
            continue
        if target is None:
            raise BadInput(name, "names no _target_", f"give {name}._target_=<module.Class> and its arguments")
        takes = arguments(name, str(target)) if arguments else written_arguments(str(target))
        _check_block(name, block, str(target), takes)


def _check_block(name: str, block: Mapping[str, Any], target: str, takes: list[str] | None) -> None:
    for key in block:
        if takes is None or key in takes or (key.startswith("_") and key.endswith("_")):
            continue
        near = get_close_matches(key, takes, 1)
        hint = f"did you mean {name}.{near[0]}?" if near else f"it takes {', '.join(takes)}"
        if name == "model" and key in ("lr", "weight_decay"):
            hint = f"give optimizer.{key}"
        raise BadInput(f"{name}.{key}", f"is no argument of {target.rpartition('.')[2]}", hint)


def imported_arguments(name: str, target: str) -> list[str] | None:
    """Names of the arguments of the constructor or function ``target``; ``None`` where it takes any."""
    try:
        parameters = inspect.signature(get_object(target)).parameters
    except (ImportError, ValueError, AttributeError, InstantiationException) as error:
        raise BadInput(f"{name}._target_", f"{target!r} cannot be imported", "give <module.Class>") from error
    return None if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) else list(parameters)


@cache
def written_arguments(target: str) -> list[str] | None:
    """The same from the source, without importing it; ``None`` also where the source does not say."""
    module, _, name = target.rpartition(".")
    file = _source(module)
    if file is None or not name:
        return None
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name and f"{node.module}.{alias.name}" != target:
                    return written_arguments(f"{node.module}.{alias.name}")
        if isinstance(node, ast.ClassDef) and node.name == name:
            inits = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
            if inits:
                return _names(inits[-1])[1:] or None
            base = next(iter(node.bases), None)
            return written_arguments(f"{module}.{base.id}") if isinstance(base, ast.Name) else None
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _names(node) or None
    return None


def _names(function: ast.FunctionDef) -> list[str]:
    given = function.args
    return [] if given.kwarg else [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


def _source(module: str) -> Path | None:
    """The file of a module; the packages above it are not imported."""
    top, *below = module.split(".")
    found = PathFinder.find_spec(top)
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent.joinpath(*below)
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _check_network(model: Mapping[str, Any]) -> None:
    from src.models.bundle import NETWORKS, network_class  # loads torch

    module = get_object(model["_target_"])
    kinds = getattr(module, "kinds", ())
    if not kinds:
        return
    named = inspect.signature(module).parameters.get("kind")
    kind = model.get("kind") or (named and named.default) or kinds[0]
    if kind not in kinds:
        near = get_close_matches(str(kind), kinds, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose from: {', '.join(kinds)}"
        problem = "is known, but trained by another module" if kind in NETWORKS else "is no network"
        raise BadInput("model.kind", f"{kind!r} {problem}", hint)
    name, target = "model.network_args", f"{network_class(kind).__module__}.{network_class(kind).__name__}"
    _check_block(name, model.get("network_args") or {}, target, imported_arguments(name, target))
