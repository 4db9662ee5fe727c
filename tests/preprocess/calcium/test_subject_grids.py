"""One subject's folder: a recording whose grids are known pixel by pixel, and every field of the files."""

import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from src.preprocess.calcium.expected_spikes import SPIKES_FILE, make_expected_spikes
from src.preprocess.calcium.grid_io import COO_FILE, DENSE_FILE, open_grids
from src.preprocess.calcium.sampling import SpikeSampler
from src.preprocess.calcium.subject_grids import CASCADE_COO, CASCADE_GRID, EXPECTED, make_coo, make_dense
from src.recordings.calcium.recording import subject_files
from tests.preprocess.calcium.test_expected_spikes import PARAMS
from tests.preprocess.calcium.test_grid import grid_by_loop
from tests.recordings.calcium.test_recording import write_fish

pytestmark = pytest.mark.usefixtures("engine")

GRID_PARAMS = {
    "subject": "subject_1", "sampling": "bernoulli", "z_markers": True, "split_ratio": 0.95, "split_block_frames": 330,
    "split_guard_frames": 124, "num_neurons": 1,
}  # fmt: skip

XYZ = np.array([[0, 0, 1], [100, 0, 1], [0, 50, 2], [50, 25, 2], [100, 50, 1], [0, 50, 1], [50, 25, 2]], float)
"""Rows 0, 255, 0, 127, 255, 0, 127 and columns 0, 0, 127, 63, 127, 127, 63; the last shares a pixel."""


def inferred(folder: Path, out: Path, **changes: Any) -> tuple[dict[str, Path], dict[str, Any]]:
    """Expected spikes of a subject, and the record that goes on to the grids."""
    out.mkdir(parents=True, exist_ok=True)
    params = PARAMS | changes
    facts = make_expected_spikes(subject_files(folder), params, out, None)
    upstream = {name: facts[name] for name in ("engine", "baseline", "fs_hz", "notes")} | {"params": params}
    return subject_files(folder) | {EXPECTED: out / SPIKES_FILE}, upstream


def certain(tmp_path: Path, spikes: np.ndarray) -> tuple[dict[str, Path], dict[str, Any]]:
    """A subject whose spikes are certain: the expected counts are replaced by 0 and 1."""
    traces = 100 + np.random.default_rng(0).standard_normal(spikes.shape)
    inputs, upstream = inferred(write_fish(tmp_path / "subject_1", xyz=XYZ, response=traces.T), tmp_path / "expected")
    with h5py.File(inputs[EXPECTED], "r+") as file:
        file["expected_spikes"][...] = spikes
    return inputs, upstream


@pytest.mark.usefixtures("no_figures")
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
    params = GRID_PARAMS | {"z_markers": markers, "upstream": upstream}
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
    "num_timepoints": 340, "subject": "subject_1", "cascade_model": "standin", "sampling_rate": 2.0,
    "window_sec": 30.0, "percentile": 8.0, "seed": 42, "split_ratio": 0.95, "split_block_frames": 330,
    "split_guard_frames": 124, "baseline": "divide", "sampling": "bernoulli", "z_markers": True, "threshold": 1,
    "align": "upstream", "dff_scale": 1.0, "engine": "standin",
}  # fmt: skip


@pytest.mark.parametrize("make", [make_dense, make_coo])
def test_every_field_of_the_specification_is_there(raw, tmp_path, make):
    inputs, upstream = inferred(raw / "subject_2", tmp_path / "expected")
    facts = make(inputs, GRID_PARAMS | {"upstream": upstream}, tmp_path, 42)
    sparse = make is make_coo
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
        # 340 frames are one block of 330, which tests, and ten frames, which the gap swallows.
        assert file["is_test"][()].sum() == 330
        assert file["is_train"][()].sum() == 0
        assert file["is_valid"][()].tolist() == [0] * 32 + [1] * 276 + [0] * 32
        assert file.attrs["total_spikes"] == facts["total_spikes"] > 0
        assert file.attrs["sparsity_percent"] == pytest.approx(100 * facts["total_spikes"] / (340 * planes * 32768))
    with h5py.File(tmp_path / "metadata.h5") as file:
        assert (file["num_timepoints"][()], file["num_z_planes"][()]) == (340, planes)
        assert file["z_values"].shape == (planes,)
        assert file["train_timepoints"].dtype == file["test_timepoints"].dtype == np.int64
        assert len(file["test_timepoints"]) == 330
        assert len(file["train_timepoints"]) == 0
        assert file["is_train"].shape == (340,)
        assert (file.attrs["total_spikes"], file.attrs["num_cells"]) == (facts["total_spikes"], facts["num_cells"])
        assert file.attrs["grid_file_bytes"] == (tmp_path / facts["grid_file"]).stat().st_size
        assert {k: file.attrs[k] for k in ATTRIBUTES if k not in ("num_timepoints",)} | {
            "num_timepoints": 340
        } == ATTRIBUTES
        assert {len(file[k]) for k in ("cell_ids", "cell_row", "cell_column", "cell_plane", "noise_levels")} == {
            facts["num_cells"]
        }
    assert "0 training and 330 test frames" in facts["notes"][-1]


@pytest.mark.usefixtures("no_figures")
def test_spikes_on_the_grid_are_the_sampled_ones(raw, tmp_path):
    inputs, upstream = inferred(raw / "subject_1", tmp_path / "expected")
    make_coo(inputs, GRID_PARAMS | {"upstream": upstream, "sampling": "poisson"}, tmp_path, 7)
    with h5py.File(inputs[EXPECTED]) as file:
        ids, positions, expected = file["cell_ids"][()], file["positions"][()], file["expected_spikes"][()]
    spikes = SpikeSampler(7, "subject_1", "poisson").sample(expected, ids)
    grids = open_grids(tmp_path)
    np.testing.assert_array_equal(grids.read(100, 110).dense(), grid_by_loop(positions, spikes[:, 100:110], True))
    assert grids.read(0, 32, markers=False).pixel.size == 0


@pytest.mark.usefixtures("no_figures")
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


@pytest.mark.usefixtures("no_figures")
def test_golden_digest_moves_the_version(tmp_path):
    spikes = np.random.default_rng(0).random((7, 90)) < 0.2
    inputs, upstream = certain(tmp_path, spikes)
    make_coo(inputs, GRID_PARAMS | {"upstream": upstream}, tmp_path, 42)
    make_dense(inputs, GRID_PARAMS | {"upstream": upstream}, tmp_path, 42)
    coo, dense = open_grids(tmp_path / COO_FILE), open_grids(tmp_path / DENSE_FILE)
    digests = [hashlib.sha256(b"".join(a.tobytes() for a in grids.index())).hexdigest()[:16] for grids in (coo, dense)]
    assert (CASCADE_COO.version, CASCADE_GRID.version, *digests) == (1, 1, "f09062d14f9a6f9c", "f09062d14f9a6f9c")


def test_no_figure_pages_are_asked_for(raw, tmp_path):
    inputs, upstream = inferred(raw / "subject_2", tmp_path / "expected")
    make_coo(inputs, GRID_PARAMS | {"upstream": upstream, "num_neurons": 0}, tmp_path, 1)
    assert (tmp_path / "subject_1_visualization.pdf").stat().st_size > 0
