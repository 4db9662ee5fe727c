"""A training job: what it says and the status it ends with."""

import json

import pytest
from omegaconf import OmegaConf

from src.runs.job import run_job


def settings(tmp_path):
    return OmegaConf.create({"name": "toy", "runs_dir": str(tmp_path), "resume": True, "group": None, "lr": 1e-3})


def work(left_out):
    def train(cfg, config, run, console):
        run.finish(score=0.5, left_out=left_out)
        return 0.5

    return train


def test_a_run_with_all_its_recordings_returns_its_score(tmp_path):
    assert run_job(settings(tmp_path), work([])) == 0.5


def test_a_run_that_left_recordings_out_finishes_names_them_and_ends_with_status_1(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run_job(settings(tmp_path), work(["night7"]))
    assert end.value.code == 1
    assert "night7" in capsys.readouterr().out
    assert json.loads((tmp_path / "toy" / "latest" / "run.json").read_text())["status"] == "finished"


def test_an_error_is_kept_in_the_run_folder(tmp_path):
    def broken(cfg, config, run, console):
        raise ZeroDivisionError("a fault of ours")

    with pytest.raises(ZeroDivisionError):
        run_job(settings(tmp_path), broken)
    (error,) = tmp_path.glob("toy/*/error.txt")
    assert "a fault of ours" in error.read_text()
