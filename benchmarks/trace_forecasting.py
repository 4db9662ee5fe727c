"""Forecasts of fluorescence traces by the protocol of ZAPBench and POCO: error per frame ahead, beside a copy.

``python -m benchmarks.trace_forecasting --shared ../shared/data`` fits every model on training frames, chooses its
penalty or epoch on validation frames and prints the mean absolute error (MAE) on held-out frames at 1, 8 and 32
frames ahead, over all channels, each divided by its standard deviation in the training frames, and 1 − MAE / MAE(copy)
and 1 − MSE / MSE(copy) over all 32 frames, where copy is the last context frame. Contexts do not cross parts.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from scipy.io import loadmat
from torch import Tensor
from torch.nn import functional

from benchmarks.forecast_baselines import NETWORKS, autoregression, linear_population, trained, windows
from src.datamodules.splits import split_blocks
from src.preprocess.calcium.grid_windows import WindowFrames
from src.reports.tables import markdown_table

FRAMES = WindowFrames(16, 0, 32)
STEPS = (1, 8, 32)
_FISH = "calcium_populations/zf_pDp_7.5Hz_Calcium_traces_0{}.mat"
_MOUSE = "calcium_populations/allen_30Hz_Experiment_552195520_excerpt.mat"
_REGIONS = "zebrafish_whole_brain/legare2025/timeseries_regions_fish6.npy"
GAP = 16


@dataclass(frozen=True)
class Traces:
    """``series (time, channel)`` and the stretches of its parts."""

    name: str
    series: np.ndarray
    train: list[range]
    val: list[range]
    test: list[range]

    def normalized(self) -> np.ndarray:
        """Every channel in deviations from its mean over the training frames."""
        known = np.concatenate([self.series[run.start : run.stop] for run in self.train])
        deviation = known.std(axis=0)
        alive = deviation > 1e-9
        found: np.ndarray = (self.series[:, alive] - known.mean(axis=0)[alive]) / deviation[alive]
        return found


def in_blocks(name: str, series: np.ndarray) -> Traces:
    """Three consecutive blocks of one recording."""
    series = series[:, np.isfinite(series).all(axis=0)]
    parts = split_blocks(len(series), val=0.2, test=0.2, gap=GAP)
    return Traces(name, series, *([parts[part]] for part in ("train", "val", "test")))


def recordings(shared: Path) -> list[Traces]:
    """Real populations; of the fish also one whose second recording is held out as a condition."""
    fish = [np.asarray(loadmat(shared / _FISH.format(k))["dF_traces"], np.float32).T for k in (1, 2)]
    mouse = np.asarray(loadmat(shared / _MOUSE)["dF_traces"], np.float32).T
    alive = np.isfinite(np.concatenate(fish)).all(axis=0)
    both, middle = np.concatenate(fish)[:, alive], len(fish[0])
    last = middle - 70
    held = Traces(
        "fish, second recording held out", both, [range(last - GAP)], [range(last, middle)], [range(middle, len(both))]
    )
    return [
        held,
        in_blocks("mouse V1, 74 cells, 200 s at 30 Hz", mouse),
        in_blocks("fish whole brain, 70 regions, 892 frames", np.load(shared / _REGIONS).T),
    ]


def forecasts(given: Traces) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Forecasts of the test windows by name ``(window, horizon, channel)``, what happened, and the copies."""
    series = given.normalized()
    firsts = [
        np.array([f for run in runs for f in range(run.start, run.stop - FRAMES.length + 1)], np.int64)
        for runs in (given.train, given.val, given.test)
    ]
    train, val, (seen, truth) = (windows(series, first, FRAMES) for first in firsts)
    copy = seen[:, -1:].expand_as(truth)
    found: dict[str, Tensor] = {"copy of the last frame": copy, "mean": torch.zeros_like(truth)}
    found["mean of the context"] = seen.mean(1, keepdim=True).expand_as(truth)
    fits: dict[str, Callable[..., Any]] = {"autoregression": autoregression, "linear population": linear_population}
    found |= {name: fit(train, val)(seen) for name, fit in fits.items()}
    for name, network in NETWORKS.items():
        torch.manual_seed(0)
        model = trained(network(FRAMES, series.shape[1]), train, val, functional.l1_loss, epochs=25)
        with torch.no_grad():
            found[name] = model(seen)
    return found, truth, copy


def rows(given: Traces) -> list[dict[str, Any]]:
    """A row per forecast."""
    found, truth, copy = forecasts(given)
    table = []
    for name, forecast in found.items():
        mae = (forecast - truth).abs().mean((0, 2))
        over = [1 - float((forecast - truth).abs().pow(p).mean() / (copy - truth).abs().pow(p).mean()) for p in (1, 2)]
        table.append(
            {
                "recording": given.name,
                "forecast": name,
                **{f"MAE {step}": f"{mae[step - 1]:.3f}" for step in STEPS},
                "1 − MAE / copy": f"{over[0]:.3f}",
                "1 − MSE / copy": f"{over[1]:.3f}",
            }
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description="Forecasts of fluorescence traces.")
    parser.add_argument("--shared", type=Path, required=True, help="folder of real recordings")
    given = parser.parse_args()
    torch.set_num_threads(1)
    console, table = Console(width=160), []
    for recording in recordings(given.shared):
        table += rows(recording)
        console.print(table[-1])
    print(markdown_table(table))


if __name__ == "__main__":
    main()
