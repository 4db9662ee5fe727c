from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pretrained.make_cascade_embedded import simulate_ground_truth
from src.preprocess.cascade.evaluate import fit_oasis, fit_threshold, response_to_events, score_neurons
from src.preprocess.cascade.ground_truth import Example, prepare
from src.preprocess.cascade.parameters import CascadeEvaluateParams
from src.recordings.calcium.ground_truth import read_neuron
from src.signals import BadInput
from tests.preprocess.cascade.cascade_packages import TINY, recorded_trial, write_neuron
from tests.tables import printed


def test_scores_of_a_known_inference(tmp_path: Path) -> None:
    path = write_neuron(tmp_path / "DS01-a" / "cell_mini.mat", [recorded_trial(), recorded_trial(seed=1)])
    examples = prepare(read_neuron(path), TINY)
    noisy = [(example, example.dff) for example in examples]
    for factor, correlation in ((1.5, 1.0), (0.0, 0.0)):
        inferred = [factor * example.target for example in examples]
        inferred[0][:20] = np.nan
        (score,) = score_neurons(noisy, inferred, TINY).values()
        score.pop("events")
        error = abs(factor - 1)
        assert score == pytest.approx({"correlation": correlation, "error": error, "count_ratio": factor}, abs=1e-6)


def test_neurons_without_spikes_are_not_scored(tmp_path: Path) -> None:
    silent = recorded_trial() | {"events_AP": np.empty((0, 0))}
    path = write_neuron(tmp_path / "DS01-a" / "cell_mini.mat", [silent])
    noisy = [(example, example.dff) for example in prepare(read_neuron(path), TINY)]
    assert score_neurons(noisy, [noisy[0][1]], TINY) == {}


def test_isolated_events_are_sorted_by_their_spikes() -> None:
    counts = np.zeros(60)
    counts[10], counts[25], counts[26] = 1, 2, 2
    counts[45], counts[48] = 1, 1  # not isolated
    value = 0.5 * counts
    assert response_to_events(value, counts, 2.0) == {"1": [0.5], "2": [], "4": [2.0], "8": []}


def text(params: CascadeEvaluateParams) -> str:
    summary = params.run()
    assert summary.exit_code == 0
    return printed(summary.table(), 200)


@pytest.mark.slow
def test_held_out_datasets_are_scored_once_and_kept(tmp_path: Path) -> None:
    names = ("DS01-a", "DS02-b")
    for number, name in enumerate(names):
        write_neuron(tmp_path / "truth" / name / "cell_mini.mat", [recorded_trial(seconds=60, seed=number)])
    (recipe := tmp_path / "config.yaml").write_text(
        replace(TINY, noise_levels=(15,), training_datasets=names, ensemble_size=1, batch_size=32).to_yaml()
    )
    params = CascadeEvaluateParams(
        recipe=str(recipe), input_dir=str(tmp_path / "truth"), output_dir=str(tmp_path / "r"), max_steps=3, stretch=8,
        ingredients=True,
    )  # fmt: skip
    first = text(params)
    for word in ("DS02-b", "OASIS", "no noise", "one network", "median", "linearity"):
        assert word in first
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "r").rglob("manifest.json")}
    assert len(files) == 2
    assert text(params) == first
    assert {path: path.stat().st_mtime_ns for path in files} == files
    damaged = min(files)
    damaged.write_text(damaged.read_text().replace("0.", "1.", 1))
    assert text(params) == first
    with pytest.raises(BadInput, match="lies in the input"):
        text(replace(params, output_dir=str(tmp_path / "truth" / "r")))
    write_neuron(tmp_path / "truth" / names[0] / "another_mini.mat", [recorded_trial(seconds=60, seed=7)])
    assert text(params) != first


@pytest.fixture(scope="module")
def training() -> list[tuple[Example, np.ndarray]]:
    examples = prepare(simulate_ground_truth(6, seed=0, duration_s=120), TINY)
    return [(example, example.dff) for example in examples]


@pytest.mark.parametrize(("fit", "least"), [(fit_oasis, 0.6), (fit_threshold, 0.4)])
def test_oasis_and_threshold_follow_the_spikes_and_their_number(training, fit, least: float) -> None:
    infer = fit(training, TINY)
    value = np.concatenate([infer(dff) for _, dff in training])
    truth = np.concatenate([example.target for example, _ in training])
    assert np.corrcoef(value, truth)[0, 1] > least
    assert 0.4 < value.sum() / truth.sum() < 1.6
    # The scale is the least-squares one: the rest is orthogonal to the inference.
    assert abs(value @ (truth - value)) < 1e-3 * (value @ value)
    assert np.abs(infer(np.zeros(50, dtype=np.float32))).max() == 0
