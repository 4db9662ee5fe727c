from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from src.preprocess.cascade.embedded import CONFIG, embedded_package, simulate_ground_truth
from src.preprocess.cascade.ground_truth import prepare, with_noise
from src.preprocess.cascade.inference import open_engine
from src.preprocess.cascade.package import open_package


def test_simulated_neurons_are_quiet_plausible_and_repeatable() -> None:
    trials = simulate_ground_truth(12, seed=3, duration_s=120)
    again = simulate_ground_truth(3, seed=3, duration_s=120)
    np.testing.assert_array_equal(trials[2].dff, again[2].dff)
    examples = prepare(trials, CONFIG)
    assert max(example.base_noise for example in examples) < 2
    assert 0.05 < np.mean([len(trial.spikes_s) / 120 for trial in trials]) < 5
    for trial in trials:
        assert trial.fs_hz == pytest.approx(10)
        assert np.isfinite(trial.dff).all()
        assert trial.dff.max() < 9


def test_the_package_is_made_once_and_opens(tmp_path: Path) -> None:
    name = embedded_package(tmp_path, seed=1, steps=2, neurons=2)
    package = open_package(tmp_path / name)
    assert package.config == CONFIG
    stamp = (tmp_path / name / "manifest.json").stat().st_mtime_ns
    assert embedded_package(tmp_path, seed=1, steps=2, neurons=2) == name
    assert (tmp_path / name / "manifest.json").stat().st_mtime_ns == stamp
    assert open_engine("dense", name, models_dir=tmp_path, fs_hz=1.97).describe()["model"] == name


@pytest.mark.slow
def test_the_embedded_package_finds_the_spikes_of_new_neurons(tmp_path: Path) -> None:
    name = embedded_package(tmp_path)
    engine = open_engine("dense", name, models_dir=tmp_path, fs_hz=2.0, threshold=0, align="centered")
    examples = [e for e in prepare(simulate_ground_truth(30, seed=99), CONFIG) if e.counts.sum() > 5]
    for level, least in ((2, 0.9), (8, 0.8)):
        noisy = [with_noise(example, level, CONFIG, np.random.default_rng(0)) for example in examples]
        inferred = engine.predict(np.stack([trace for trace in noisy if trace is not None]))
        frames = np.isfinite(inferred[0])
        truth = np.stack([example.target for example in examples])
        correlation = [np.corrcoef(a[frames], b[frames])[0, 1] for a, b in zip(inferred, truth, strict=True)]
        assert np.median(correlation) > least
        assert 0.6 < inferred[:, frames].sum() / truth[:, frames].sum() < 1.5
