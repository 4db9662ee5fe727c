"""One subject's grids from its expected spikes: sampling, gridding, split, files and figures.

Everything here is re-made in seconds from the cached expected spikes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from src.preprocess.calcium.block_split import block_split
from src.preprocess.calcium.expected_spikes import relative_traces
from src.preprocess.calcium.grid import VoxelActivity, map_cells
from src.preprocess.calcium.grid_io import COO_FILE, DENSE_FILE, GridHeader, write_coo, write_dense
from src.preprocess.calcium.grid_metadata import METADATA_FILE, statistics, write_metadata
from src.preprocess.calcium.sampling import SpikeSampler, stream
from src.recordings.calcium.recording import open_recording
from src.storage.step import CachedStep

EXPECTED = "expected_spikes"
"""Role of the expected spikes among the stage's inputs; all other roles are the recording's."""

_CELLS_AT_ONCE, _RASTER_CELLS = 1024, 200


def make_dense(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    """Write the dense grids, metadata and figures of one subject; see :func:`_make`."""
    return _make(inputs, params, out_dir, int(seed or 0), sparse=False)


def make_coo(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    """Write the sparse grids, metadata and figures of one subject; see :func:`_make`."""
    return _make(inputs, params, out_dir, int(seed or 0), sparse=True)


CASCADE_GRID = CachedStep("cascade_grid", 1, make_dense)
CASCADE_COO = CachedStep("cascade_coo", 1, make_coo)


def _make(
    inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int, *, sparse: bool
) -> dict[str, Any]:
    """Sample spikes, put them on the grid, write everything a subject's folder holds.

    ``params``: ``subject, sampling, z_markers, split_ratio, split_block_frames, split_guard_frames,
    num_neurons``, and ``upstream``: the record of the stage that made the expected spikes.
    """
    subject, upstream = params["subject"], params["upstream"]
    sampler = SpikeSampler(seed, subject, params["sampling"])
    with h5py.File(inputs[EXPECTED], "r") as file:
        expected, cell_ids = file["expected_spikes"], file["cell_ids"][()]
        cells = map_cells(file["positions"][()], f"{subject}: CellXYZ")
        activity = VoxelActivity(cells, expected.shape[1])
        for first in range(0, len(cell_ids), _CELLS_AT_ONCE):
            rows = slice(first, first + _CELLS_AT_ONCE)
            activity.add(first, sampler.sample(expected[rows], cell_ids[rows]))
        is_valid, levels = file["is_predicted"][()], file["noise_levels"][()]
    guard = params["split_guard_frames"]
    split = block_split(activity.frames, params["split_ratio"], seed, subject, guard, params["split_block_frames"])
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
        attributes=_attributes(params, upstream, seed),
    )
    facts = statistics(activity, cells, header)
    header = replace(header, attributes=header.attributes | facts)
    write, name = (write_coo, COO_FILE) if sparse else (write_dense, DENSE_FILE)
    write(out_dir / name, activity.batches(header.markers), header)
    facts |= {"train_frames": int(split.is_train.sum()), "test_frames": int(split.is_test.sum())}
    header = replace(header, attributes=header.attributes | {"grid_file_bytes": (out_dir / name).stat().st_size})
    arrays = {"cell_ids": cell_ids, "noise_levels": levels}
    write_metadata(out_dir / METADATA_FILE, header, cells, arrays, facts)
    shown = facts | {"active_per_plane": activity.active_per_plane()}
    _draw(inputs, params, out_dir, sampler, header, shown, stream(seed, subject, "figures"))
    notes = list(upstream["notes"])
    if not facts["train_frames"] or not facts["test_frames"]:
        notes.append(f"{facts['train_frames']} training and {facts['test_frames']} test frames: the recording is short")
    return {
        "axes": {"grids": ["time", "plane", "row", "column"]},
        "shape": [header.frames, header.planes, 256, 128],
        "format": "COO_sparse" if sparse else "dense",
        "grid_file": name,
        "grid_file_bytes": header.attributes["grid_file_bytes"],
        "test_blocks": list(split.test_blocks),
        **facts,
        "notes": notes,
    }


def _attributes(params: Mapping[str, Any], upstream: Mapping[str, Any], seed: int) -> dict[str, Any]:
    inferred = upstream["params"]
    plain = {
        "subject": params["subject"],
        "cascade_model": upstream["engine"]["model"],
        "sampling_rate": upstream["fs_hz"],
        "window_sec": inferred["baseline_window_s"],
        "percentile": inferred["baseline_percentile"],
        "baseline": upstream["baseline"]["mode"],
        "dff_scale": inferred["dff_scale"],
        "engine": inferred["engine"],
        "threshold": inferred["threshold"],
        "align": inferred["align"],
        "sampling": params["sampling"],
        "seed": seed,
        "split_ratio": params["split_ratio"],
        "split_block_frames": params["split_block_frames"],
        "split_guard_frames": params["split_guard_frames"],
    }
    return {name: "off" if value is None else value for name, value in plain.items()}


def _draw(
    inputs: Mapping[str, Path],
    params: Mapping[str, Any],
    out_dir: Path,
    sampler: SpikeSampler,
    header: GridHeader,
    facts: Mapping[str, Any],
    rng: np.random.Generator,
) -> None:
    from src.reports.calcium import SubjectFigures, draw_neurons, draw_overview

    subject, upstream = params["subject"], params["upstream"]
    files = {role: path for role, path in inputs.items() if role != EXPECTED}
    recording = open_recording(files, subject, upstream["params"]["fs_hz"])
    chosen = np.sort(rng.choice(recording.cells, min(params["num_neurons"], recording.cells), replace=False))
    with h5py.File(inputs[EXPECTED], "r") as file:
        expected = file["expected_spikes"]
        shown = np.stack([expected[row] for row in chosen]) if len(chosen) else np.empty((0, header.frames), np.float16)
        raster_rows = np.unique(np.linspace(0, recording.cells - 1, min(_RASTER_CELLS, recording.cells)).astype(int))
        raster = np.stack([expected[row] for row in raster_rows])
        levels = file["noise_levels"][()]
    ids = recording.cell_ids
    figures = SubjectFigures(
        subject=subject,
        fs_hz=recording.fs_hz,
        cell_ids=ids,
        positions=recording.positions,
        noise_levels=levels,
        available_levels=tuple(upstream["engine"].get("noise_levels", ())),
        raster=sampler.sample(raster, ids[raster_rows]),
        raster_rows=raster_rows,
        header=header,
        facts=dict(facts),
    )
    draw_overview(out_dir / f"{subject}_overview.pdf", figures)
    settled = upstream["params"] | {"baseline": upstream["baseline"]["mode"]}
    dff = relative_traces(recording, chosen, settled) if len(chosen) else np.empty((0, header.frames), np.float32)
    spikes = sampler.sample(shown, ids[chosen])
    draw_neurons(out_dir / f"{subject}_visualization.pdf", figures, chosen, dff, shown, spikes, settled["baseline"])
