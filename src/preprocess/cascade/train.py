"""``preprocess=cascade_train``: a CASCADE package from ground truth.

By default this is the published protocol of the ``config.yaml``: every noise level, every member of the
ensemble, every epoch. Members that are trained are kept: a run that was stopped goes on where it was,
and the package appears under its name when it is whole. The same seed gives the same files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from src.preprocess.cascade.fit import fit_network, gather
from src.preprocess.cascade.ground_truth import Example, prepare
from src.preprocess.cascade.keras_file import member_name, read_network, write_network
from src.preprocess.cascade.package import CONFIG_FILE, PackageConfig, open_package, read_config
from src.preprocess.cascade.parameters import DEFAULT_STRETCH, MOST_WINDOWS, CascadeTrainParams
from src.recordings.calcium.ground_truth import find_datasets, read_ground_truth
from src.signals import BadInput
from src.storage.atomic import atomic_file
from src.storage.batch import Job, Summary, run_batch
from src.storage.fingerprint import canonical_json
from src.storage.lock import folder_lock
from src.storage.output import plain_name
from src.storage.step import fingerprint

RECORD_FILE = "training.json"
SIMULATED = Path("simulated")
"""Stands for ground truth that is simulated instead of read."""

SIMULATED_NEURONS = 60


@dataclass(frozen=True)
class TrainingSchedule:
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


def run(params: CascadeTrainParams) -> Summary:
    """Train the package that the parameters describe."""
    config, schedule = recipe_of(params)
    return train_package(config, Path(params.input_dir), Path(params.output_dir), schedule, workers=params.workers)


def recipe_of(params: CascadeTrainParams) -> tuple[PackageConfig, TrainingSchedule]:
    """The package and its schedule; datasets that are not there are left out where ``skip_missing`` says so.

    Raises
    ------
    BadInput
        If the recipe cannot be read or a dataset is missing.
    """
    config = read_config(Path(params.recipe))
    config = replace(
        config,
        model_name=params.name or config.model_name,
        noise_levels=tuple(params.noise_levels or config.noise_levels),
        ensemble_size=params.ensemble_size or config.ensemble_size,
        nr_of_epochs=params.epochs or config.nr_of_epochs,
    )
    if Path(params.input_dir) != SIMULATED:
        found = find_datasets(Path(params.input_dir), config.training_datasets)
        missing = [name for name, folder in found.items() if folder is None]
        if missing and (not params.skip_missing or len(missing) == len(found)):
            hint = "fetch them, or give skip_missing=true to train without them"
            raise BadInput(params.input_dir, f"has no dataset {', '.join(missing)}", hint)
        config = replace(config, training_datasets=tuple(name for name in found if name not in missing))
    return config, TrainingSchedule(params.max_windows, params.max_steps, params.stretch, params.seed)


def train_package(
    config: PackageConfig, ground_truth: Path, models_dir: Path, schedule: TrainingSchedule, workers: int = 1
) -> Summary:
    """Train all networks of a package into ``models_dir/<model name>``.

    Parameters
    ----------
    config
        The package: its name, datasets, noise levels, architecture and epochs.
    ground_truth
        Folder of the datasets, or ``SIMULATED``.
    workers
        Noise levels trained at the same time, in processes of their own.

    Raises
    ------
    BadInput
        If the name is taken by a package that was trained otherwise.
    """
    record = {
        "config": config.to_yaml(),
        "schedule": asdict(schedule),
        "ground_truth": _origin(config, ground_truth),
    }
    target = models_dir / plain_name(config.model_name)
    with folder_lock(target, wait=False):
        if target.exists():
            _refuse_other_training(target, record)
            return Summary(f"{target}: already there")
        part = models_dir / f".{config.model_name}.training"
        part.mkdir(parents=True, exist_ok=True)
        if (part / RECORD_FILE).exists():
            _refuse_other_training(part, record)
        else:
            _write_text(part / RECORD_FILE, json.dumps(record, indent=2) + "\n")
        jobs = [
            Job(f"noise level {level}", train_level, (config, ground_truth, schedule, level, part))
            for level in config.noise_levels
        ]
        summary = run_batch(jobs, title=f"training {target}", workers=workers)
        if not summary.failures:
            _write_text(part / CONFIG_FILE, config.to_yaml())
            open_package(part).check_members()
            part.rename(target)
    return summary


def _origin(config: PackageConfig, ground_truth: Path) -> dict[str, Any]:
    if ground_truth == SIMULATED:
        return {"simulated": {"neurons": SIMULATED_NEURONS}}
    found = find_datasets(ground_truth, config.training_datasets)
    return {folder.name: fingerprint(folder) for folder in found.values() if folder}


def train_level(
    config: PackageConfig, ground_truth: Path, schedule: TrainingSchedule, level: int, folder: Path
) -> dict[str, Any]:
    """Train what is still missing of one noise level's ensemble; returns counts."""
    missing = [m for m in range(config.ensemble_size) if not _is_trained(folder / member_name(level, m), config)]
    if missing:
        examples = _examples(config, ground_truth, schedule.seed)
        train_members(examples, config, schedule, level, folder, missing)
    return {"trained": len(missing), "kept": config.ensemble_size - len(missing)}


def train_members(
    examples: Sequence[Example],
    config: PackageConfig,
    schedule: TrainingSchedule,
    level: int,
    folder: Path,
    members: Sequence[int],
) -> None:
    """Fit and write the given members of one noise level's ensemble."""
    data = gather(examples, config, level, schedule.stretch, schedule.max_windows)
    steps = schedule.steps(config, data.epoch_windows)
    for member in members:
        network = fit_network(data, config, steps, [schedule.seed, level, member])
        write_network(folder / member_name(level, member), network, config)


@lru_cache(maxsize=1)
def _examples(config: PackageConfig, ground_truth: Path, seed: int) -> list[Example]:
    if ground_truth == SIMULATED:
        from src.simulate.calcium import simulate_ground_truth

        return prepare(simulate_ground_truth(SIMULATED_NEURONS, seed), config, seed)
    return prepare(read_ground_truth(ground_truth, config.training_datasets), config, seed)


def _is_trained(path: Path, config: PackageConfig) -> bool:
    try:
        read_network(path, config)
    except BadInput:
        return False
    return True


def _refuse_other_training(folder: Path, record: dict[str, Any]) -> None:
    try:
        found = json.loads((folder / RECORD_FILE).read_text())
    except (OSError, ValueError):
        found = None
    if canonical_json(found) != canonical_json(record):
        problem = "holds a package that was not trained with these settings and this ground truth"
        raise BadInput(folder, problem, "give another name=…, or delete the folder")


def _write_text(path: Path, text: str) -> None:
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8")
