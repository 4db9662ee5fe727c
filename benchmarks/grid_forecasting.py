"""What forecasts grids best: the forecasts that train.py chooses among, NLinear and a TSMixer, on every recording.

``python -m benchmarks.grid_forecasting [--shared ../shared/data] [--only NAME]`` trains the experiment
``grid_forecast`` on one core and prints held-out scores of each forecast. Cells of the real populations have no
published positions and are put on a raster; the regions of the whole brain lie where the atlas has them. Spikes are
inferred by OASIS, whose look-ahead is the gap between context and target.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from scipy.io import loadmat, savemat
from torch.nn import functional

from benchmarks.forecast_baselines import NETWORKS, trained, windows
from src import schema
from src.models.grids.forecaster import STEPS
from src.models.grids.linear import LINEAR, MODEL
from src.models.grids.scores import ForecastScores, row
from src.preprocess.calcium.grid import FrameBatch
from src.preprocess.calcium.grid_store import COO_FILE, METADATA_FILE, open_grids, write_coo
from src.preprocess.calcium.parameters import CalciumParams
from src.reports.tables import markdown_table
from src.runs.assemble import assemble

CONF = Path(__file__).resolve().parents[1] / "conf"
COORDINATES = "zebrafish_whole_brain/fishexplorer/F12_XYZ_Xflipped_corrected.txt"


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


def scores(cache: Path, overrides: Sequence[str]) -> tuple[Any, Any, float]:
    """The datamodule and the tested module of one training, and the CPU seconds that it took."""
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
    return data, model, seconds


def field_networks(data: Any) -> dict[str, dict[str, Any]]:
    """Scores of the field's networks on the same windows; one network per subject, chosen on validation."""
    frames = data.frames
    found = {name: ForecastScores(frames.horizon) for name in NETWORKS}
    for number, grids in enumerate(data.subjects):
        span = slice(*data.statistics()["offsets"][number : number + 2])
        rates = torch.from_numpy(data.statistics()["rates"][span])
        base, raster = torch.logit(rates, eps=1e-6), grids.raster(0, grids.frames)
        parts = []
        for part in ("train", "val", "test"):
            chosen = data.datasets[part].windows
            seen, truth = windows(raster, chosen[chosen[:, 0] == number, 1], frames)
            parts.append((seen - rates, truth))

        def loss(out: torch.Tensor, truth: torch.Tensor, base: torch.Tensor = base) -> torch.Tensor:
            return functional.binary_cross_entropy_with_logits(base + out, truth)

        for name, kind in NETWORKS.items():
            torch.manual_seed(0)
            network = trained(kind(frames, len(rates)), parts[0], parts[1], loss)
            seen, truth = parts[2]
            with torch.no_grad():
                logits = base + network(seen)
            found[name].update(logits, base, truth > 0.5, (seen[:, -1] + rates) > 0.5)
    return {name: row(scored, np.zeros(frames.horizon)) for name, scored in found.items()}


def compare(title: str, cache: Path, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """A row per forecast of one variant."""
    data, model, seconds = scores(cache, overrides)
    found = {result["forecast"]: result["per_step"][0] for result in model.results()} | field_networks(data)
    table = []
    for name in (*LINEAR, MODEL, *NETWORKS):
        scored = found[name]
        table.append(
            {
                "recording": f"{title} (gap {data.frames.gap})",
                "forecast": name,
                "used": "yes" if name == model.decision["forecast"] else "",
                "bits/spike": f"{np.mean(scored['bits']):.3f}",
                "AP": f"{np.mean(scored['average_precision']):.3f}",
                **{
                    f"MAE {step}": f"{scored['mae'][step - 1]:.4f}" if step <= data.frames.horizon else "–"
                    for step in STEPS
                },
                "over copy": f"{np.mean(scored['mse_over_copy']):.3f}",
                "CPU s": f"{seconds:.0f}" if name == MODEL else "",
            }
        )
    return table


@dataclass(frozen=True)
class Population:
    """A real recording: ``traces (cell, time)`` of ΔF/F, rate, model of OASIS, and where the cells lie."""

    traces: np.ndarray
    fs_hz: float
    model: str = "tau0.7s"
    places: np.ndarray | None = None

    def grids(self, folder: Path) -> Path:
        """Sparse grids, by OASIS; on a raster where positions are unknown."""
        count = len(self.traces)
        side = int(np.ceil(np.sqrt(count)))
        number = np.arange(count)
        raster = np.column_stack([number // side, number % side, np.ones(count)]).astype(float)
        subject = folder / "raw" / "subject_1"
        subject.mkdir(parents=True)
        data = {"CellXYZ": raster if self.places is None else self.places, "fpsec": self.fs_hz}
        savemat(subject / "data_full.mat", {"data": data})
        with h5py.File(subject / "TimeSeries.h5", "w") as file:
            file["CellResp"] = self.traces.T.astype(np.float32)
        summary = CalciumParams(
            grid_format="coo", input_dir=str(folder / "raw"), output_dir=str(folder / "grids"),
            cache_dir=str(folder / "cache"), seed=0, figures=False, cascade_model=self.model, engine="oasis",
            baseline="none", z_markers=False, split_ratio=0.5, split_guard_frames=0,
        ).run()  # fmt: skip
        if summary.exit_code:
            raise SystemExit(str(summary.failures))
        return folder / "grids" / "subject_1"


def fish(shared: Path, number: int) -> Population:
    """One of two recordings of the same 1003 cells of the telencephalon, 35 s each."""
    path = shared / "calcium_populations" / f"zf_pDp_7.5Hz_Calcium_traces_0{number}.mat"
    traces = np.asarray(loadmat(path)["dF_traces"], np.float32)
    return Population(traces[np.isfinite(traces).all(axis=1)], 7.5)


def mouse(shared: Path) -> Population:
    """74 cells of visual cortex, 200 s."""
    path = shared / "calcium_populations" / "allen_30Hz_Experiment_552195520_excerpt.mat"
    return Population(np.asarray(loadmat(path)["dF_traces"], np.float32), 30.0)


def whole_brain(shared: Path) -> Population:
    """70 regions at the centroids of one hemisphere; the rate is not published, 1 Hz stands for it."""
    folder = shared / "zebrafish_whole_brain" / "legare2025"
    traces = np.load(folder / "timeseries_regions_fish6.npy")
    alive = traces.std(axis=1) > 0
    places = np.load(folder / "region_centroids.npy")[: len(traces)][alive]
    # Slices of 20 atlas pixels are the planes; the longer horizontal axis is the row.
    return Population(
        traces[alive], 1.0, "tau2.0s_amplitude2.0", np.column_stack([places[:, 1], places[:, 0], places[:, 2] // 20])
    )


def joined(first: Path, second: Path, folder: Path) -> Path:
    """One grid file of two recordings of the same cells; frame numbers have a break between them."""
    folder.mkdir(parents=True)
    files = [open_grids(path) for path in (first, second)]
    (indptr, pixel), (more, others) = (file.index(markers=False) for file in files)
    one, two = (file.header for file in files)
    assert one.timepoint_indices is not None
    assert two.timepoint_indices is not None
    both: dict[str, Any] = {
        name: np.concatenate([getattr(one, name), getattr(two, name)]) for name in ("is_train", "is_test", "is_valid")
    }
    times = np.concatenate([one.timepoint_indices, two.timepoint_indices + 10_000])
    header = replace(one, timepoint_indices=times, **both)
    batch = FrameBatch(0, one.planes, np.concatenate([indptr, more[1:] + indptr[-1]]), np.concatenate([pixel, others]))
    write_coo(folder / COO_FILE, [batch], header)
    shutil.copy(first / METADATA_FILE, folder / METADATA_FILE)
    (folder / "conditions.csv").write_text(
        "first_frame,last_frame,condition\n0,9999,first recording\n10000,99999,second recording\n"
    )
    return folder


def real(shared: Path, folder: Path) -> dict[str, Callable[[], list[str]]]:
    """Overrides by recording; the grids are made when they are asked for."""
    blocks = ["datamodule.split.method=blocks", "datamodule.split.val=0.2"]

    def root(name: str, population: Population) -> str:
        return f"datamodule.root={population.grids(folder / name)}"

    def sized(context: int, horizon: int) -> list[str]:
        return [f"datamodule.windows.context={context}", f"datamodule.windows.horizon={horizon}"]

    def trials() -> list[str]:
        first, second = (fish(shared, number).grids(folder / f"trial{number}") for number in (1, 2))
        both = joined(first, second, folder / "both")
        split = {"method": "condition", "conditions": both / "conditions.csv", "held_out": "second recording"}
        options = [f"datamodule.split.{name}='{value}'" for name, value in split.items()]
        return [f"datamodule.root={both}", *options, "datamodule.split.block_frames=60", *sized(8, 8)]

    return {
        "fish pDp, 1003 cells, second recording held out": trials,
        "fish pDp, 1003 cells, 35 s": lambda: [
            root("fish", fish(shared, 1)), *blocks, "datamodule.split.val=0.25", "datamodule.split.test=0.25",
            *sized(8, 4),
        ],
        "mouse V1, 74 cells, 200 s": lambda: [root("mouse", mouse(shared)), *blocks, *sized(15, 32)],
        "fish whole brain, 70 regions, 892 frames": lambda: [
            root("brain", whole_brain(shared)), *blocks, *sized(12, 32),
        ],
        "simulated, real positions (F12)": lambda: [
            f"datamodule.simulated.positions={shared.resolve() / COORDINATES}",
        ],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="What forecasts grids best.")
    parser.add_argument("--shared", type=Path, default=None, help="folder of real recordings")
    parser.add_argument("--only", default="", help="recordings whose name contains this")
    parser.add_argument("--overrides", nargs="*", default=[], help="further overrides of the experiment")
    given = parser.parse_args()
    torch.set_num_threads(1)
    schema.register()
    console, table = Console(width=200), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        variants: dict[str, Callable[[], list[str]]] = {
            "simulated": list,
            "simulated, structure shuffled away": lambda: ["datamodule.split.shuffle=true"],
            **({} if given.shared is None else real(given.shared, folder)),
        }
        for title, overrides in variants.items():
            if given.only in title:
                table += compare(title, folder, [*overrides(), *given.overrides])
                console.print(table[-len(LINEAR) - 1 - len(NETWORKS) :])
    print(markdown_table(table))


if __name__ == "__main__":
    main()
