"""Whole recordings through the verb and its command line: rates, kills, real recordings, shipped networks."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from scipy.io import loadmat, savemat
from scipy.ndimage import gaussian_filter1d

from src.preprocess.cascade.inference import open_engine
from tests.composed import composed
from tests.preprocess.calcium.conftest import data_files, run
from tests.preprocess.cascade.cascade_packages import TINY, with_name, write_package
from tests.recordings.calcium.test_recording import positions, write_fish
from tests.tables import printed


@pytest.fixture
def rates(tmp_path) -> Path:
    """Subjects of three frame rates, of which two are within a factor of two of the model's 2 Hz."""
    for name, fs_hz in (("subject_1", 1.84), ("subject_2", 2.0), ("subject_3", 2.56)):
        traces = 100 + np.random.default_rng(0).standard_normal((6, 300))
        write_fish(tmp_path / "rates" / name, xyz=positions(6), response=traces.T, fs=fs_hz)
    return tmp_path / "rates"


def test_every_frame_rate_runs_with_one_command_and_the_table_says_how(rates, tmp_path):
    write_package(tmp_path / "models")
    write_package(tmp_path / "models", with_name(TINY, "Other_2Hz"))
    change = {"engine": "dense", "cascade_model": "Tiny_2Hz", "models_dir": str(tmp_path / "models")}
    summary = run(rates, tmp_path / "coo", **change)
    assert summary.exit_code == 0
    notes = {name: " ".join(value.facts["notes"]) for name, value in summary.values.items()}
    assert "resampled from 1.84 to 2 Hz" in notes["subject_1"]
    assert "resampled" not in notes["subject_2"]
    assert "resampled from 2.56 to 2 Hz" in " ".join(printed(summary.table()).split())
    with h5py.File(tmp_path / "coo" / "subject_3" / "preaugmented_grids_coo.h5") as file:
        assert file.attrs["sampling_rate"] == 2.56
        assert file["is_valid"][()].sum() > 100


def test_auto_takes_the_nearest_model_however_far_its_rate(tmp_path):
    traces = 100 + np.random.default_rng(0).standard_normal((6, 600))
    write_fish(tmp_path / "raw" / "subject_1", xyz=positions(6), response=traces.T, fs=120.0)
    write_package(tmp_path / "models", replace(TINY, model_name="Tiny_50Hz", sampling_rate_hz=50.0))
    change = {
        "engine": "dense",
        "models_dir": str(tmp_path / "models"),
        "grid_format": "none",
        "baseline_window_s": 2.0,
    }
    summary = run(tmp_path / "raw", tmp_path / "rates", cascade_model="auto", **change)
    assert summary.exit_code == 0, [o.reason for o in summary.failures]
    assert "resampled from 120 to 50 Hz for Tiny_50Hz" in " ".join(printed(summary.table()).split())
    assert "Tiny_50Hz" in printed(summary.table())
    named = run(tmp_path / "raw", tmp_path / "named", cascade_model="Tiny_50Hz", **change)
    assert "more than a factor of two apart" in (named.failures[0].reason or "")


@pytest.mark.parametrize(
    "delay_s", [0.4, *(pytest.param(d, marks=pytest.mark.slow) for d in (0.0, 0.1, 0.2, 0.8, 1.0, 1.3, 1.7, 2.2))]
)
def test_a_killed_run_is_finished_by_the_next_to_the_same_bytes(raw, tmp_path, finished, delay_s, repository):
    out = tmp_path / "coo"
    command = [
        sys.executable, "preprocess.py", "preprocess=cascade_coo", f"input_dir={raw}", f"output_dir={out}",
        f"cache_dir={tmp_path / 'cache'}", "engine=oasis", "cascade_model=tau1.25s", "num_neurons=1",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=repository, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    # The clock starts when the run has begun to write: importing takes longer than the work.
    while not (tmp_path / "cache").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subjects = [out / "subject_1", out / "subject_2"]
    assert all((s / "manifest.json").is_file() for s in subjects if s.exists())
    assert run(raw, out, figures=True, num_neurons=1).exit_code == 0
    assert data_files(out) == data_files(finished)
    assert not [p for p in tmp_path.rglob("*") if ".part-" in p.name]


@pytest.mark.parametrize("given", ["suite2p_plane", "nwb/suite2p_plane.nwb"])
def test_a_real_plane_gives_its_rates_with_one_command(shared_data, tmp_path, given):
    summary = run(shared_data / "field_formats" / given, tmp_path / "out", grid_format="none")
    assert summary.exit_code == 0
    shown = " ".join(printed(summary.table()).split())
    assert "19 of 20 2,000 10 tau1.25s ΔF/F" in shown
    assert "0.7 of the neuropil" in shown
    assert "1 of 20 cells left out: 1 F0 ≤ 0 (211)" in shown
    with h5py.File(tmp_path / "out" / "suite2p_plane" / "spikes.h5") as file:
        assert (file["spike_rate"].shape, file["spike_rate"].attrs["units"]) == ((20, 2000), "spikes per second")
        assert float(np.nansum(file["expected_spikes"][()], dtype=float)) == pytest.approx(856.07, abs=0.01)


def test_the_command_line_of_the_specification_composes_and_runs(raw, tmp_path):
    cfg = composed(
        "preprocess",
        "preprocess=cascade_coo", f"input_dir={raw}", f"output_dir={tmp_path / 'out'}", "num_neurons=10",
        "batch_size=30000", "split_ratio=0.95", "workers=1", "seed=42", "cascade_model=tau2s", "engine=oasis",
        "skip=[subject_2]", f"cache_dir={tmp_path / 'cache'}", "figures=false",
    )  # fmt: skip
    params: Any = OmegaConf.to_object(cfg)
    assert params.run().exit_code == 0
    assert (tmp_path / "out" / "subject_1" / "preaugmented_grids_coo.h5").is_file()


@pytest.mark.parametrize(
    ("step", "grid_format", "output"),
    [("cascade_grid", "dense", "processed_spike_grids_2018"), ("cascade_coo", "coo", "processed_spike_grids_coo_2018")],
)
def test_both_steps_have_the_specified_defaults(step, grid_format, output):
    cfg = composed("preprocess", f"preprocess={step}")
    assert (cfg.grid_format, cfg.output_dir, cfg.input_dir) == (grid_format, output, "raw_trace_data_2018")
    assert (cfg.num_neurons, cfg.batch_size, cfg.split_ratio, cfg.workers, cfg.seed) == (10, 30000, 0.95, 1, 42)
    assert cfg.cascade_model == "Global_EXC_2Hz_smoothing500ms"
    with pytest.raises(ConfigCompositionException, match="num_neuron"):
        composed("preprocess", f"preprocess={step}", "num_neuron=5")


@pytest.mark.slow
def test_a_real_population_through_real_networks(shared_data, tmp_path):
    """Zebrafish traces at cells of a real fish; the networks see the same whoever cuts the work into pieces."""
    traces = loadmat(shared_data / "calcium_populations" / "zf_pDp_7.5Hz_Calcium_traces_01.mat")["dF_traces"]
    fish = shared_data / "zebrafish_whole_brain" / "fishexplorer" / "F12_XYZ_Xflipped_corrected.txt"
    folder = tmp_path / "raw" / "subject_1"
    folder.mkdir(parents=True)
    savemat(folder / "data_full.mat", {"data": {"CellXYZ": np.loadtxt(fish)[::58][: len(traces)], "fpsec": 7.5}})
    with h5py.File(folder / "TimeSeries.h5", "w") as file:
        file["CellResp"] = traces.T.astype(np.float32)
    model = "OGB_zf_pDp_7.5Hz_smoothing200ms"
    models = shared_data / "cascade_models"
    changes = {"cascade_model": model, "models_dir": str(models), "baseline": "none", "align": "upstream"}
    written = []
    for name, more in (("one", {}), ("two", {"workers": 2, "batch_size": 100})):
        summary = run(tmp_path / "raw", tmp_path / name / "coo", engine="dense", **changes, **more)
        assert summary.exit_code == 0
        assert "2 of 1005 cells left out: 2 no finite frame" in " ".join(printed(summary.table()).split())
        written.append((tmp_path / name / "coo" / "subject_1" / "preaugmented_grids_coo.h5").read_bytes())
    assert written[0] == written[1]
    reference = open_engine("neuralib", model, models_dir=models, fs_hz=7.5, align="upstream")
    (cached,) = (tmp_path / "one" / "cache").rglob("expected_spikes.h5")
    some = traces[100:140].astype(np.float32)
    with h5py.File(cached) as file:
        ours = file["expected_spikes"][100:140].astype(np.float32)
    theirs = reference.predict(some, reference.noise_levels(some))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_embedded_model_finds_the_spikes_of_simulated_cells(raw, tmp_path):
    """What ``make grids`` does, small: the shipped model sees what was simulated."""
    changes = {"engine": "dense", "cascade_model": "embedded", "models_dir": str(tmp_path / "models")}
    assert run(raw, tmp_path / "coo", **changes).exit_code == 0
    (cached,) = (tmp_path / "cache").rglob("subject_1-*/expected_spikes.h5")
    with h5py.File(cached) as file, h5py.File(raw / "subject_1" / "true_spikes.h5") as truth:
        expected, ids = file["expected_spikes"][:, 33:-32].astype(float), file["cell_ids"][()]
        counts = truth["spike_counts"][()][np.searchsorted(truth["cell_ids"][()], ids)]
    smooth = gaussian_filter1d(counts.astype(float), 1, axis=1)[:, 33:-32]
    active = counts.sum(axis=1) > 30
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(expected[active], smooth[active], strict=True)]
    assert np.median(correlation) > 0.7
    assert 0.5 < expected.mean() / counts.mean() < 2.5
