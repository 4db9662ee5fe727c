"""How well spikes are inferred on neurons a model has never seen: leave one dataset out, train, compare.

    python -m src.preprocess.cascade.evaluate --config config.yaml --ground-truth Ground_truth \\
        --results artifacts/cascade_evaluation [--noise-levels 2 8] [--ensemble-size 3] [--max-steps 2000]

For every dataset, networks are trained on all others and tried on it; OASIS and a threshold get their
parameters from the same others. Finished datasets are kept: a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from src.preprocess.cascade.baselines import Baseline, fit_oasis, fit_threshold
from src.preprocess.cascade.dense import DenseEnsembles
from src.preprocess.cascade.fit import fit_network, gather
from src.preprocess.cascade.ground_truth import (
    Example,
    find_datasets,
    prepare,
    read_ground_truth,
    with_noise,
)
from src.preprocess.cascade.package import Network, PackageConfig
from src.preprocess.cascade.train import Recipe, add_recipe_arguments, read_recipe
from src.signals import BadInput
from src.storage.atomic import atomic_file
from src.storage.batch import Job, run_batch
from src.storage.output import plain_name
from src.storage.step import canonical_json, fingerprint

METHODS = ("cascade", "cascade_upstream", "oasis", "threshold")
SCORES = ("correlation", "error", "bias")
_BASELINE_TRIALS = 64
"""Training trials, spread over all datasets, that the few parameters of a baseline are fitted on."""


def evaluate_dataset(
    examples: Sequence[Example], held_out: str, config: PackageConfig, recipe: Recipe, level: int
) -> dict[str, Any]:
    """Train without one dataset and score on it, at one noise level.

    Returns
    -------
    Counts, and for each of ``METHODS`` the median over neurons of each of ``SCORES``. ``cascade`` puts
    predictions on the frames they were trained for, ``cascade_upstream`` one frame earlier.
    """
    others = [example for example in examples if example.trial.dataset != held_out]
    own = joined_trials([example for example in examples if example.trial.dataset == held_out], config)
    material = gather(others, config, level, recipe.stretch, recipe.max_windows)
    steps = recipe.steps(config, material.epoch_windows)
    networks = [fit_network(material, config, steps, [recipe.seed, level, m]) for m in range(config.ensemble_size)]
    noisy = _noisy(own, level, config, recipe.seed)
    training = _noisy(joined_trials(others, config), level, config, recipe.seed)
    training = training[:: max(1, len(training) // _BASELINE_TRIALS)]
    inferred = {"cascade": _infer(noisy, networks, config)}
    inferred["cascade_upstream"] = [np.append(values[1:], np.nan) for values in inferred["cascade"]]
    for name, baseline in (("oasis", fit_oasis(training, config)), ("threshold", fit_threshold(training, config))):
        inferred[name] = _baseline(noisy, baseline, config)
    scores = {name: score_neurons(noisy, inferred[name]) for name in METHODS}
    return {
        "dataset": held_out,
        "noise_level": level,
        "neurons": len({example.trial.neuron for example, _ in noisy}),
        "scored_neurons": len(scores["cascade"]),
        "joined": any(example.trial.number < 0 for example, _ in noisy),
        "frames": sum(int(np.isfinite(values).sum()) for values in inferred["cascade"]),
        **{name: _medians(scores[name]) for name in METHODS},
    }


def joined_trials(examples: Sequence[Example], config: PackageConfig) -> list[Example]:
    """The examples; where all trials of a neuron are shorter than a window, they are put behind each other.

    A joint is a jump that no indicator makes, but without it such a neuron could not be scored at all.
    """
    neurons: dict[tuple[str, str], list[Example]] = {}
    for example in examples:
        neurons.setdefault((example.trial.dataset, example.trial.neuron), []).append(example)
    result: list[Example] = []
    for trials in neurons.values():
        if max(len(trial.dff) for trial in trials) >= config.windowsize:
            result += trials
            continue
        arrays = {
            name: np.concatenate([getattr(trial, name) for trial in trials])
            for name in ("dff", "counts", "target", "noise_profile")
        }
        curve = np.median([trial.measured_noise for trial in trials], axis=0)
        result.append(Example(replace(trials[0].trial, number=-1), measured_noise=curve, **arrays))
    return result


def score_neurons(
    noisy: Sequence[tuple[Example, np.ndarray]], inferred: Sequence[np.ndarray]
) -> dict[str, dict[str, float]]:
    """Scores of every neuron that fired, over all frames of all its trials that have a prediction.

    ``correlation`` of prediction and smoothed true counts; ``error``, the summed absolute difference,
    and ``bias``, the summed difference, both per true spike.
    """
    neurons: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for (example, _), values in zip(noisy, inferred, strict=True):
        valid = np.isfinite(values)
        neurons.setdefault(example.trial.neuron, []).append((values[valid], example.target[valid]))
    scores = {}
    for neuron, parts in neurons.items():
        value, truth = (np.concatenate(arrays).astype(float) for arrays in zip(*parts, strict=True))
        if len(value) < 2 or truth.sum() < 1 or np.ptp(truth) == 0:
            continue
        moved = np.ptp(value) > 0
        scores[neuron] = {
            "correlation": float(np.corrcoef(value, truth)[0, 1]) if moved else 0.0,
            "error": float(np.abs(value - truth).sum() / truth.sum()),
            "bias": float((value - truth).sum() / truth.sum()),
        }
    return scores


def _noisy(
    examples: Sequence[Example], level: int, config: PackageConfig, seed: int
) -> list[tuple[Example, np.ndarray]]:
    result = []
    for number, example in enumerate(examples):
        dff = with_noise(example, level, config, np.random.default_rng([seed, 1, number]))
        if dff is not None and len(dff) >= config.windowsize:
            result.append((example, dff))
    return result


def _infer(
    noisy: Sequence[tuple[Example, np.ndarray]], networks: Sequence[Network], config: PackageConfig
) -> list[np.ndarray]:
    ensemble, result = DenseEnsembles(config, lambda _: networks), []
    for _, dff in noisy:
        values = np.full(len(dff), np.nan)
        windows = np.maximum(ensemble.expected(dff[None], 0)[0], 0)
        values[config.trained_frame : config.trained_frame + len(windows)] = windows
        result.append(values)
    return result


def _baseline(
    noisy: Sequence[tuple[Example, np.ndarray]], baseline: Baseline, config: PackageConfig
) -> list[np.ndarray]:
    result = []
    for _, dff in noisy:
        values, last = baseline(dff), len(dff) - config.windowsize + config.trained_frame + 1
        # Scored on the frames that the networks can predict, so that all methods see the same spikes.
        values[: config.trained_frame], values[last:] = np.nan, np.nan
        result.append(values)
    return result


def _medians(scores: dict[str, dict[str, float]]) -> dict[str, float | None]:
    values = {name: [score[name] for score in scores.values()] for name in SCORES}
    return {name: round(float(np.median(v)), 4) if v else None for name, v in values.items()}


def evaluate(
    config: PackageConfig, ground_truth: Path, results: Path, recipe: Recipe, workers: int = 1
) -> list[dict[str, Any]]:
    """Hold out every dataset in turn; results already in ``results`` under the same settings are kept.

    A line depends on its own noise level alone: asking for another level keeps what is there.
    """
    found = find_datasets(ground_truth, config.training_datasets)
    settings = {
        "config": replace(config, noise_levels=()).to_yaml(),
        "recipe": vars(recipe),
        "ground_truth": {name: fingerprint(folder) for name, folder in found.items() if folder},
    }
    folder = results / plain_name(f"{config.model_name}-{_digest(settings)}")
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(f"{name}, noise level {level}", evaluate_one, (config, ground_truth, recipe, name, level, folder))
        for level in config.noise_levels
        for name in config.training_datasets
    ]
    summary = run_batch(jobs, title=f"evaluating {config.model_name}", workers=workers)
    if summary.failures:
        Console(stderr=True).print(summary.table())
    return [summary.values[job.name] for job in jobs if job.name in summary.values]


def evaluate_one(
    config: PackageConfig, ground_truth: Path, recipe: Recipe, held_out: str, level: int, folder: Path
) -> dict[str, Any]:
    """One line of the table, read if it is there, else computed and written."""
    path = folder / f"{held_out}_{level}.json"
    if path.exists():
        return json.loads(path.read_text())
    examples = prepare(read_ground_truth(ground_truth, config.training_datasets), config, recipe.seed)
    row = evaluate_dataset(examples, held_out, config, recipe, level)
    with atomic_file(path) as part:
        part.write_text(json.dumps(row, indent=2) + "\n")
    return row


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:12]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table, one noise level after the other, with the median over datasets."""
    lines = []
    for level in sorted({row["noise_level"] for row in rows}):
        lines += [f"Noise level {level}", ""]
        lines += ["| held out | neurons | CASCADE r / error / bias | one frame early r | OASIS | threshold |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        own = [row for row in rows if row["noise_level"] == level and row["scored_neurons"]]
        for row in own:
            name = row["dataset"] + (" †" if row["joined"] else "")
            lines.append(f"| {name} | {row['scored_neurons']} | {_cells(row)} |")
        middle = {m: {s: float(np.median([row[m][s] for row in own])) for s in SCORES} for m in METHODS}
        lines += [f"| **median** | {sum(row['scored_neurons'] for row in own)} | {_cells(middle)} |", ""]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> str:
    full = {m: " / ".join(f"{row[m][s]:.2f}" for s in SCORES) for m in METHODS}
    early = f"{row['cascade_upstream']['correlation']:.2f}"
    return " | ".join((full["cascade"], early, full["oasis"], full["threshold"]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Leave one dataset out, train, and compare with its true spikes.")
    add_recipe_arguments(parser)
    parser.add_argument("--results", type=Path, required=True, help="folder for the finished lines of the table")
    options = parser.parse_args(arguments)
    try:
        config, recipe = read_recipe(options)
        found = find_datasets(options.ground_truth, config.training_datasets)
        present = tuple(name for name, folder in found.items() if folder)
        if len(present) < 2 or (len(present) < len(found) and not options.skip_missing):
            missing = ", ".join(name for name in found if name not in present)
            raise BadInput(options.ground_truth, f"has no dataset {missing}", "fetch it, or say --skip-missing")
        config = replace(config, training_datasets=present)
        rows = evaluate(config, options.ground_truth, options.results, recipe, options.workers)
    except BadInput as error:
        Console(stderr=True).print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    print(table(rows))
    return 0 if len(rows) == len(config.training_datasets) * len(config.noise_levels) else 1


if __name__ == "__main__":
    sys.exit(main())
