import hashlib

import h5py
import numpy as np
import pytest

from src.preprocess.calcium.grid import PIXELS
from src.preprocess.calcium.grid_index import GRID_INDEX, find_grids, read_grids
from src.preprocess.calcium.grid_store import COO_FILE, DENSE_FILE, convert, write_coo
from src.signals import BadInput
from tests.forecast_data import as_batch, header_of, random_subject


@pytest.fixture(scope="module")
def fish():
    return random_subject(0, frames=12, planes=2, voxels=30, density=0.2)


@pytest.fixture(scope="module")
def written(fish, tmp_path_factory):
    path = tmp_path_factory.mktemp("grids") / "fish" / COO_FILE
    path.parent.mkdir()
    write_coo(path, [as_batch(fish)], header_of(fish))
    return path


def same(found, fish):
    np.testing.assert_array_equal(found.indptr, fish.indptr)
    np.testing.assert_array_equal(as_batch(found).pixel, as_batch(fish).pixel)


def test_sparse_and_dense_files_come_in_alike(written, fish, tmp_path):
    same(read_grids(written, "x"), fish)
    convert(written, tmp_path / DENSE_FILE, sparse=False)
    same(read_grids(tmp_path / DENSE_FILE, "x"), fish)
    assert read_grids(written, "x").subject == "fish"


def test_entries_and_raster_agree(fish):
    voxel_index, counts = fish.entries(3, 9)
    raster = fish.raster(3, 9)
    np.testing.assert_array_equal(raster.sum(1), counts)
    np.testing.assert_array_equal(np.nonzero(raster)[1], voxel_index)
    again = fish.with_raster(fish.raster(0, fish.frames))
    same(again, fish)


def test_occupied_voxels_are_those_with_cells(written, fish, tmp_path):
    with h5py.File(written.parent / "metadata.h5", "w") as file:
        file["cell_row"], file["cell_column"], file["cell_plane"] = [5], [7], [1]
    found = read_grids(written, "fish")
    (written.parent / "metadata.h5").unlink()
    assert PIXELS + 5 * 128 + 7 in found.voxels
    assert set(np.unique(fish.voxels)) >= set(found.voxels) - {PIXELS + 647}


def test_grids_are_found_in_files_folders_and_folders_of_folders(written, tmp_path):
    assert find_grids(written) == find_grids(written.parent) == find_grids(written.parent.parent) == {"fish": written}
    with pytest.raises(BadInput, match=r"holds no preaugmented_grids_coo.h5"):
        find_grids(tmp_path)
    with pytest.raises(BadInput, match="does not exist"):
        find_grids(tmp_path / "nowhere")


def test_a_change_of_output_moves_the_version(written):
    found = read_grids(written, "fish")
    arrays = (found.indptr, found.voxel_index, found.voxels)
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]
    assert (GRID_INDEX["version"], digest) == (4, "008a763be7e7ecae")
