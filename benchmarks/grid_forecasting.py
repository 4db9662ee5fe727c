"""What forecasts grids best, for how much CPU: both networks, losses, the control, real coordinates, real populations.

``python -m benchmarks.grid_forecasting [--shared ../shared/data]`` trains each variant of the experiment
``grid_forecast`` on one core and prints a table of held-out scores. Positions of the real populations are
not published: their cells are put on a raster, so that only who fires when is real.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from scipy.io import loadmat, savemat

from src import schema
from src.preprocess.calcium.parameters import CalciumParams
from src.reports.tables import markdown_table
from src.runs.assemble import assemble

CONF = Path(__file__).resolve().parents[1] / "conf"
COORDINATES = "zebrafish_whole_brain/fishexplorer/F12_XYZ_Xflipped_corrected.txt"
BLOCKS = ("datamodule.split.method=blocks", "datamodule.split.gap_frames=16", "datamodule.split.val=0.2")


@dataclass(frozen=True)
class Population:
    """A real recording: file, rate, and the windows it is long enough for."""

    name: str
    file: str
    fs_hz: float
    context: int
    horizon: int


POPULATIONS = (
    Population("zebrafish pDp, 1005 cells, 35 s", "zf_pDp_7.5Hz_Calcium_traces_01.mat", 7.5, 8, 4),
    Population("mouse V1, 74 cells, 200 s", "allen_30Hz_Experiment_552195520_excerpt.mat", 30.0, 15, 8),
)


class BestOnValidation(pl.Callback):
    """Keep the weights of the epoch that was best on validation, as ``train.py`` does."""

    def __init__(self) -> None:
        self.score = -np.inf
        self.state: dict[str, torch.Tensor] = {}
        self.decision: dict[str, Any] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        score = float(trainer.callback_metrics.get("val/bits_per_spike", -np.inf))
        if not trainer.sanity_checking and score > self.score:
            self.score = score
            self.decision = deepcopy(pl_module.decision)  # type: ignore[arg-type]
            self.state = {name: value.clone() for name, value in pl_module.network.state_dict().items()}  # type: ignore[union-attr]


def scores(cache: Path, overrides: Sequence[str]) -> tuple[list[dict[str, Any]], float]:
    """Rows of the results table of one training, and the CPU seconds that it took."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["experiment=grid_forecast", f"cache_dir={cache}", *overrides])
    data, model = assemble(config)
    best = BestOnValidation()
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=config.trainer.max_epochs, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=1.0, callbacks=[best],
        default_root_dir=str(cache),
    )  # fmt: skip
    start = time.process_time()
    trainer.fit(model, data)
    seconds = time.process_time() - start
    model.network.load_state_dict(best.state)
    model.decision = best.decision
    trainer.test(model, data, verbose=False)
    return model.results(), seconds


def compare(name: str, cache: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """One row: the network's scores beside the baselines'."""
    results, seconds = scores(cache, overrides)
    found = {row["forecast"]: row for row in results}
    bits = {name: f"{row['bits/spike']:.3f}" for name, row in found.items()}
    return {
        "variant": name,
        "bits/spike": bits["model"],
        "persistence": bits["persistence"],
        "autoregression": bits["autoregression"],
        "linear population": bits["linear population"],
        "AP": f"{found['model']['AP']:.3f}",
        "AP autoregression": f"{found['autoregression']['AP']:.3f}",
        "AP linear population": f"{found['linear population']['AP']:.3f}",
        "AP mean rate": f"{found['mean rate']['AP']:.3f}",
        "CPU s": f"{seconds:.0f}",
    }


def population(given: Population, shared: Path, folder: Path) -> Path:
    """Grids of a real recording: OASIS for the spikes, a raster for the unknown positions."""
    traces = np.asarray(loadmat(shared / "calcium_populations" / given.file)["dF_traces"], np.float32)
    traces = traces[np.isfinite(traces).all(axis=1)]
    subject = folder / "raw" / "subject_1"
    subject.mkdir(parents=True)
    side = int(np.ceil(np.sqrt(len(traces))))
    number = np.arange(len(traces))
    places = np.column_stack([number // side, number % side, np.ones(len(traces))]).astype(float)
    data = {"CellXYZ": places, "IX_inval_anat": np.zeros((0, 1)), "fpsec": given.fs_hz}
    savemat(subject / "data_full.mat", {"data": {**data, "numcell_full": float(len(traces))}})
    with h5py.File(subject / "TimeSeries.h5", "w") as file:
        file["CellResp"], file["absIX"] = traces.T, (number + 1)[None].astype(float)
    summary = CalciumParams(
        grid_format="coo", input_dir=str(folder / "raw"), output_dir=str(folder / "grids"),
        cache_dir=str(folder / "cache"), seed=0, figures=False, cascade_model="tau0.7s", engine="oasis",
        fs_hz=given.fs_hz, baseline="none", z_markers=False,
    ).run()  # fmt: skip
    if summary.exit_code:
        raise SystemExit(str(summary.failures))
    return folder / "grids"


def main() -> None:
    parser = argparse.ArgumentParser(description="What forecasts grids best, for how much CPU.")
    parser.add_argument("--shared", type=Path, default=None, help="folder of real recordings")
    parser.add_argument("--populations", action="store_true", help="the real populations alone")
    given = parser.parse_args()
    torch.set_num_threads(1)
    schema.register()
    console, rows = Console(width=200), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        variants: list[tuple[str, list[str]]] = [
            ("grid_embedding (default)", []),
            ("grid_planes, 1 epoch", ["model=grid_planes", "trainer.max_epochs=1"]),
            ("Poisson loss", ["model.loss=poisson"]),
            ("active voxels count 5 ×", ["model.positive_weight=5.0"]),
            ("structure shuffled away", ["datamodule.split.shuffle=true"]),
        ]
        if given.shared is not None:
            places = given.shared.resolve() / COORDINATES
            variants.append(("real cell positions (F12)", [f"datamodule.simulated.positions={places}"]))
        for title, overrides in variants if not given.populations else []:
            rows.append(compare(title, folder, overrides))
            console.print(rows[-1])
        for number, recording in enumerate(POPULATIONS if given.shared is not None else ()):
            root = population(recording, given.shared, folder / str(number))
            frames = {"context": recording.context, "horizon": recording.horizon}
            windows = [f"datamodule.windows.{name}={value}" for name, value in frames.items()]
            rows.append(compare(recording.name, folder, [f"datamodule.root={root}", *windows, *BLOCKS]))
            console.print(rows[-1])
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
