"""Simulated whole-brain subjects in the exact layout of the recordings, with the true spikes kept.

``python -m src.simulate.calcium --output_dir raw --subjects 2`` writes ``subject_1``,
``subject_2``, … . The brain is a union of ellipsoids in the proportions of a larval zebrafish; activity
comes in compact assemblies that call one another with a delay, over a background of sparse firing;
fluorescence has the rise, decay and saturation of a nuclear GCaMP, bleaching, slow drift and shot noise.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import savemat
from scipy.signal import lfilter

from src.storage.hdf5 import writing
from src.storage.output import OutputFolder

TRUE_SPIKES = "true_spikes.h5"
_BLOCK = 1024

# Centre and radii as fractions of (rostro-caudal, left-right, ventral-dorsal) extent; paired across the midline.
_REGIONS = (
    ((0.13, 0.44, 0.55), (0.11, 0.07, 0.28)),  # telencephalon
    ((0.25, 0.47, 0.86), (0.03, 0.03, 0.08)),  # habenula
    ((0.30, 0.43, 0.45), (0.10, 0.10, 0.25)),  # thalamus and pretectum
    ((0.36, 0.43, 0.16), (0.15, 0.08, 0.15)),  # hypothalamus
    ((0.38, 0.28, 0.68), (0.16, 0.20, 0.28)),  # optic tectum
    ((0.56, 0.38, 0.78), (0.05, 0.17, 0.17)),  # cerebellum
    ((0.66, 0.40, 0.42), (0.16, 0.14, 0.36)),  # rostral hindbrain
    ((0.86, 0.44, 0.38), (0.16, 0.07, 0.28)),  # caudal hindbrain
)


@dataclass(frozen=True)
class SimulatedBrain:
    """Size and character of one simulated subject."""

    cells: int = 2000
    frames: int = 1200
    fs_hz: float = 2.0  # volumes per second
    planes: int = 12  # slices; each holds the cells of its depth
    assemblies: int = 24  # groups of neighbouring cells that fire together
    rise_s: float = 0.25  # time constants of the indicator
    decay_s: float = 1.2
    amplitude: float = 0.16  # ΔF/F per spike
    saturation: float = 3.0  # ΔF/F at which the response is half of linear
    noise_level: float = 3.0  # median noise level ν (ΔF/F in percent per √Hz); cells scatter around it
    invalid_share: float = 0.01  # cells listed in IX_inval_anat
    unplaced_share: float = 0.002  # cells whose coordinates are NaN


def simulate_subject(folder: Path, brain: SimulatedBrain, seed: int, positions: np.ndarray | None = None) -> Path:
    """Write one subject: ``TimeSeries.h5``, ``data_full.mat`` and the truth in ``true_spikes.h5``.

    Everything drawn depends on the seed alone. An earlier simulation in ``folder`` is replaced. ``positions``,
    ``(cell, 3)`` coordinates, take the place of the simulated brain's ``brain.cells``.
    """
    rng = np.random.default_rng(seed)
    xyz = brain_cells(brain.cells, brain.planes, rng) if positions is None else np.array(positions, dtype=np.float64)
    total = len(xyz)
    rates = _Rates(xyz, brain, rng)
    invalid = np.sort(rng.choice(total, int(brain.invalid_share * total), replace=False)) + 1
    kept = np.setdiff1d(np.arange(1, total + 1), invalid)
    listed = xyz.copy()
    listed[rng.choice(total, int(brain.unplaced_share * total), replace=False)] = np.nan
    with OutputFolder(Path(folder).parent).folder(Path(folder).name) as part:
        data = {"CellXYZ": listed, "IX_inval_anat": invalid[:, None].astype(float), "fpsec": brain.fs_hz}
        savemat(part / "data_full.mat", {"data": {**data, "numcell_full": float(total)}})
        with (part / "data_full.mat").open("r+b") as header:
            header.write(b"MATLAB 5.0 MAT-file, simulated".ljust(116))  # savemat states the time of writing here
        with writing(part / "TimeSeries.h5") as series, writing(part / TRUE_SPIKES) as truth:
            response = series.create_dataset("CellResp", (brain.frames, len(kept)), np.float32)
            series["absIX"] = kept[None].astype(float)
            shape = (len(kept), brain.frames)
            counts = truth.create_dataset(
                "spike_counts", shape, np.uint8, chunks=(min(64, len(kept)), brain.frames), compression="gzip"
            )
            truth["cell_ids"] = kept
            truth.attrs.update(fs_hz=brain.fs_hz, units="spikes per frame")
            for first in range(0, len(kept), _BLOCK):
                rows = kept[first : first + _BLOCK] - 1
                # A generator per block: what a cell does depends on the seed and its number alone.
                draw = np.random.default_rng([seed, first])
                spikes = draw.poisson(rates.of(rows) / brain.fs_hz).clip(max=255).astype(np.uint8)
                counts[first : first + len(rows)] = spikes
                response[:, first : first + len(rows)] = fluorescence(spikes, brain, draw).T
    return Path(folder)


def brain_cells(cells: int, planes: int, rng: np.random.Generator) -> np.ndarray:
    """``(cell, 3)``: image row (rostral to caudal), image column (left to right), slice number from 1."""
    centres, radii = (np.array(part) for part in zip(*_REGIONS, strict=True))
    share = radii.prod(axis=1) / radii.prod(axis=1).sum()
    points = np.empty((0, 3))
    while len(points) < cells:
        region = rng.choice(len(_REGIONS), size=cells, p=share)
        direction = rng.standard_normal((cells, 3))
        direction *= (rng.random((cells, 1)) ** (1 / 3)) / np.linalg.norm(direction, axis=1, keepdims=True)
        drawn = centres[region] + radii[region] * direction
        mirrored = rng.random(cells) < 0.5
        drawn[mirrored, 1] = 1 - drawn[mirrored, 1]
        # The ventricle: a slit along the midline that widens towards the top of the hindbrain.
        slit = 0.004 + 0.05 * np.clip(drawn[:, 2] - 0.45, 0, None) * (drawn[:, 0] > 0.6)
        inside = (np.abs(drawn[:, 1] - 0.5) > slit) & ((drawn >= 0) & (drawn < 1)).all(axis=1)
        points = np.concatenate([points, drawn[inside]])
    points = points[:cells]
    scaled = np.column_stack([100 + points[:, 0] * 1850, 60 + points[:, 1] * 900, 1 + np.floor(points[:, 2] * planes)])
    return np.round(scaled)[np.argsort(scaled[:, 2], kind="stable")]


class _Rates:
    """Firing rates in Hz: a background of each cell's own and the events of its assembly."""

    def __init__(self, positions: np.ndarray, brain: SimulatedBrain, rng: np.random.Generator) -> None:
        count = min(brain.assemblies, len(positions))
        scale = np.nanstd(positions, axis=0)
        scaled = np.nan_to_num(positions / np.where(scale > 0, scale, 1))
        centres = scaled[rng.choice(len(positions), count, replace=False)]
        nearest = np.full(len(positions), np.inf)
        self.member = np.zeros(len(positions), np.int64)
        for number, centre in enumerate(centres):
            distance = np.linalg.norm(scaled - centre, axis=1)
            self.member[distance < nearest] = number
            nearest = np.minimum(nearest, distance)
        self.gain = rng.lognormal(0.0, 0.5, len(positions)) * np.exp(-(nearest**2) / 0.5)
        self.background = rng.lognormal(np.log(0.03), 0.8, len(positions))
        self.events = _event_chains(count, brain, rng)

    def of(self, rows: np.ndarray) -> np.ndarray:
        return self.background[rows, None] + self.gain[rows, None] * self.events[self.member[rows]]


def _event_chains(assemblies: int, brain: SimulatedBrain, rng: np.random.Generator) -> np.ndarray:
    """``(assembly, time)`` rate in Hz: an event lasts a few seconds and calls the next assembly after some."""
    events = np.zeros((assemblies, brain.frames))
    duration_s = brain.frames / brain.fs_hz
    follower = np.roll(rng.permutation(assemblies), 1)
    starts = rng.random((rng.poisson(assemblies * duration_s / 60) + 1,)) * duration_s
    for start in starts:
        assembly = int(rng.integers(assemblies))
        while start < duration_s:
            first, last = int(start * brain.fs_hz), int((start + rng.uniform(2, 6)) * brain.fs_hz) + 1
            events[assembly, first:last] += rng.uniform(1.0, 3.0)
            if rng.random() > 0.6:
                break
            assembly, start = int(follower[assembly]), start + rng.uniform(2.0, 4.0)
    return events


def fluorescence(spikes: np.ndarray, brain: SimulatedBrain, rng: np.random.Generator) -> np.ndarray:
    """``(neuron, time)`` spike counts per frame to float32 raw fluorescence, camera counts."""
    neurons, frames = spikes.shape
    rise, decay = np.exp(-1 / (brain.rise_s * brain.fs_hz)), np.exp(-1 / (brain.decay_s * brain.fs_hz))
    bound = lfilter([1 - rise], [1, -(rise + decay), rise * decay], spikes.astype(float), axis=1)
    linear = brain.amplitude * rng.lognormal(0, 0.2, (neurons, 1)) * bound
    relative = linear / (1 + linear / brain.saturation)
    # ν = 100 · median|Δ| / √fs, and the median absolute difference of white noise is 0.954 σ.
    level = brain.noise_level * rng.lognormal(0, 0.3, (neurons, 1))
    relative += level * np.sqrt(brain.fs_hz) / 95.4 * rng.standard_normal((neurons, frames))
    time_s = np.arange(frames) / brain.fs_hz
    bleaching = 1 + 0.2 * np.exp(-time_s / 300)
    phase, period = rng.uniform(0, 2 * np.pi, (neurons, 1)), rng.uniform(200, 600, (neurons, 1))
    drift = bleaching * (1 + 0.05 * np.sin(2 * np.pi * time_s / period + phase))
    resting = rng.lognormal(np.log(200), 0.4, (neurons, 1))
    return (resting * drift * (1 + relative)).astype(np.float32)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write simulated subjects in the layout of the recordings.")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder that gets subject_1, subject_2, …")
    defaults = {"subjects": 2, "cells": 2000, "frames": 1200, "fs_hz": 2.0, "planes": 12, "seed": 42}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    given = parser.parse_args(arguments)
    brain = SimulatedBrain(cells=given.cells, frames=given.frames, fs_hz=given.fs_hz, planes=given.planes)
    for number in range(1, given.subjects + 1):
        folder = simulate_subject(given.output_dir / f"subject_{number}", brain, seed=given.seed + number - 1)
        print(f"{folder}: {brain.cells} cells, {brain.frames} frames at {brain.fs_hz:g} Hz")


if __name__ == "__main__":
    main()
