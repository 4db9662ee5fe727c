from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from src.preprocess.cascade import train as cascade_train
from src.preprocess.cascade.inference import open_engine
from src.preprocess.cascade.neuralib import neuralib_predict
from src.preprocess.cascade.package import open_package
from src.preprocess.cascade.train import Recipe, main, train_package
from src.signals import BadInput
from tests.preprocess.cascade.cascade_packages import TINY, recorded_trial, write_neuron

CONFIG = replace(TINY, noise_levels=(15, 25), training_datasets=("DS01-a", "DS02-b"), batch_size=32)
RECIPE = Recipe(max_steps=3, stretch=8)


@pytest.fixture
def ground_truth(tmp_path: Path) -> Path:
    for number, name in enumerate(("DS01-a", "DS02-b")):
        trials = [recorded_trial(seconds=40, seed=number), recorded_trial(seconds=20, seed=10 + number)]
        write_neuron(tmp_path / "truth" / name / "cell1_mini.mat", trials)
    return tmp_path / "truth"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_stopped_training_goes_on_and_ends_the_same(
    ground_truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train_package(CONFIG, ground_truth, tmp_path / "whole", RECIPE).exit_code == 0
    written: list[str] = []
    original = cascade_train.write_member

    def dying(path: Path, *rest: object) -> None:
        if len(written) == 2:
            path.with_name(".half").write_bytes(b"half a file")
            raise KeyboardInterrupt
        written.append(path.name)
        original(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cascade_train, "write_member", dying)
    with pytest.raises(KeyboardInterrupt):
        train_package(CONFIG, ground_truth, tmp_path / "stopped", RECIPE)
    assert not (tmp_path / "stopped" / "Tiny_2Hz").exists()
    part = tmp_path / "stopped" / ".Tiny_2Hz.training"
    (part / ".half").unlink()
    (part / written[1]).write_bytes((part / written[1]).read_bytes()[:500])
    monkeypatch.setattr(cascade_train, "write_member", original)
    summary = train_package(CONFIG, ground_truth, tmp_path / "stopped", RECIPE)
    assert summary.values["noise level 15"] == {"trained": 1, "kept": 1}
    assert contents(tmp_path / "stopped" / "Tiny_2Hz") == contents(tmp_path / "whole" / "Tiny_2Hz")

    for changed in (replace(RECIPE, seed=1), replace(RECIPE, max_steps=4)):
        with pytest.raises(BadInput, match="not trained with these settings"):
            train_package(CONFIG, ground_truth, tmp_path / "whole", changed)
    assert train_package(CONFIG, ground_truth, tmp_path / "whole", RECIPE).outcomes == ()

    package = open_package(tmp_path / "whole" / "Tiny_2Hz")
    assert package.config == CONFIG
    trial = recorded_trial(seconds=60)["fluo_mean"].astype("float32")[:, ::5]
    reference = neuralib_predict(trial, package, 15, 0)
    ours = open_engine("dense", "Tiny_2Hz", models_dir=tmp_path / "whole", fs_hz=2.0, threshold=0)
    assert abs(ours.predict(trial, [15.0]) - reference)[:, 8:-8].max() < 1e-6


def test_the_command_line(ground_truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config := tmp_path / "config.yaml").write_text(
        replace(CONFIG, training_datasets=("DS01-a", "DS07-gone")).to_yaml()
    )
    options = ["--config", str(config), "--ground-truth", str(ground_truth), "--models-dir", str(tmp_path / "models")]
    options += ["--name", "Mine", "--noise-levels", "20", "--ensemble-size", "1", "--max-steps", "2", "--stretch", "8"]
    assert main(options) == 1
    assert "DS07-gone" in capsys.readouterr().err
    assert main([*options, "--skip-missing"]) == 0
    folder = tmp_path / "models" / "Mine"
    assert capsys.readouterr().out.strip() == str(folder)
    package = open_package(folder)
    assert package.config.training_datasets == ("DS01-a",)
    assert list(package.members) == [20]
    record = json.loads((folder / "training.json").read_text())
    assert record["recipe"] == {"max_windows": 5_000_000, "max_steps": 2, "stretch": 8, "seed": 0}


def test_a_level_below_the_recordings_noise_is_named(
    ground_truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(CONFIG, noise_levels=(1,), training_datasets=("DS01-a",))
    write_neuron(ground_truth / "DS01-a" / "cell1_mini.mat", [recorded_trial(noise=0.3)])
    summary = train_package(config, ground_truth, tmp_path / "models", RECIPE)
    assert summary.exit_code == 1
    assert "quieter" in (summary.failures[0].reason or "")
    assert not (tmp_path / "models" / "Tiny_2Hz").exists()


def test_the_published_protocol_is_the_default() -> None:
    recipe = Recipe()
    config = replace(CONFIG, nr_of_epochs=20, batch_size=512)
    assert recipe.steps(config, 5_000_000) == 20 * 9766
    assert Recipe(max_steps=100).steps(config, 5_000_000) == 100
    assert Recipe(max_steps=100).steps(config, 512) == 20
