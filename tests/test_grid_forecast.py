"""The experiment as a user runs it: train and infer in fresh processes, and the control without structure."""

import json
import subprocess
import sys

import pytest

from src.preprocess.calcium.grid_store import COO_FILE
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(verb, *overrides):
    done = subprocess.run(
        [sys.executable, verb, *map(str, overrides)], cwd=REPOSITORY, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def trained(tmp_path, *overrides):
    printed = run(
        "train.py",
        "experiment=grid_forecast",
        "logger=csv",
        f"cache_dir={tmp_path / 'cache'}",
        f"runs_dir={tmp_path / 'runs'}",
        *overrides,
    )
    folder = (tmp_path / "runs" / "grid_forecast" / "latest").resolve()
    rows = json.loads((folder / "results.json").read_text())["rows"]
    return printed, folder, {row["forecast"]: row["bits/spike"] for row in rows}


def test_the_default_beats_the_baselines_and_its_bundle_forecasts(tmp_path):
    printed, folder, bits = trained(tmp_path)
    assert all(name in printed for name in ("mean rate", "persistence", "autoregression", "linear population", "model"))
    assert set(bits) == {"mean rate", "persistence", "autoregression", "linear population", "model"}
    population = bits.pop("linear population")  # with which the network begins
    assert bits["model"] > population - 0.02
    assert bits.pop("model") > 1 > 5 * max(bits.values())
    names = {p.name for p in (folder / "figures").iterdir()}
    assert names == {"forecast_gain.png", "forecast_planes.png", "forecast_movie.gif"}
    grids = next((tmp_path / "cache" / "simulated_grids").glob("simulated_1*"))
    run("infer.py", f"bundle={folder}", f"input={grids}", f"output_dir={tmp_path / 'out'}")
    (made,) = (tmp_path / "out").iterdir()
    assert (made / COO_FILE).is_file()
    scores = json.loads((made / "manifest.json").read_text())["scores"]
    assert sum(scores["model"]["bits"]) > 5 * sum(scores["autoregression"]["bits"])


def test_without_structure_nothing_is_gained(tmp_path):
    _, _, bits = trained(tmp_path, "datamodule.split.shuffle=true")
    assert all(abs(value) < 0.02 for value in bits.values())
