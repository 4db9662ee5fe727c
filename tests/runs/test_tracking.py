import importlib
import json
import re
import sqlite3
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning.loggers import Logger
from rich.console import Console

from src.runs import tracking
from src.runs.folder import RunFolder
from src.runs.tracking import Mirror, log_bundle, merge_csv, open_loggers
from tests.runs import toy
from tests.runs.verb import train
from tests.tables import read_csv


def test_csv_is_always_written_and_attempts_are_joined(tmp_path):
    for attempt, steps in enumerate([(1, 2, 3), (3, 4)]):
        run = RunFolder(tmp_path, "k", attempt)
        with open_loggers(None, run, config={}) as loggers:
            for step in steps:
                loggers[0].log_metrics({"loss": 10.0 * attempt + step}, step)
    rows = read_csv(merge_csv(run))
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
        with open_loggers(TRACKER, run, config=CONFIG) as loggers:
            mirror: Any = loggers[1]
            experiment = mirror.experiment
            assert (experiment.group, experiment.job_type, list(experiment.tags)) == ("g", "train", ["t"])
            assert experiment.config["model"]["lr"] == 0.1
            assert experiment.settings.mode == "offline"
            log_bundle(loggers, bundle, {"test/kappa": 0.7})
            raise RuntimeError("the training failed")

    with pytest.raises(RuntimeError, match="training failed"):
        crash_while_training()
    assert wandb.run is None
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def wandb_records(path: Path):
    """Every record of an offline run: a LevelDB log of protocol buffers behind a 7-byte header."""
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")

    data, position, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = messages.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def items(message):
    return {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in message}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_an_offline_wandb_run_holds_everything(tmp_path, offline, monkeypatch):
    monkeypatch.setenv("WANDB__STATS_SAMPLING_INTERVAL", "0.1")
    monkeypatch.setenv("WANDB_X_STATS_SAMPLING_INTERVAL", "0.1")
    step = toy.Classifier.training_step

    def slowly(self, batch, batch_idx):
        time.sleep(0.05)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(toy.Classifier, "training_step", slowly)
    run = train(tmp_path, "logger=wandb", "tags=[pilot]", "group=mine", "model.lr=0.2")
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    records = list(wandb_records(file))
    (head,) = [r.run for r in records if r.WhichOneof("record_type") == "run"][:1]
    assert (head.project, head.run_group, head.job_type, list(head.tags)) == ("neurolit", "mine", "train", ["pilot"])
    config = items(head.config.update) | {
        k: v for r in records if r.HasField("config") for k, v in items(r.config.update).items()
    }
    assert config["model"]["lr"] == 0.2
    history = [items(r.history.item) for r in records if r.WhichOneof("record_type") == "history"]
    rows = read_csv(run / "metrics.csv")
    for name in ("train/loss", "val/loss"):
        curve = [row[name] for row in history if name in row]
        assert curve == pytest.approx([float(row[name]) for row in rows if row[name]])
        assert len(curve) == 3
    assert any(name.startswith("figures/confusion/") for row in history for name in row)
    pictures = [f.path for r in records if r.WhichOneof("record_type") == "files" for f in r.files.files]
    assert any("figures/confusion" in name for name in pictures)
    artifacts = [r.request.log_artifact.artifact for r in records if r.request.HasField("log_artifact")]
    artifacts += [r.artifact for r in records if r.WhichOneof("record_type") == "artifact"]
    assert {a.type for a in artifacts} == {"bundle"}
    assert {e.path for a in artifacts for e in a.manifest.contents} == {
        "bundle.json",
        "manifest.json",
        "model.safetensors",
    }
    assert any(r.WhichOneof("record_type") == "stats" for r in records)


def test_tensorboard_mirrors_the_run(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    # its own switch for doing without TensorFlow, which would take ten seconds to import
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", ModuleType("notf"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(tmp_path, "logger=tensorboard")
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    tags = events.Tags()
    assert {"train/loss", "val/loss"} <= set(tags["scalars"])
    assert tags["images"] == ["figures/confusion"]
    written = [float(row["val/loss"]) for row in read_csv(run / "metrics.csv") if row["val/loss"]]
    assert [e.value for e in events.Scalars("val/loss")] == pytest.approx(written)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.slow
def test_mlflow_mirrors_the_run_and_keeps_it(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    run = train(tmp_path, "logger=mlflow", "group=mine")
    identity = json.loads((run / "mlflow_id.json").read_text())["id"]
    with sqlite3.connect(tmp_path / "runs" / "mlflow.db") as base:
        curve = base.execute("select value from metrics where key='val/loss' order by step").fetchall()
        (status,) = base.execute("select status from runs where run_uuid=?", (identity,)).fetchone()
        tags = dict(base.execute("select key, value from tags where run_uuid=?", (identity,)).fetchall())
    written = [float(row["val/loss"]) for row in read_csv(run / "metrics.csv") if row["val/loss"]]
    assert [value for (value,) in curve] == pytest.approx(written)
    assert (status, tags["group"], tags["job_type"]) == ("FINISHED", "mine", "train")
    found = {p.name for p in (run.parent / "mlflow").rglob("*") if p.is_file()}
    assert {"bundle.json", "model.safetensors", "confusion.png"} <= found


@pytest.mark.parametrize("text", ["{", "[]", '{"id": 3}', '{"id": "../../x"}', '{"id": ""}', "\x00"])
def test_a_damaged_id_of_a_tracker_is_replaced(tmp_path, monkeypatch, text):
    made = {}
    monkeypatch.setattr(tracking, "WandbLogger", lambda **given: made.update(given) or SimpleNamespace(_wandb_init={}))
    file = tmp_path / "wandb_id.json"
    file.write_text(text)
    for _ in range(2):
        tracking.wandb_tracker(tmp_path, {"name": "toy"}, "train", mode="online")
        assert made["id"] == json.loads(file.read_text())["id"]
    assert re.fullmatch(r"[0-9a-f]{12}", made["id"])


class Faulty(Logger):
    """A user's own logger that raises in one of its methods."""

    def __init__(self, fails):
        super().__init__()
        self.fails = fails
        self.may_fail("start")

    def may_fail(self, moment):
        if moment == self.fails:
            raise ConnectionError("[/x] the server is gone")

    name = version = "faulty"

    def log_metrics(self, metrics, step=None):
        self.may_fail("middle")

    def log_hyperparams(self, params, *args, **kwargs):
        self.may_fail("parameters")

    def finalize(self, status):
        self.may_fail("end")


LOST = "tracker Faulty failed (ConnectionError: [/x] the server is gone)"


@pytest.mark.parametrize("moment", ["start", "parameters", "middle", "end", "never"])
def test_a_tracker_that_fails_is_given_up(tmp_path, capsys, moment):
    tracker, run = {"_target_": f"{__name__}.Faulty", "fails": moment}, RunFolder(tmp_path, "k", 0)
    with open_loggers(tracker, run, config={}) as loggers:
        for logger in loggers:
            logger.log_hyperparams({"lr": 0.1})
            logger.log_metrics({"loss": 1.0}, 1)
    assert [row["loss"] for row in read_csv(merge_csv(run))] == ["1.0"]
    assert capsys.readouterr().out.count(LOST) == (moment != "never")


def test_a_tracker_that_fails_ends_no_training(tmp_path, capsys):
    own = tmp_path / "conf" / "logger" / "faulty.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(f"_target_: {__name__}.Faulty\nfails: middle\n")
    run = train(tmp_path, "logger=faulty")
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert len([row for row in read_csv(run / "metrics.csv") if row["val/loss"]]) == 3
    assert LOST in capsys.readouterr().out


def test_a_tracker_that_does_not_answer_is_given_up(capsys, monkeypatch):
    monkeypatch.setattr("src.runs.tracking.LIMIT_S", 0.05)
    mirror = Mirror(lambda: time.sleep(5), "deaf", Console())
    started = time.monotonic()
    mirror.log_metrics({"loss": 1.0}, 1)
    assert time.monotonic() - started < 1
    assert "tracker deaf failed (TimeoutError: no answer within" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_wandb_without_a_network_goes_on_offline(tmp_path, offline, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    with open_loggers(TRACKER, RunFolder(tmp_path, "k", 0), config=CONFIG) as loggers:
        mirror: Any = loggers[1]
        mirror.log_metrics({"loss": 1.0}, 1)
        assert mirror.experiment.settings.mode == "offline"
    assert time.monotonic() - started < 15
    assert "W&B does not answer (<urlopen error [Errno 111] Connection refused>)" in capsys.readouterr().out
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
