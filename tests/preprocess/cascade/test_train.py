import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrained import make_cascade_embedded
from src.preprocess.cascade import train as cascade_train
from src.preprocess.cascade.inference import open_engine
from src.preprocess.cascade.package import PackageConfig, open_package
from src.preprocess.cascade.parameters import CascadeTrainParams
from src.preprocess.cascade.train import steps_of
from src.signals import BadInput
from tests.preprocess.cascade.cascade_packages import TINY, recorded_trial, write_neuron

CONFIG = replace(TINY, noise_levels=(15, 25), training_datasets=("DS01-a", "DS02-b"), batch_size=32)


@pytest.fixture
def params(tmp_path: Path) -> CascadeTrainParams:
    """Two datasets of one neuron each, and a training of three steps."""
    for number, name in enumerate(CONFIG.training_datasets):
        trials = [recorded_trial(seconds=40, seed=number), recorded_trial(seconds=20, seed=10 + number)]
        write_neuron(tmp_path / "truth" / name / "cell1_mini.mat", trials)
    return CascadeTrainParams(
        recipe=recipe(tmp_path, CONFIG), input_dir=str(tmp_path / "truth"), output_dir=str(tmp_path / "models"),
        max_steps=3, stretch=8, seed=0,
    )  # fmt: skip


def recipe(folder: Path, config: PackageConfig) -> str:
    (path := folder / "config.yaml").write_text(config.to_yaml())
    return str(path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "manifest.json"}


def test_a_stopped_training_goes_on_and_ends_the_same(
    params: CascadeTrainParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert params.run().exit_code == 0
    whole, stopped = tmp_path / "models" / "Tiny_2Hz", replace(params, output_dir=str(tmp_path / "stopped"))
    written: list[str] = []
    original = cascade_train.write_network

    def dying(path: Path, *rest: Any) -> None:
        if len(written) == 2:
            path.write_bytes(b"half a file")
            raise KeyboardInterrupt
        written.append(path.name)
        original(path, *rest)

    monkeypatch.setattr(cascade_train, "write_network", dying)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    assert not (tmp_path / "stopped" / "Tiny_2Hz").exists()
    (damaged, *_) = sorted((tmp_path / "stopped").rglob("network.h5"))
    damaged.write_bytes(damaged.read_bytes()[:500])
    written.clear()

    def counted(path: Path, *rest: Any) -> None:
        written.append("again")
        original(path, *rest)

    monkeypatch.setattr(cascade_train, "write_network", counted)
    assert stopped.run().exit_code == 0
    assert len(written) == 3  # the damaged one and the two that were missing
    assert contents(tmp_path / "stopped" / "Tiny_2Hz") == contents(whole)

    for changed in (replace(params, seed=1), replace(params, max_steps=4)):
        with pytest.raises(BadInput, match="not trained with these settings"):
            changed.run()
    assert params.run().outcomes == ()

    package = open_package(whole)
    assert package.config == CONFIG
    trial = recorded_trial(seconds=60)["fluo_mean"].astype("float32")[:, ::5]
    assert open_engine("dense", whole, fs_hz=2.0, threshold=0).predict(trial, np.array([15.0]))[0, 9:-8].max() > 0


def test_the_verb_trains_what_its_keys_say(params: CascadeTrainParams, tmp_path: Path) -> None:
    config = replace(CONFIG, training_datasets=("DS01-a", "DS07-gone"))
    params = replace(params, recipe=recipe(tmp_path, config), name="Mine", noise_levels=[20], ensemble_size=1)
    with pytest.raises(BadInput, match=r"has no dataset DS07-gone; .*skip_missing=true"):
        params.run()
    assert replace(params, skip_missing=True).run().exit_code == 0
    package = open_package(tmp_path / "models" / "Mine")
    assert package.config.training_datasets == ("DS01-a",)
    assert list(package.members) == [20]
    record = json.loads((tmp_path / "models" / "Mine" / "training.json").read_text())
    assert record["schedule"] == {"max_windows": 5_000_000, "max_steps": 3, "stretch": 8, "seed": 0}


def test_a_level_below_the_recordings_noise_is_named(params: CascadeTrainParams, tmp_path: Path) -> None:
    config = replace(CONFIG, noise_levels=(1,), training_datasets=("DS01-a",))
    write_neuron(tmp_path / "truth" / "DS01-a" / "cell1_mini.mat", [recorded_trial(noise=0.3)])
    summary = replace(params, recipe=recipe(tmp_path, config)).run()
    assert summary.exit_code == 1
    assert "quieter" in (summary.failures[0].reason or "")
    assert not (tmp_path / "models" / "Tiny_2Hz").exists()


@pytest.mark.parametrize("wrong", [{"epochs": -1}, {"ensemble_size": 0}, {"stretch": 0}, {"noise_levels": []}])
def test_numbers_with_which_nothing_is_trained_are_refused(
    params: CascadeTrainParams, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(BadInput, match="give 1 or more"):
        replace(params, **wrong).run()
    assert not (tmp_path / "models").exists()


def test_the_published_protocol_is_the_default() -> None:
    config = replace(CONFIG, nr_of_epochs=20, batch_size=512)
    published = CascadeTrainParams(recipe="", input_dir="")
    assert steps_of(published, config, 5_000_000) == 20 * 9766
    limited = replace(published, max_steps=100)
    assert (steps_of(limited, config, 5_000_000), steps_of(limited, config, 512)) == (100, 20)


def test_simulated_ground_truth_is_quiet_plausible_and_repeatable() -> None:
    trials = make_cascade_embedded.simulate_ground_truth(12, seed=3, duration_s=120)
    again = make_cascade_embedded.simulate_ground_truth(3, seed=3, duration_s=120)
    np.testing.assert_array_equal(trials[2].dff, again[2].dff)
    assert 0.05 < np.mean([len(trial.spikes_s) / 120 for trial in trials]) < 5
    assert all(trial.fs_hz == pytest.approx(10) and np.isfinite(trial.dff).all() for trial in trials)
    assert max(trial.dff.max() for trial in trials) < 9


@pytest.mark.slow
def test_the_embedded_cascade_package_is_made_by_one_command(tmp_path: Path) -> None:
    assert make_cascade_embedded.main(["--output_dir", str(tmp_path), "--neurons", "4", "--steps", "2"]) == 0
    assert open_package(tmp_path / make_cascade_embedded.RECIPE.parent.name).config.ensemble_size == 2
