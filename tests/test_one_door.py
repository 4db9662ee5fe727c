"""What a user owns survives every verb: outputs that are inputs, foreign files in the way, hostile names.

The verbs run as they do from a shell.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.children import verb
from tests.conftest import REPOSITORY
from tests.faults.scenarios import write_nights
from tests.runs.verb import command, train

NIGHT = "SC4001E0-PSG.edf"


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A bundle, and two nights of half an hour."""
    folder = tmp_path_factory.mktemp("material")
    write_nights(folder)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def infer(material, tmp_path):
    """Run ``infer.py`` in ``tmp_path`` with ``key=value`` arguments; returns how it ended."""

    def run(**keys):
        line = [f"{name}={str(value)!r}" for name, value in {"bundle": material / "bundle", **keys}.items()]
        return verb([REPOSITORY / "infer.py", *line], tmp_path)

    return run


@pytest.fixture
def recording(material, tmp_path):
    """A raw recording in a folder of its own, with notes beside it."""
    path = tmp_path / "data" / "night" / "night.edf"
    path.parent.mkdir(parents=True)
    shutil.copy(material / "nights" / NIGHT, path)
    (path.parent / "notes.txt").write_text("years of work")
    return path


@pytest.mark.parametrize(("given", "output"), [("night/night.edf", ""), ("night", "night"), ("night", "night/out")])
def test_predictions_never_replace_contain_or_enter_the_input(infer, recording, tmp_path, given, output):
    before = tree(tmp_path)
    ended = infer(input=tmp_path / "data" / given, output_dir=tmp_path / "data" / output)
    assert ended.returncode in (1, 2), ended.printed
    assert "the input" in ended.printed, ended.printed
    assert "choose another output_dir" in ended.printed
    assert tree(tmp_path) == before


def test_a_folder_of_somebody_else_in_the_place_of_a_result_is_refused(infer, recording, tmp_path):
    (tmp_path / "predictions" / "night").mkdir(parents=True)
    (tmp_path / "predictions" / "night" / "thesis.txt").write_text("years of work")
    before = tree(tmp_path)
    ended = infer(input=recording)
    assert ended.returncode == 1
    assert "already holds 'thesis.txt', which neurolit did not write" in ended.printed
    assert tree(tmp_path) == before


def test_a_second_run_keeps_what_a_person_added_and_edited(infer, recording, tmp_path):
    assert infer(input=recording).returncode == 0
    result = tmp_path / "predictions" / "night"
    (result / "reviewed.csv").write_text("reviewed by hand")
    (result / "hypnogram.csv").write_text("edited in place")
    ended = infer(input=recording)
    assert ended.returncode == 0, ended.printed
    assert (result / "reviewed.csv").read_text() == "reviewed by hand"
    assert (result / "hypnogram.csv.kept-1").read_text() == "edited in place"
    assert (result / "hypnogram.csv").read_text().startswith("onset_s,duration_s,stage")


def test_hostile_names_harm_nothing_and_stop_no_other_recording(infer, material, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "mine.txt").write_text("years of work")
    for name in (b"...edf", b"n.edf", b"n.EDF", b"N.edf", b"x" * 230 + b".edf", b"odd\xff.edf"):
        shutil.copy(material / "nights" / NIGHT, os.fsencode(data) + b"/" + name)
    ended = infer(input=data / "...edf", output_dir=tmp_path / "out")
    assert ended.returncode in (1, 2), ended.printed
    assert not list(tmp_path.glob("out/*"))
    ended = infer(input=data, output_dir=tmp_path / "out")
    assert r"odd\xff" in ended.printed
    assert (tmp_path / "mine.txt").read_text() == "years of work"
    places = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert len(places) == 5, ended.printed
    assert len({place.casefold() for place in places}) == 5
    assert len(list(data.iterdir())) == 6


def test_a_result_of_another_recording_is_not_replaced_by_a_later_run(infer, material, tmp_path):
    for name in ("n.edf", "n.EDF"):
        (tmp_path / name).mkdir()
        shutil.copy(material / "nights" / NIGHT, tmp_path / name / name)
        assert infer(input=tmp_path / name / name, output_dir=tmp_path / "out").returncode == 0
    first, second = sorted((tmp_path / "out").iterdir())
    assert first.name == "n"
    assert '"n.edf"' in (first / "manifest.json").read_text()
    assert '"n.EDF"' in (second / "manifest.json").read_text()
    before = sorted((tmp_path / "out").iterdir())
    assert infer(input=tmp_path / "n.EDF", output_dir=tmp_path / "out").returncode == 0
    assert sorted((tmp_path / "out").iterdir()) == before


@pytest.mark.parametrize("held", ["d1.mat", "D1.npy", "notes.txt"])
def test_simulated_spikes_are_not_written_into_a_users_folder(tmp_path, held):
    data = tmp_path / "data"
    data.mkdir()
    for name in (held, "D2.mat"):
        (data / name).write_text("recorded")
    before = tree(tmp_path)
    line = ("preprocess=spike_lookalikes", f"output_dir={data}", "duration_s=2")
    ended = verb([REPOSITORY / "preprocess.py", *line], tmp_path)
    assert ended.returncode == 1
    assert "which neurolit did not write; choose another output_dir" in ended.printed
    assert tree(tmp_path) == before


def test_simulated_nights_are_not_written_over_recorded_ones(tmp_path):
    from src.simulate.sleep import main

    (tmp_path / NIGHT).write_text("recorded")
    assert main([str(tmp_path), "--first-subject", "0", "--hours", "0.5"]) == 2
    assert tree(tmp_path) == {NIGHT: b"recorded"}


@pytest.mark.parametrize(("spikes", "simulates"), [("data", False), ("typo", False), (None, True)])
def test_make_spikes_simulates_in_its_own_folder_alone(tmp_path, spikes, simulates):
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "D2.mat").write_text("recorded")
    given = [] if spikes is None else [f"SPIKES={spikes}"]
    for name in ("requirements.lock", "setup/torchaudio_without_cuda.py", ".venv/.installed"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    line = ["make", "spikes", "PY=echo", "PYTHON=true", *given]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("spike_lookalikes" in done.stdout) == simulates, done.stdout
    assert f"labelled={spikes or 'artifacts/spikes'}/D1.mat input={spikes or 'artifacts/spikes'}" in done.stdout


def test_a_sweep_is_not_put_into_a_folder_of_somebody_else(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    ended = verb(command(tmp_path, "-m", "seed=1,2", f"hydra.sweep.dir={mine}"), tmp_path)
    assert ended.returncode == 2, ended.printed
    assert "already holds 'thesis.txt', which no sweep wrote" in ended.printed
    assert tree(mine) == {"thesis.txt": b"years of work"}


def test_folders_beside_runs_stay_whatever_they_hold(tmp_path):
    home = tmp_path / "runs" / "toy"
    for name, held in (("2024-01-01_00-00-00", ".notes"), ("backup", ".lock"), ("2024-01-02_00-00-00", ".lock")):
        (home / name).mkdir(parents=True)
        (home / name / held).touch()
    (home / "latest").write_text("a file of mine")
    train(tmp_path, "trainer.max_epochs=1")
    assert (home / "2024-01-01_00-00-00" / ".notes").exists()
    assert (home / "backup" / ".lock").exists()
    assert (home / "2024-01-02_00-00-00" / ".lock").exists()
    assert (home / "latest").read_text() == "a file of mine"
