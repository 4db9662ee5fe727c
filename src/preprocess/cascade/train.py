"""``preprocess=cascade_train``: a CASCADE package from ground truth.

By default this is the published protocol of the ``config.yaml``: every noise level, every member of the
ensemble, every epoch. Every network is a cached step: a run that was stopped goes on where it was, and the
package appears under its name when it is whole. The same seed gives the same networks.
"""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from src.preprocess.cascade.fit import fit_network, gather
from src.preprocess.cascade.ground_truth import Example, prepare
from src.preprocess.cascade.keras_file import member_name, write_network
from src.preprocess.cascade.package import CONFIG_FILE, Network, PackageConfig, open_package, read_config
from src.preprocess.cascade.parameters import CascadeTrainParams
from src.recordings.calcium.ground_truth import find_datasets, read_ground_truth
from src.signals import BadInput
from src.storage.atomic import folder_lock
from src.storage.batch import Job, Summary, run_batch
from src.storage.manifest import canonical_json, read_record
from src.storage.output import OutputFolder
from src.storage.step import CachedStep, ensure, fingerprint

RECORD_FILE = "training.json"
NETWORKS_DIR = ".networks"
"""Folder in the folder of packages that keeps what is trained, for the next run."""

_NETWORK_FILE = "network.h5"


def run(params: CascadeTrainParams) -> Summary:
    """Train all networks of a package into ``output_dir/<model name>``.

    Raises
    ------
    BadInput
        If the recipe cannot be read, a dataset is missing, or the name is taken by a package that was trained
        otherwise.
    """
    config, found = recipe_of(params)
    models_dir = Path(params.output_dir)
    output = OutputFolder(models_dir, (Path(params.input_dir),))
    target = output.path(config.model_name)
    record = settings_of(params, config, found)
    with folder_lock(models_dir / NETWORKS_DIR / config.model_name, wait=False):
        if target.exists():
            _refuse_other_training(target, record)
            return Summary(f"{target}: already there")
        jobs = [Job(f"noise level {level}", train_level, (config, params, level)) for level in config.noise_levels]
        summary = run_batch(jobs, title=f"training {target}", workers=params.workers)
        if not summary.failures and len(summary.outcomes) == len(jobs):
            with output.folder(config.model_name) as part:
                for level, members in zip(config.noise_levels, summary.outcomes, strict=True):
                    for member, path in enumerate(members.value):
                        shutil.copyfile(path, part / member_name(level, member))
                (part / CONFIG_FILE).write_text(config.to_yaml(), encoding="utf-8")
                (part / RECORD_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
                open_package(part).check_members()
    return summary


def recipe_of(params: CascadeTrainParams) -> tuple[PackageConfig, dict[str, Path]]:
    """The package to train and the folders of its datasets, without those that ``skip_missing`` allows to miss.

    Raises
    ------
    BadInput
        If the recipe cannot be read, a dataset is missing, or a number makes no sense.
    """
    params.check()
    config = read_config(Path(params.recipe))
    config = replace(
        config,
        model_name=params.name or config.model_name,
        noise_levels=tuple(params.noise_levels or config.noise_levels),
        ensemble_size=params.ensemble_size or config.ensemble_size,
        nr_of_epochs=params.epochs or config.nr_of_epochs,
    )
    folders = find_datasets(Path(params.input_dir), config.training_datasets)
    found = {name: folder for name, folder in folders.items() if folder is not None}
    if len(found) < len(folders) and (not params.skip_missing or not found):
        missing = ", ".join(name for name in folders if name not in found)
        hint = "fetch them, or give skip_missing=true to train without them"
        raise BadInput(params.input_dir, f"has no dataset {missing}", hint)
    return replace(config, training_datasets=tuple(folder.name for folder in found.values())), found


def settings_of(params: CascadeTrainParams, config: PackageConfig, found: Mapping[str, Path]) -> dict[str, Any]:
    """What networks depend on: the package's configuration, the schedule, and the digest of every dataset."""
    truth = {folder.name: fingerprint(folder) for folder in found.values()}
    schedule = {name: getattr(params, name) for name in ("max_windows", "max_steps", "stretch", "seed")}
    return {"config": config.to_yaml(), "schedule": schedule, "ground_truth": truth}


def steps_of(params: CascadeTrainParams, config: PackageConfig, epoch_windows: int) -> int:
    """Steps of one network: all windows of all epochs in batches, or the limit."""
    steps = config.nr_of_epochs * math.ceil(epoch_windows / config.batch_size)
    return steps if params.max_steps is None else min(steps, params.max_steps)


def train_level(config: PackageConfig, params: CascadeTrainParams, level: int) -> list[Path]:
    """The ensemble of one noise level, one file per member; what is trained already is kept."""
    alone = replace(config, model_name="network", noise_levels=(level,), ensemble_size=1)
    settings = settings_of(params, alone, recipe_of(params)[1])

    def train(member: int, _: Any, settings: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
        examples = examples_of(config, params.input_dir, params.seed, canonical_json(settings["ground_truth"]))
        (network,) = fit_ensemble(examples, config, params, level, [member])
        write_network(out_dir / _NETWORK_FILE, network, config)
        return {}

    files = []
    for member in range(config.ensemble_size):
        step, cache = CachedStep("cascade_network", 3, partial(train, member)), Path(params.output_dir) / NETWORKS_DIR
        artifact = ensure(step, {}, settings | {"member": member}, label=f"level{level}_member{member}", cache=cache)
        files.append(artifact.path / _NETWORK_FILE)
    return files


def fit_ensemble(
    examples: Sequence[Example], config: PackageConfig, params: CascadeTrainParams, level: int, members: Sequence[int]
) -> list[Network]:
    """Fit the given members of one noise level's ensemble."""
    data = gather(examples, config, level, params.stretch, params.max_windows)
    steps = steps_of(params, config, data.epoch_windows)
    return [fit_network(data, config, steps, [params.seed, level, member]) for member in members]


@lru_cache(maxsize=1)
def examples_of(config: PackageConfig, ground_truth: str, seed: int, digest: str) -> list[Example]:
    """The trials of the datasets at the model's rate; ``digest`` tells changed files apart."""
    return prepare(read_ground_truth(Path(ground_truth), config.training_datasets), config, seed)


def _refuse_other_training(folder: Path, record: Mapping[str, Any]) -> None:
    if read_record(folder / RECORD_FILE) != json.loads(json.dumps(record)):
        problem = "holds a package that was not trained with these settings and this ground truth"
        raise BadInput(folder, problem, "give another name=…, or delete the folder")
