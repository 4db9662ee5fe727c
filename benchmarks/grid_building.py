"""Binary spikes to grids: Python loops as in the original pipeline, and ours; time, file sizes, bytes per spike.

python -m benchmarks.grid_building [--cells 50000] [--frames 1000] [--rate 0.1]

Uses the real cell positions of ``../shared/data/zebrafish_whole_brain`` where they are, else simulated ones.
Targets: at least 100 times the loops; at most 2 compressed bytes per spike in the index form.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from src.preprocess.calcium.grid import CellMap, FrameBatch, VoxelActivity, map_cells
from src.preprocess.calcium.grid_store import (
    COO_FILE,
    DENSE_FILE,
    GridFile,
    GridHeader,
    coo_to_dense_grid,
    open_grids,
    write_coo,
    write_dense,
)
from src.simulate.calcium import brain_cells

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
FISH = DATA / "zebrafish_whole_brain" / "fishexplorer" / "F12_XYZ_Xflipped_corrected.txt"


def loop_dense(spikes: np.ndarray, cells: CellMap) -> np.ndarray:
    """Time point by time point, plane by plane, cell by cell, then the marker."""
    grids = np.zeros((len(spikes), cells.planes, 256, 128), np.uint8)
    members = [np.flatnonzero(cells.plane == z) for z in range(cells.planes)]
    for t in range(len(spikes)):
        for z in range(cells.planes):
            for i in members[z]:
                if abs(spikes[t, i]) > 1e-6:
                    grids[t, z, cells.row[i], cells.column[i]] = 1
            grids[t, z, :2, 128 - (z + 2) :] = 1
    return grids


def loop_coo(spikes: np.ndarray, cells: CellMap) -> np.ndarray:
    """The same with a list of coordinates."""
    coords = []
    members = [np.flatnonzero(cells.plane == z) for z in range(cells.planes)]
    for t in range(len(spikes)):
        for z in range(cells.planes):
            for i in members[z]:
                if abs(spikes[t, i]) > 1e-6:
                    coords.append([t, z, cells.row[i], cells.column[i]])
            for row in range(2):
                for column in range(128 - (z + 2), 128):
                    coords.append([t, z, row, column])
    return np.array(coords, np.int32)


def loop_coo_to_dense(coords: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    grid = np.zeros(shape, np.uint8)
    for i in range(len(coords)):
        t, z, x, y = coords[i]
        grid[t, z, x, y] = 1
    return grid


def ours(by_cell: np.ndarray, cells: CellMap) -> tuple[VoxelActivity, list[FrameBatch]]:
    """From ``(cell, time)``, which is how spikes are sampled, in pieces as they come."""
    activity = VoxelActivity(cells, by_cell.shape[1])
    for first in range(0, by_cell.shape[0], 1024):
        activity.add(first, by_cell[first : first + 1024])
    return activity, list(activity.batches(markers=True))


def plane_images(batches: list[FrameBatch]) -> int:
    """Every plane-frame as an image in one reused buffer, which is how the dense file is written."""
    image, active = np.zeros(256 * 128, np.uint8), 0
    for batch in batches:
        for k in range(batch.frames * batch.planes):
            pixel = batch.pixel[batch.indptr[k] : batch.indptr[k + 1]]
            image[pixel] = 1
            active += int(image[0])
            image[pixel] = 0
    return active


def cpu(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    start = time.process_time()
    result = work(*arguments)
    return time.process_time() - start, result


def usual(work: Callable[..., Any], *arguments: Any) -> float:
    """CPU seconds of work too short to be measured once: the median of nine."""
    return statistics.median(cpu(work, *arguments)[0] for _ in range(9))


def touched(plane_frames: int) -> np.ndarray:
    """An image stack with nothing in it, every page of it written to."""
    empty = np.zeros(plane_frames * 256 * 128, np.uint8)
    empty[::4096] = 1
    return empty


def row(name: str, loops_s: float, ours_s: float, unit: str) -> None:
    print(f"{name:34}{loops_s:12.3f}{ours_s:12.3f} {unit}{loops_s / ours_s:12.0f}×")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=0.1, help="mean active share of a cell's frames")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    real = FISH.is_file()
    positions = np.loadtxt(FISH) if real else brain_cells(given.cells, 30, rng)
    positions = positions[rng.permutation(len(positions))[: given.cells]]
    cells = map_cells(positions)
    chance = np.minimum(rng.lognormal(np.log(given.rate) - 0.5, 1.0, len(positions)), 1).astype(np.float32)
    spikes = rng.random((given.frames, len(positions)), dtype=np.float32) < chance
    few = spikes[: max(given.frames // 100, 1)].astype(np.int64)
    scale = 1000 / len(few)
    source = "real positions of fish 12" if real else "simulated positions"
    print(
        f"{len(positions)} cells ({source}), {cells.planes} planes, {given.frames} frames, {spikes.mean():.3f} active"
    )
    print(f"{'CPU seconds per 1000 frames':34}{'loops':>12}{'ours':>12}{'ratio':>15}")

    coo_s, coo = cpu(loop_coo, few, cells)
    dense_s, dense = cpu(loop_dense, few, cells)
    ours_s, (activity, batches) = cpu(ours, np.ascontiguousarray(spikes.T), cells)
    coords_s, _ = cpu(lambda: [batch.coords() for batch in batches])
    images_s, _ = cpu(plane_images, batches)
    # Memory that this process has not had before is handed out first: what that costs is the machine's doing.
    fresh_s, _ = cpu(lambda: len([touched(batch.frames * batch.planes) for batch in batches]))
    stacks_s, _ = cpu(lambda: [batch.dense() for batch in batches])
    per_1000 = 1000 / given.frames
    row("sparse: coordinates", coo_s * scale, (ours_s + coords_s) * per_1000, "s")
    row("dense: plane by plane", dense_s * scale, (ours_s + images_s) * per_1000, "s")
    row("dense: all images in memory", dense_s * scale, (ours_s + stacks_s) * per_1000, "s")
    cold = f"{given.frames * cells.planes / 30518:.1f} GB that the machine has to find first cost {fresh_s:.2f} s more"
    print(f"  {cold}: {dense_s * scale / ((ours_s + stacks_s + fresh_s) * per_1000):.0f}×")
    back_s, _ = cpu(loop_coo_to_dense, coo, dense.shape)
    values = np.ones(len(coo), np.uint8)
    row("sparse to dense", back_s * scale, usual(coo_to_dense_grid, coo, values, dense.shape) * scale, "s")
    whole = np.concatenate([batch.coords() for batch in batches])
    whole_s, _ = cpu(coo_to_dense_grid, whole, np.ones(len(whole), np.uint8), (given.frames, *dense.shape[1:]))
    row(f"  all {given.frames} frames, 1 array", back_s * scale, whole_s * per_1000, "s")
    assert np.array_equal(coo_to_dense_grid(coo, values, dense.shape), dense)
    ours_few = np.concatenate([batch.coords() for batch in activity.batches(True, 8) if batch.first < len(few)])
    assert np.array_equal(ours_few[ours_few[:, 0] < len(few)], np.unique(coo, axis=0)), "the loops and ours disagree"
    files(activity, cells, given.frames)


def files(activity: VoxelActivity, cells: CellMap, frames: int) -> None:
    ones = np.ones(frames, np.uint8)
    for markers in (True, False):
        head = GridHeader(ones, ones, ones, cells.z_values, markers)
        with tempfile.TemporaryDirectory() as folder:
            dense_s, _ = cpu(write_dense, Path(folder, DENSE_FILE), activity.batches(markers), head)
            coo_s, entries = cpu(write_coo, Path(folder, COO_FILE), activity.batches(markers), head)
            dense_mb = Path(folder, DENSE_FILE).stat().st_size / 1e6
            with h5py.File(Path(folder, COO_FILE)) as file:
                sizes = {name: file[name].id.get_storage_size() for name in file}
            index_bytes = sizes["pixel"] + sizes["indptr"]
            print(f"\nfiles, {'with' if markers else 'without'} z-markers: {entries:,} entries")
            print(f"  dense {dense_mb:8.1f} MB in {dense_s:.1f} CPU s ({head.total_pixels / 1e6:,.0f} MB of pixels)")
            raw_mb = 17 * entries / 1e6
            print(f"  COO   {sum(sizes.values()) / 1e6:8.1f} MB in {coo_s:.1f} CPU s; uncompressed {raw_mb:,.1f} MB")
            per_entry = index_bytes / entries
            print(f"  index form (pixel + indptr) {index_bytes / 1e6:.1f} MB: {per_entry:.2f} bytes per entry")
            starts = range(0, frames - 11, 37)
            spent, _ = cpu(read_windows, open_grids(Path(folder, COO_FILE)), starts)
            print(f"  reading {11 * cells.planes} plane-frames from the COO file: {1000 * spent / len(starts):.2f} ms")


def read_windows(grids: GridFile, starts: range) -> None:
    for start in starts:
        grids.read(start, start + 11)


if __name__ == "__main__":
    main()
