"""Simulated grids with known structure in space and time, for forecasting: no fluorescence, no inference.

Cells lie in a brain (or at given coordinates) and belong to compact assemblies. An event makes an
assembly's cells likely to fire for some frames and, after a fixed delay, calls the next assembly of its
chain: who watches the whole brain knows who comes next, who watches one voxel does not. Underneath every
cell fires at a rate of its own.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.calcium.grid import VoxelActivity, map_cells
from src.preprocess.calcium.grid_store import COO_FILE, METADATA_FILE, GridHeader, statistics, write_coo, write_metadata
from src.preprocess.calcium.sampling import block_split, seeded_rng
from src.signals import BadInput, require_range
from src.simulate.calcium import brain_cells
from src.storage.foreign_files import explained
from src.storage.step import CachedStep

POSITIONS = "positions"
"""Role of a text file of coordinates among the step's inputs."""

_CELLS_AT_ONCE = 512


@dataclass(frozen=True)
class ChainedActivity:
    """Size and character of one simulated subject."""

    cells: int = 1200
    frames: int = 2400
    planes: int = 8  # ignored where coordinates are given
    fs_hz: float = 2.0  # volumes per second
    assemblies: int = 20  # groups of neighbouring cells
    chains: int = 2  # closed chains that the assemblies form
    starts_per_minute: float = 8.0  # events that begin on their own, over the whole brain
    delay_frames: int = 3  # after which an event calls the next one
    duration_frames: int = 4  # how long an event lasts at most; at least half of that
    follow: float = 0.88  # probability that an event calls the next
    event_chance: float = 0.35  # median probability per frame that a cell fires in an event of its assembly
    background_chance: float = 0.004  # and without
    split_ratio: float = 0.8  # these three: arguments of src.preprocess.calcium.sampling.block_split
    block_frames: int = 200
    guard_frames: int = 16

    def __post_init__(self) -> None:
        require_range("datamodule.simulated", 1, cells=self.cells, frames=self.frames, planes=self.planes)


def make_simulated(
    inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None
) -> dict[str, Any]:
    """Write sparse grids and ``metadata.h5`` of one simulated subject; see :class:`ChainedActivity` for ``params``."""
    params = dict(params)
    subject = str(params.pop("subject"))
    brain = ChainedActivity(**params)
    rng = seeded_rng(int(seed or 0), subject, "simulated grids")
    xyz = read_positions(inputs[POSITIONS], rng, brain.cells) if POSITIONS in inputs else None
    cells = map_cells(brain_cells(brain.cells, brain.planes, rng) if xyz is None else xyz, subject)
    rates = CellRates(np.column_stack([cells.row, cells.column, cells.plane]), brain, rng)
    activity = VoxelActivity(cells, brain.frames)
    for first in range(0, len(cells.row), _CELLS_AT_ONCE):
        chance = rates.of(slice(first, first + _CELLS_AT_ONCE))
        activity.add(first, rng.random(chance.shape, dtype=np.float32) < chance)
    split = block_split(
        brain.frames, brain.split_ratio, int(seed or 0), subject, brain.guard_frames, brain.block_frames
    )
    header = GridHeader(
        is_train=split.is_train,
        is_test=split.is_test,
        is_valid=np.ones(brain.frames, np.uint8),
        z_values=cells.z_values,
        attributes={
            "subject": subject,
            "simulated": True,
            "sampling_rate": brain.fs_hz,
            "split_guard_frames": brain.guard_frames,
            "frames_before": 0,  # spikes are drawn frame by frame, without fluorescence
            "frames_after": 0,
        },
    )
    facts = statistics(activity, header)
    write_coo(out_dir / COO_FILE, activity.batches(False), header)
    ids = {"cell_ids": np.arange(1, len(cells.row) + 1), "assembly": rates.member}
    write_metadata(out_dir / METADATA_FILE, header, cells, ids, facts)
    return {"axes": {"grids": ["time", "plane", "row", "column"]}, "simulated": asdict(brain), **facts}


SIMULATED_GRIDS = CachedStep("simulated_grids", 2, make_simulated)


def read_positions(path: Path, rng: np.random.Generator, cells: int) -> np.ndarray:
    """``(cell, 3)`` coordinates drawn from a text file of ``x y z``; the longer horizontal axis becomes the row."""
    with explained(path, "is no table of numbers", "give a text file with x y z per line"):
        xyz = np.loadtxt(path, dtype=np.float64, ndmin=2)
    if xyz.shape[1] != 3 or not np.isfinite(xyz).all() or not len(xyz):
        raise BadInput(path, f"has {xyz.shape[1]} columns", "give a text file with x y z per line")
    extent = np.ptp(xyz, axis=0)
    xyz = xyz[:, [1, 0, 2]] if extent[1] > extent[0] else xyz
    return xyz[np.sort(rng.choice(len(xyz), min(cells, len(xyz)), replace=False))]


class CellRates:
    """Chance of every cell to be active in every frame.

    ``member (cell,)`` is the number of its assembly, ``events (assembly, time)`` the strength of the event under way.
    """

    def __init__(self, positions: np.ndarray, brain: ChainedActivity, rng: np.random.Generator) -> None:
        count = min(brain.assemblies, len(positions))
        scaled = positions / np.maximum(positions.std(axis=0), 1e-9)
        centres = scaled[rng.choice(len(positions), count, replace=False)]
        self.member = np.argmin(((scaled[:, None] - centres[None]) ** 2).sum(-1), axis=1)
        self.event_chance = np.clip(brain.event_chance * rng.lognormal(0, 0.4, len(positions)), 0, 0.9)
        self.background = np.clip(brain.background_chance * rng.lognormal(0, 0.8, len(positions)), 0, 0.2)
        self.events = _chained_events(count, brain, rng)

    def of(self, rows: slice) -> np.ndarray:
        """``(cell, time)`` chance per frame."""
        event, quiet = self.event_chance[rows, None], self.background[rows, None]
        return quiet + (1 - quiet) * event * self.events[self.member[rows]]


def _chained_events(assemblies: int, brain: ChainedActivity, rng: np.random.Generator) -> np.ndarray:
    events = np.zeros((assemblies, brain.frames), np.float32)
    order = rng.permutation(assemblies)
    follower = np.empty(assemblies, np.int64)
    for chain in np.array_split(order, min(brain.chains, assemblies)):
        follower[chain] = np.roll(chain, -1)
    minutes = brain.frames / brain.fs_hz / 60
    for start in rng.integers(0, brain.frames, rng.poisson(brain.starts_per_minute * minutes) + 1):
        assembly, frame = int(rng.integers(assemblies)), int(start)
        while frame < brain.frames:
            length = int(rng.integers(brain.duration_frames // 2, brain.duration_frames + 1))
            stretch = events[assembly, frame : frame + max(length, 1)]
            np.maximum(stretch, rng.uniform(0.6, 1.0), out=stretch)
            if rng.random() > brain.follow:
                break
            assembly, frame = int(follower[assembly]), frame + brain.delay_frames
    return events
