"""What a subject's folder gets, made from its expected spikes in seconds: grids with figures, or spike rates.

All functions take ``params``, those of :class:`~src.preprocess.calcium.parameters.GridParams`, with ``subject`` and
``upstream``: the record of the step that made the expected spikes.
"""

import csv
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from src.preprocess.calcium.baseline import CELL_STATES, Baseline
from src.preprocess.calcium.expected_spikes import EXPECTED, baseline_of, open_files
from src.preprocess.calcium.grid import VoxelActivity, map_cells, position_notes
from src.preprocess.calcium.grid_store import (
    CONTRACT,
    COO_FILE,
    DENSE_FILE,
    METADATA_FILE,
    GridHeader,
    statistics,
    write_coo,
    write_dense,
    write_metadata,
)
from src.preprocess.calcium.sampling import SpikeSampler, seeded_rng, split_recording
from src.recordings.calcium.recording import CalciumRecording
from src.storage.hdf5 import AppendedColumn, reading, writing
from src.storage.step import CachedStep

UNITS = {
    "divide": ("fraction of F0", "ΔF/F"),
    "subtract": ("units of the trace", "F − F0"),
    "none": ("as in the source", "trace as given"),
}
"""Baseline → units of ``dff`` in the file, and the name of what a figure shows."""

RATES_FILE, CELLS_FILE = "spikes.h5", "cells.csv"
_CELLS_AT_ONCE, _RASTER_CELLS = 1024, 200
_HIDDEN = (
    "upstream", "baseline_window_s", "baseline_percentile", "need_positions", "fs_hz", "num_neurons", "figures",
)  # fmt: skip
"""Parameters that a file does not state, or states under the original's name."""


def make_rates(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    """Write ΔF/F, noise levels and spike rates of one subject, ``spikes.h5``, and a line per cell, ``cells.csv``."""
    upstream, (recording, baseline) = params["upstream"], _source(inputs, params)
    fs_hz = upstream["fs_hz"]
    units = {
        "dff": UNITS[baseline.mode][0], "expected_spikes": "spikes per frame", "spike_rate": "spikes per second",
        "noise_levels": "percent per sqrt(Hz)", "time": "seconds",
    }  # fmt: skip
    traced = list(units)[:3]
    with reading(inputs[EXPECTED]) as spikes, writing(out_dir / RATES_FILE) as file:
        columns = [AppendedColumn(file, name, np.float32, 64, width=recording.frames) for name in traced]
        parts = []
        for rows in recording.pieces():
            expected = spikes["expected_spikes"][rows[0] : rows[-1] + 1].astype(np.float32)
            arrays = baseline.dff(recording.traces(rows))[0], expected, expected * np.float32(fs_hz)
            for column, array in zip(columns, arrays, strict=True):
                column.append(array)
            sums, seen = np.nansum(expected, axis=1, dtype=float), np.isfinite(expected).sum(axis=1)
            parts.append(fs_hz * sums / np.where(seen, seen, np.nan))
        for column in columns:
            column.close()
        file["time"] = np.arange(recording.frames) / fs_hz
        for name in ("noise_levels", "cell_ids", "positions", "cell_state"):
            spikes.copy(name, file)
        for name, unit in units.items():
            file[name].attrs["units"] = unit
        file.attrs.update(_attributes(params))
        mean_rates = np.concatenate(parts)
        _write_cells(out_dir / CELLS_FILE, spikes, mean_rates)
        valid = spikes["is_predicted"][()]
    if params["figures"]:
        draw_subject(inputs, params, out_dir, int(seed or 0), (np.ones_like(valid), np.zeros_like(valid), valid))
    axes = {name: ["neuron", "time"] for name in traced}
    return {"axes": axes, "units": units, "mean_rate_hz": float(np.nanmean(mean_rates)), "notes": upstream["notes"]}


def make_grids(
    inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None, *, sparse: bool
) -> dict[str, Any]:
    """Sample spikes, put them on the grid, write everything a subject's folder holds."""
    subject, upstream, seed = params["subject"], params["upstream"], int(seed or 0)
    sampler = SpikeSampler(seed, subject, params["sampling"])
    with reading(inputs[EXPECTED]) as file:
        arrays = {name: file[name][()] for name in ("cell_ids", "noise_levels", "cell_state")}
        positions, is_valid = file["positions"][()], file["is_predicted"][()]
        cells = map_cells(positions, f"{subject}: CellXYZ")
        activity = VoxelActivity(cells, upstream["frames"])
        for first in range(0, len(positions), _CELLS_AT_ONCE):
            rows = slice(first, first + _CELLS_AT_ONCE)
            activity.add(first, sampler.sample(file["expected_spikes"][rows], arrays["cell_ids"][rows]))
    guard = params["split_guard_frames"]
    if guard is None:  # the farthest that one frame's spikes depend on
        guard = max(upstream["frames_before"], upstream["frames_after"])
    split, notes = split_recording(
        activity.frames, params["split_ratio"], seed, subject, guard, params["split_block_frames"]
    )
    header = GridHeader(
        is_train=split.is_train,
        is_test=split.is_test,
        is_valid=is_valid,
        z_values=cells.z_values,
        attributes=_attributes(params)
        | {
            "seed": seed,
            "split_guard_frames": split.guard_frames,
            "split_block_frames": split.block_frames,
            "split_contract": CONTRACT,
        },
    )
    if params["z_markers"]:
        header = replace(header, markers=True, spikes_under_markers=activity.spikes_under_markers())
    facts = statistics(activity, header)
    header = replace(header, attributes=header.attributes | facts)
    write, name = (write_coo, COO_FILE) if sparse else (write_dense, DENSE_FILE)
    write(out_dir / name, activity.batches(header.markers), header)
    facts |= {"train_frames": int(split.is_train.sum()), "test_frames": int(split.is_test.sum())} | split.shares()
    facts["grid_file_bytes"] = (out_dir / name).stat().st_size
    write_metadata(out_dir / METADATA_FILE, header, cells, arrays, facts)
    if params["figures"]:
        shown = facts | {"active_per_plane": activity.active_per_plane()}
        draw_subject(inputs, params, out_dir, seed, (split.is_train, split.is_test, is_valid), shown)
    return {
        "axes": {"grids": ["time", "plane", "row", "column"]},
        "shape": [header.frames, header.planes, 256, 128],
        "format": "COO_sparse" if sparse else "dense",
        "grid_file": name,
        "test_blocks": list(split.test_blocks),
        **facts,
        "notes": [*upstream["notes"], *position_notes(positions, arrays["cell_ids"], cells), *notes],
    }


STEPS = {
    "dense": CachedStep("cascade_grid", 2, partial(make_grids, sparse=False)),
    "coo": CachedStep("cascade_coo", 2, partial(make_grids, sparse=True)),
    "none": CachedStep("cascade_spikes", 1, make_rates),
}
"""``grid_format`` → the step that makes it."""


def _source(inputs: Mapping[str, Path], params: Mapping[str, Any]) -> tuple[CalciumRecording, Baseline]:
    """The recording whose inferred spikes are used, and the baseline that was chosen for it."""
    upstream = params["upstream"]
    recording = open_files(inputs, upstream["params"])
    return recording, baseline_of(upstream["params"], recording.fs_hz, upstream["baseline"]["mode"])


def _attributes(params: Mapping[str, Any]) -> dict[str, Any]:
    """What a file states of how it was made, in the original's names where it has one."""
    upstream = params["upstream"]
    inferred = upstream["params"]
    plain = {name: value for name, value in (inferred | dict(params)).items() if name not in _HIDDEN}
    plain |= {
        "cascade_model": upstream["engine"]["model"],
        "sampling_rate": upstream["fs_hz"],
        "window_sec": inferred["baseline_window_s"],
        "percentile": inferred["baseline_percentile"],
        "baseline": upstream["baseline"]["mode"],
        "frames_before": upstream["frames_before"],
        "frames_after": upstream["frames_after"],
    }
    return {name: "off" if value is None else value for name, value in plain.items()}


def _write_cells(path: Path, spikes: h5py.File, mean_rates: np.ndarray) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle)
        rows.writerow(["cell", "state", "noise_level_percent_per_sqrt_hz", "mean_rate_hz"])
        arrays = (spikes[name][()] for name in ("cell_ids", "cell_state", "noise_levels"))
        for number, state, level, rate in zip(*arrays, mean_rates, strict=True):
            rows.writerow([number, CELL_STATES[state], f"{level:.4g}", f"{rate:.4g}"])


def draw_subject(
    inputs: Mapping[str, Path],
    params: Mapping[str, Any],
    out_dir: Path,
    seed: int,
    frames: tuple[np.ndarray, np.ndarray, np.ndarray],
    facts: Mapping[str, Any] | None = None,
) -> None:
    """A page for each of ``num_neurons`` neurons that the seed chooses, and with ``facts`` one of the whole subject.

    ``frames`` are ``(time,)`` uint8: which train, which test, and which have inferred spikes.
    """
    from src.reports.calcium import FrameMarks, NeuronTraces, SubjectFigures, draw_neurons, draw_overview

    subject, (recording, baseline) = params["subject"], _source(inputs, params)
    sampler = SpikeSampler(seed, subject, params.get("sampling", "bernoulli"))
    marks, count = FrameMarks(recording.fs_hz, *frames), min(params["num_neurons"], recording.cells)
    rows = np.sort(seeded_rng(seed, subject, "figures").choice(recording.cells, count, replace=False))
    spread = np.unique(np.linspace(0, recording.cells - 1, min(_RASTER_CELLS, recording.cells)).astype(int))
    with reading(inputs[EXPECTED]) as file:
        levels = file["noise_levels"][()]
        raster = np.stack([file["expected_spikes"][row] for row in spread])
        expected = np.array([file["expected_spikes"][row] for row in rows], np.float32).reshape(-1, recording.frames)
    neurons = NeuronTraces(
        subject=subject,
        marks=marks,
        cell_ids=recording.cell_ids[rows],
        noise_levels=levels[rows],
        dff=baseline.dff(recording.traces(rows))[0] if count else expected,
        expected=expected,
        spikes=sampler.sample(expected, recording.cell_ids[rows]),
        units=UNITS[baseline.mode][1],
    )
    draw_neurons(out_dir / f"{subject}_visualization.pdf", neurons)
    if facts is None:
        return
    figures = SubjectFigures(
        subject=subject,
        marks=marks,
        positions=recording.positions,
        noise_levels=levels,
        available_levels=tuple(params["upstream"]["engine"].get("noise_levels", ())),
        raster=sampler.sample(raster, recording.cell_ids[spread]),
        facts=facts,
    )
    draw_overview(out_dir / f"{subject}_overview.pdf", figures)
