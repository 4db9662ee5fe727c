"""Training a CASCADE package from ground truth.

    python -m src.preprocess.cascade.train --config config.yaml --ground-truth Ground_truth \\
        --models-dir artifacts/cascade_models [--name My_2Hz] [--max-steps 2000] [--workers 4]

By default this is the published protocol of the ``config.yaml``: every noise level, every member of the
ensemble, every epoch. Members that are trained are kept: a run that was stopped goes on where it was,
and the package appears under its name when it is whole. The same seed gives the same files.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console

from src.preprocess.cascade.fit import DEFAULT_STRETCH, fit_network, gather
from src.preprocess.cascade.ground_truth import Example, find_datasets, prepare, read_ground_truth
from src.preprocess.cascade.package import (
    CONFIG_FILE,
    PackageConfig,
    open_package,
    read_config,
    read_network,
)
from src.preprocess.cascade.write import member_name, write_member
from src.signals import BadInput
from src.storage.atomic import atomic_file
from src.storage.batch import Job, Summary, run_batch
from src.storage.output import plain_name
from src.storage.step import canonical_json, fingerprint, folder_lock

RECORD_FILE = "training.json"
MOST_WINDOWS = 5_000_000
"""Windows per epoch, as published."""


@dataclass(frozen=True)
class Recipe:
    """How networks are fitted, beside what the package's configuration says.

    Attributes
    ----------
    max_windows
        Upper limit of windows per epoch; 5 million as published.
    max_steps
        Upper limit of steps per network; ``None`` for all epochs.
    stretch
        Neighbouring windows that are drawn together; 1 for independent windows, as published.
    seed
        All random numbers of the training depend on it.
    """

    max_windows: int = MOST_WINDOWS
    max_steps: int | None = None
    stretch: int = DEFAULT_STRETCH
    seed: int = 0

    def steps(self, config: PackageConfig, epoch_windows: int) -> int:
        """Steps of one network: all windows of all epochs in batches, or the limit."""
        steps = config.nr_of_epochs * math.ceil(epoch_windows / config.batch_size)
        return steps if self.max_steps is None else min(steps, self.max_steps)


def train_package(
    config: PackageConfig,
    ground_truth: Path,
    models_dir: Path,
    recipe: Recipe,
    *,
    skip_missing: bool = False,
    workers: int = 1,
    console: Console | None = None,
) -> Summary:
    """Train all networks of a package into ``models_dir/<model name>``.

    Parameters
    ----------
    config
        The package: its name, datasets, noise levels, architecture and epochs.
    ground_truth
        Folder of the datasets.
    skip_missing
        Whether to go on without datasets that are not there; the package then names only those it saw.
    workers
        Noise levels trained at the same time, in processes of their own.

    Raises
    ------
    BadInput
        If a dataset is missing, or the name is taken by a package that was trained otherwise.
    """
    found = find_datasets(ground_truth, config.training_datasets)
    missing = [name for name, folder in found.items() if folder is None]
    if missing and (not skip_missing or len(missing) == len(found)):
        hint = "fetch them, or say --skip-missing to train without them"
        raise BadInput(ground_truth, f"has no dataset {', '.join(missing)}", hint)
    config = replace(config, training_datasets=tuple(name for name in found if name not in missing))
    record = _record(config, [folder for folder in found.values() if folder], recipe)
    target = models_dir / plain_name(config.model_name)
    with folder_lock(target, wait=False):
        if target.exists():
            _same_training(target, record)
            return Summary(config.model_name)
        part = models_dir / f".{config.model_name}.training"
        part.mkdir(exist_ok=True)
        if (part / RECORD_FILE).exists():
            _same_training(part, record)
        else:
            _write_text(part / RECORD_FILE, json.dumps(record, indent=2) + "\n")
        jobs = [
            Job(f"noise level {level}", train_level, (config, ground_truth, recipe, level, part))
            for level in config.noise_levels
        ]
        summary = run_batch(jobs, title=f"training {config.model_name}", workers=workers, console=console)
        if not summary.failures:
            _write_text(part / CONFIG_FILE, config.to_yaml())
            open_package(part)
            part.rename(target)
    return summary


def train_level(config: PackageConfig, ground_truth: Path, recipe: Recipe, level: int, folder: Path) -> dict[str, Any]:
    """Train what is still missing of one noise level's ensemble; returns counts."""
    missing = [m for m in range(config.ensemble_size) if not _is_trained(folder / member_name(level, m), config)]
    if missing:
        train_members(_examples(config, ground_truth, recipe.seed), config, recipe, level, folder, missing)
    return {"trained": len(missing), "kept": config.ensemble_size - len(missing)}


def train_members(
    examples: Sequence[Example],
    config: PackageConfig,
    recipe: Recipe,
    level: int,
    folder: Path,
    members: Sequence[int],
) -> None:
    """Fit and write the given members of one noise level's ensemble."""
    material = gather(examples, config, level, recipe.stretch, recipe.max_windows)
    steps = recipe.steps(config, material.epoch_windows)
    for member in members:
        network = fit_network(material, config, steps, [recipe.seed, level, member])
        write_member(folder / member_name(level, member), network, config)


@lru_cache(maxsize=1)
def _examples(config: PackageConfig, ground_truth: Path, seed: int) -> list[Example]:
    return prepare(read_ground_truth(ground_truth, config.training_datasets), config, seed)


def _is_trained(path: Path, config: PackageConfig) -> bool:
    try:
        read_network(path, config)
    except BadInput:
        return False
    return True


def _record(config: PackageConfig, folders: list[Path], recipe: Recipe) -> dict[str, Any]:
    return {
        "config": config.to_yaml(),
        "recipe": {name: getattr(recipe, name) for name in ("max_windows", "max_steps", "stretch", "seed")},
        "ground_truth": {folder.name: fingerprint(folder) for folder in folders},
    }


def _same_training(folder: Path, record: dict[str, Any]) -> None:
    try:
        found = json.loads((folder / RECORD_FILE).read_text())
    except (OSError, ValueError):
        found = None
    if canonical_json(found) != canonical_json(record):
        problem = "holds a package that was not trained with these settings and this ground truth"
        raise BadInput(folder, problem, "choose another --name, or delete the folder")


def _write_text(path: Path, text: str) -> None:
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8")


def read_recipe(arguments: argparse.Namespace) -> tuple[PackageConfig, Recipe]:
    """Configuration and recipe as the command line asks for them."""
    config = read_config(arguments.config)
    config = replace(
        config,
        model_name=arguments.name or config.model_name,
        noise_levels=tuple(arguments.noise_levels or config.noise_levels),
        ensemble_size=arguments.ensemble_size or config.ensemble_size,
        nr_of_epochs=arguments.epochs or config.nr_of_epochs,
    )
    return config, Recipe(arguments.max_windows, arguments.max_steps, arguments.stretch, arguments.seed)


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that training and its evaluation share."""
    parser.add_argument("--config", type=Path, required=True, help="config.yaml of a CASCADE package: the recipe")
    parser.add_argument("--ground-truth", type=Path, required=True, help="folder of the DSxx-… datasets")
    parser.add_argument("--name", help="name of the package; that of the config.yaml by default")
    parser.add_argument("--noise-levels", type=int, nargs="+", help="instead of those of the config.yaml")
    parser.add_argument("--ensemble-size", type=int, help="networks per noise level")
    parser.add_argument("--epochs", type=int, help="epochs per network")
    parser.add_argument("--max-windows", type=int, default=MOST_WINDOWS, help="windows per epoch, at most")
    parser.add_argument("--max-steps", type=int, help="steps per network, at most")
    parser.add_argument("--stretch", type=int, default=DEFAULT_STRETCH, help="neighbouring windows drawn together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip-missing", action="store_true", help="train without datasets that are not there")
    parser.add_argument("--workers", type=int, default=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Train a CASCADE package from ground truth.")
    add_recipe_arguments(parser)
    parser.add_argument("--models-dir", type=Path, required=True, help="where the package is put, under its name")
    options = parser.parse_args(arguments)
    console = Console(stderr=True)
    try:
        config, recipe = read_recipe(options)
        summary = train_package(
            config,
            options.ground_truth,
            options.models_dir,
            recipe,
            skip_missing=options.skip_missing,
            workers=options.workers,
            console=console,
        )
    except BadInput as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    if summary.failures:
        console.print(summary.table())
    else:
        print(options.models_dir / config.model_name)
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main())
