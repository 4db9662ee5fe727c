import hashlib
from dataclasses import asdict

import numpy as np
import pytest

from src.preprocess.calcium.grid_index import read_grids
from src.preprocess.calcium.grid_store import COO_FILE
from src.signals import BadInput
from src.simulate.grids import SIMULATED_GRIDS, CellRates, ChainedActivity, read_positions
from src.storage.step import ensure
from tests.forecast_data import as_batch

BRAIN = ChainedActivity(cells=60, frames=400, planes=3, assemblies=4, chains=1, block_frames=80)


def made(tmp_path, seed=0, inputs=None):
    params = {"subject": "s", **asdict(BRAIN)}
    path = ensure(SIMULATED_GRIDS, inputs or {}, params, label="s", cache=tmp_path, seed=seed).path
    return read_grids(path / COO_FILE, "s")


def test_the_seed_alone_decides_and_a_change_of_output_moves_the_version(tmp_path):
    grids = made(tmp_path / "a")
    again = made(tmp_path / "b")
    np.testing.assert_array_equal(grids.voxel_index, again.voxel_index)
    assert not np.array_equal(grids.voxel_index, made(tmp_path / "a", seed=1).voxel_index)
    digest = hashlib.sha256(grids.indptr.tobytes() + as_batch(grids).pixel.tobytes()).hexdigest()[:16]
    assert (SIMULATED_GRIDS.version, digest) == (2, "03d71688c92326bd")


def test_every_cell_has_a_voxel_and_both_parts_of_the_split_have_frames(tmp_path):
    grids = made(tmp_path)
    assert grids.planes == 3
    assert 50 < len(grids.voxels) <= 60
    assert grids.is_train.any()
    assert grids.is_test.any()
    assert not (grids.is_train & grids.is_test).any()
    assert grids.fs_hz == 2.0
    assert grids.guard_frames == BRAIN.guard_frames
    assert grids.frames_after == 0


def test_events_call_the_next_assembly_of_their_chain_after_the_delay():
    brain = ChainedActivity(frames=4000, assemblies=5, chains=1, starts_per_minute=2.0, follow=1.0, duration_frames=2)
    rates = CellRates(np.random.default_rng(0).random((50, 3)), brain, np.random.default_rng(1))
    begins = np.diff(rates.events > 0, axis=1, prepend=False) & (rates.events > 0)
    follows = np.array([[(begins[a, :-3] & begins[b, 3:]).sum() for b in range(5)] for a in range(5)])
    share = follows / np.maximum(begins.sum(1, keepdims=True), 1)
    assert sorted(share.argmax(axis=1)) == [0, 1, 2, 3, 4]
    assert (share.max(axis=1) > 0.5).all()


def test_coordinates_of_a_file_are_taken_the_longer_axis_as_rows(tmp_path):
    path = tmp_path / "xyz.txt"
    np.savetxt(path, [[0, 10, 1], [5, 0, 2], [2, 20, 3]])
    found = read_positions(path, np.random.default_rng(0), 3)
    np.testing.assert_array_equal(found, [[10, 0, 1], [0, 5, 2], [20, 2, 3]])
    path.write_text("a b c")
    with pytest.raises(BadInput, match="no table of numbers"):
        read_positions(path, np.random.default_rng(0), 3)


def test_real_coordinates_give_a_brain(tmp_path, shared_data):
    places = shared_data / "zebrafish_whole_brain" / "fishexplorer" / "F12_XYZ_Xflipped_corrected.txt"
    grids = made(tmp_path, inputs={"positions": places})
    assert 50 < len(grids.voxels) <= 60
    assert grids.planes > 10
