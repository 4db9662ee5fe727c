"""A whole-brain subject from traces to grids, part by part: CPU time, wall time, peak memory.

python -m benchmarks.calcium_end_to_end [--cells 50000] [--frames 3000] [--model embedded] [--folder DIR]

Real cell positions (``../shared/data/zebrafish_whole_brain``) where they are, else simulated ones; the
traces are simulated. Target: minutes, at most 3 GB. The reference is the original's way of handling the
same sizes, whose CPU time is measured on a part and scaled: a percentile per frame, CASCADE window by
window (``benchmarks.cascade_dense`` measures that ratio), Python loops over cells.
"""

import argparse
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baseline_percentile import loop_over_frames
from benchmarks.grid_building import FISH, loop_coo
from src.preprocess.calcium import baseline, expected_spikes, sampling, spikes_to_grids, subject_grids
from src.preprocess.calcium.grid import map_cells
from src.preprocess.calcium.parameters import CalciumParams
from src.preprocess.cascade.download import EMBEDDED
from src.recordings.calcium.recording import CalciumRecording
from src.recordings.calcium.sources import open_recording, subject_files
from src.simulate.calcium import SimulatedBrain, simulate_subject

spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])


@contextmanager
def clocked(name: str) -> Iterator[None]:
    cpu, wall = time.process_time(), time.perf_counter()
    yield
    spent[name][0] += time.process_time() - cpu
    spent[name][1] += time.perf_counter() - wall


def clock(owner: Any, attribute: str, name: str) -> None:
    """Count the time spent in a function, wherever the pipeline calls it."""
    plain: Callable[..., Any] = getattr(owner, attribute)

    def timed(*arguments: Any, **named: Any) -> Any:
        with clocked(name):
            return plain(*arguments, **named)

    setattr(owner, attribute, timed)


def instrument() -> None:
    clock(CalciumRecording, "traces", "reading traces")
    clock(baseline, "sliding_percentile", "baseline")
    clock(baseline, "trace_states", "states of the cells")
    clock(sampling.SpikeSampler, "sample", "sampling")
    clock(subject_grids.VoxelActivity, "add", "gridding")
    clock(subject_grids, "write_coo", "COO file")
    clock(subject_grids, "write_dense", "dense file")
    clock(subject_grids, "draw_subject", "figures")
    opened = expected_spikes.open_engine

    def engine(*arguments: Any, **named: Any) -> Any:
        with clocked("opening the model"):
            found = opened(*arguments, **named)
        if "predict" not in vars(found):
            clock(found, "predict", "CASCADE")
            clock(found, "noise_levels", "noise levels")
        return found

    expected_spikes.open_engine = engine


def process(grid_format: str, folder: Path, given: argparse.Namespace) -> spikes_to_grids.SubjectResult:
    params = CalciumParams(
        input_dir=str(folder / "raw"), output_dir=str(folder / grid_format), cache_dir=str(folder / "cache"),
        grid_format=grid_format, cascade_model=given.model, workers=given.workers, fs_hz=given.fs_hz,
    )  # fmt: skip
    params.models_dir = given.models_dir or params.models_dir
    summary = params.run()
    assert not summary.failures, summary.failures
    result: spikes_to_grids.SubjectResult = summary.values["subject_1"]
    return result


def reference(folder: Path) -> dict[str, float]:
    """CPU seconds of the original's way for the whole subject, from a part of it."""
    recording = open_recording(subject_files(folder), "subject_1")
    rows = np.arange(0, recording.cells, max(recording.cells // 256, 1))
    traces = recording.traces(rows)
    start = time.process_time()
    loop_over_frames(traces, baseline.window_frames(30, recording.fs_hz))
    percentile = (time.process_time() - start) * recording.cells / len(rows)
    frames = 10
    spikes = (np.random.default_rng(0).random((frames, recording.cells)) < 0.1).astype(np.int64)
    start = time.process_time()
    loop_coo(spikes, map_cells(recording.positions))
    return {
        "percentile per frame": percentile,
        "loops over cells": (time.process_time() - start) * recording.frames / frames,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--models_dir", default=None)
    parser.add_argument("--fs_hz", type=float, default=None)
    parser.add_argument("--workers", type=int, default=1, help="with more, the parts are not timed one by one")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; a temporary folder otherwise")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="calcium-"))
    positions = np.loadtxt(FISH) if FISH.is_file() else None
    if positions is not None:
        positions = positions[np.random.default_rng(0).permutation(len(positions))[: given.cells]]
    brain = SimulatedBrain(cells=given.cells, frames=given.frames, planes=30, invalid_share=0.0, unplaced_share=0.0)
    if not (folder / "raw" / "subject_1").exists():
        with clocked("simulating (not part of the chain)"):
            simulate_subject(folder / "raw" / "subject_1", brain, 0, positions)
        print(f"simulated {given.cells} cells × {given.frames} frames")
    instrument()
    with clocked("sparse, end to end"):
        sparse = process("coo", folder, given)
    with clocked("dense from the cache, end to end"):
        dense = process("dense", folder, given)
    print(f"\n{'part':40}{'CPU s':>10}{'wall s':>10}")
    for name, (cpu, wall) in spent.items():
        print(f"{name:40}{cpu:10.1f}{wall:10.1f}")
    print(f"\npeak memory: {sparse.peak_gb:.2f} GB after sparse, {dense.peak_gb:.2f} GB after dense grids")
    facts = sparse.facts
    print(f"{facts['active_voxels']:,} active voxels, {facts['density_percent']:.3f} % of the grid")
    print(f"files: COO {facts['grid_file_bytes'] / 1e6:,.0f} MB, dense {dense.facts['grid_file_bytes'] / 1e6:,.0f} MB")
    original = reference(folder / "raw" / "subject_1")
    ours = {
        "percentile per frame": spent["baseline"][0],
        "loops over cells": spent["gridding"][0] + spent["COO file"][0],
    }
    for name, seconds in original.items():
        print(
            f"original's {name}: {seconds:,.0f} CPU s, ours {ours[name]:.1f}: {seconds / max(ours[name], 1e-9):,.0f}×"
        )
    if given.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
