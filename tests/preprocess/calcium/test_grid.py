"""Cells on the grid: positions known by hand, and the original's loops as reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.preprocess.calcium.grid import (
    HEIGHT,
    PIXELS,
    WIDTH,
    FrameBatch,
    VoxelActivity,
    map_cells,
    marker_mask,
    position_notes,
)
from src.signals import BadInput


def cells_by_loop(positions: np.ndarray) -> list[tuple[int, int, int]]:
    """Row, column, plane of every cell, computed one by one as the specification words it."""
    planes = sorted({round(float(z), 3) for z in positions[:, 2]})
    low, high = positions.min(axis=0), positions.max(axis=0)
    found = []
    for x, y, z in positions:
        row = int(np.floor((x - low[0]) / (high[0] - low[0]) * 255)) if high[0] > low[0] else 0
        column = int(np.floor((y - low[1]) / (high[1] - low[1]) * 127)) if high[1] > low[1] else 0
        found.append((row, column, planes.index(round(float(z), 3))))
    return found


def grid_by_loop(positions: np.ndarray, spikes: np.ndarray, markers: bool) -> np.ndarray:
    places = cells_by_loop(positions)
    planes = 1 + max(plane for _, _, plane in places)
    grid = np.zeros((spikes.shape[1], planes, 256, 128), np.uint8)
    for t in range(spikes.shape[1]):
        for cell, (row, column, plane) in enumerate(places):
            if spikes[cell, t]:
                grid[t, plane, row, column] = 1
        if markers:
            for plane in range(planes):
                grid[t, plane, 0:2, 128 - min(plane + 2, 128) :] = 1
    return grid


def simulated(seed: int, cells: int, frames: int, planes: int, density: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    columns = (rng.normal(0, 50, cells), rng.uniform(0, 9, cells), rng.integers(0, planes, cells) * 8.0)
    return np.column_stack(columns), rng.random((cells, frames)) < density


def test_corners_and_planes_by_hand():
    positions = np.array([[10, 5, 24], [20, 5, 8], [10, 9, 8], [20, 9, 16], [15, 7, 8.0004], [12.5, 6, 16]], float)
    cells = map_cells(positions)
    assert cells.z_values.tolist() == [8, 16, 24]
    assert cells.row.tolist() == [0, 255, 0, 255, 127, 63]
    assert cells.column.tolist() == [0, 0, 127, 127, 63, 31]
    assert cells.plane.tolist() == [2, 0, 0, 1, 0, 1]
    assert len(np.unique(cells.voxel)) == 6


def test_a_continuous_z_is_refused():
    positions = np.random.default_rng(0).random((2000, 3))
    with pytest.raises(BadInput, match="not a plane"):
        map_cells(positions, "data_full.mat")


def test_markers_grow_with_the_plane_in_the_top_right_corner():
    mask = marker_mask(140)
    assert mask[0].sum() == 4
    assert mask[0, :2, 126:].all()
    assert mask[1, :2, 125:].all()
    assert mask[1].sum() == 6
    assert mask[139].sum() == 256
    assert sum(int(mask[z].sum()) for z in range(20)) == 460
    assert sum(int(mask[z].sum()) for z in range(30)) == 990


@given(
    seed=st.integers(0, 10**6),
    cells=st.integers(1, 60),
    frames=st.integers(1, 40),
    planes=st.integers(1, 4),
    density=st.sampled_from([0.0, 0.05, 0.6]),
    markers=st.booleans(),
    size=st.sampled_from([8, 16, 256]),
    chunk=st.integers(1, 40),
)
@settings(max_examples=30, deadline=None)
def test_grids_equal_the_loops_of_the_specification(seed, cells, frames, planes, density, markers, size, chunk):
    positions, spikes = simulated(seed, cells, frames, planes, density)
    activity = VoxelActivity(map_cells(positions), frames)
    for first in range(0, cells, chunk):
        activity.add(first, spikes[first : first + chunk])
    truth, batches = grid_by_loop(positions, spikes, markers), list(activity.batches(markers, size))
    np.testing.assert_array_equal(np.concatenate([batch.dense() for batch in batches]), truth)
    # Sorted, and each once.
    np.testing.assert_array_equal(np.concatenate([batch.coords() for batch in batches]), np.argwhere(truth))


@pytest.mark.parametrize("size", [0, 4, 12])
def test_frames_come_in_whole_bytes(size):
    with pytest.raises(ValueError, match="multiple of 8"):
        next(VoxelActivity(map_cells(np.zeros((1, 3))), 20).batches(False, size))


def test_counts_tell_cells_voxels_and_markers_apart():
    positions = np.array([[0, 0, 1], [0, 0, 1], [9, 9, 1], [0, 9, 1]], float)
    spikes = np.array([[1, 0], [1, 1], [0, 0], [1, 0]], bool)
    activity = VoxelActivity(map_cells(positions), 2)
    activity.add(0, spikes)
    assert activity.cell_spikes == 4
    assert activity.active == 3
    assert activity.active_per_plane().tolist() == [3]
    # The fourth cell sits at row 0, column 127: under the marker of plane 0.
    assert activity.spikes_under_markers().tolist() == [127]
    assert sum(len(batch.pixel) for batch in activity.batches(True)) == activity.entries(True) == 2 * 4 + 2
    assert activity.entries(False) == 3


def test_a_batch_counts_its_frames_from_the_recordings_start():
    positions, spikes = simulated(3, 30, 24, 2, 0.3)
    activity = VoxelActivity(map_cells(positions), 24)
    activity.add(0, spikes)
    second = list(activity.batches(False, 8))[1]
    assert (second.first, second.frames, second.planes) == (8, 8, 2)
    assert set(second.coords()[:, 0]) <= set(range(8, 16))
    back = FrameBatch.from_flat(second.flat(), 8, 8, 2)
    np.testing.assert_array_equal(back.indptr, second.indptr)
    np.testing.assert_array_equal(back.pixel, second.pixel)
    assert second.flat().max() < 16 * 2 * PIXELS
    assert PIXELS == HEIGHT * WIDTH


def test_depths_in_metres_are_not_taken_for_one_plane_without_a_word() -> None:
    metres = np.column_stack([np.arange(6) * 1e-4, np.arange(6) * 1e-4, np.repeat([0, 2e-5, 4e-5], 2)])
    ids = np.arange(1, 7)
    (note,) = position_notes(metres, ids, map_cells(metres))
    assert "z takes 3 values within 4e-05" in note
    assert "micrometres" in note
    assert position_notes(metres * 1e6, ids, map_cells(metres * 1e6)) == []


def test_a_plane_for_every_cell_is_named():
    places = np.random.default_rng(0).uniform(0, 100, (40, 3))
    (note,) = position_notes(places, np.arange(40), map_cells(places))
    assert note.startswith("40 cells lie in 40 planes, because z takes as many values")
