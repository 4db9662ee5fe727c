"""What a forecast gains where nothing can be forecast: spikes independent in time and between cells.

``python -m benchmarks.grid_control`` sends such spikes through the whole chain (fluorescence, baseline, CASCADE,
grids, forecast) and prints bits per spike and average precision of every forecast, with the default gap between
context and target and without one. With the gap all have to be within 0.01 bits per spike of 0.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from scipy.io import savemat

from benchmarks.grid_forecasting import scores
from src import schema
from src.preprocess.calcium.parameters import CalciumParams
from src.reports.tables import markdown_table


def independent_spikes(folder: Path, *, cells: int, frames: int, fs_hz: float, seed: int) -> Path:
    """Write a recording of cells that fire independently: 2 % of frames, decay 0.8 s, noise, drifting brightness."""
    rng = np.random.default_rng(seed)
    spikes = rng.random((cells, frames)) < 0.02
    kernel = 0.5 * np.exp(-np.arange(60) / (0.8 * fs_hz))
    response = np.stack([np.convolve(row, kernel)[:frames] for row in spikes])
    response += 0.04 * rng.standard_normal(response.shape)
    resting = rng.uniform(80, 300, (cells, 1)) * (1 + 0.2 * np.sin(np.arange(frames) / 300))
    places = np.column_stack([rng.uniform(0, 900, cells), rng.uniform(0, 400, cells), rng.integers(1, 3, cells)])
    folder.mkdir(parents=True)
    data = {"CellXYZ": places.astype(float), "fpsec": fs_hz}
    savemat(folder / "data_full.mat", {"data": data})
    with h5py.File(folder / "TimeSeries.h5", "w") as file:
        file["CellResp"] = (resting * (1 + response)).astype(np.float32).T
    return folder.parent


def grids_of(raw: Path, folder: Path, **changes: Any) -> Path:
    """Sparse grids of the recordings below ``raw``, by the chain with its defaults but for ``changes``."""
    given: dict[str, Any] = {"cascade_model": "embedded", "seed": 0, "figures": False, "z_markers": False} | changes
    summary = CalciumParams(
        grid_format="coo", input_dir=str(raw), output_dir=str(folder / "grids"), cache_dir=str(folder / "cache"),
        models_dir=str(folder / "models"), **given,
    ).run()  # fmt: skip
    if summary.exit_code:
        raise SystemExit(str(summary.failures))
    return folder / "grids"


def control(folder: Path, root: Path, gap: int | None, *overrides: str) -> list[dict[str, Any]]:
    """A row per forecast of the grids below ``root``."""
    given = "null" if gap is None else str(gap)
    windows = [f"datamodule.root={root}", f"datamodule.windows.gap={given}", *overrides]
    found = scores(folder, windows)[1].results()
    label = "default" if gap is None else str(gap)
    shown = ("bits/spike", "AP", "over copy")
    return [
        {"gap": label, "forecast": row["forecast"], "used": row["used"], **{k: f"{row[k]:.4f}" for k in shown}}
        for row in found
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="What a forecast gains where nothing can be forecast.")
    parser.add_argument("--cells", type=int, default=80)
    parser.add_argument("--frames", type=int, default=2600)
    parser.add_argument("--fs_hz", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--cascade_model", default="embedded")
    given = parser.parse_args()
    torch.set_num_threads(1)
    schema.register()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = independent_spikes(
            folder / "raw" / "subject_1", cells=given.cells, frames=given.frames, fs_hz=given.fs_hz, seed=given.seed
        )
        root = grids_of(raw, folder, cascade_model=given.cascade_model)
        for gap in (None, 0):
            rows += control(folder, root, gap)
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
