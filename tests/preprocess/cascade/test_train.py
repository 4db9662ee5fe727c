from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from src.preprocess.cascade import train as cascade_train
from src.preprocess.cascade.inference import open_engine
from src.preprocess.cascade.neuralib import neuralib_predict
from src.preprocess.cascade.package import open_package
from src.preprocess.cascade.parameters import CascadeTrainParams
from src.preprocess.cascade.train import SIMULATED, TrainingSchedule, train_package
from src.signals import BadInput
from tests.preprocess.cascade.cascade_packages import TINY, recorded_trial, write_neuron

CONFIG = replace(TINY, noise_levels=(15, 25), training_datasets=("DS01-a", "DS02-b"), batch_size=32)
SCHEDULE = TrainingSchedule(max_steps=3, stretch=8)


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
    assert train_package(CONFIG, ground_truth, tmp_path / "whole", SCHEDULE).exit_code == 0
    written: list[str] = []
    original = cascade_train.write_network

    def dying(path: Path, *rest: object) -> None:
        if len(written) == 2:
            path.with_name(".half").write_bytes(b"half a file")
            raise KeyboardInterrupt
        written.append(path.name)
        original(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cascade_train, "write_network", dying)
    with pytest.raises(KeyboardInterrupt):
        train_package(CONFIG, ground_truth, tmp_path / "stopped", SCHEDULE)
    assert not (tmp_path / "stopped" / "Tiny_2Hz").exists()
    part = tmp_path / "stopped" / ".Tiny_2Hz.training"
    (part / ".half").unlink()
    (part / written[1]).write_bytes((part / written[1]).read_bytes()[:500])
    monkeypatch.setattr(cascade_train, "write_network", original)
    summary = train_package(CONFIG, ground_truth, tmp_path / "stopped", SCHEDULE)
    assert summary.values["noise level 15"] == {"trained": 1, "kept": 1}
    assert contents(tmp_path / "stopped" / "Tiny_2Hz") == contents(tmp_path / "whole" / "Tiny_2Hz")

    for changed in (replace(SCHEDULE, seed=1), replace(SCHEDULE, max_steps=4)):
        with pytest.raises(BadInput, match="not trained with these settings"):
            train_package(CONFIG, ground_truth, tmp_path / "whole", changed)
    assert train_package(CONFIG, ground_truth, tmp_path / "whole", SCHEDULE).outcomes == ()

    package = open_package(tmp_path / "whole" / "Tiny_2Hz")
    assert package.config == CONFIG
    trial = recorded_trial(seconds=60)["fluo_mean"].astype("float32")[:, ::5]
    reference = neuralib_predict(trial, package, 15, 0)
    ours = open_engine("dense", "Tiny_2Hz", models_dir=tmp_path / "whole", fs_hz=2.0, threshold=0, align="upstream")
    assert abs(ours.predict(trial, [15.0]) - reference)[:, 8:-8].max() < 1e-6


def test_the_verb_trains_what_its_keys_say(ground_truth: Path, tmp_path: Path) -> None:
    (recipe := tmp_path / "config.yaml").write_text(
        replace(CONFIG, training_datasets=("DS01-a", "DS07-gone")).to_yaml()
    )
    params = CascadeTrainParams(
        recipe=str(recipe), input_dir=str(ground_truth), output_dir=str(tmp_path / "models"), name="Mine",
        noise_levels=[20], ensemble_size=1, max_steps=2, stretch=8,
    )  # fmt: skip
    with pytest.raises(BadInput, match=r"has no dataset DS07-gone; .*skip_missing=true"):
        params.run()
    assert replace(params, skip_missing=True).run().exit_code == 0
    package = open_package(tmp_path / "models" / "Mine")
    assert package.config.training_datasets == ("DS01-a",)
    assert list(package.members) == [20]
    record = json.loads((tmp_path / "models" / "Mine" / "training.json").read_text())
    assert record["schedule"] == {"max_windows": 5_000_000, "max_steps": 2, "stretch": 8, "seed": 0}


def test_simulated_ground_truth_needs_no_folder(tmp_path: Path) -> None:
    config = replace(CONFIG, noise_levels=(8,), training_datasets=("simulated",), ensemble_size=1)
    assert train_package(config, SIMULATED, tmp_path, SCHEDULE).exit_code == 0
    assert open_package(tmp_path / "Tiny_2Hz").config.training_datasets == ("simulated",)


def test_a_level_below_the_recordings_noise_is_named(ground_truth: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, noise_levels=(1,), training_datasets=("DS01-a",))
    write_neuron(ground_truth / "DS01-a" / "cell1_mini.mat", [recorded_trial(noise=0.3)])
    summary = train_package(config, ground_truth, tmp_path / "models", SCHEDULE)
    assert summary.exit_code == 1
    assert "quieter" in (summary.failures[0].reason or "")
    assert not (tmp_path / "models" / "Tiny_2Hz").exists()


def test_the_published_protocol_is_the_default() -> None:
    schedule = TrainingSchedule()
    config = replace(CONFIG, nr_of_epochs=20, batch_size=512)
    assert schedule.steps(config, 5_000_000) == 20 * 9766
    assert TrainingSchedule(max_steps=100).steps(config, 5_000_000) == 100
    assert TrainingSchedule(max_steps=100).steps(config, 512) == 20
