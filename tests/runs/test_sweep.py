import json
from pathlib import Path

import pytest

from src.runs.folder import SWEEP_FILE
from src.runs.sweep import release
from tests.runs import toy
from tests.runs.verb import train
from tests.tables import read_csv


def sweeps(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "runs" / "sweeps").iterdir() if not p.is_symlink())


def record(path: Path) -> dict:
    return json.loads(path.read_text())


def trained_steps(folder: Path) -> dict[str, int]:
    """How often each job was started, by its number."""
    return {p.parent.name: record(p)["attempts"] for p in folder.glob("*/run.json")}


def test_a_sweep_ranks_configurations_over_seeds_and_tests_the_chosen_one_alone(tmp_path):
    train(tmp_path, "-m", "model.lr=0.01,0.3", "seed=1,2")
    (sweep,) = sweeps(tmp_path)
    ranking, jobs = read_csv(sweep / "sweep.csv"), read_csv(sweep / "jobs.csv")
    assert [row["finished"] for row in ranking] == ["2", "2"]
    assert float(ranking[0]["val/loss"]) < float(ranking[1]["val/loss"])
    assert ranking[0]["test/accuracy"]
    assert not ranking[1]["test/accuracy"]
    assert len(jobs) == 4
    chosen = [job for job in jobs if job["model.lr"] == ranking[0]["model.lr"]]
    mean = sum(float(job["val/loss"]) for job in chosen) / 2
    assert mean == pytest.approx(float(ranking[0]["val/loss"]))
    tested = [p.parent.name for p in sweep.glob("[0-9]*/results.json")]
    assert sorted(tested) == ranking[0]["jobs"].split()
    best = min(chosen, key=lambda job: float(job["val/loss"]))
    assert (sweep / "best").resolve().parent.name == best["job"]
    bundle = record(sweep / "best" / "bundle.json")
    assert bundle["metrics"]["test/accuracy"] == record(sweep / best["job"] / "run.json")["metrics"]["test/accuracy"]
    assert (sweep / "sweep.png").stat().st_size > 10_000
    assert "| 1 |" in (sweep / "sweep.md").read_text()
    assert (sweep.parent / "latest").resolve() == sweep.resolve()


def test_a_failing_job_does_not_end_the_sweep_and_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        train(tmp_path, "-m", "model.lr=0.1,-1")
    assert left.value.code == 1
    (sweep,) = sweeps(tmp_path)
    jobs = read_csv(sweep / "jobs.csv")
    assert [job["status"] for job in jobs] == ["finished", "failed"]
    assert "Invalid learning rate: -1" in jobs[1]["reason"]
    assert "Invalid learning rate: -1" in (sweep / "1" / "error.txt").read_text()
    assert record(sweep / SWEEP_FILE)["status"] == "incomplete"
    assert "job 1 did not finish" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        train(tmp_path, "-m", "model.lr=0.1,-1")
    assert sweeps(tmp_path) == [sweep]
    assert trained_steps(sweep) == {"0": 1, "1": 2}


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path, monkeypatch):
    class PowerCut(BaseException):
        pass

    whole = tmp_path / "whole"
    train(whole, "-m", "model.lr=0.1,0.2")
    calls = []
    step = toy.Classifier.training_step

    def fail_in_the_second_job(self, batch, batch_idx):
        calls.append(batch_idx)
        if len(calls) == 4 * 3 + 4 + 2:  # four steps an epoch, three epochs a job: the second job's second epoch
            raise PowerCut
        return step(self, batch, batch_idx)

    broken = tmp_path / "broken"
    monkeypatch.setattr(toy.Classifier, "training_step", fail_in_the_second_job)
    with pytest.raises(PowerCut):
        train(broken, "-m", "model.lr=0.1,0.2")
    (sweep,) = sweeps(broken)
    release()  # as the death of the process would
    train(broken, "-m", "model.lr=0.1,0.2")
    assert sweeps(broken) == [sweep]
    assert trained_steps(sweep) == {"0": 1, "1": 2}
    assert len(calls) == 4 * 3 + 4 + 2 + 2 * 4  # the first epoch of the second job was not repeated
    expected, found = read_csv(sweeps(whole)[0] / "sweep.csv"), read_csv(sweep / "sweep.csv")
    assert found == expected


@pytest.mark.slow
def test_a_finished_sweep_is_left_alone_and_a_given_folder_is_added_to(tmp_path):
    train(tmp_path, "-m", "model.lr=0.1,0.2")
    (first,) = sweeps(tmp_path)
    train(tmp_path, "-m", "model.lr=0.1,0.2,0.3", f"hydra.sweep.dir={first}")
    assert sweeps(tmp_path) == [first]
    assert trained_steps(first) == {"0": 1, "1": 1, "2": 1}
    assert len(read_csv(first / "sweep.csv")) == 3
    train(tmp_path, "-m", "model.lr=0.1,0.2")
    assert len(sweeps(tmp_path)) == 2


@pytest.mark.slow
def test_seeds_and_folds_repeat_a_configuration(tmp_path):
    train(tmp_path, "-m", "seed=1,2", "+datamodule.fold=0,1,2")
    (sweep,) = sweeps(tmp_path)
    (only,) = read_csv(sweep / "sweep.csv")
    assert only["finished"] == "6"
    assert len(list(sweep.glob("*/results.json"))) == 6
