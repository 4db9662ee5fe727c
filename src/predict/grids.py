"""Forecasts of a subject's grids: bundle and grid file in; a grid file of forecasts, scores and figures out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from src.models.bundle import Bundle
from src.models.grids.active_voxels import last_activity, true_activity
from src.models.grids.linear import MODEL, all_forecasts, thresholds
from src.models.grids.scores import ForecastScores, row
from src.preprocess.calcium.grid import PIXELS, FrameBatch
from src.preprocess.calcium.grid_index import GRID_INDEX, SubjectGrids, find_grids, read_grids
from src.preprocess.calcium.grid_store import COO_FILE, GridHeader, write_coo
from src.preprocess.calcium.grid_windows import window_batch
from src.reports.grids import ForecastExample, draw_gain, draw_movie, draw_planes
from src.signals import BadInput
from src.storage.batch import Job, Summary, run_batch
from src.storage.output import OutputFolder

WINDOWS_AT_ONCE = 16
_SHOWN = 40
KNOWN_SHARE = 0.5
"""Least share of a recording's active voxels that have to be voxels the bundle knows."""


def predict(
    bundle: Bundle,
    source: Path,
    output_dir: Path,
    *,
    subject: str | None = None,
    stride: int | None = None,
    figures: bool = True,
) -> Summary:
    """Forecast the grids of one subject, or of every subject of a folder; a bad one does not stop the others.

    Parameters
    ----------
    bundle
        A ``grid_forecasting`` bundle.
    source
        A grid file, a subject's folder, or a folder of them.
    output_dir
        Gets one folder per subject: ``preaugmented_grids_coo.h5`` with the voxels that are forecast to be
        active, ``manifest.json`` with scores where the future is known, and figures.
    subject
        Which of the bundle's subjects the recording shows; by default the one of the same name.
    stride
        Frames between two forecasts; by default the horizon, so that every frame is forecast once. Where
        forecasts overlap, the one made last counts.
    """
    bundle.require("grid_forecasting", {GRID_INDEX["step"]: GRID_INDEX["version"]})
    network: Any = bundle.network()
    if stride is not None and not 1 <= stride <= network.horizon:
        raise BadInput("options.stride", f"is {stride}", f"give 1 to {network.horizon} frames")
    output = OutputFolder(Path(output_dir), (bundle.folder, source))
    found = find_grids(Path(source))
    names = output.names(found.items())
    jobs = [
        Job(name, forecast_file, (bundle, network, path, output, name, subject, stride, figures))
        for name, path in zip(names, found.values(), strict=True)
    ]
    return run_batch(jobs, title="forecasts")


def known_voxels(grids: SubjectGrids, voxels: np.ndarray, planes: int) -> SubjectGrids:
    """The recording with the voxels of the bundle alone, in the bundle's order."""
    if grids.planes != planes:
        hint = "give a recording of the same volume"
        raise BadInput(grids.source, f"has {grids.planes} planes, the bundle's subject {planes}", hint)
    if np.array_equal(grids.voxels, voxels):
        return grids
    _, here, there = np.intersect1d(grids.voxels, voxels, return_indices=True)
    active = np.zeros((grids.frames, len(voxels)), bool)
    active[:, there] = grids.raster(0, grids.frames)[:, here]
    return grids.with_raster(active, voxels)


def _rates(grids: SubjectGrids) -> Tensor:
    """Mean rates of a subject nobody trained on, from its training frames, or all where it has none."""
    chosen = grids.is_train & grids.is_valid
    active = grids.raster(0, grids.frames)[chosen if chosen.any() else grids.is_valid]
    total = active.sum(axis=0)
    return torch.from_numpy((total + 0.5 * (total == 0)) / max(len(active), 1)).float()


def forecast_file(
    bundle: Bundle,
    network: Any,
    path: Path,
    output: OutputFolder,
    name: str,
    subject: str | None,
    stride: int | None,
    figures: bool,
) -> list[str]:
    """Forecast one grid file and write everything that is made from it; returns lines for the console."""
    output.check(name)
    folder = output.path(name)
    grids = read_grids(path, name)
    forecast = SubjectForecast(bundle, network, grids, subject)
    context, gap, horizon = network.frames
    if grids.frames < context:
        raise BadInput(path, f"has {grids.frames} frames, a forecast needs {context}", "give a longer recording")
    firsts = np.arange(0, grids.frames - context + 1, stride or horizon)
    if firsts[-1] != grids.frames - context:  # the last forecast looks beyond the end
        firsts = np.append(firsts, grids.frames - context)
    firsts = np.array([f for f in firsts if is_contiguous(grids, f, f + context)], np.int64)
    if not len(firsts):
        raise BadInput(path, f"has no {context} consecutive valid frames", "give a longer recording")
    for piece in forecast.pieces(firsts):
        forecast.update(*piece)
    with output.folder(name) as part:
        forecast.write(part / COO_FILE)
        if figures:
            forecast.draw(part, name, 1 / bundle.signal.fs_hz)
        facts = {
            "subject": forecast.network.subjects[forecast.number],
            "forecast": forecast.used,
            "forecasts": len(firsts),
            "context_frames": context,
            "gap_frames": gap,
            "leaky": forecast.leaky,
            "horizon_frames": horizon,
            "unknown_active_voxels": forecast.unknown,
            "scores": forecast.scored(),
        }
        bundle.write_manifest(part, {"grids": path}, facts)
    return forecast.lines(name, folder)


def is_contiguous(grids: SubjectGrids, first: int, last: int) -> bool:
    """Whether frames follow one another in the original and had spikes inferred."""
    return bool(grids.is_valid[first:last].all() and (np.diff(grids.timepoints[first:last]) == 1).all())


class SubjectForecast:
    """The forecasts of one recording as they are made: voxels above threshold by frame, and scores by step.

    Written is the forecast that validation chose (``used``); all are scored. ``network`` knows the recording's voxels
    as those of its subject ``number``, ``grids`` has them in the network's order; ``unknown`` is the share of the
    active voxels that are none of them.

    Raises
    ------
    BadInput
        If the recording has another rate, or is not of the subject that was named.
    """

    def __init__(self, bundle: Bundle, network: Any, grids: SubjectGrids, subject: str | None) -> None:
        self.decision = bundle.decision
        self._find_subject(bundle, network, grids, subject)
        self.frames = grids.frames + self.network.frames.gap + self.network.horizon
        self.thresholds = thresholds(self.decision)
        self.used: str = self.decision["forecast"]
        self.threshold = torch.from_numpy(self.thresholds[self.used])[:, None]
        self.active: list[np.ndarray] = [np.zeros(0, np.int64)] * self.frames
        self.chances: list[np.ndarray] = [np.zeros(0, np.float16)] * self.frames
        self.step = np.zeros(self.frames, np.uint16)
        self.test_only = bool(grids.is_test.any())
        self.scores = {name: ForecastScores(self.network.horizon) for name in self.thresholds}
        self.example: list[tuple[np.ndarray, np.ndarray, int]] = []
        self.windows = 0

    def _find_subject(self, bundle: Bundle, network: Any, grids: SubjectGrids, subject: str | None) -> None:
        """Find the recording's subject in the bundle, or make a network for a new one."""
        if grids.fs_hz is not None and not np.isclose(grids.fs_hz, bundle.signal.fs_hz, rtol=0.02):
            problem = f"is sampled at {grids.fs_hz:g} Hz, the bundle was trained at {bundle.signal.fs_hz:g} Hz"
            raise BadInput(grids.source, problem, "train a bundle for this rate")
        self.network, self.number, self.grids, self.unknown = network, 0, grids, 0.0
        name = subject or grids.subject
        if name in network.subjects:
            self.number = network.subjects.index(name)
            voxels = network.voxels[network.span(self.number)].numpy()
            self.grids = known_voxels(grids, voxels, network.planes[self.number])
            self.unknown = 1 - len(self.grids.voxel_index) / max(len(grids.voxel_index), 1)
            if 1 - self.unknown < KNOWN_SHARE:
                problem = f"{self.unknown:.0%} of its active voxels are none of {name}'s"
                raise BadInput(grids.source, problem, "give the subject's own recording (options.subject)")
        elif subject is None:
            self.network = network.for_subject(name, grids.planes, torch.from_numpy(grids.voxels), _rates(grids))
        else:
            names = ", ".join(network.subjects)
            raise BadInput("options.subject", f"is {name}, which the bundle does not know", f"choose from: {names}")

    @property
    def leaky(self) -> bool:
        """Whether the context may know the fluorescence of the frames to forecast."""
        after = self.grids.frames_after
        return after is None or after > self.network.frames.gap

    @torch.no_grad()
    def pieces(self, firsts: np.ndarray) -> Iterator[tuple[np.ndarray, dict[str, Tensor], Tensor, Tensor]]:
        """Log-odds ``(window, horizon, voxel)`` of windows that begin at ``firsts``, by name of the forecast.

        With each piece come its ``firsts``, what happened (frames beyond the end of the recording have no activity) and
        the last context frame.
        """
        methods = all_forecasts(self.network, self.decision)
        for block in np.split(firsts, range(WINDOWS_AT_ONCE, len(firsts), WINDOWS_AT_ONCE)):
            windows = np.stack([np.zeros_like(block), block], axis=1)
            batch = window_batch([self.grids], windows, self.network.frames)
            batch = batch._replace(subject=torch.full_like(batch.subject, self.number))
            made = {name: method(batch)[0] for name, method in methods.items()}
            truth, last = true_activity(made[MODEL], batch), last_activity(made[MODEL], batch)
            yield block, {name: forecast.logits for name, forecast in made.items()}, truth, last

    def update(self, firsts: np.ndarray, found: dict[str, Tensor], truth: Tensor, seen: Tensor) -> None:
        """Add one of the :meth:`pieces`."""
        grids, network = self.grids, self.network
        chance = torch.sigmoid(found[self.used])
        above = (found[self.used] >= self.threshold).numpy()
        base = network.base(self.number)
        for window, first in enumerate(firsts.tolist()):
            for ahead in range(network.horizon):
                frame = first + network.frames.target + ahead
                chosen = np.flatnonzero(above[window, ahead])
                self.active[frame] = frame * grids.planes * PIXELS + grids.voxels[chosen]
                self.step[frame] = network.frames.gap + ahead + 1
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
        grids = self.grids
        batch = FrameBatch.from_flat(np.concatenate(self.active), 0, self.frames, grids.planes)
        none = np.zeros(self.frames, np.uint8)
        beyond = np.arange(1, self.frames - grids.frames + 1) + grids.timepoints[-1]
        header = GridHeader(
            is_train=none,
            is_test=none,
            is_valid=(self.step > 0).astype(np.uint8),
            z_values=grids.z_values,
            timepoint_indices=np.concatenate([grids.timepoints, beyond]),
            attributes={
                "subject": grids.subject,
                "forecast": True,
                "sampling_rate": grids.fs_hz or 0.0,
                "recorded_frames": grids.frames,
            },
        )
        write_coo(path, [batch], header)
        with h5py.File(path, "r+") as file:
            file["forecast_step"] = self.step
            file.create_dataset("probability", data=np.concatenate(self.chances), compression="gzip", shuffle=True)

    def draw(self, folder: Path, name: str, step_s: float) -> None:
        """Draw gain, planes and film, where the future is known."""
        if not self.example:
            return
        probability, truth, first = (np.array(part) for part in zip(*self.example, strict=True))
        grids, time = self.grids, {"step_s": step_s, "gap": self.network.frames.gap}
        example = ForecastExample(name, grids.voxels, grids.planes, probability, truth, first, **time)
        bits = {name: scores.bits_per_spike() for name, scores in self.scores.items()}
        precision = {name: scores.average_precision() for name, scores in self.scores.items()}
        draw_gain(folder / "gain.png", bits=bits, average_precision=precision, **time)
        draw_planes(folder / "planes.png", example)
        draw_movie(folder / "movie.gif", example)

    def lines(self, name: str, folder: Path) -> list[str]:
        """What the console says."""
        lines, grids, gap = [], self.grids, self.network.frames.gap
        if self.leaky:
            looks = "an unknown number of" if grids.frames_after is None else grids.frames_after
            lines.append(
                f"{name}  leaky scores: spikes inferred from {looks} later frames, the bundle's gap is {gap} frames"
            )
        if self.unknown > 0:
            lines.append(f"{name}  {self.unknown:.1%} of the active voxels are not the bundle's: left out")
        scores = self.scored()
        if scores["windows"]:
            lines.append(f"{name}  {scores['windows']} windows of {scores['over']}, gap {gap} frames; bits per spike:")
            for method in self.scores:
                bits, precision = scores[method]["bits"], scores[method]["average_precision"]
                used = " (written)" if method == self.used else ""
                lines.append(
                    f"{name}    {method + used:27s}{np.mean(bits):6.2f}   step 1{bits[0]:6.2f}   "
                    f"step {len(bits)}{bits[-1]:6.2f}   average precision {np.mean(precision):.3f}"
                )
        return [*lines, f"{name}  {folder / COO_FILE}"]
