"""What a subject's folder gets, made from its expected spikes in seconds: grids with figures, or spike rates."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from src.preprocess.calcium.expected_spikes import CELL_STATES, SpikeTask, dff_of, spike_task
from src.preprocess.calcium.grid import VoxelActivity, map_cells, outlier_note
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
from src.storage.hdf5 import AppendedColumn, reading, writing
from src.storage.step import CachedStep

EXPECTED = "expected_spikes"
"""Role of the expected spikes among the step's inputs; all other roles are the recording's."""

DFF_UNITS = {"divide": "fraction of F0", "subtract": "units of the trace", "none": "as in the source"}
RATES_FILE, CELLS_FILE = "spikes.h5", "cells.csv"
_CELLS_AT_ONCE, _RASTER_CELLS = 1024, 200


def make_dense(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    """Write the dense grids, metadata and figures of one subject; see :func:`_make`."""
    return _make(inputs, params, out_dir, int(seed or 0), sparse=False)


def make_coo(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    """Write the sparse grids, metadata and figures of one subject; see :func:`_make`."""
    return _make(inputs, params, out_dir, int(seed or 0), sparse=True)


def make_rates(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    """Write ΔF/F, noise levels and spike rates of one subject, ``spikes.h5``, and a line per cell, ``cells.csv``.

    ``params``: ``subject, num_neurons, figures`` and ``upstream``, the record of the expected spikes' step.
    """
    upstream, task = params["upstream"], _task(inputs, params)
    recording, fs_hz = task.recording(), upstream["fs_hz"]
    window, mode = task.window(recording.fs_hz), upstream["baseline"]["mode"]
    with reading(inputs[EXPECTED]) as spikes, writing(out_dir / RATES_FILE) as file:
        names = ("dff", "expected_spikes", "spike_rate")
        columns = {name: AppendedColumn(file, name, np.float32, 64, width=recording.frames) for name in names}
        means = []
        for first, traces in recording.blocks(_CELLS_AT_ONCE):
            expected = spikes["expected_spikes"][first : first + len(traces)].astype(np.float32)
            columns["dff"].append(dff_of(traces, task, window)[0])
            columns["expected_spikes"].append(expected)
            columns["spike_rate"].append(expected * np.float32(fs_hz))
            seen = np.isfinite(expected)
            sums = np.where(seen, expected, 0).sum(axis=1, dtype=float)
            means.append(fs_hz * sums / np.where(seen.any(axis=1), seen.sum(axis=1), np.nan))
        for column in columns.values():
            column.close()
        units = {"dff": DFF_UNITS[mode], "expected_spikes": "spikes per frame", "spike_rate": "spikes per second"}
        for name, unit in (units | {"noise_levels": "percent per sqrt(Hz)", "time": "seconds"}).items():
            if name not in file:
                file[name] = spikes[name][()] if name in spikes else np.arange(recording.frames) / fs_hz
            file[name].attrs["units"] = unit
        for name in ("cell_ids", "positions", "cell_state"):
            spikes.copy(name, file)
        file.attrs.update(_attributes(params, upstream))
        _write_cells(out_dir / CELLS_FILE, spikes, np.concatenate(means))
    if params["figures"]:
        _draw_rates(inputs, params, out_dir, recording.fs_hz, int(seed or 0))
    total = {"mean_rate_hz": float(np.nanmean(np.concatenate(means)))}
    return {"axes": {name: ["neuron", "time"] for name in names}, "units": units, **total, "notes": upstream["notes"]}


CASCADE_GRID = CachedStep("cascade_grid", 2, make_dense)
CASCADE_COO = CachedStep("cascade_coo", 2, make_coo)
CASCADE_SPIKES = CachedStep("cascade_spikes", 1, make_rates)
STEPS = {"dense": CASCADE_GRID, "coo": CASCADE_COO, "none": CASCADE_SPIKES}


def _make(
    inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int, *, sparse: bool
) -> dict[str, Any]:
    """Sample spikes, put them on the grid, write everything a subject's folder holds.

    ``params`` are those of :class:`~src.preprocess.calcium.parameters.GridParams`, ``subject``, and ``upstream``: the
    record of the step that made the expected spikes.
    """
    subject, upstream = params["subject"], params["upstream"]
    sampler = SpikeSampler(seed, subject, params["sampling"])
    with reading(inputs[EXPECTED]) as file:
        cells = map_cells(file["positions"][()], f"{subject}: CellXYZ")
        notes = upstream["notes"] + outlier_note(file["positions"][()], file["cell_ids"][()], cells)
        activity = VoxelActivity(cells, upstream["frames"])
        for first, expected, ids in _expected_blocks(file):
            activity.add(first, sampler.sample(expected, ids))
        arrays = {name: file[name][()] for name in ("cell_ids", "noise_levels", "cell_state")}
        is_valid = file["is_predicted"][()]
    split, more = split_recording(
        activity.frames, params["split_ratio"], seed, subject, _guard(params), params["split_block_frames"]
    )
    attributes = _attributes(params, upstream) | {
        "seed": seed,
        "split_guard_frames": split.guard_frames,
        "split_block_frames": split.block_frames,
        "split_contract": CONTRACT,
    }
    header = GridHeader(
        frames=activity.frames,
        planes=cells.planes,
        is_train=split.is_train,
        is_test=split.is_test,
        is_valid=is_valid,
        z_values=cells.z_values,
        spikes_under_markers=activity.spikes_under_markers() if params["z_markers"] else np.zeros(0, np.int64),
        markers=params["z_markers"],
        timepoint_indices=np.arange(activity.frames, dtype=np.int32),
        attributes=attributes,
    )
    facts = statistics(activity, cells, header)
    header = replace(header, attributes=header.attributes | facts)
    write, name = (write_coo, COO_FILE) if sparse else (write_dense, DENSE_FILE)
    write(out_dir / name, activity.batches(header.markers), header)
    facts |= {"train_frames": int(split.is_train.sum()), "test_frames": int(split.is_test.sum())} | split.shares()
    size = {"grid_file_bytes": (out_dir / name).stat().st_size}
    header = replace(header, attributes=header.attributes | size)
    write_metadata(out_dir / METADATA_FILE, header, cells, arrays, facts)
    if params["figures"]:
        draw_subject(inputs, params, out_dir, header, facts | {"active_per_plane": activity.active_per_plane()})
    return {
        "axes": {"grids": ["time", "plane", "row", "column"]},
        "shape": [header.frames, header.planes, 256, 128],
        "format": "COO_sparse" if sparse else "dense",
        "grid_file": name,
        **size,
        "test_blocks": list(split.test_blocks),
        **facts,
        "notes": notes + more,
    }


def _guard(params: Mapping[str, Any]) -> int:
    """Frames between training and test: the farthest that one frame's spikes depend on, unless given."""
    given, upstream = params["split_guard_frames"], params["upstream"]
    return max(upstream["frames_before"], upstream["frames_after"]) if given is None else int(given)


def _expected_blocks(file: h5py.File) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    ids = file["cell_ids"][()]
    for first in range(0, len(ids), _CELLS_AT_ONCE):
        rows = slice(first, first + _CELLS_AT_ONCE)
        yield first, file["expected_spikes"][rows], ids[rows]


def _task(inputs: Mapping[str, Path], params: Mapping[str, Any]) -> SpikeTask:
    """The inference whose result is used, with the baseline that it chose."""
    upstream = params["upstream"]
    files = {role: path for role, path in inputs.items() if role != EXPECTED}
    return spike_task(files, upstream["params"] | {"baseline": upstream["baseline"]["mode"]})


def _attributes(params: Mapping[str, Any], upstream: Mapping[str, Any]) -> dict[str, Any]:
    """What a file states of how it was made, in the original's names where it has one."""
    inferred = upstream["params"]
    renamed = {
        "cascade_model": upstream["engine"]["model"],
        "sampling_rate": upstream["fs_hz"],
        "window_sec": inferred["baseline_window_s"],
        "percentile": inferred["baseline_percentile"],
        "baseline": upstream["baseline"]["mode"],
        "frames_before": upstream["frames_before"],
        "frames_after": upstream["frames_after"],
    }
    hidden = (
        "upstream",
        "baseline_window_s",
        "baseline_percentile",
        "need_positions",
        "fs_hz",
        "num_neurons",
        "figures",
    )
    plain = {k: v for k, v in (inferred | dict(params)).items() if k not in hidden} | renamed
    return {name: "off" if value is None else value for name, value in plain.items()}


def _write_cells(path: Path, spikes: h5py.File, mean_rates: np.ndarray) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle)
        rows.writerow(["cell", "state", "noise_level_percent_per_sqrt_hz", "mean_rate_hz"])
        arrays = (spikes[name][()] for name in ("cell_ids", "cell_state", "noise_levels"))
        for number, state, level, rate in zip(*arrays, mean_rates, strict=True):
            rows.writerow([number, CELL_STATES[state], f"{level:.4g}", f"{rate:.4g}"])


def _draw_rates(inputs: Mapping[str, Path], params: Mapping[str, Any], out_dir: Path, fs_hz: float, seed: int) -> None:
    from src.reports.calcium import FrameMarks

    with reading(inputs[EXPECTED]) as file:
        valid = file["is_predicted"][()]
    marks = FrameMarks(fs_hz, np.ones_like(valid), np.zeros_like(valid), valid)
    _draw_neurons(inputs, params, out_dir, marks, SpikeSampler(seed, params["subject"]), seed)


def draw_subject(
    inputs: Mapping[str, Path], params: Mapping[str, Any], out_dir: Path, header: GridHeader, facts: Mapping[str, Any]
) -> None:
    """The page that shows the whole subject, and those of single neurons."""
    from src.reports.calcium import FrameMarks, SubjectFigures, draw_overview

    subject, recording = params["subject"], _task(inputs, params).recording()
    rows = np.unique(np.linspace(0, recording.cells - 1, min(_RASTER_CELLS, recording.cells)).astype(int))
    sampler = SpikeSampler(header.attributes["seed"], subject, params["sampling"])
    with reading(inputs[EXPECTED]) as file:
        raster, levels = np.stack([file["expected_spikes"][row] for row in rows]), file["noise_levels"][()]
    marks = FrameMarks(recording.fs_hz, header.is_train, header.is_test, header.is_valid)
    figures = SubjectFigures(
        subject=subject,
        marks=marks,
        positions=recording.positions,
        noise_levels=levels,
        available_levels=tuple(params["upstream"]["engine"].get("noise_levels", ())),
        raster=sampler.sample(raster, recording.cell_ids[rows]),
        facts=facts,
    )
    draw_overview(out_dir / f"{subject}_overview.pdf", figures)
    _draw_neurons(inputs, params, out_dir, marks, sampler, header.attributes["seed"])


def _draw_neurons(
    inputs: Mapping[str, Path],
    params: Mapping[str, Any],
    out_dir: Path,
    marks: Any,
    sampler: SpikeSampler,
    seed: int,
) -> None:
    """A page per neuron of ``num_neurons`` that the seed chooses."""
    from src.reports.calcium import NeuronTraces, draw_neurons

    subject, task = params["subject"], _task(inputs, params)
    recording = task.recording()
    draw = seeded_rng(seed, subject, "figures")
    rows = np.sort(draw.choice(recording.cells, min(params["num_neurons"], recording.cells), replace=False))
    shape, ids = (len(rows), recording.frames), recording.cell_ids[rows]
    with reading(inputs[EXPECTED]) as file:
        expected = np.array([file["expected_spikes"][row] for row in rows], np.float32).reshape(shape)
        levels = file["noise_levels"][()][rows]
    window = task.window(recording.fs_hz)
    neurons = NeuronTraces(
        subject=subject,
        marks=marks,
        cell_ids=ids,
        noise_levels=levels,
        dff=dff_of(recording.traces(rows), task, window)[0] if len(rows) else np.empty(shape, np.float32),
        expected=expected,
        spikes=sampler.sample(expected, ids),
        units={"divide": "ΔF/F", "subtract": "F − F0", "none": "trace as given"}[task["baseline"]],
    )
    draw_neurons(out_dir / f"{subject}_visualization.pdf", neurons)
