import subprocess
import sys
from dataclasses import dataclass

import pytest

from src.storage.parameters import PreprocessConfig

HEAVY = ("torch", "tensorflow", "librosa", "scipy", "pytorch_lightning", "spikeinterface", "pynwb")


@dataclass
class CountParams(PreprocessConfig):
    window_s: float = 2.0


def test_own_parameters_are_what_the_step_added():
    assert CountParams(input_dir="in", workers=4, window_s=3.0).own() == {"window_s": 3.0}


def test_a_step_has_to_say_how_it_runs():
    with pytest.raises(NotImplementedError, match="CountParams"):
        CountParams().run()


def test_the_parameters_of_all_steps_load_nothing_heavy(repository):
    loaded = "import sys; from src import schema; schema.register(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=repository, capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()}.isdisjoint(HEAVY)
