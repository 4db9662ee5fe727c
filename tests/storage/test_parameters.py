import subprocess
import sys
from dataclasses import dataclass

import pytest

from src.signals import BadInput
from src.storage.parameters import PreprocessConfig, from_keywords

HEAVY = ("torch", "tensorflow", "librosa", "scipy", "pytorch_lightning", "spikeinterface", "pynwb")


@dataclass
class CountParams(PreprocessConfig):
    window_s: float = 2.0


def test_own_parameters_are_what_the_step_added():
    assert CountParams(input_dir="in", workers=4, window_s=3.0).own() == {"window_s": 3.0}


@pytest.mark.parametrize(
    ("typed", "hint"),
    [("windows_s", "did you mean window_s"), ("fs", "did you mean fs_hz"), ("qqq", "choose from: fs_hz, workers")],
)
def test_an_unknown_keyword_is_answered_with_the_nearest(typed, hint):
    assert from_keywords(CountParams, {"window_s": 3.0}).window_s == 3.0
    with pytest.raises(BadInput, match=f"{typed}: is no parameter of CountParams; {hint}"):
        from_keywords(CountParams, {typed: 1}, "fs_hz")


def test_a_step_has_to_say_how_it_runs():
    with pytest.raises(NotImplementedError, match="CountParams"):
        CountParams().run()


def test_the_parameters_of_all_steps_load_nothing_heavy(repository):
    loaded = "import sys; from src import schema; schema.register(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=repository, capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()}.isdisjoint(HEAVY)
