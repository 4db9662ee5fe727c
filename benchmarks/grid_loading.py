"""Sparse grids against the dense file: frames per second, memory, sequences, subjects, waiting in training.

``python -m benchmarks.grid_loading`` simulates a subject of the size of a real one, writes its dense file
(gzip, a chunk per plane-frame) and reads the same windows from both. Times are CPU seconds of this process,
the best of several, so that other programs on the machine count little.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console

from src import schema
from src.datamodules.grids import GridWindows, PlaneSequences
from src.preprocess.calcium.grid_index import SubjectGrids, read_grids
from src.preprocess.calcium.grid_store import COO_FILE, DENSE_FILE, convert
from src.preprocess.calcium.grid_windows import WindowFrames, as_dense
from src.runs.assemble import assemble
from src.simulate.grids import ChainedActivity, make_simulated

CONTEXT, HORIZON, BATCH, LENGTH = 8, 8, 4, 330
FRAMES = WindowFrames(CONTEXT, 0, HORIZON)
PIXELS = 256 * 128
CONF = Path(__file__).resolve().parents[1] / "conf"


def timed(call: Callable[[], Any], repeats: int) -> float:
    """CPU seconds of one call, the fastest of ``repeats``."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def bytes_of(grids: SubjectGrids) -> int:
    """Memory that a subject's activity takes: its arrays, the places of its voxels."""
    return grids.indptr.nbytes + grids.voxel_index.nbytes + grids.voxels.nbytes + grids.pixels.nbytes


def dense_batch(path: Path, windows: np.ndarray, out: np.ndarray) -> torch.Tensor:
    """The reference: open the file, read the windows frame by frame into an array that is kept."""
    with h5py.File(path) as file:
        for i, (_, first) in enumerate(windows):
            for frame in range(CONTEXT):
                file["grids"].read_direct(out, np.s_[first + frame], np.s_[i, frame])
    return torch.from_numpy(out)


def loading(dense: Path, grids: SubjectGrids, console: Console) -> None:
    """Frames per second to a dense batch, memory, and sequences of plane-frames."""
    whole = [range(grids.frames)]
    windows = GridWindows([grids], [whole], FRAMES)
    chosen = np.random.default_rng(0).choice(len(windows), BATCH, replace=False).tolist()
    out = np.empty((BATCH, CONTEXT, grids.planes, 256, 128), np.uint8)
    expected = dense_batch(dense, windows.windows[chosen], out)

    def image() -> torch.Tensor:
        return as_dense(windows.__getitems__(chosen), [grids])

    assert torch.equal(image(), expected), "the two disagree"
    reference = timed(lambda: dense_batch(dense, windows.windows[chosen], out), 3)
    dense_s = timed(image, 9)
    index = timed(lambda: windows.__getitems__(chosen), 30)
    frames = BATCH * CONTEXT
    console.print(f"dense gzip file, frame by frame     {frames / reference:12,.0f} frames/s")
    console.print(
        f"index lists to a uint8 image        {frames / dense_s:12,.0f} frames/s  ×{reference / dense_s:,.1f}"
    )
    console.print(f"index lists alone                   {frames / index:12,.0f} frames/s  ×{reference / index:,.0f}")
    full, ours = grids.frames * grids.planes * PIXELS, bytes_of(grids)
    console.print(f"memory: dense {full / 1e6:,.0f} MB, index {ours / 1e6:,.1f} MB, 1/{full / ours:.0f}")
    batch = sum(t.numel() * t.element_size() for t in windows.__getitems__(chosen) if t is not None)
    console.print(f"a batch: uint8 image {expected.nbytes / 1e6:,.0f} MB, shipped {batch / 1e3:,.0f} kB")
    sequences = PlaneSequences([grids], [whole], length=LENGTH, stride=LENGTH)
    buffer = torch.empty(LENGTH, 256, 128, dtype=torch.uint8)
    lists = 1e3 * timed(lambda: sequences[1], 50)
    stack = 1e3 * timed(lambda: sequences.dense(1, markers=False, out=buffer), 30)
    console.print(f"{LENGTH} plane-frames: index list {lists:.3f} ms, uint8 images {stack:.3f} ms")


def subjects(grids: SubjectGrids, console: Console) -> None:
    """Frames per second of index lists drawn from one subject and from ten."""
    speeds = []
    raster = grids.raster(0, 200)
    for count in (1, 10):
        copies = [_part(grids, np.roll(raster, k, axis=0)) for k in range(count)]
        windows = GridWindows(copies, [[range(200)]] * count, FRAMES)
        drawn = np.random.default_rng(1).integers(0, len(windows), (40, 16)).tolist()
        seconds = timed(lambda windows=windows, drawn=drawn: [windows.__getitems__(batch) for batch in drawn], 5)  # type: ignore[misc]
        speeds.append(40 * 16 * (CONTEXT + HORIZON) / seconds)
    ratio = speeds[1] / speeds[0]
    console.print(f"index lists of 1 subject {speeds[0]:,.0f} frames/s, of 10 {speeds[1]:,.0f} frames/s: ×{ratio:.2f}")


def _part(grids: SubjectGrids, raster: np.ndarray) -> SubjectGrids:
    whole = np.zeros((grids.frames, len(grids.voxels)), bool)
    whole[: len(raster)] = raster
    return grids.with_raster(whole)


class Waiting(pl.Callback):
    """Time between the end of a step and the beginning of the next, and time in steps."""

    def __init__(self) -> None:
        self.waited = self.worked = self.ended = self.began = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.began = time.process_time()
        self.waited += self.began - self.ended if batch_idx else 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.ended = time.process_time()
        self.worked += self.ended - self.began


def waiting(cache: Path, console: Console) -> None:
    """Share of a training epoch of the default experiment that goes into getting batches."""
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["experiment=grid_forecast", f"cache_dir={cache}"])
    data, model = assemble(config)
    clock = Waiting()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[clock], default_root_dir=str(cache),
    )  # fmt: skip
    trainer.fit(model, data)
    seconds = (
        timed(lambda: [data.datasets["train"].__getitems__(list(range(k, k + 32))) for k in range(0, 1600, 32)], 3) / 50
    )
    steps = len(data.train_dataloader())
    share = seconds * steps / (clock.waited + clock.worked)
    console.print(f"training: making a batch takes {1e3 * seconds:.2f} ms, {share:.1%} of the time of a step")
    whole = clock.waited / (clock.waited + clock.worked)
    console.print(f"          between two steps (the trainer's own work included): {whole:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Sparse grids against the dense file.")
    parser.add_argument("--cells", type=int, default=80_000)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--planes", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=120, highlight=False)
    brain = ChainedActivity(
        cells=given.cells, frames=given.frames, planes=given.planes, assemblies=60, background_chance=0.015
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        facts = make_simulated({}, {"subject": "benchmark", **asdict(brain)}, path, 0)
        convert(path / COO_FILE, path / DENSE_FILE, sparse=False)
        sizes = [(path / name).stat().st_size / 1e6 for name in (COO_FILE, DENSE_FILE)]
        grids = read_grids(path / COO_FILE, "benchmark")
        console.print(
            f"{given.frames} frames × {given.planes} planes, {len(grids.voxels):,} occupied voxels, "
            f"{facts['density_percent']:.2f} % active; files: sparse {sizes[0]:.1f} MB, dense {sizes[1]:.1f} MB"
        )
        loading(path / DENSE_FILE, grids, console)
        subjects(grids, console)
        waiting(path, console)


if __name__ == "__main__":
    main()
