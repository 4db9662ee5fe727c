"""The whole run over subjects: resuming, failing, killing, and what must leave no trace in the files."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from rich.console import Console
from scipy.io import loadmat, savemat
from scipy.ndimage import gaussian_filter1d

from src import schema
from src.preprocess.calcium import spikes_to_grids
from src.preprocess.calcium.grid_store import open_grids
from src.preprocess.cascade.inference import open_engine
from src.signals import BadInput
from src.storage.lock import folder_lock
from tests.preprocess.calcium.conftest import parameters
from tests.preprocess.cascade.cascade_packages import TINY, with_name, write_package
from tests.recordings.calcium.test_recording import positions, write_fish


def run(raw: Path, out: Path, **changes: object) -> spikes_to_grids.GridSummary:
    return spikes_to_grids.run(parameters(raw, out, **changes))


def data_files(folder: Path) -> dict[str, bytes]:
    """Every data file below a folder; the manifests state the time of making and are left out."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and p.suffix in (".h5", ".pdf"))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def text(summary: spikes_to_grids.GridSummary) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(summary.table())
    return console.file.getvalue()


@pytest.fixture(scope="module")
def finished(raw, tmp_path_factory) -> Path:
    """One finished sparse run over both subjects, to be read only."""
    out = tmp_path_factory.mktemp("finished") / "coo"
    assert run(raw, out, figures=True, num_neurons=1).exit_code == 0
    return out


def test_a_run_leaves_the_specified_folders(finished):
    assert sorted(p.name for p in finished.iterdir() if not p.name.startswith(".")) == [
        "combined_metadata.h5", "manifest.json", "subject_1", "subject_2",
    ]  # fmt: skip
    assert sorted(p.name for p in (finished / "subject_1").iterdir()) == [
        "manifest.json", "metadata.h5", "preaugmented_grids_coo.h5", "subject_1_overview.pdf",
        "subject_1_visualization.pdf",
    ]  # fmt: skip


def test_combined_metadata_holds_every_subject_and_the_totals(finished):
    with h5py.File(finished / "combined_metadata.h5") as file:
        assert set(file) == {"subject_1", "subject_2"}
        total = pixels = 0
        for name, group in file.items():
            grids = open_grids(finished / name)
            assert (group["num_timepoints"][()], group["num_z_planes"][()]) == grids.shape[:2]
            assert (group.attrs["num_timepoints"], group.attrs["num_z_planes"]) == grids.shape[:2]
            assert group.attrs["total_spikes"] == len(grids.index()[1])
            np.testing.assert_array_equal(group["is_train"][()], grids.header.is_train)
            total, pixels = total + int(group.attrs["total_spikes"]), pixels + int(np.prod(grids.shape))
        assert (file.attrs["total_subjects"], file.attrs["total_spikes"], file.attrs["total_pixels"]) == (
            2,
            total,
            pixels,
        )
        assert file.attrs["overall_sparsity_percent"] == pytest.approx(100 * total / pixels)
        assert file.attrs["format"] == "COO_sparse"


def test_a_second_run_computes_nothing_and_changes_nothing(raw, tmp_path):
    first = run(raw, tmp_path / "coo")
    before, stamps = data_files(tmp_path), {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.h5")}
    again = run(raw, tmp_path / "coo")
    assert all(v.inferred and v.gridded for v in first.values.values())
    assert not any(v.inferred or v.gridded for v in again.values.values())
    assert data_files(tmp_path) == before
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items() if p.name != "combined_metadata.h5")
    assert "kept" in text(again)


@pytest.mark.parametrize(
    ("change", "infers"),
    [
        ({"seed": 43}, False),
        ({"sampling": "poisson"}, False),
        ({"split_guard_frames": 0}, False),
        ({"baseline_window_s": 20.0}, True),
    ],
)
def test_a_changed_setting_remakes_what_it_touches(raw, tmp_path, change, infers):
    run(raw, tmp_path / "coo", skip=["subject_1"])
    before = data_files(tmp_path / "coo")
    (result,) = run(raw, tmp_path / "coo", skip=["subject_1"], **change).values.values()
    assert (result.inferred, result.gridded) == (infers, True)
    name = "subject_2/preaugmented_grids_coo.h5"
    assert data_files(tmp_path / "coo")[name] != before[name]


@pytest.mark.slow
def test_workers_batches_and_formats_give_the_same_spikes(raw, tmp_path, finished):
    many = tmp_path / "many" / "coo"
    assert run(raw, many, workers=3, batch_size=7).exit_code == 0
    grids = "subject_1/preaugmented_grids_coo.h5", "subject_2/preaugmented_grids_coo.h5", "combined_metadata.h5"
    for name in grids:
        assert (many / name).read_bytes() == (finished / name).read_bytes()
    dense = tmp_path / "dense"
    run(raw, dense, grid_format="dense", skip=["subject_1"])
    ours, theirs = open_grids(dense / "subject_2"), open_grids(finished / "subject_2")
    for a, b in zip(ours.index(), theirs.index(), strict=True):
        np.testing.assert_array_equal(a, b)
    with h5py.File(dense / "combined_metadata.h5") as file:
        assert file.attrs["format"] == "dense"


def test_skipped_subjects_are_said_and_left_alone(raw, tmp_path):
    summary = run(raw, tmp_path / "coo", skip=["subject_1"])
    assert [o.name for o in summary.outcomes] == ["subject_2"]
    assert not (tmp_path / "coo" / "subject_1").exists()
    assert "skipped: subject_1" in text(summary)
    run(raw, tmp_path / "coo", skip=["subject_2"])
    with h5py.File(tmp_path / "coo" / "combined_metadata.h5") as file:
        assert set(file) == {"subject_1", "subject_2"}


@pytest.fixture
def damaged(raw, tmp_path) -> Path:
    """Two good subjects among some that are broken each in its way."""
    folder = tmp_path / "damaged"
    shutil.copytree(raw, folder)
    shutil.copytree(raw / "subject_2", folder / "subject_cut")
    series = folder / "subject_cut" / "TimeSeries.h5"
    series.write_bytes(series.read_bytes()[:-5000])
    (folder / "subject_empty").mkdir()
    shutil.copytree(raw / "subject_2", folder / "subject_mixed")
    shutil.copy(raw / "subject_1" / "data_full.mat", folder / "subject_mixed" / "data_full.mat")
    with h5py.File(folder / "subject_mixed" / "TimeSeries.h5", "r+") as file:
        del file["absIX"]
    shutil.copytree(raw / "subject_2", folder / "subject_nan")
    with h5py.File(folder / "subject_nan" / "TimeSeries.h5", "r+") as file:
        file["CellResp"][...] = np.nan
    return folder


def test_broken_subjects_are_named_and_the_others_finish(damaged, tmp_path):
    out = tmp_path / "coo"
    summary = run(damaged, out)
    assert summary.exit_code == 1
    assert sorted(summary.values) == ["subject_1", "subject_2"]
    reasons = {o.name: o.reason or "" for o in summary.failures}
    assert set(reasons) == {"subject_cut", "subject_empty", "subject_mixed", "subject_nan"}
    assert "TimeSeries.h5: is cut short" in reasons["subject_cut"]
    assert "has no TimeSeries.h5 and no data_full.mat; put" in reasons["subject_empty"]
    assert "of the same recording" in reasons["subject_mixed"]
    assert "no finite frame" in reasons["subject_nan"]
    with h5py.File(out / "combined_metadata.h5") as file:
        assert set(file) == {"subject_1", "subject_2"}
    assert not [p for p in out.rglob("*") if ".part-" in p.name]
    shown = text(summary)
    assert all(name in shown for name in reasons)
    assert "cut short" in shown


def test_a_subject_that_fails_now_leaves_the_combined_file(raw, tmp_path):
    folder = tmp_path / "raw"
    shutil.copytree(raw, folder)
    run(folder, tmp_path / "coo")
    (folder / "subject_1" / "data_full.mat").unlink()
    assert run(folder, tmp_path / "coo").exit_code == 1
    with h5py.File(tmp_path / "coo" / "combined_metadata.h5") as file:
        assert set(file) == {"subject_2"}


def test_two_runs_on_one_output_folder_do_not_mix(raw, tmp_path):
    with folder_lock(tmp_path / "coo"), pytest.raises(BadInput, match="another run is writing it"):
        run(raw, tmp_path / "coo")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid_format": "csr"}, "grid_format: is 'csr'; give one of dense, coo"),
        ({"baseline": "ratio"}, "give one of auto, divide"),
        ({"sampling": "gauss"}, "bernoulli, poisson"),
        ({"threshold": 2}, "give one of 0, 1, null"),
        ({"align": "left"}, "centered, upstream"),
        ({"num_neurons": -1}, "give 0 or more"),
        ({"batch_size": 0}, "give 1 or more"),
        ({"split_guard_frames": -1}, "give 0 or more"),
        ({"split_ratio": 1.0}, "such as 0.95"),
        ({"baseline_percentile": 101}, "give 0 to 100"),
        ({"baseline_window_s": 0}, "positive"),
        ({"skip": ["subject_1", "subject_2"]}, "leaves no subject"),
        ({"skip": ["subject_9"]}, "skip=subject_9: is no subject here"),
        ({"workers": -1}, "workers: is -1; give 1 or more"),
        ({"seed": -1}, "seed: is -1; give 0 or more"),
        ({"neuropil": -0.5}, "give the share to subtract"),
    ],
)
def test_settings_without_sense_are_refused_before_any_work(raw, tmp_path, change, message):
    with pytest.raises(BadInput, match=message):
        run(raw, tmp_path / "coo", **change)
    assert not (tmp_path / "coo").exists()


def test_a_model_that_is_not_there_says_what_else_to_do(raw, tmp_path):
    models = tmp_path / "models"
    change = {"models_dir": str(models), "models_url": "http://127.0.0.1:9/"}
    with pytest.raises(BadInput) as caught:
        run(raw, tmp_path / "coo", engine="dense", cascade_model="No_such_model", **change)
    for what in (str(models), "cascade_model=embedded", "engine=oasis"):
        assert what in str(caught.value)


def test_a_folder_of_another_format_is_refused_and_its_combined_file_stays(raw, tmp_path):
    out = tmp_path / "grids"
    run(raw, out, skip=["subject_1"])
    before = (out / "combined_metadata.h5").read_bytes()
    for other in ("dense", "none"):
        with pytest.raises(BadInput, match=r"holds subject_2 of preprocess=cascade_coo.*choose another output_dir"):
            run(raw, out, grid_format=other)
    assert (out / "combined_metadata.h5").read_bytes() == before


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
    assert "resampled from 2.56 to 2 Hz" in " ".join(text(summary).split())
    with h5py.File(tmp_path / "coo" / "subject_3" / "preaugmented_grids_coo.h5") as file:
        assert file.attrs["sampling_rate"] == 2.56
        assert file["is_valid"][()].sum() > 100


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
    shown = " ".join(text(summary).split())
    assert "19 of 20 2,000 10 tau1.25s ΔF/F" in shown
    assert "0.7 of the neuropil" in shown
    assert "1 of 20 cells were left out: 1 F0 ≤ 0 (211)" in shown
    with h5py.File(tmp_path / "out" / "suite2p_plane" / "spikes.h5") as file:
        assert (file["spike_rate"].shape, file["spike_rate"].attrs["units"]) == ((20, 2000), "spikes per second")
        assert float(np.nansum(file["expected_spikes"][()], dtype=float)) == pytest.approx(856.07, abs=0.01)


def composed(repository: Path, *overrides: str):
    schema.register()
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        return compose("preprocess", overrides=list(overrides))


def test_the_command_line_of_the_specification_composes_and_runs(raw, tmp_path, repository):
    cfg = composed(
        repository,
        "preprocess=cascade_coo", f"input_dir={raw}", f"output_dir={tmp_path / 'out'}", "num_neurons=10",
        "batch_size=30000", "split_ratio=0.95", "workers=1", "seed=42", "cascade_model=tau2s", "engine=oasis",
        "skip=[subject_2]", f"cache_dir={tmp_path / 'cache'}", "figures=false",
    )  # fmt: skip
    assert OmegaConf.to_object(cfg).run().exit_code == 0
    assert (tmp_path / "out" / "subject_1" / "preaugmented_grids_coo.h5").is_file()


@pytest.mark.parametrize(
    ("step", "grid_format", "output"),
    [
        ("cascade_grid", "dense", "processed_spike_grids_2018"),
        ("cascade_coo", "coo", "processed_spike_grids_coo_2018"),
    ],
)
def test_both_steps_have_the_specified_defaults(repository, step, grid_format, output):
    cfg = composed(repository, f"preprocess={step}")
    assert (cfg.grid_format, cfg.output_dir, cfg.input_dir) == (grid_format, output, "raw_trace_data_2018")
    assert (cfg.num_neurons, cfg.batch_size, cfg.split_ratio, cfg.workers, cfg.seed) == (10, 30000, 0.95, 1, 42)
    assert cfg.cascade_model == "Global_EXC_2Hz_smoothing500ms"
    with pytest.raises(ConfigCompositionException, match="num_neuron"):
        composed(repository, f"preprocess={step}", "num_neuron=5")


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
    changes = {
        "engine": "dense",
        "cascade_model": model,
        "models_dir": str(models),
        "baseline": "none",
        "align": "upstream",
    }
    written = []
    for name, more in (("one", {}), ("two", {"workers": 2, "batch_size": 100})):
        summary = run(tmp_path / "raw", tmp_path / name / "coo", **changes, **more)
        assert summary.exit_code == 0
        assert "2 of 1005 cells were left out: 2 no finite frame" in " ".join(text(summary).split())
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


@pytest.mark.slow
def test_the_command_line_in_processes_of_its_own(raw, tmp_path, repository):
    """Twice, as the second process loads what Numba compiled in the first; with OASIS, which needs no model."""
    command = [
        sys.executable, "preprocess.py", "preprocess=cascade_grid",
        f"input_dir={raw}", f"output_dir={tmp_path / 'out'}",
        f"cache_dir={tmp_path / 'cache'}", "engine=oasis", "cascade_model=tau2s", "num_neurons=1",
    ]  # fmt: skip
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    for extra in ([], ["baseline_window_s=25", "workers=2"]):
        done = subprocess.run([*command, *extra], cwd=repository, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "2 subjects in combined_metadata.h5" in done.stdout
    broken = subprocess.run(
        [*command, "baseline=ratio"], cwd=repository, env=environment, capture_output=True, text=True
    )
    assert broken.returncode == 2
    assert "baseline: is 'ratio'; give one of auto, divide, subtract, none" in broken.stdout
