"""Forecasts of a subject's grids: bundle and grid file in; a grid file of forecasts, scores and figures out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from src.models.bundle import Bundle
from src.models.grids.baselines import Autoregression
from src.models.grids.losses import as_log_odds, true_activity
from src.models.grids.networks import Forecast, PlaneForecaster
from src.models.grids.scores import ForecastScores, row
from src.preprocess.atomic import atomic_folder
from src.preprocess.batch import Job, Summary, run_batch
from src.preprocess.calcium.grid import PIXELS, FrameBatch
from src.preprocess.calcium.grid_images import GridImages
from src.preprocess.calcium.grid_index import SubjectGrids, find_grids, read_grids
from src.preprocess.calcium.grid_io import COO_FILE, GridHeader, write_coo
from src.preprocess.calcium.grid_windows import window_batch
from src.preprocess.stage import checksums, fingerprint, provenance
from src.reports.grids import draw_gain, draw_movie, draw_planes
from src.signals import BadInput

MODEL = "model"
WINDOWS_AT_ONCE = 16
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
    bundle.require_task("grid_forecasting")
    if stride is not None and not 1 <= stride <= bundle.network_args["horizon"]:
        raise BadInput("options.stride", f"is {stride}", f"give 1 to {bundle.network_args['horizon']} frames")
    network = bundle.network()
    jobs = [
        Job(name, forecast_file, (bundle, network, path, name, Path(output_dir) / name, subject, stride, figures))
        for name, path in find_grids(Path(source)).items()
    ]
    return run_batch(jobs, title="forecasts")


@dataclass(frozen=True)
class Fitted:
    """A network and the recording in the order of its voxels; ``unknown`` active voxels are in none of them."""

    network: Any
    number: int
    grids: SubjectGrids
    unknown: float
    images: GridImages | None


def fit_subject(bundle: Bundle, network: Any, grids: SubjectGrids, subject: str | None) -> Fitted:
    """Find the recording's subject in the bundle, or a network without subjects of its own for a new one.

    Raises
    ------
    BadInput
        If the bundle can forecast only its own subjects and this is none of them.
    """
    if grids.fs_hz is not None and not np.isclose(grids.fs_hz, bundle.signal.fs_hz, rtol=0.02):
        problem = f"is sampled at {grids.fs_hz:g} Hz, the bundle was trained at {bundle.signal.fs_hz:g} Hz"
        raise BadInput(grids.source, problem, "train a bundle for this rate")
    name = subject or grids.subject
    if name in network.subjects:
        number = network.subjects.index(name)
        span = network.span(number)
        known = known_voxels(grids, network.voxels[span].numpy(), network.planes[number])
        unknown = 1 - len(known.rank) / max(len(grids.rank), 1)
        if 1 - unknown < KNOWN_SHARE:
            problem = f"{unknown:.0%} of its active voxels are none of {name}'s"
            raise BadInput(grids.source, problem, "give the subject's own recording (options.subject)")
    elif subject is None and isinstance(network, PlaneForecaster):
        number, known, unknown = 0, grids, 0.0
        network = network.for_subject(name, grids.planes, torch.from_numpy(grids.voxels), _rates(grids))
    else:
        names = ", ".join(network.subjects)
        cure = f"it knows {names}: say options.subject=<name>, or train model=grid_planes"
        raise BadInput(grids.source, f"shows {name}, whom the bundle does not know", cure)
    images = None
    if network.coarsen is not None:
        markers = any(s.get("params", {}).get("markers") for s in bundle.stages)
        images = GridImages([known], coarsen=network.coarsen, markers=markers, planes=network.deepest)
    return Fitted(network, number, known, unknown, images)


def known_voxels(grids: SubjectGrids, voxels: np.ndarray, planes: int) -> SubjectGrids:
    """The recording with the voxels of the bundle alone, in the bundle's order."""
    if grids.planes != planes:
        cure = "give a recording of the same volume"
        raise BadInput(grids.source, f"has {grids.planes} planes, the bundle's subject {planes}", cure)
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


@torch.no_grad()
def forecasts(
    fitted: Fitted, bundle: Bundle, firsts: np.ndarray
) -> Iterator[tuple[Forecast, Tensor, dict[str, Tensor]]]:
    """Log-odds ``(window, horizon, slot)`` of windows that begin at ``firsts``, in pieces.

    With each piece comes what happened (frames beyond the end of the recording have no activity), and the
    baselines' log-odds by name.
    """
    baselines = _baselines(fitted, bundle)
    network, grids = fitted.network, fitted.grids
    for block in np.split(firsts, range(WINDOWS_AT_ONCE, len(firsts), WINDOWS_AT_ONCE)):
        windows = np.stack([np.zeros_like(block), block], axis=1)
        batch = window_batch([grids], windows, network.context, network.horizon)
        if fitted.images is not None:
            batch = batch._replace(image=fitted.images(batch))
        simple = {name: baseline(batch)[0].logits for name, baseline in baselines.items()}
        batch = batch._replace(subject=torch.full_like(batch.subject, fitted.number))
        forecast = network(batch)[0]
        forecast = forecast._replace(logits=as_log_odds(forecast.logits.float(), bundle.decision["loss"]))
        yield forecast, true_activity(forecast, batch), simple


def _baselines(fitted: Fitted, bundle: Bundle) -> dict[str, Autoregression]:
    """The baselines of one subject; its voxels share the weights of the autoregression that the network begins with."""
    network, span = fitted.network, fitted.network.span(fitted.number)
    zero = torch.zeros(1, network.context, network.horizon)
    persistence = zero.clone()
    persistence[0, -1] = torch.tensor(bundle.decision["persistence"])
    weights = {"mean rate": zero, "persistence": persistence, "autoregression": network.linear[fitted.number][None]}
    rates, ends = network.rates[span], [0, network.n_voxels[fitted.number]]
    return {
        name: Autoregression(rates, ends, weight, bundle.decision["baselines"][name]["floor"])
        for name, weight in weights.items()
    }


def forecast_file(
    bundle: Bundle,
    network: Any,
    path: Path,
    name: str,
    folder: Path,
    subject: str | None,
    stride: int | None,
    figures: bool,
) -> list[str]:
    """Forecast one grid file and write everything that is made from it; returns lines for the console."""
    grids = read_grids(path, name)
    fitted = fit_subject(bundle, network, grids, subject)
    network = fitted.network
    context, horizon = network.context, network.horizon
    if grids.frames < context:
        raise BadInput(path, f"has {grids.frames} frames, a forecast needs {context}", "give a longer recording")
    firsts = np.arange(0, grids.frames - context + 1, stride or horizon)
    if firsts[-1] != grids.frames - context:  # the last forecast looks beyond the end
        firsts = np.append(firsts, grids.frames - context)
    firsts = np.array([f for f in firsts if _whole(grids, f, f + context)], np.int64)
    if not len(firsts):
        raise BadInput(path, f"has no {context} consecutive valid frames", "give a longer recording")
    made = Made(fitted, bundle, grids.frames + horizon)
    for (forecast, truth, simple), block in zip(
        forecasts(fitted, bundle, firsts), np.split(firsts, range(WINDOWS_AT_ONCE, len(firsts), WINDOWS_AT_ONCE)),
        strict=True,
    ):  # fmt: skip
        made.take(forecast, truth, simple, block)
    with atomic_folder(folder) as part:
        made.write(part / COO_FILE)
        if figures:
            made.draw(part, name, 1 / bundle.signal.fs_hz)
        record = {
            "task": bundle.task,
            "bundle": {"path": str(bundle.folder), "weights_sha256": bundle.weights_sha256},
            "grids": {"name": path.name, "sha256": fingerprint(path)},
            "subject": network.subjects[fitted.number],
            "forecasts": len(firsts),
            "context_frames": context,
            "horizon_frames": horizon,
            "unknown_active_voxels": fitted.unknown,
            "scores": made.scored(),
            "provenance": provenance(),
            "outputs": checksums(part),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        (part / "manifest.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    return made.lines(name, folder)


def _whole(grids: SubjectGrids, first: int, last: int) -> bool:
    """Whether frames follow one another in the original and had spikes inferred."""
    return bool(grids.is_valid[first:last].all() and (np.diff(grids.timepoints[first:last]) == 1).all())


class Made:
    """The forecasts of one recording as they come in: voxels above threshold by frame, and scores by step."""

    def __init__(self, fitted: Fitted, bundle: Bundle, frames: int) -> None:
        self.fitted, self.frames = fitted, frames
        self.threshold = torch.tensor(bundle.decision["threshold"])[:, None]
        self.slots: list[np.ndarray] = [np.zeros(0, np.int64)] * frames
        self.chances: list[np.ndarray] = [np.zeros(0, np.float16)] * frames
        self.step = np.zeros(frames, np.uint8)
        self.test_only = bool(fitted.grids.is_test.any())
        self.thresholds = {name: found["threshold"] for name, found in bundle.decision["baselines"].items()}
        self.thresholds[MODEL] = bundle.decision["threshold"]
        self.scores = {name: ForecastScores(fitted.network.horizon, alone=True) for name in self.thresholds}
        self.example: list[tuple[np.ndarray, np.ndarray, int]] = []
        self.windows = 0

    def take(self, forecast: Forecast, truth: Tensor, simple: dict[str, Tensor], firsts: np.ndarray) -> None:
        """Add a piece of :func:`forecasts`."""
        grids, network = self.fitted.grids, self.fitted.network
        chance = torch.sigmoid(forecast.logits)
        above = (forecast.logits >= self.threshold).numpy()
        for window, first in enumerate(firsts.tolist()):
            for ahead in range(network.horizon):
                frame = first + network.context + ahead
                chosen = np.flatnonzero(above[window, ahead])
                self.slots[frame], self.step[frame] = chosen, ahead + 1
                self.chances[frame] = chance[window, ahead].numpy()[chosen].astype(np.float16)
            last = first + network.context + network.horizon
            # The file's own test frames where it has some: the others may have trained the bundle.
            held_out = not self.test_only or grids.is_test[first:last].all()
            if last <= grids.frames and held_out and _whole(grids, first, last):
                base = network.base(self.fitted.number)
                for name, logits in {**simple, MODEL: forecast.logits}.items():
                    self.scores[name].update(logits[window][None], base, truth[window][None])
                self.windows += 1
                if len(self.example) < 40:
                    self.example.append((chance[window].numpy(), truth[window].numpy(), first))

    def scored(self) -> dict[str, Any]:
        """Scores per horizon step over the windows whose future is known."""
        if not self.windows:
            return {"windows": 0}
        return {
            "windows": self.windows,
            "over": "the file's test frames" if self.test_only else "all frames",
            **{name: row(scores, np.array(self.thresholds[name])) for name, scores in self.scores.items()},
        }

    def write(self, path: Path) -> None:
        """Write the grid file; ``forecast_step`` says how many frames ahead each frame was forecast, 0 for not."""
        grids = self.fitted.grids
        voxels = [grids.voxels[slots] for slots in self.slots]
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
        shown: dict[str, Any] = {
            "subject": name,
            "voxels": self.fitted.grids.voxels,
            "planes": self.fitted.grids.planes,
            "probability": probability,
            "truth": truth,
            "first": first,
            "step_s": step_s,
        }
        bits = {name: scores.bits_per_spike() for name, scores in self.scores.items()}
        precision = {name: scores.average_precision() for name, scores in self.scores.items()}
        draw_gain(folder / "gain.png", bits=bits, average_precision=precision, step_s=step_s)
        draw_planes(folder / "planes.png", **shown)
        draw_movie(folder / "movie.gif", **shown)

    def lines(self, name: str, folder: Path) -> list[str]:
        """What the console says."""
        lines = []
        if self.fitted.unknown > 0:
            lines.append(f"{name}  {self.fitted.unknown:.1%} of the active voxels are not the bundle's: left out")
        scores = self.scored()
        if scores["windows"]:
            lines.append(f"{name}  {scores['windows']} windows of {scores['over']}; bits per spike over the mean rate:")
            for method in self.scores:
                bits, precision = scores[method]["bits"], scores[method]["average_precision"]
                lines.append(
                    f"{name}    {method:15s}{np.mean(bits):6.2f}   1 frame ahead{bits[0]:6.2f}   {len(bits)} ahead"
                    f"{bits[-1]:6.2f}   average precision {np.mean(precision):.3f}"
                )
        return [*lines, f"{name}  {folder / COO_FILE}"]
