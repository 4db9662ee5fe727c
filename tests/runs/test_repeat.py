import json

from safetensors.torch import load_file

from src.runs.folder import read_record, write_record
from src.runs.repeat import differences, source_digests
from tests.runs.verb import command, execute, train


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
    assert {"train.py", "src/runs/repeat.py", "src/models/metrics.py"} <= set(digests)
    assert all((repository / name).is_file() for name in digests)


def test_a_run_is_repeated_from_its_folder_bit_for_bit(tmp_path, capsys):
    train(tmp_path, "seed=5", "model.lr=0.2")
    first = (tmp_path / "runs" / "toy" / "latest").resolve()
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
    train(tmp_path)
    first = (tmp_path / "runs" / "toy" / "latest").resolve()
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
