import os
import re
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from src import schema
from src.runs.help import CONF, described, help_text, options
from src.storage.parameters import PreprocessConfig


@dataclass
class WindowParams(PreprocessConfig):
    """``preprocess=window``: cut."""

    # seconds; length of
    # one window
    window_s: float = 2.0
    workers: int = 3


def test_comments_in_the_source_describe_the_keys():
    found = described(WindowParams)
    assert found["window_s"] == (2.0, "seconds; length of one window")
    assert found["workers"] == (3, "recordings at a time")


@pytest.mark.parametrize("verb", ["train", "infer", "preprocess"])
def test_every_key_that_is_shown_is_described(verb):
    lines = help_text(verb, []).partition("Keys")[2].splitlines()[1:]
    bare = [line for line in lines if re.match(r"  \S+$", line)]
    assert bare == []


def test_train_names_every_experiment_and_preprocess_every_step():
    assert set(options("experiment")) <= set(help_text("train", []).replace(",", " ").split())
    steps = help_text("preprocess", []).partition("Keys")[0]
    assert set(schema.steps()) <= set(steps.split())
    lines = [line for line in steps.splitlines() if line.startswith("  cascade_")]
    assert len({line.split(maxsplit=1)[1] for line in lines}) == len(lines) == 5


@pytest.mark.parametrize("step", schema.steps())
def test_every_step_has_a_help(step):
    shown = help_text("preprocess", [f"preprocess={step}"])
    assert "output_dir=…" in shown
    assert "Params(" not in shown


def test_a_step_shows_its_own_keys_and_infer_shows_nothing_of_training():
    assert "duration_s=57.6  seconds; length of each recording" in help_text(
        "preprocess", ["preprocess=spike_lookalikes"]
    )
    shown = help_text("infer", [])
    assert "trainer" not in shown
    assert all(f"options.{f.name}=" in shown for f in fields(schema.InferOptions))


@pytest.mark.parametrize("step", sorted(schema.steps()))
def test_what_a_step_does_is_a_whole_sentence(step):
    described_in = (CONF / "preprocess" / f"{step}.yaml").read_text().splitlines()[1]
    assert described_in.endswith(".")
    assert described_in.strip("# ") in " ".join(help_text("preprocess", []).split())


def test_help_may_be_cut_off_by_another_program():
    read, write = os.pipe()
    os.close(read)
    root = Path(schema.__file__).parents[1]
    done = subprocess.run([sys.executable, "infer.py", "--help"], cwd=root, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
