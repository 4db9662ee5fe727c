"""What is left of a sweep for its end: learning curves from the log, and a verdict where every job failed."""

import io
import json

import pytest
from rich.console import Console

from src.runs.conclusion import finalize_sweep, learning_curve
from src.runs.folder import write_record
from src.signals import BadInput


def test_a_learning_curve_leaves_out_rows_of_other_metrics(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss,val/f1\n0,3,,0.5\n0,3,0.7,\n1,7,,0.6\n")
    assert learning_curve(tmp_path, "val/f1") == [0.5, 0.6]
    assert learning_curve(tmp_path / "absent", "val/f1") == []


def sweep_of(folder, **record):
    (folder / "0").mkdir()
    write_record(folder / "0" / "run.json", {"overrides": ["seed=1"], "config": {}, "metrics": {}} | record)
    write_record(folder / "sweep.json", {})
    return folder


def test_a_sweep_of_failures_ends_without_a_choice(tmp_path):
    stream = io.StringIO()
    assert finalize_sweep(sweep_of(tmp_path, status="failed", error="out of luck"), Console(file=stream)) == 1
    assert "job 0 did not finish: out of luck" in stream.getvalue()
    assert "best" not in stream.getvalue()
    verdict = json.loads((tmp_path / "sweep.json").read_text())
    assert (verdict["status"], verdict["chosen"], verdict["best"]) == ("incomplete", None, None)


def test_the_end_of_a_sweep_runs_no_code_of_a_record(tmp_path):
    config = {"datamodule": {"_target_": "os.system", "command": "true"}}
    sweep = sweep_of(tmp_path, status="finished", score=0.5, config=config, mode="max")
    with pytest.raises(BadInput, match=r"datamodule._target_: names os.system, which a configuration may not run"):
        finalize_sweep(sweep, Console(file=io.StringIO()))
