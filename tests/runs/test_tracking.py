import csv

import pytest

from src.runs.folder import RunFolder
from src.runs.tracking import log_bundle, merge_csv, open_loggers


def read(path):
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_csv_is_always_written_and_attempts_are_joined(tmp_path):
    for attempt, steps in enumerate([(1, 2, 3), (3, 4)]):
        run = RunFolder(tmp_path, "k", attempt)
        with open_loggers(None, run, config={}, job_type="train") as loggers:
            for step in steps:
                loggers[0].log_metrics({"loss": 10.0 * attempt + step}, step)
    rows = read(merge_csv(run))
    assert [(int(r["step"]), float(r["loss"])) for r in rows] == [(1, 1), (2, 2), (3, 13), (4, 14)]


TRACKER = {"_target_": "src.runs.tracking.wandb_tracker", "project": "test"}
CONFIG = {"name": "sleep_cnn", "group": "g", "tags": ["t"], "model": {"_target_": "never.built", "lr": 0.1}}


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_wandb_mirrors_offline_and_is_finished_even_after_a_crash(tmp_path, offline):
    import wandb

    run = RunFolder(tmp_path, "k", 0)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{}")

    def crash_while_training():
        with open_loggers(TRACKER, run, config=CONFIG, job_type="train") as loggers:
            experiment = loggers[1].experiment
            assert (experiment.group, experiment.job_type, list(experiment.tags)) == ("g", "train", ["t"])
            assert experiment.config["model"]["lr"] == 0.1
            assert experiment.settings.mode == "offline"
            log_bundle(loggers, bundle, {"test/kappa": 0.7})
            raise RuntimeError("the training failed")

    with pytest.raises(RuntimeError, match="training failed"):
        crash_while_training()
    assert wandb.run is None
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
