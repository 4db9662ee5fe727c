"""One subject's folder: a recording whose grids are known pixel by pixel, and every field of the files."""

import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from src.preprocess.calcium.expected_spikes import SPIKES_FILE, make_expected_spikes
from src.preprocess.calcium.grid_store import COO_FILE, DENSE_FILE, open_grids
from src.preprocess.calcium.sampling import SpikeSampler
from src.preprocess.calcium.subject_grids import EXPECTED, STEPS, make_rates
from src.recordings.calcium.sources import subject_files
from tests.preprocess.calcium.test_expected_spikes import PARAMS
from tests.preprocess.calcium.test_grid import grid_by_loop
from tests.recordings.calcium.test_recording import write_fish

make_coo, make_dense = STEPS["coo"].run, STEPS["dense"].run
GRID_PARAMS = {
    "subject": "subject_1", "sampling": "bernoulli", "z_markers": True, "split_ratio": 0.95, "split_block_frames": None,
    "split_guard_frames": None, "num_neurons": 1, "figures": False,
}  # fmt: skip

XYZ = np.array([[0, 0, 1], [100, 0, 1], [0, 50, 2], [50, 25, 2], [100, 50, 1], [0, 50, 1], [50, 25, 2]], float)
"""Rows 0, 255, 0, 127, 255, 0, 127 and columns 0, 0, 127, 63, 127, 127, 63; the last shares a pixel."""


def inferred(folder: Path, out: Path, **changes: Any) -> tuple[dict[str, Path], dict[str, Any]]:
    """Expected spikes of a subject, and the record that goes on to the grids."""
    out.mkdir(parents=True, exist_ok=True)
    params = PARAMS | changes
    facts = make_expected_spikes(subject_files(folder), params, out, None)
    upstream = facts | {"params": params}
    return subject_files(folder) | {EXPECTED: out / SPIKES_FILE}, upstream


def certain(tmp_path: Path, spikes: np.ndarray) -> tuple[dict[str, Path], dict[str, Any]]:
    """A subject whose spikes are certain: the expected counts are replaced by 0 and 1."""
    traces = 100 + np.random.default_rng(0).standard_normal(spikes.shape)
    inputs, upstream = inferred(write_fish(tmp_path / "subject_1", xyz=XYZ, response=traces.T), tmp_path / "expected")
    with h5py.File(inputs[EXPECTED], "r+") as file:
        file["expected_spikes"][...] = spikes
    return inputs, upstream


@pytest.mark.parametrize("markers", [True, False])
def test_a_hand_made_subject_has_the_grids_one_can_write_down(tmp_path, markers):
    spikes = np.zeros((7, 70), bool)
    spikes[0, 0] = spikes[1, 0] = spikes[2, 1] = spikes[3, 5] = spikes[6, 5] = spikes[4, 69] = spikes[5, 7] = True
    by_hand = {
        (0, 0, 0, 0), (0, 0, 255, 0), (1, 1, 0, 127), (5, 1, 127, 63), (69, 0, 255, 127), (7, 0, 0, 127),
    }  # fmt: skip
    if markers:
        by_hand |= {(t, 0, row, column) for t in range(70) for row in (0, 1) for column in (126, 127)}
        by_hand |= {(t, 1, row, column) for t in range(70) for row in (0, 1) for column in (125, 126, 127)}
    inputs, upstream = certain(tmp_path, spikes)
    params = GRID_PARAMS | {"z_markers": markers, "upstream": upstream, "split_guard_frames": 0}
    for make, name in ((make_dense, DENSE_FILE), (make_coo, COO_FILE)):
        out = tmp_path / name
        out.mkdir()
        facts = make(inputs, params, out, 42)
        grids = open_grids(out / name)
        assert {tuple(map(int, c)) for c in grids.read(0, 70).coords()} == by_hand
        np.testing.assert_array_equal(grids.read(0, 70).dense(), grid_by_loop(XYZ, spikes, markers))
        np.testing.assert_array_equal(grids.read(0, 70, markers=False).dense(), grid_by_loop(XYZ, spikes, False))
        assert facts["total_spikes"] == len(by_hand)
        assert facts["active_voxels"] == 6
        assert facts["cell_spikes"] == 7
        assert facts["density_percent"] == pytest.approx(100 * 6 / (70 * 2 * 256 * 128))
        assert facts["coo_bytes"] == 17 * len(by_hand)
        assert facts["dense_bytes"] == 70 * 2 * 256 * 128
        assert facts["marker_pixels_per_frame"] == (10 if markers else 0)


ATTRIBUTES = {
    "num_timepoints": 340, "subject": "subject_1", "cascade_model": "tau1.25s", "sampling_rate": 2.0,
    "window_sec": 30.0, "percentile": 8.0, "seed": 42, "split_ratio": 0.95, "split_block_frames": 17,
    "split_guard_frames": 43, "baseline": "divide", "sampling": "bernoulli", "z_markers": True, "threshold": 1,
    "align": "centered", "dff_scale": 1.0, "engine": "oasis", "frames_before": 43, "frames_after": 43, "neuropil": 0.7,
}  # fmt: skip


@pytest.mark.parametrize("sparse", [False, True])
def test_every_field_of_the_specification_is_there(raw, tmp_path, sparse):
    inputs, upstream = inferred(raw / "subject_2", tmp_path / "expected")
    make = make_coo if sparse else make_dense
    facts = make(inputs, GRID_PARAMS | {"upstream": upstream, "figures": True}, tmp_path, 42)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == sorted(
        ["metadata.h5", COO_FILE if sparse else DENSE_FILE, "subject_1_overview.pdf", "subject_1_visualization.pdf"]
    )
    with h5py.File(tmp_path / facts["grid_file"]) as file:
        names = {"grids"} if not sparse else {"spike_coords", "spike_values", "grid_shape", "indptr", "pixel"}
        common = {"timepoint_indices", "is_train", "is_test", "is_valid", "z_values", "spikes_under_markers"}
        assert set(file) == names | common
        assert {k: file.attrs[k] for k in ATTRIBUTES} == ATTRIBUTES
        planes = int(file.attrs["num_z_planes"])
        assert file["timepoint_indices"][()].tolist() == list(range(340))
        assert file["is_train"].dtype == file["is_test"].dtype == np.uint8
        # 340 frames are too few for blocks of 330: a block has the 5 % that split_ratio asks for.
        assert file["is_test"][()].sum() == 17
        assert file["is_train"][()].sum() == facts["train_frames"] >= 0.95 / 2 * 340
        assert "frames_after" in file.attrs["split_contract"]
        assert file["is_valid"][()].all()
        assert file.attrs["total_spikes"] == facts["total_spikes"] > 0
        assert file.attrs["sparsity_percent"] == pytest.approx(100 * facts["total_spikes"] / (340 * planes * 32768))
    with h5py.File(tmp_path / "metadata.h5") as file:
        assert (file["num_timepoints"][()], file["num_z_planes"][()]) == (340, planes)
        assert file["z_values"].shape == (planes,)
        assert file["train_timepoints"].dtype == file["test_timepoints"].dtype == np.int64
        assert (len(file["test_timepoints"]), len(file["train_timepoints"])) == (17, facts["train_frames"])
        assert file["is_train"].shape == (340,)
        assert (file.attrs["total_spikes"], file.attrs["num_cells"]) == (facts["total_spikes"], facts["num_cells"])
        assert file.attrs["grid_file_bytes"] == (tmp_path / facts["grid_file"]).stat().st_size
        assert {k: file.attrs[k] for k in ATTRIBUTES if k not in ("num_timepoints",)} | {
            "num_timepoints": 340
        } == ATTRIBUTES
        assert {
            len(file[k]) for k in ("cell_ids", "cell_row", "cell_column", "cell_plane", "noise_levels", "cell_state")
        } == {facts["num_cells"]}
    assert facts["notes"][-1] == "test blocks have 17 frames, not 330: the recording is short"
    assert facts["train_percent"] + facts["test_percent"] + facts["gap_percent"] == pytest.approx(100)


def test_spikes_on_the_grid_are_the_sampled_ones(raw, tmp_path):
    inputs, upstream = inferred(raw / "subject_1", tmp_path / "expected")
    make_coo(inputs, GRID_PARAMS | {"upstream": upstream, "sampling": "poisson"}, tmp_path, 7)
    with h5py.File(inputs[EXPECTED]) as file:
        ids, positions, expected = file["cell_ids"][()], file["positions"][()], file["expected_spikes"][()]
    spikes = SpikeSampler(7, "subject_1", "poisson").sample(expected, ids)
    grids = open_grids(tmp_path)
    np.testing.assert_array_equal(grids.read(100, 110).dense(), grid_by_loop(positions, spikes[:, 100:110], True))


def test_the_seed_changes_spikes_and_split_and_nothing_else(raw, tmp_path):
    inputs, upstream = inferred(raw / "subject_1", tmp_path / "expected")
    digests = []
    for k, seed in enumerate((42, 42, 43)):
        (tmp_path / str(k)).mkdir()
        make_coo(inputs, GRID_PARAMS | {"upstream": upstream}, tmp_path / str(k), seed)
        files = sorted(p for p in (tmp_path / str(k)).iterdir())
        digests.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
    assert digests[0] == digests[1]
    assert all(digests[0][name] != digests[2][name] for name in digests[0])


def test_golden_digest_moves_the_version(tmp_path):
    spikes = np.random.default_rng(0).random((7, 90)) < 0.2
    inputs, upstream = certain(tmp_path, spikes)
    params = GRID_PARAMS | {"upstream": upstream, "split_guard_frames": 0}
    make_coo(inputs, params, tmp_path, 42)
    make_dense(inputs, params, tmp_path, 42)
    coo, dense = open_grids(tmp_path / COO_FILE), open_grids(tmp_path / DENSE_FILE)
    digests = [hashlib.sha256(b"".join(a.tobytes() for a in grids.index())).hexdigest()[:16] for grids in (coo, dense)]
    assert (STEPS["coo"].version, STEPS["dense"].version, *digests) == (2, 2, "f09062d14f9a6f9c", "f09062d14f9a6f9c")


def test_no_figure_pages_are_asked_for(raw, tmp_path):
    inputs, upstream = inferred(raw / "subject_2", tmp_path / "expected")
    make_coo(inputs, GRID_PARAMS | {"upstream": upstream, "num_neurons": 0, "figures": True}, tmp_path, 1)
    assert (tmp_path / "subject_1_visualization.pdf").stat().st_size > 0


def test_rates_are_written_with_their_units(raw, tmp_path):
    inputs, upstream = inferred(raw / "subject_2", tmp_path / "expected")
    params = {"subject": "subject_1", "num_neurons": 1, "figures": True, "upstream": upstream}
    facts = make_rates(inputs, params, tmp_path, 1)
    with h5py.File(tmp_path / "spikes.h5") as file, h5py.File(inputs[EXPECTED]) as spikes:
        assert {name: file[name].attrs["units"] for name in ("dff", "spike_rate", "noise_levels", "time")} == {
            "dff": "fraction of F0", "spike_rate": "spikes per second", "noise_levels": "percent per sqrt(Hz)",
            "time": "seconds",
        }  # fmt: skip
        expected = spikes["expected_spikes"][()].astype(np.float32)
        np.testing.assert_array_equal(file["expected_spikes"][()], expected)
        np.testing.assert_array_equal(file["spike_rate"][()], 2 * expected)
        assert facts["mean_rate_hz"] == pytest.approx(2 * expected.mean(), rel=1e-5)
        assert file["dff"].shape == expected.shape
    lines = (tmp_path / "cells.csv").read_text().splitlines()
    assert lines[0] == "cell,state,noise_level_percent_per_sqrt_hz,mean_rate_hz"
    assert len(lines) == 1 + len(expected)
    assert (tmp_path / "subject_1_visualization.pdf").stat().st_size > 0


def test_a_far_cell_is_named_because_it_squeezes_the_grid(tmp_path):
    xyz = np.column_stack([np.linspace(0, 900, 20), np.linspace(0, 400, 20), np.ones(20)])
    xyz[4, 0] = 1e6
    traces = 100 + np.random.default_rng(0).standard_normal((20, 200))
    folder = write_fish(tmp_path / "subject_1", xyz=xyz, response=traces.T)
    inputs, upstream = inferred(folder, tmp_path / "expected")
    notes = make_coo(inputs, GRID_PARAMS | {"upstream": upstream}, tmp_path, 1)["notes"]
    assert any("cell 5 at 1e+06: the others have row 0 to 900, so they share 1 of 256 rows" in note for note in notes)
