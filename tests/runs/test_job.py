"""A training job: what it says and the status it ends with."""

import json

import pytest
from omegaconf import OmegaConf
from safetensors.torch import load_file

from src.runs.folder import read_record, write_record
from src.runs.job import differences, run_job, source_digests
from src.runs.ranking import read_sweep
from src.runs.sweep import release
from tests.runs import toy
from tests.runs.verb import command, execute, train


def settings(tmp_path):
    return OmegaConf.create({"name": "toy", "runs_dir": str(tmp_path), "resume": True, "group": None, "lr": 1e-3})


def work(left_out):
    def train(cfg, config, run, console):
        run.finish(score=0.5, left_out=left_out)
        return 0.5

    return train


def test_a_run_returns_its_score_and_one_that_left_recordings_out_names_them_and_ends_with_status_1(tmp_path, capsys):
    assert run_job(settings(tmp_path), work([])) == 0.5
    with pytest.raises(SystemExit) as end:
        run_job(settings(tmp_path), work(["night7"]))
    assert end.value.code == 1
    assert "night7" in capsys.readouterr().out
    assert json.loads((tmp_path / "toy" / "latest" / "run.json").read_text())["status"] == "finished"


@pytest.mark.parametrize("option", ["runs_dir", "cache_dir"])
def test_nothing_is_written_among_the_recordings(tmp_path, option, capsys):
    (tmp_path / "nights").mkdir()
    cfg = settings(tmp_path / "runs")
    cfg.source, cfg[option] = {"root": str(tmp_path / "nights")}, str(tmp_path / "nights" / "x")
    with pytest.raises(SystemExit):
        run_job(cfg, work([]))
    assert f"which is never written to; choose another {option}" in " ".join(capsys.readouterr().out.split())
    assert not list((tmp_path / "nights").iterdir())


def test_an_error_is_kept_in_the_run_folder(tmp_path):
    def broken(cfg, config, run, console):
        raise ZeroDivisionError("a fault of ours")

    with pytest.raises(ZeroDivisionError):
        run_job(settings(tmp_path), broken)
    (error,) = tmp_path.glob("toy/*/error.txt")
    assert "a fault of ours" in error.read_text()


class PowerCut(BaseException):
    pass


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """Train on points shifted by what ``shift.txt`` says, cut off in the second epoch."""

    def run(*arguments, after=5):
        calls = []
        step = toy.Classifier.training_step

        def fail(self, batch, batch_idx):
            calls.append(batch_idx)
            if len(calls) > after:
                raise PowerCut
            return step(self, batch, batch_idx)

        with monkeypatch.context() as patch, pytest.raises(PowerCut):
            patch.setattr(toy.Classifier, "training_step", fail)
            train(tmp_path, *arguments, f"+datamodule.shift={tmp_path / 'shift.txt'}")

    (tmp_path / "shift.txt").write_text("0.5")
    return run


def folders(home):
    return sorted(p for p in home.iterdir() if p.is_dir() and not p.is_symlink())


def test_a_run_whose_recordings_changed_is_not_continued_and_stays_as_it_is(tmp_path, cut, capsys):
    cut()
    (first,) = folders(tmp_path / "runs" / "toy")
    before = {p.name: p.read_bytes() for p in first.iterdir() if p.is_file() and p.name != ".lock"}
    (tmp_path / "shift.txt").write_text("0.75")
    train(tmp_path, f"+datamodule.shift={tmp_path / 'shift.txt'}")
    first_again, second = folders(tmp_path / "runs" / "toy")
    assert first_again == first
    assert {p.name: p.read_bytes() for p in first.iterdir() if p.is_file() and p.name != ".lock"} == before
    assert read_record(second / "run.json")["status"] == "finished"
    assert "a new run is started, and that folder stays as it is" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "shift.txt").write_text("0.5")  # the old recordings are back, and so is their run
    train(tmp_path, f"+datamodule.shift={tmp_path / 'shift.txt'}")
    assert folders(tmp_path / "runs" / "toy") == [first, second]
    assert read_record(first / "run.json")["status"] == "finished"


def test_a_sweep_repeats_the_jobs_whose_recordings_changed(tmp_path, cut):
    keys = ("-m", "seed=1,2")
    cut(*keys, after=14)  # in the second job
    release()
    (tmp_path / "shift.txt").write_text("0.75")
    train(tmp_path, *keys, f"+datamodule.shift={tmp_path / 'shift.txt'}")
    (sweep,) = folders(tmp_path / "runs" / "sweeps")
    jobs = read_sweep(sweep)
    assert [job.number for job in jobs] == ["2", "3"]
    assert len({job.record["data"] for job in jobs} - {None}) == 2  # seeds split differently
    assert all(job.status == "finished" for job in jobs)


def test_differences_name_files_and_packages():
    old = {"source": {"a.py": "1", "b.py": "1", "c.py": "1"}, "python": "3.11.7", "packages": {"torch": "2.12"}}
    new = {"source": {"a.py": "1", "b.py": "2", "d.py": "1"}, "python": "3.11.7", "packages": {"torch": "2.13"}}
    assert differences(old, new) == [
        "changed since: b.py",
        "removed since: c.py",
        "added since: d.py",
        "torch 2.12 then, 2.13 now",
    ]
    assert differences(old, old) == []


def test_every_source_file_has_a_digest(repository):
    digests = source_digests()
    assert {"train.py", "src/runs/job.py", "src/models/metrics.py"} <= set(digests)
    assert all((repository / name).is_file() for name in digests)


def test_a_run_is_repeated_from_its_folder_bit_for_bit(tmp_path, capsys):
    first = train(tmp_path, "seed=5", "model.lr=0.2")
    repeat(tmp_path, first)
    second = (tmp_path / "runs" / "toy" / "latest").resolve()
    assert second != first
    assert "differs from" not in capsys.readouterr().out
    assert (second / "metrics.csv").read_bytes() == (first / "metrics.csv").read_bytes()
    old, new = (load_file(run / "bundle" / "model.safetensors") for run in (first, second))
    assert all(value.equal(new[name]) for name, value in old.items())
    for key in ("key", "config", "metrics"):
        assert json.loads((second / "run.json").read_text())[key] == json.loads((first / "run.json").read_text())[key]


def test_code_that_has_changed_is_named_when_a_run_is_repeated(tmp_path, capsys):
    first = train(tmp_path)
    record = read_record(first / "run.json")
    record["source"]["src/models/metrics.py"] = "0" * 12
    record["packages"]["torch"] = "1.0"
    write_record(first / "run.json", record)
    repeat(tmp_path, first)
    printed = capsys.readouterr().out
    assert "differs from the run that is repeated: changed since: src/models/metrics.py" in printed
    assert "torch 1.0 then" in printed


def repeat(folder, run):
    execute([command(folder)[0], "--config-dir", str(run), "--config-name", "run"])
