"""Which Python objects a configuration may name, and which arguments it may give them.

Hydra calls whatever ``_target_`` names, but a folder of a colleague is data, not code. Here a configuration is searched
for such names before anything is called.
Allowed are the classes of this repository that a configuration is meant to name and a short list of libraries; a
user's own package is allowed by the environment variable :data:`~src.signals.TRUST`, which no configuration can set.

``check_keys`` reads the constructors' source and imports nothing, so a mistyped key is reported within a second.
``check`` imports them: it also knows the networks, and constructors whose source is not Python.
"""

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from inspect import Parameter
from math import inf
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from src.signals import TRUST, BadInput, is_trusted, nearest, require_range

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

OURS = {
    "trainer.logger": "logger",
    "trainer.fast_dev_run": "debug=fast",
    "trainer.enable_checkpointing": "callbacks.checkpoint",
    "model.signal": "datamodule.…",
    "model.classes": "datamodule.…",
}
"""Arguments that ``train.py`` has to decide itself, and what to give instead."""
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "patience": (0, inf),
    "workers": (0, inf),
    "model.label_smoothing": (0, 1),
    "model.class_weight_power": (0, inf),
    "model.network_args.dropout": (0, 1),
    **{f"model.network_args.{n}": (1, inf) for n in ("width", "hidden", "filters", "layers", "channels", "window")},
}
"""Least and greatest value of keys whose owner is made only after the data are prepared."""
NOT_ZERO = (
    *("max_epochs", "max_steps", "limit_train_batches", "limit_val_batches"),
    *("accumulate_grad_batches", "check_val_every_n_epoch"),
)
"""Arguments of ``Trainer`` without which there is no training or no best checkpoint."""
Arguments = dict[str, Any] | None
"""Names of arguments with their annotations; ``None`` where any name is taken."""
BLOCKS = ("datamodule", "model", "optimizer", "scheduler", "trainer", "logger")


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
    for key, block in blocks(plain, ("_target_",)):
        key, found = f"{key}._target_" if key else "_target_", block["_target_"]
        target = OmegaConf.select(config, key) if isinstance(found, str) and "${" in found else found
        key = f"{within}.{key}" if within else key
        if not _is_allowed(target):
            package = str(target).partition(".")[0]
            hint = f"look where this configuration comes from; if you trust {package}: export {TRUST}={package}"
            raise BadInput(key, f"names {target}, which a configuration may not run", hint)
    # Python's own logging calls what () and class name.
    for section in ("job_logging", "hydra_logging") if within == "hydra" else ():
        for key, block in blocks(plain.get(section), ("()", "class"), f"hydra.{section}"):
            for name in ("()", "class"):
                if name in block and not str(block[name]).startswith(_LOGGING):
                    problem = f"names {block[name]}, which a configuration may not run"
                    raise BadInput(f"{key}.{name}", problem, "remove it")


def blocks(value: Any, names: tuple[str, ...], key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every block at any depth that has one of the names, with its full key."""
    if isinstance(value, dict):
        if any(value.get(name) is not None for name in names):
            yield key, value
        for name, below in value.items():
            yield from blocks(below, names, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for place, below in enumerate(value):
            yield from blocks(below, names, f"{key}[{place}]")


def _is_allowed(target: Any) -> bool:
    if not isinstance(target, str):
        return False
    if is_trusted(target) or target in NAMED:
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


def check(cfg: DictConfig) -> None:
    """Refuse what no constructor of the configuration takes, naming the nearest key that one does.

    Raises
    ------
    BadInput
        For an unknown key or target, an unknown network, or a network that the module does not train.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    for part in (source := plain.get("source") or {}).get("sources", [source]):
        if part.get("root", "") == "???" or (part.get("fetch") and part.get("root") is None):
            hint = part.get("fetch", "give the folder that holds the recordings: source.root=<folder>")
            raise BadInput("source", f"{part.get('cohort') or part['kind']}: no folder is given", hint)
    for key in sorted(OmegaConf.missing_keys(cfg)):
        raise BadInput("command line", f"{key} is not given", f"add {key}=…")
    check_keys(plain, imported_arguments)
    for key, (low, high) in RANGES.items():
        where, _, name = key.rpartition(".")
        own = where == "model.network_args" and is_trusted(str(cfg.model.get("kind")))  # its 0.5 may be a share
        if not own and isinstance(value := OmegaConf.select(cfg, key), int | float):
            require_range(where, low, high, **{name: value})
    for key in NOT_ZERO:
        if (value := plain.get("trainer", {}).get(key)) is not None and value != -1 and value <= 0:
            raise BadInput(f"trainer.{key}", f"is {value}, so nothing would be trained", "give a number above 0")
    for key, instead in OURS.items():
        block, _, name = key.partition(".")
        if name in plain.get(block, {}):
            raise BadInput(key, "is set by train.py", f"give {instead} instead")
    _check_network(plain["model"])


def check_keys(plain: Mapping[str, Any], arguments: Callable[[str, str], Arguments] | None = None) -> None:
    """Refuse keys that the constructors of the blocks do not take; ``arguments(key, target)`` says what they take."""
    given = {name: plain[name] for name in BLOCKS if plain.get(name)}
    given |= {f"callbacks.{n}": block for n, block in (plain.get("callbacks") or {}).items() if block is not None}
    for name, block in given.items():
        if arguments is not None and (not isinstance(block, Mapping) or block.get("_target_") is None):
            raise BadInput(name, "names no _target_", f"give {name}._target_=<module.Class> and its arguments")
    # The outer blocks first: the model repeats the optimizer's.
    for name, block in sorted(blocks(given, ("_target_",)), key=lambda found: found[0] not in given):
        target = str(block["_target_"])
        _check_block(name, block, target, arguments(name, target) if arguments else written_arguments(target))


def _check_block(name: str, block: Mapping[str, Any], target: str, takes: Arguments) -> None:
    for key, value in block.items():
        if takes is None or (key.startswith("_") and key.endswith("_")):
            continue
        if key in takes:
            if not _fits(value, takes[key]):
                kinds = get_args(takes[key]) or (takes[key],)
                expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
                raise BadInput(f"{name}.{key}", f"is {value!r}", f"give {expected}")
            continue
        near = nearest(key, takes)
        hint = f"did you mean {name}.{near}?" if near else f"it takes {', '.join(takes)}"
        if name == "model" and key in ("lr", "weight_decay"):
            hint = f"give optimizer.{key}"
        raise BadInput(f"{name}.{key}", f"is no argument of {target.rpartition('.')[2]}", hint)


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value fits an annotation; objects, and annotations beyond plain types, are not judged."""
    kinds = [get_origin(kind) or kind for kind in (get_args(annotation) or [annotation])]
    if not isinstance(value, bool | int | float | str) or not all(isinstance(kind, type) for kind in kinds):
        return True
    if get_origin(annotation) not in (None, Union, UnionType) or {object, Parameter.empty} & {*kinds}:
        return True
    return isinstance(value, tuple(kinds)) or (float in kinds and isinstance(value, int))


def imported_arguments(name: str, target: str) -> Arguments:
    """Arguments of the constructor or function ``target`` with their annotations; ``None`` where it takes any."""
    try:
        found = get_object(target)
        parameters = inspect.signature(found).parameters
    except (ImportError, ValueError, AttributeError, InstantiationException) as error:
        raise BadInput(
            f"{name}._target_", f"{target!r} cannot be imported", "give <module.Class>, on PYTHONPATH"
        ) from error
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    try:
        hints = get_type_hints(found.__init__ if isinstance(found, type) else found)  # type: ignore[misc]
    except (NameError, TypeError, AttributeError):  # an annotation that only a type checker can read
        hints = {}
    return {key: hints.get(key, Parameter.empty) for key in parameters}


@cache
def written_arguments(target: str) -> Arguments:
    """Arguments from the source, without importing it; ``None`` also where the source does not say."""
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
                return _names(inits[-1], first=1)
            base = next(iter(node.bases), None)
            return written_arguments(f"{module}.{base.id}") if isinstance(base, ast.Name) else None
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _names(node)
    return None


def _names(function: ast.FunctionDef, first: int = 0) -> Arguments:
    given = function.args
    names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return None if given.kwarg else dict.fromkeys(names[first:], Parameter.empty)


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
    if kind not in kinds and not is_trusted(kind):
        if "." in str(kind):
            network_class(kind)  # says how a network of the user's own is trusted
        near = nearest(str(kind), kinds)
        hint = f"did you mean {near}?" if near else f"choose from: {', '.join(kinds)}"
        problem = "is known, but trained by another module" if kind in NETWORKS else "is no network"
        raise BadInput("model.kind", f"{kind!r} {problem}", hint)
    name, target = "model.network_args", f"{network_class(kind).__module__}.{network_class(kind).__name__}"
    _check_block(name, model.get("network_args") or {}, target, imported_arguments(name, target))
