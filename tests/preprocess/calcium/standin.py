"""A spike inference engine that costs nothing, put in place of the real ones in every process of a test."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.calcium import expected_spikes, spikes_to_grids, subject_grids

WINDOW = 64
_predict, _process_subject = expected_spikes._predict, spikes_to_grids.process_subject


class StandInEngine:
    """Expected spikes grow with ΔF/F above the noise; 32 frames at each end have none, as with CASCADE."""

    def noise_levels(self, dff: np.ndarray) -> np.ndarray:
        steps = np.abs(np.diff(dff, axis=1))
        whole = np.isfinite(steps).any(axis=1)
        levels = np.full(len(dff), np.nan)
        levels[whole] = 100 * np.nanmedian(steps[whole], axis=1) / np.sqrt(2.0)
        return levels

    def check(self, levels: np.ndarray) -> list[str]:
        return []

    def predict(self, dff: np.ndarray, noise_levels: np.ndarray) -> np.ndarray:
        expected = np.maximum(dff - 0.05 * noise_levels[:, None] ** 0.5, 0).astype(np.float32)
        expected[:, :32] = expected[:, -32:] = np.nan
        return expected

    def describe(self) -> dict[str, Any]:
        return {"engine": "standin", "model": "standin", "windowsize": WINDOW, "noise_levels": [2, 3, 4]}


def install() -> None:
    """Use the stand-in in this process; the functions below carry it into worker processes."""
    expected_spikes._engine = lambda inputs, settled, fs_hz: StandInEngine()
    expected_spikes._predict = predict
    spikes_to_grids.process_subject = process_subject


def remove() -> None:
    expected_spikes._engine, expected_spikes._predict = _ENGINE, _predict
    spikes_to_grids.process_subject = _process_subject


_ENGINE = expected_spikes._engine


def predict(*arguments: Any) -> Any:
    install()
    return _predict(*arguments)


def process_subject(*arguments: Any) -> Any:
    install()
    if multiprocessing.parent_process() is not None:
        subject_grids._draw = lambda *parts: None  # what workers draw is not looked at, and takes long
    return _process_subject(*arguments)


def settings(input_dir: Path, output_dir: Path, **changes: Any) -> dict[str, Any]:
    """All arguments of ``spikes_to_grids.run``: the schema's defaults, small where it matters for time."""
    from dataclasses import asdict

    from src.schema import CascadeCooConfig

    # The verb keeps to itself which share of the recordings is this process's.
    plain = {k: v for k, v in asdict(CascadeCooConfig()).items() if k not in ("_target_", "only", "part", "parts")}
    places = {"input_dir": str(input_dir), "output_dir": str(output_dir), "cache_dir": str(output_dir.parent / "cache")}
    return plain | places | {"engine": "oasis", "num_neurons": 1} | changes


if __name__ == "__main__":
    install()
    summary = spikes_to_grids.run(**settings(Path(sys.argv[1]), Path(sys.argv[2])))
    sys.exit(summary.exit_code)
