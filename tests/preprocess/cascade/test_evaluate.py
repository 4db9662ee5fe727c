from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from src.preprocess.cascade import evaluate as cascade_evaluate
from src.preprocess.cascade.evaluate import METHODS, joined_trials, main, score_neurons, table
from src.preprocess.cascade.ground_truth import prepare, read_neuron
from tests.preprocess.cascade.cascade_packages import TINY, recorded_trial, write_neuron

ROW = {
    "dataset": "DS01-a",
    "noise_level": 2,
    "scored_neurons": 3,
    "joined": True,
    **{method: {"correlation": 0.5, "error": 1.0, "bias": -0.25} for method in METHODS},
}


def test_scores_of_a_known_inference(tmp_path: Path) -> None:
    path = write_neuron(tmp_path / "DS01-a" / "cell_mini.mat", [recorded_trial(), recorded_trial(seed=1)])
    examples = prepare(read_neuron(path), TINY)
    noisy = [(example, example.dff) for example in examples]
    inferred = [1.5 * example.target for example in examples]
    inferred[0][:20] = np.nan
    (score,) = score_neurons(noisy, inferred).values()
    assert score == pytest.approx({"correlation": 1.0, "error": 0.5, "bias": 0.5})
    (score,) = score_neurons(noisy, [0 * example.target for example in examples]).values()
    assert score == pytest.approx({"correlation": 0.0, "error": 1.0, "bias": -1.0})


def test_neurons_without_spikes_are_not_scored(tmp_path: Path) -> None:
    silent = recorded_trial() | {"events_AP": np.empty((0, 0))}
    path = write_neuron(tmp_path / "DS01-a" / "cell_mini.mat", [silent])
    noisy = [(example, example.dff) for example in prepare(read_neuron(path), TINY)]
    assert score_neurons(noisy, [noisy[0][1]]) == {}


def test_short_trials_are_joined_only_where_all_are_short(tmp_path: Path) -> None:
    short = [recorded_trial(seconds=5, seed=seed) for seed in range(4)]
    one = write_neuron(tmp_path / "DS01-a" / "short_mini.mat", short)
    two = write_neuron(tmp_path / "DS01-a" / "mixed_mini.mat", [*short, recorded_trial(seconds=20)])
    examples = prepare([*read_neuron(one), *read_neuron(two)], TINY)
    joined = joined_trials(examples, TINY)
    assert [len(example.dff) for example in joined] == [40, 10, 10, 10, 10, 40]
    assert joined[0].trial.number == -1
    np.testing.assert_array_equal(joined[0].target[10:20], examples[1].target)


def test_held_out_datasets_are_scored_once_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("DS01-a", "DS02-b")
    for number, name in enumerate(names):
        write_neuron(tmp_path / "truth" / name / "cell_mini.mat", [recorded_trial(seconds=60, seed=number)])
    (config := tmp_path / "config.yaml").write_text(
        replace(TINY, noise_levels=(15,), training_datasets=names, ensemble_size=1, batch_size=32).to_yaml()
    )
    options = ["--config", str(config), "--ground-truth", str(tmp_path / "truth"), "--results", str(tmp_path / "r")]
    options += ["--max-steps", "3", "--stretch", "8"]
    assert main(options) == 0
    first = capsys.readouterr().out
    assert "| DS02-b | 1 |" in first
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "r").rglob("*.json")}
    assert len(files) == 2
    assert main(options) == 0
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "r").rglob("*.json")} == files
    more = [*options, "--noise-levels", "15", "20", "--name", "Tiny_2Hz"]
    monkeypatch.setattr(cascade_evaluate, "evaluate_dataset", lambda *arguments: ROW | {"noise_level": arguments[-1]})
    assert main(more) == 0
    assert "Noise level 20" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in files} == files
    write_neuron(tmp_path / "truth" / names[0] / "another_mini.mat", [recorded_trial(seconds=60, seed=7)])
    assert main(options) == 0
    assert capsys.readouterr().out != first


def test_the_table_has_a_median_per_level() -> None:
    scores = ROW["oasis"]
    other = ROW | {"dataset": "DS02-b", "joined": False, "cascade": dict.fromkeys(scores, 0.0)}
    lines = table([ROW, other]).splitlines()
    assert lines[4].startswith("| DS01-a † | 3 | 0.50 / 1.00 / -0.25 | 0.50 |")
    assert lines[6].startswith("| **median** | 6 | 0.25 / 0.50 / -0.12 |")
