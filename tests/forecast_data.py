"""Small grids for the tests of forecasting."""

from pathlib import Path

import numpy as np

from src.datamodules.grids import GridData
from src.preprocess.calcium.grid import PIXELS, FrameBatch
from src.preprocess.calcium.grid_index import SubjectGrids
from src.preprocess.calcium.grid_store import GridHeader

WINDOWS = {"context": 8, "horizon": 4, "stride": 1, "held_out_stride": 2}
SPLIT = {"method": "recorded", "val": 0.2, "test": 0.2, "block_frames": 60}
SMALL = {"cells": 150, "planes": 4, "frames": 700, "assemblies": 6, "starts_per_minute": 6.0, "block_frames": 60}


def subject_grids(
    active, voxels, planes, *, name="fish", guard_frames=0, frames_after=0, timepoints=None, is_train=None
):
    """A subject with ``active (time, voxel)`` at ``voxels``."""
    frames = len(active)
    train = np.ones(frames, bool) if is_train is None else np.asarray(is_train, bool)
    empty = SubjectGrids(
        subject=name,
        planes=planes,
        fs_hz=2.0,
        indptr=np.zeros(frames * planes + 1, np.int64),
        voxel_index=np.zeros(0, np.uint16),
        voxels=np.asarray(voxels, np.int64),
        is_train=train,
        is_test=~train,
        is_valid=np.ones(frames, bool),
        timepoints=np.arange(frames) if timepoints is None else np.asarray(timepoints),
        z_values=np.arange(planes, dtype=float),
        guard_frames=guard_frames,
        frames_after=frames_after,
        source=Path(f"{name}.h5"),
    )
    return empty.with_raster(active)


def random_subject(seed, *, frames=60, planes=3, voxels=20, density=0.1, name="fish", **given):
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice(planes * PIXELS, voxels, replace=False))
    return subject_grids(rng.random((frames, voxels)) < density, places, planes, name=name, **given)


def header_of(grids, markers=False):
    return GridHeader(
        is_train=grids.is_train.astype(np.uint8),
        is_test=grids.is_test.astype(np.uint8),
        is_valid=grids.is_valid.astype(np.uint8),
        z_values=grids.z_values,
        markers=markers,
        timepoint_indices=grids.timepoints,
        attributes={"subject": grids.subject, "sampling_rate": 2.0}
        | ({} if grids.frames_after is None else {"frames_after": grids.frames_after}),
    )


def as_batch(grids):
    return FrameBatch(0, grids.planes, grids.indptr, grids.pixels[grids.voxel_index])


def grid_data(cache, **changes):
    """The datamodule on two small simulated brains of different depth."""
    arguments: dict = {
        "root": None,
        "simulated": {"seed": 0, "positions": None, "common": SMALL, "subjects": [{}, {"cells": 100, "planes": 2}]},
        "windows": WINDOWS,
        "split": SPLIT,
        "batch_size": 16,
        "execution": {"cache_dir": str(cache), "seed": 3},
    }
    return GridData(**(arguments | changes))
