"""A small CASCADE package for machines that have none: trained on simulated ground truth, within two minutes.

It makes the chain run and gives sensible counts on simulated recordings. Science wants a package
trained on recorded ground truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import lfilter

from src.preprocess.cascade.ground_truth import Trial, prepare
from src.preprocess.cascade.package import CONFIG_FILE, PackageConfig
from src.preprocess.cascade.train import Recipe, train_members
from src.storage.step import CachedStep, ensure

EMBEDDED_NAME = "Embedded_2Hz_smoothing500ms"
_FINE_HZ, _RECORDED_HZ = 100.0, 10.0

CONFIG = PackageConfig(
    model_name=EMBEDDED_NAME,
    sampling_rate_hz=2.0,
    noise_levels=(2, 4, 8, 16),
    smoothing_s=0.5,
    causal_kernel=False,
    windowsize=64,
    before_frac=0.5,
    filter_sizes=(13, 9, 3),
    filter_numbers=(30, 40, 50),
    dense_expansion=10,
    training_datasets=("simulated",),
    loss_function="mean_squared_error",
    optimizer="Adagrad",
    nr_of_epochs=20,
    ensemble_size=2,
    batch_size=512,
)


def embedded_package(models_dir: Path, seed: int = 42, *, steps: int = 500, neurons: int = 60) -> str:
    """Name of the embedded package in ``models_dir``; trained there if it is not there.

    Parameters
    ----------
    models_dir
        Folder of packages.
    seed
        Of the simulated ground truth and of the training.
    steps, neurons
        Steps per network and simulated neurons of five minutes each.
    """
    params = {"steps": steps, "neurons": neurons, "config": CONFIG.to_yaml()}
    ensure(EMBEDDED_PACKAGE, {}, params, label=EMBEDDED_NAME, target=Path(models_dir) / EMBEDDED_NAME, seed=seed)
    return EMBEDDED_NAME


def train_embedded(
    inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None
) -> dict[str, Any]:
    """Stage function: simulate ground truth, train every noise level, write the package into ``out_dir``."""
    trials = simulate_ground_truth(params["neurons"], seed or 0)
    examples, recipe = prepare(trials, CONFIG, seed or 0), Recipe(max_steps=params["steps"], seed=seed or 0)
    for level in CONFIG.noise_levels:
        train_members(examples, CONFIG, recipe, level, out_dir, range(CONFIG.ensemble_size))
    (out_dir / CONFIG_FILE).write_text(CONFIG.to_yaml(), encoding="utf-8")
    return {"units": {"output": "expected spikes per frame"}, "simulated_minutes": 5 * len(trials)}


EMBEDDED_PACKAGE = CachedStep("embedded_cascade", 1, train_embedded)


def simulate_ground_truth(neurons: int, seed: int, duration_s: float = 300.0) -> list[Trial]:
    """Neurons with known spikes, almost free of noise.

    Firing is a Poisson process whose rate (0.03 to 3 Hz on average) comes in events of some seconds.
    The indicator rises within 0.05 to 0.4 s and decays within 0.4 to 3 s, saturates, and answers one
    spike with a ΔF/F of 0.05 to 0.5.
    """
    trials = []
    for number in range(neurons):
        draw = np.random.default_rng([seed, number])
        fine = int(duration_s * _FINE_HZ)
        time = np.arange(fine) / _FINE_HZ
        counts = draw.poisson(_firing_rate(fine, draw) / _FINE_HZ)
        dff = _indicator(counts, draw)
        step = int(_FINE_HZ / _RECORDED_HZ)
        frames = dff.reshape(-1, step).mean(axis=1)
        frames += 0.003 * np.sqrt(_RECORDED_HZ) * draw.standard_normal(len(frames))
        middle = time.reshape(-1, step).mean(axis=1)
        spikes = np.repeat(time, counts) + draw.uniform(0, 1 / _FINE_HZ, counts.sum())
        trials.append(Trial("simulated", f"neuron_{number:03d}", 0, frames, middle, np.sort(spikes)))
    return trials


def _firing_rate(samples: int, draw: np.random.Generator) -> np.ndarray:
    rate = np.full(samples, np.exp(draw.uniform(np.log(0.01), np.log(0.3))))
    for _ in range(draw.poisson(samples / _FINE_HZ / draw.uniform(15, 60))):
        start, length = int(draw.integers(samples)), int(draw.uniform(0.3, 6) * _FINE_HZ)
        rate[start : start + length] += draw.uniform(0.5, 8)
    return rate


def _indicator(counts: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    rise_s, decay_s = draw.uniform(0.05, 0.4), np.exp(draw.uniform(np.log(0.4), np.log(3.0)))
    slow_hz, quick_hz = 1 / decay_s, 1 / decay_s + 1 / rise_s
    slow, quick = (lfilter([1.0], [1.0, -np.exp(-hz / _FINE_HZ)], counts) for hz in (slow_hz, quick_hz))
    time = np.arange(0, 4, 1 / _FINE_HZ)
    peak = (np.exp(-time * slow_hz) - np.exp(-time * quick_hz)).max()
    linear = np.exp(draw.uniform(np.log(0.05), np.log(0.5))) * (slow - quick) / peak
    return linear / (1 + linear / draw.uniform(2, 8))
