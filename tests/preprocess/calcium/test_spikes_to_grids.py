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
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich.console import Console
from scipy.io import loadmat, savemat
from scipy.ndimage import gaussian_filter1d

from src import schema
from src.preprocess.calcium import spikes_to_grids
from src.preprocess.calcium.grid_io import open_grids
from src.preprocess.cascade.inference import open_engine
from src.signals import BadInput
from src.storage.step import folder_lock
from tests.preprocess.calcium import standin

pytestmark = pytest.mark.usefixtures("engine")


def run(raw: Path, out: Path, **changes: object) -> spikes_to_grids.GridSummary:
    return spikes_to_grids.run(**standin.settings(raw, out, **changes))


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
    standin.install()
    out = tmp_path_factory.mktemp("finished") / "coo"
    assert run(raw, out).exit_code == 0
    standin.remove()
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


def test_a_second_run_computes_nothing_and_changes_nothing(raw, tmp_path, no_figures):
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
        ({"split_ratio": 0.5}, False),
        ({"sampling": "poisson"}, False),
        ({"z_markers": False}, False),
        ({"split_guard_frames": 0}, False),
        ({"baseline_window_s": 20.0}, True),
        ({"dff_scale": 0.5}, True),
    ],
)
def test_a_changed_setting_remakes_what_it_touches(raw, tmp_path, no_figures, change, infers):
    run(raw, tmp_path / "coo", skip=["subject_1"])
    before = data_files(tmp_path / "coo")
    (result,) = run(raw, tmp_path / "coo", skip=["subject_1"], **change).values.values()
    assert (result.inferred, result.gridded) == (infers, True)
    name = "subject_2/preaugmented_grids_coo.h5"
    assert data_files(tmp_path / "coo")[name] != before[name]


def test_workers_batches_and_formats_give_the_same_spikes(raw, tmp_path, finished, no_figures):
    many = tmp_path / "many" / "coo"
    assert run(raw, many, workers=3, batch_size=7, num_neurons=1).exit_code == 0
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


def test_skipped_subjects_are_said_and_left_alone(raw, tmp_path, no_figures):
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


def test_broken_subjects_are_named_and_the_others_finish(damaged, tmp_path, no_figures):
    out = tmp_path / "coo"
    summary = run(damaged, out)
    assert summary.exit_code == 1
    assert sorted(summary.values) == ["subject_1", "subject_2"]
    reasons = {o.name: o.reason or "" for o in summary.failures}
    assert set(reasons) == {"subject_cut", "subject_empty", "subject_mixed", "subject_nan"}
    assert "TimeSeries.h5: is cut short" in reasons["subject_cut"]
    assert "has no TimeSeries.h5 and no data_full.mat; put" in reasons["subject_empty"]
    assert "of the same recording" in reasons["subject_mixed"]
    assert "all NaN?" in reasons["subject_nan"]
    with h5py.File(out / "combined_metadata.h5") as file:
        assert set(file) == {"subject_1", "subject_2"}
    assert not [p for p in out.rglob("*") if ".part-" in p.name]
    shown = text(summary)
    assert all(name in shown for name in reasons)
    assert "cut short" in shown


def test_a_subject_that_fails_now_leaves_the_combined_file(raw, tmp_path, no_figures):
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
        ({"align": "left"}, "upstream, centered"),
        ({"num_neurons": -1}, "give 0 or more"),
        ({"batch_size": 0}, "give 1 or more"),
        ({"split_guard_frames": -1}, "give 0 or more"),
        ({"split_ratio": 1.0}, "such as 0.95"),
        ({"baseline_percentile": 101}, "give 0 to 100"),
        ({"baseline_window_s": 0}, "positive"),
        ({"skip": ["subject_1", "subject_2"]}, "leaves no subject"),
    ],
)
def test_settings_without_sense_are_refused_before_any_work(raw, tmp_path, change, message):
    with pytest.raises(BadInput, match=message):
        run(raw, tmp_path / "coo", **change)
    assert not (tmp_path / "coo").exists()


def test_a_model_that_is_not_there_says_where_to_put_it(raw, tmp_path, monkeypatch):
    models = tmp_path / "models"
    with pytest.raises(BadInput) as caught:
        run(raw, tmp_path / "coo", engine="dense", cascade_model="No_such_model", models_dir=str(models))
    assert str(models) in str(caught.value)


@pytest.mark.parametrize(
    "delay_s", [0.2, 0.8, *(pytest.param(d, marks=pytest.mark.slow) for d in (0.0, 0.1, 0.4, 0.6, 1.0, 1.3, 1.7, 2.2))]
)
def test_a_killed_run_is_finished_by_the_next_to_the_same_bytes(raw, tmp_path, finished, delay_s, repository):
    out = tmp_path / "coo"
    command = [sys.executable, "-m", "tests.preprocess.calcium.standin", str(raw), str(out)]
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
    assert run(raw, out).exit_code == 0
    assert data_files(out) == data_files(finished)
    assert not [p for p in tmp_path.rglob("*") if ".part-" in p.name]


def test_a_worker_that_is_killed_names_its_subject_and_the_others_finish(raw, tmp_path, no_figures, monkeypatch):
    monkeypatch.setattr(spikes_to_grids, "process_subject", die_on_subject_1)
    summary = run(raw, tmp_path / "coo", workers=2)
    assert list(summary.values) == ["subject_2"]
    assert "killed (out of memory?)" in (summary.failures[0].reason or "")


def die_on_subject_1(folder: Path, *others: object) -> spikes_to_grids.SubjectResult:
    if folder.name == "subject_1":
        os.kill(os.getpid(), signal.SIGKILL)
    return standin.process_subject(folder, *others)


def composed(repository: Path, *overrides: str):
    schema.register()
    with initialize_config_dir(str(repository / "conf"), version_base="1.3"):
        return compose("preprocess", overrides=list(overrides))


def test_the_command_line_of_the_specification_composes_and_runs(raw, tmp_path, repository, no_figures):
    cfg = composed(
        repository,
        "preprocess=cascade_coo", f"input_dir={raw}", f"output_dir={tmp_path / 'out'}", "num_neurons=10",
        "batch_size=30000", "split_ratio=0.95", "workers=1", "seed=42", "cascade_model=tau2s", "engine=oasis",
        "skip=[subject_2,subject_9]", f"cache_dir={tmp_path / 'cache'}",
    )  # fmt: skip
    arguments = {k: v for k, v in OmegaConf.to_container(cfg).items() if k not in ("only", "part", "parts")}
    summary = instantiate(arguments, _convert_="all")
    assert summary.exit_code == 0
    assert (tmp_path / "out" / "subject_1" / "preaugmented_grids_coo.h5").is_file()


@pytest.mark.parametrize(
    ("stage", "grid_format", "output"),
    [
        ("cascade_grid", "dense", "processed_spike_grids_2018"),
        ("cascade_coo", "coo", "processed_spike_grids_coo_2018"),
    ],
)
def test_both_stages_have_the_specified_defaults(repository, stage, grid_format, output):
    cfg = composed(repository, f"preprocess={stage}")
    assert (cfg.grid_format, cfg.output_dir, cfg.input_dir) == (grid_format, output, "raw_trace_data_2018")
    assert (cfg.num_neurons, cfg.batch_size, cfg.split_ratio, cfg.workers, cfg.seed) == (10, 30000, 0.95, 1, 42)
    assert cfg.cascade_model == "Global_EXC_2Hz_smoothing500ms"
    with pytest.raises(ConfigCompositionException, match="num_neuron"):
        composed(repository, f"preprocess={stage}", "num_neuron=5")


@pytest.mark.slow
def test_a_real_population_through_real_networks(shared_data, tmp_path, no_figures):
    """Zebrafish traces at cells of a real fish; the networks see the same whoever cuts the work into pieces."""
    standin.remove()
    traces = loadmat(shared_data / "calcium_populations" / "zf_pDp_7.5Hz_Calcium_traces_01.mat")["dF_traces"]
    fish = shared_data / "zebrafish_whole_brain" / "fishexplorer" / "F12_XYZ_Xflipped_corrected.txt"
    folder = tmp_path / "raw" / "subject_1"
    folder.mkdir(parents=True)
    savemat(folder / "data_full.mat", {"data": {"CellXYZ": np.loadtxt(fish)[::58][: len(traces)], "fpsec": 7.5}})
    with h5py.File(folder / "TimeSeries.h5", "w") as file:
        file["CellResp"] = traces.T.astype(np.float32)
    model = "OGB_zf_pDp_7.5Hz_smoothing200ms"
    models = shared_data / "cascade_models"
    changes = {"engine": "dense", "cascade_model": model, "models_dir": str(models), "baseline": "none"}
    written = []
    for name, more in (("one", {}), ("two", {"workers": 2, "batch_size": 100})):
        summary = run(tmp_path / "raw", tmp_path / name / "coo", **changes, **more)
        assert summary.exit_code == 0
        assert "2 of 1005 cells have gaps in every window" in text(summary)
        written.append((tmp_path / name / "coo" / "subject_1" / "preaugmented_grids_coo.h5").read_bytes())
    assert written[0] == written[1]
    reference = open_engine("neuralib", model, models_dir=models, fs_hz=7.5)
    (cached,) = (tmp_path / "one" / "cache").rglob("expected_spikes.h5")
    some = traces[100:140].astype(np.float32)
    with h5py.File(cached) as file:
        ours = file["expected_spikes"][100:140].astype(np.float32)
    theirs = reference.predict(some, reference.noise_levels(some))
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_embedded_model_finds_the_spikes_of_simulated_cells(raw, tmp_path, no_figures):
    """What ``make grids`` does, small: a model is trained, once, and sees what was simulated."""
    standin.remove()
    changes = {"engine": "dense", "cascade_model": "embedded", "models_dir": str(tmp_path / "models")}
    assert run(raw, tmp_path / "coo", **changes).exit_code == 0
    (cached,) = (tmp_path / "cache").rglob("subject_1-*/expected_spikes.h5")
    with h5py.File(cached) as file, h5py.File(raw / "subject_1" / "true_spikes.h5") as truth:
        expected, ids = file["expected_spikes"][:, 32:-32].astype(float), file["cell_ids"][()]
        counts = truth["spike_counts"][()][np.searchsorted(truth["cell_ids"][()], ids)]
    smooth = gaussian_filter1d(counts.astype(float), 1, axis=1)[:, 33:-31]  # upstream's output is a frame early
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
