"""The whole run over subjects: resuming, failing, killing, and what must leave no trace in the files."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from src.preprocess.calcium.grid_store import open_grids
from src.signals import BadInput
from src.storage.atomic import folder_lock
from tests.preprocess.calcium.conftest import data_files, run
from tests.tables import printed


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
            with h5py.File(finished / name / "metadata.h5") as own:
                assert set(group) == set(own)
                assert all(np.array_equal(group[field][()], own[field][()], equal_nan=True) for field in own)
                assert dict(own.attrs).items() <= dict(group.attrs).items()
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
    assert "kept" in printed(again.table())


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
    assert "skipped: subject_1" in printed(summary.table())
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
    shown = printed(summary.table())
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
        ({"baseline_percentile": 101}, "give percent"),
        ({"baseline_percentile": 0.08}, "give percent"),
        ({"baseline_window_s": 0}, "positive"),
        ({"skip": ["subject_1", "subject_2"]}, "leaves no subject"),
        ({"skip": ["subject_9"]}, "skip=subject_9: is no subject here"),
        ({"workers": -1}, "workers: is -1; give 1 or more"),
        ({"seed": -1}, "seed: is -1; give 0 or more"),
        ({"neuropil": -0.5}, "give the share to subtract"),
        ({"cascade_model": "auto"}, "is auto; engine=oasis needs no network but .* cascade_model=tau1.25s"),
    ],
)
def test_settings_without_sense_are_refused_before_any_work(raw, tmp_path, change, message):
    with pytest.raises(BadInput, match=message):
        run(raw, tmp_path / "coo", **change)
    assert not (tmp_path / "coo").exists()


def test_an_output_folder_with_other_files_is_refused_before_any_work(raw, tmp_path):
    for out in (raw.parent, raw / "subject_1", raw / "subject_1" / "subject_1.mat" / "out"):
        with pytest.raises(BadInput, match=r"already holds|lies in|is a file"):
            run(raw, out, cache_dir=str(tmp_path / "cache"))
    (tmp_path / "rates" / "subject_1").mkdir(parents=True)
    (tmp_path / "rates" / "subject_1" / "mine.txt").write_text("a")
    summary = run(raw, tmp_path / "rates", grid_format="none", skip=["subject_2"], cache_dir=str(tmp_path / "cache"))
    assert "already holds 'mine.txt'" in summary.failures[0].reason
    assert not (tmp_path / "cache").exists()


def test_a_folder_of_another_format_is_refused_and_its_combined_file_stays(raw, tmp_path):
    out = tmp_path / "grids"
    run(raw, out, skip=["subject_1"])
    before = (out / "combined_metadata.h5").read_bytes()
    for other in ("dense", "none"):
        with pytest.raises(BadInput, match=r"holds subject_2 of preprocess=cascade_coo.*choose another output_dir"):
            run(raw, out, grid_format=other)
    assert (out / "combined_metadata.h5").read_bytes() == before
