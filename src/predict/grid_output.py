"""The forecasts of one recording as they come in, and the grid file, scores and figures that are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from src.models.bundle import Bundle
from src.models.grids.forecaster import thresholds
from src.models.grids.scores import ForecastScores, row
from src.preprocess.calcium.grid import PIXELS, FrameBatch
from src.preprocess.calcium.grid_index import SubjectGrids
from src.preprocess.calcium.grid_store import COO_FILE, GridHeader, write_coo
from src.reports.grids import ForecastExample, draw_gain, draw_movie, draw_planes

_SHOWN = 40


@dataclass(frozen=True)
class SubjectForecaster:
    """A network and the recording in the order of its voxels; ``unknown`` active voxels are in none of them."""

    network: Any
    number: int
    grids: SubjectGrids
    unknown: float


def is_contiguous(grids: SubjectGrids, first: int, last: int) -> bool:
    """Whether frames follow one another in the original and had spikes inferred."""
    return bool(grids.is_valid[first:last].all() and (np.diff(grids.timepoints[first:last]) == 1).all())


class ForecastWriter:
    """The forecasts of one recording as they come in: voxels above threshold by frame, and scores by step.

    Written is the forecast that validation chose (``used``); all are scored.
    """

    def __init__(self, fitted: SubjectForecaster, bundle: Bundle, frames: int) -> None:
        self.fitted, self.frames = fitted, frames
        self.thresholds = thresholds(bundle.decision)
        self.used: str = bundle.decision["forecast"]
        self.threshold = torch.from_numpy(self.thresholds[self.used])[:, None]
        self.active: list[np.ndarray] = [np.zeros(0, np.int64)] * frames
        self.chances: list[np.ndarray] = [np.zeros(0, np.float16)] * frames
        self.step = np.zeros(frames, np.uint16)
        self.test_only = bool(fitted.grids.is_test.any())
        self.scores = {name: ForecastScores(fitted.network.horizon) for name in self.thresholds}
        self.example: list[tuple[np.ndarray, np.ndarray, int]] = []
        self.windows = 0

    @property
    def leaky(self) -> bool:
        """Whether the context may know the fluorescence of the frames to forecast."""
        after = self.fitted.grids.frames_after
        return after is None or after > self.fitted.network.frames.gap

    def update(self, firsts: np.ndarray, found: dict[str, Tensor], truth: Tensor, seen: Tensor) -> None:
        """Add a piece of :func:`~src.predict.grids.forecasts`."""
        grids, network = self.fitted.grids, self.fitted.network
        chance = torch.sigmoid(found[self.used])
        above = (found[self.used] >= self.threshold).numpy()
        base = network.base(self.fitted.number)
        for window, first in enumerate(firsts.tolist()):
            for ahead in range(network.horizon):
                frame = first + network.frames.target + ahead
                chosen = np.flatnonzero(above[window, ahead])
                self.active[frame], self.step[frame] = chosen, network.frames.gap + ahead + 1
                self.chances[frame] = chance[window, ahead].numpy()[chosen].astype(np.float16)
            last = first + network.frames.length
            # The file's own test frames where it has some: the others may have trained the bundle.
            held_out = not self.test_only or grids.is_test[first:last].all()
            if last <= grids.frames and held_out and is_contiguous(grids, first, last):
                for name, logits in found.items():
                    self.scores[name].update(logits[window][None], base, truth[window][None], seen[window][None])
                self.windows += 1
                if len(self.example) < _SHOWN:
                    self.example.append((chance[window].numpy(), truth[window].numpy(), first))

    def scored(self) -> dict[str, Any]:
        """Scores per horizon step over the windows whose future is known."""
        if not self.windows:
            return {"windows": 0}
        return {
            "windows": self.windows,
            "over": "the file's test frames" if self.test_only else "all frames",
            **{name: row(scores, self.thresholds[name]) for name, scores in self.scores.items()},
        }

    def write(self, path: Path) -> None:
        """Write the grid file; ``forecast_step`` says how many frames ahead each frame was forecast, 0 for not."""
        grids = self.fitted.grids
        voxels = [grids.voxels[index] for index in self.active]
        planes = grids.planes
        sizes = np.concatenate([np.bincount(v // PIXELS, minlength=planes) for v in voxels])
        indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        pixel = (np.concatenate(voxels) % PIXELS).astype(np.uint16)
        none = np.zeros(self.frames, np.uint8)
        beyond = np.arange(1, self.frames - grids.frames + 1) + grids.timepoints[-1]
        header = GridHeader(
            frames=self.frames,
            planes=planes,
            is_train=none,
            is_test=none,
            is_valid=(self.step > 0).astype(np.uint8),
            z_values=grids.z_values,
            spikes_under_markers=np.zeros(0, np.int64),
            markers=False,
            timepoint_indices=np.concatenate([grids.timepoints, beyond]),
            attributes={
                "subject": grids.subject,
                "forecast": True,
                "sampling_rate": grids.fs_hz or 0.0,
                "recorded_frames": grids.frames,
            },
        )
        write_coo(path, [FrameBatch(0, planes, indptr, pixel)], header)
        with h5py.File(path, "r+") as file:
            file["forecast_step"] = self.step
            file.create_dataset("probability", data=np.concatenate(self.chances), compression="gzip", shuffle=True)

    def draw(self, folder: Path, name: str, step_s: float) -> None:
        """Draw gain, planes and film, where the future is known."""
        if not self.example:
            return
        probability, truth, first = (np.array(part) for part in zip(*self.example, strict=True))
        grids, time = self.fitted.grids, {"step_s": step_s, "gap": self.fitted.network.frames.gap}
        example = ForecastExample(name, grids.voxels, grids.planes, probability, truth, first, **time)
        bits = {name: scores.bits_per_spike() for name, scores in self.scores.items()}
        precision = {name: scores.average_precision() for name, scores in self.scores.items()}
        draw_gain(folder / "gain.png", bits=bits, average_precision=precision, **time)
        draw_planes(folder / "planes.png", example)
        draw_movie(folder / "movie.gif", example)

    def lines(self, name: str, folder: Path) -> list[str]:
        """What the console says."""
        lines, grids, gap = [], self.fitted.grids, self.fitted.network.frames.gap
        if self.leaky:
            looks = "an unknown number of" if grids.frames_after is None else grids.frames_after
            lines.append(
                f"{name}  leaky scores: spikes inferred from {looks} later frames, the bundle's gap is {gap} frames"
            )
        if self.fitted.unknown > 0:
            lines.append(f"{name}  {self.fitted.unknown:.1%} of the active voxels are not the bundle's: left out")
        scores = self.scored()
        if scores["windows"]:
            lines.append(f"{name}  {scores['windows']} windows of {scores['over']}; bits per spike over the mean rate:")
            for method in self.scores:
                bits, precision = scores[method]["bits"], scores[method]["average_precision"]
                used = " (written)" if method == self.used else ""
                lines.append(
                    f"{name}    {method + used:27s}{np.mean(bits):6.2f}   1 frame ahead{bits[0]:6.2f}   "
                    f"{len(bits)} ahead{bits[-1]:6.2f}   average precision {np.mean(precision):.3f}"
                )
        return [*lines, f"{name}  {folder / COO_FILE}"]
