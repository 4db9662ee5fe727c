"""Leakage and bookkeeping of the sleep datamodule, on made-up epochs."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl

from src.datamodules import sleep
from src.models.sleep.stager import SleepStager
from src.preprocess.sleep.epochs import EpochSet
from src.preprocess.sleep.prepare import EpochArtifact
from src.signals import UNSCORED, BadInput, SignalSpec
from src.storage.batch import Outcome, Summary
from tests.trainers import quiet_trainer

STAGES = 5
SIGNAL = SignalSpec(("EEG",), 100.0, 30.0, "dB", ("channel", "frequency", "time"), (1, 6, 7), tuple(range(6)))
SUBJECTS = [f"S{i}" for i in range(8)]


def night(subject, rng, *, informative=True, n=120):
    stages = rng.integers(-1, STAGES, n).astype(np.int8)
    means = np.eye(STAGES, 6)[np.maximum(stages, 0)] * (8 if informative else 0)
    features = (means[:, None, :, None] + rng.normal(size=(n, 1, 6, 7))).astype(np.float16)
    times = np.arange(n) * 30.0
    return EpochSet(features, stages, stages != UNSCORED, times, np.arange(7.0), SIGNAL)


@pytest.fixture
def nights(monkeypatch):
    """Subjects' nights, two for the first; the returned dict may be changed before ``setup``."""
    rng = np.random.default_rng(0)
    made = {(s, 1): night(s, rng) for s in SUBJECTS} | {("S0", 2): night("S0", rng)}

    def prepare(source, settings, *, cache, workers):
        artifacts = [EpochArtifact(f"{s}-{n}", s, Path(s, str(n)), {}) for s, n in sorted(made)]
        return artifacts, Summary("nights", (Outcome("bad", reason="truncated"),))

    monkeypatch.setattr(sleep, "prepare_nights", prepare)
    monkeypatch.setattr(sleep, "read_epochs", lambda path: made[path.parent.name, int(path.name)])
    return made


def data(**changes):
    arguments = {
        "source": {"kind": "edf_folder", "root": "x"},
        "epochs": {"channels": ["EEG"]},
        "split": {"method": "fraction", "val": 0.2, "test": 0.25, "seed": 1},
        "augment": {},
        "batch_size": 32,
        "execution": {"cache_dir": "x", "workers": 1, "seed": 1},
    }
    module = sleep.SleepData(**{**arguments, **changes})
    module.setup("fit")
    return module


def test_unscored_epochs_are_left_out_and_both_nights_of_a_subject_stay_together(nights):
    module = data()
    assert all((module.datasets[p].stages >= 0).all() for p in ("train", "val", "test"))
    parts = {r: p for p in ("train", "val", "test") for r in module.datasets[p].recordings}
    assert parts["S0-1"] == parts["S0-2"]
    scored = sum(int((n.stages >= 0).sum()) for n in nights.values())
    assert sum(row["epochs"] for row in module.summary().values()) == scored
    assert sum(row[c] for row in module.summary().values() for c in module.classes) == scored


def test_what_is_fitted_does_not_know_the_test_or_validation_subjects(nights):
    before = data().statistics()
    split = data().split
    rng = np.random.default_rng(9)
    for (subject, number), _ in list(nights.items()):
        if split.parts[subject] != "train":
            nights[subject, number] = night(subject, rng, n=77)
    after = data()
    assert after.split == split
    for name, value in before.items():
        np.testing.assert_array_equal(value, after.statistics()[name])
    nights[split.subjects("train")[0], 1] = night("x", rng)
    assert not np.array_equal(before["mean_db"], data().statistics()["mean_db"])


def test_one_stage_only_in_training_is_refused(nights):
    for key, epochs in nights.items():
        nights[key] = replace(epochs, stages=np.zeros_like(epochs.stages))
    with pytest.raises(BadInput, match="one stage only \\(W\\)"):
        data()


def test_a_part_without_scored_epochs_is_refused(nights):
    tested = data().split.subjects("test")
    for subject, number in list(nights):
        if subject in tested:
            blank = night(subject, np.random.default_rng(0))
            blank.stages[:] = UNSCORED
            nights[subject, number] = blank
    with pytest.raises(BadInput, match="the test subjects have no scored epoch"):
        data()


def fitted(module, tmp_path, epochs=6):
    network = {"filters": 8, "width": 16, "blocks": 1}
    optimizer = {"_target_": "torch.optim.AdamW", "lr": 5e-3, "weight_decay": 1e-2}
    model = SleepStager({"shape": [1, 6, 7]}, list(module.classes), network_args=network, optimizer=optimizer)
    trainer = quiet_trainer(tmp_path, max_epochs=epochs)
    trainer.fit(model, module)
    trainer.test(model, module, verbose=False)
    return model


def test_structure_is_learnt_and_shuffled_labels_give_chance(nights, tmp_path):
    learnt = fitted(data(), tmp_path)
    assert learnt.test_metrics()["test/kappa"] > 0.9
    rng = np.random.default_rng(3)
    for epochs in nights.values():
        rng.shuffle(epochs.stages)
    chance = fitted(data(), tmp_path)
    assert abs(chance.test_metrics()["test/kappa"]) < 0.12


def test_the_temperature_does_not_know_the_test_subjects(nights, tmp_path):
    pl.seed_everything(0, verbose=False)
    module = data()
    model = fitted(module, tmp_path, epochs=1)
    before = model.tune(module)
    for subject in module.split.subjects("test"):
        nights[subject, 1] = night(subject, np.random.default_rng(5), informative=False)
    assert model.tune(data()) == before


def test_preparation_says_what_it_found_before_a_training(nights, capsys, monkeypatch):
    facts = {"warnings": ["2 flat"]}
    artifacts = [EpochArtifact(f"{s}-1", s, Path(s, "1"), facts if s == "S2" else {}) for s in SUBJECTS]
    summary = Summary("nights", (Outcome("bad", reason="truncated"),))
    monkeypatch.setattr(sleep, "prepare_nights", lambda *_, **__: (artifacts, summary))
    data()
    printed = capsys.readouterr().out
    assert "truncated" in printed
    assert re.search(r"S2-1.*flat", printed)
