import json
import os
import signal

import pytest

from src.runs.folder import open_run, read_record, run_key, write_record
from src.signals import BadInput
from tests.children import ended, fork

CONFIG = {"name": "x", "seed": 1, "logger": None, "runs_dir": "a", "model": {"lr": 0.1}}


def test_key_ignores_where_and_how_but_not_what():
    assert run_key(CONFIG) == run_key({**CONFIG, "runs_dir": "b", "logger": {"project": "p"}})
    assert run_key(CONFIG) != run_key({**CONFIG, "seed": 2})
    assert run_key(CONFIG) != run_key({**CONFIG, "model": {"lr": 0.2}})


def test_an_interrupted_run_is_continued_and_a_finished_one_is_not(tmp_path):
    with pytest.raises(RuntimeError), open_run(CONFIG, runs_dir=tmp_path, name="x") as first:
        raise RuntimeError("power cut")
    with open_run(CONFIG, runs_dir=tmp_path, name="x") as second:
        assert second.path == first.path
        assert second.attempt == 1
        second.finish(metrics={"a": 1.0})
    with open_run(CONFIG, runs_dir=tmp_path, name="x") as third:
        assert third.path != first.path
    record = json.loads((first.path / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["config"] == CONFIG
    assert (tmp_path / "x" / "latest").resolve() == first.path.resolve()


def test_another_configuration_or_resume_off_starts_anew(tmp_path):
    with pytest.raises(RuntimeError), open_run(CONFIG, runs_dir=tmp_path, name="x") as first:
        raise RuntimeError("power cut")
    with open_run({**CONFIG, "seed": 2}, runs_dir=tmp_path, name="x") as other:
        assert other.path != first.path
    with open_run(CONFIG, runs_dir=tmp_path, name="x", resume=False) as fresh:
        assert fresh.path != first.path


def test_two_living_runs_never_share_a_folder(tmp_path):
    with (
        open_run(CONFIG, runs_dir=tmp_path, name="x") as first,
        open_run(CONFIG, runs_dir=tmp_path, name="x") as second,
    ):
        assert first.path != second.path


def test_a_killed_run_is_found_again(tmp_path):
    def be_killed():
        with open_run(CONFIG, runs_dir=tmp_path, name="x"):
            os.kill(os.getpid(), signal.SIGKILL)

    assert ended(fork(be_killed)) == -signal.SIGKILL
    (path,) = (tmp_path / "x").glob("*/run.json")
    with open_run(CONFIG, runs_dir=tmp_path, name="x") as run:
        assert run.path == path.parent


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(BadInput, match="choose another runs_dir"),
        open_run(CONFIG, runs_dir=tmp_path / "file", name="x"),
    ):
        pass


class TestRecordsVouchForThemselves:
    def test_what_is_written_is_read(self, tmp_path):
        write_record(tmp_path / "run.json", {"a": [1, 0.5, None]})
        assert read_record(tmp_path / "run.json") == {"a": [1, 0.5, None]}

    def test_every_changed_byte_is_noticed(self, tmp_path):
        path = write_record(tmp_path / "run.json", {"key": "k", "score": 0.5, "n": 12})
        whole = path.read_bytes()
        for place in (p for p in range(len(whole)) if not whole[p : p + 1].isspace()):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(BadInput, match=r"run.json: is damaged"):
                read_record(path)

    def test_a_damaged_record_is_said_and_its_run_is_left_alone(self, tmp_path, capsys):
        with pytest.raises(RuntimeError), open_run(CONFIG, runs_dir=tmp_path, name="x") as first:
            raise RuntimeError("power cut")
        record = first.path / "run.json"
        record.write_text(record.read_text().replace('"seed": 1', '"seed": 3'))
        before = record.read_bytes()
        with open_run(CONFIG, runs_dir=tmp_path, name="x") as other:
            assert other.path != first.path
        assert "run.json: is damaged" in capsys.readouterr().err
        assert record.read_bytes() == before
