"""Forecasts of a subject's grids: bundle and grid file in; a grid file of forecasts, scores and figures out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.models.bundle import Bundle, inputs_of
from src.models.grids.entries import last_activity, true_activity
from src.models.grids.forecaster import MODEL, all_forecasts
from src.predict.grid_output import ForecastWriter, SubjectForecaster, is_contiguous
from src.predict.manifest import write_prediction_manifest
from src.preprocess.calcium.grid_index import GRID_INDEX, SubjectGrids, find_grids, read_grids
from src.preprocess.calcium.grid_store import COO_FILE
from src.preprocess.calcium.grid_windows import window_batch
from src.signals import BadInput
from src.storage.batch import Job, Summary, run_batch
from src.storage.output import OutputFolder

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
    bundle.require_steps({GRID_INDEX.name: GRID_INDEX.version})
    network: Any = bundle.network()
    if stride is not None and not 1 <= stride <= network.horizon:
        raise BadInput("options.stride", f"is {stride}", f"give 1 to {network.horizon} frames")
    output = OutputFolder(Path(output_dir), inputs_of(bundle, source))
    found = find_grids(Path(source))
    names = output.names(found.items())
    jobs = [
        Job(name, forecast_file, (bundle, network, path, output, name, subject, stride, figures))
        for name, path in zip(names, found.values(), strict=True)
    ]
    return run_batch(jobs, title="forecasts")


def fit_subject(bundle: Bundle, network: Any, grids: SubjectGrids, subject: str | None) -> SubjectForecaster:
    """Find the recording's subject in the bundle, or make a network for a new one.

    Raises
    ------
    BadInput
        If the recording has another rate, or is not of the subject that was named.
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
    elif subject is None:
        number, known, unknown = 0, grids, 0.0
        network = network.for_subject(name, grids.planes, torch.from_numpy(grids.voxels), _rates(grids))
    else:
        names = ", ".join(network.subjects)
        raise BadInput("options.subject", f"is {name}, which the bundle does not know", f"choose from: {names}")
    return SubjectForecaster(network, number, known, unknown)


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


@torch.no_grad()
def forecasts(
    fitted: SubjectForecaster, bundle: Bundle, firsts: np.ndarray
) -> Iterator[tuple[np.ndarray, dict[str, Tensor], Tensor, Tensor]]:
    """Log-odds ``(window, horizon, voxel)`` of windows that begin at ``firsts``, by name of the forecast, in pieces.

    With each piece come its ``firsts``, what happened (frames beyond the end of the recording have no activity) and
    the last context frame.
    """
    network = fitted.network
    methods = all_forecasts(network, bundle.decision)
    for block in np.split(firsts, range(WINDOWS_AT_ONCE, len(firsts), WINDOWS_AT_ONCE)):
        windows = np.stack([np.zeros_like(block), block], axis=1)
        batch = window_batch([fitted.grids], windows, network.frames)
        batch = batch._replace(subject=torch.full_like(batch.subject, fitted.number))
        made = {name: method(batch)[0] for name, method in methods.items()}
        truth, last = true_activity(made[MODEL], batch), last_activity(made[MODEL], batch)
        yield block, {name: forecast.logits for name, forecast in made.items()}, truth, last


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
    folder = output.path(name)
    grids = read_grids(path, name)
    fitted = fit_subject(bundle, network, grids, subject)
    network = fitted.network
    context, gap, horizon = network.frames
    if grids.frames < context:
        raise BadInput(path, f"has {grids.frames} frames, a forecast needs {context}", "give a longer recording")
    firsts = np.arange(0, grids.frames - context + 1, stride or horizon)
    if firsts[-1] != grids.frames - context:  # the last forecast looks beyond the end
        firsts = np.append(firsts, grids.frames - context)
    firsts = np.array([f for f in firsts if is_contiguous(grids, f, f + context)], np.int64)
    if not len(firsts):
        raise BadInput(path, f"has no {context} consecutive valid frames", "give a longer recording")
    writer = ForecastWriter(fitted, bundle, grids.frames + gap + horizon)
    for piece in forecasts(fitted, bundle, firsts):
        writer.update(*piece)
    with output.folder(name) as part:
        writer.write(part / COO_FILE)
        if figures:
            writer.draw(part, name, 1 / bundle.signal.fs_hz)
        facts = {
            "subject": network.subjects[fitted.number],
            "forecast": writer.used,
            "forecasts": len(firsts),
            "context_frames": context,
            "gap_frames": gap,
            "leaky": writer.leaky,
            "horizon_frames": horizon,
            "unknown_active_voxels": fitted.unknown,
            "scores": writer.scored(),
        }
        write_prediction_manifest(part, bundle, {"grids": path}, facts)
    return writer.lines(name, folder)
