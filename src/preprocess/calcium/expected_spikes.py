"""The costly product of the calcium chain: expected spikes of every cell, kept and reused.

Traces are read in pieces, turned into ΔF/F, given to a spike inference engine in fixed groups of
neurons, and stored as float16. Which process handled which piece, and how large the pieces were, leaves
no trace in the result.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.calcium import baseline as f0
from src.recordings.calcium.recording import CalciumRecording, open_recording
from src.signals import BadInput
from src.storage.hdf5 import AppendedColumn, writing
from src.storage.parallel import in_order, process_pool
from src.storage.step import CachedStep

SPIKES_FILE = "expected_spikes.h5"
MODEL = "model"
"""Role of the model package among the stage's input files; all other roles are the recording's."""

ENGINE_NEURONS = 512
"""Neurons that the engine sees in one call. Fixed, because the last bit of a network's output may depend
on how many traces are computed side by side."""

_PIECE_BYTES = 1 << 26
_SAMPLED_CELLS, _RUN = 1024, 64
_TOLERATED_BASELINES = 0.02
"""Share of cells whose F0 may touch zero under ``divide`` before the recording counts as unfit for it."""

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Prediction:
    """What became of a run of neurons: ``expected`` ``(neuron, time)`` float16, and per neuron its noise
    level and whether its F0 touched zero."""

    expected: np.ndarray
    levels: np.ndarray
    bad_baseline: np.ndarray


def make_expected_spikes(
    inputs: Mapping[str, Path],
    params: dict[str, Any],
    out_dir: Path,
    seed: int | None,
    *,
    workers: int = 1,
    batch_size: int = 30_000,
    report: Report = lambda done, total: None,
) -> dict[str, Any]:
    """Write ``expected_spikes.h5`` for one subject.

    Parameters
    ----------
    inputs
        Files of the recording by role, and the model package (``MODEL``) unless the engine needs none.
    params
        ``engine, model, threshold, align, fs_hz, baseline, baseline_window_s, baseline_percentile,
        dff_scale``.
    workers, batch_size, report
        How the work is cut and who hears of it; the result does not depend on them.
    """
    recording = _recording(inputs, params)
    window = _window(params, recording)
    if recording.frames < window:
        problem = f"{recording.frames} frames are fewer than the baseline's window of {window}"
        raise BadInput(recording.file, problem, "give a smaller baseline_window_s")
    mode, notes = _resolve_mode(recording, params, window)
    settled = {**params, "baseline": mode}
    with _naming(recording.file):
        engine = _engine(_frozen(inputs), _frozen(settled), recording.fs_hz)
        engine.check(engine.noise_levels(_dff(recording.traces(_sample(recording)), settled, window)[0]))
        facts = _write(recording, inputs, settled, out_dir / SPIKES_FILE, window, workers, batch_size, report)
        notes += _notes(recording, facts) + engine.check(facts.pop("levels"))
    return {
        "axes": {"expected_spikes": ["neuron", "time"]},
        "units": {"expected_spikes": "spikes per frame", "noise_levels": "percent per sqrt(Hz)"},
        "fs_hz": recording.fs_hz,
        "frames": recording.frames,
        "cells": recording.counts | {"kept": recording.cells} | facts,
        "baseline": {"mode": mode, "window_frames": window},
        "engine": engine.describe(),
        "notes": notes,
    }


EXPECTED_SPIKES = CachedStep("expected_spikes", 1, make_expected_spikes)


def with_resources(workers: int, batch_size: int, report: Report) -> CachedStep:
    """The same stage, computed with so many processes in pieces of so many neurons."""
    run = partial(make_expected_spikes, workers=workers, batch_size=batch_size, report=report)
    return replace(EXPECTED_SPIKES, run=run)


def relative_traces(recording: CalciumRecording, rows: np.ndarray, settled: Mapping[str, Any]) -> np.ndarray:
    """ΔF/F ``(neuron, time)`` of some cells exactly as the engine saw it."""
    return _dff(recording.traces(rows), settled, _window(settled, recording))[0]


def _window(params: Mapping[str, Any], recording: CalciumRecording) -> int:
    """Frames that bear on one frame of ΔF/F: one where no baseline is taken off."""
    return 1 if params["baseline"] == "none" else f0.window_frames(params["baseline_window_s"], recording.fs_hz)


def _recording(inputs: Mapping[str, Path], params: Mapping[str, Any]) -> CalciumRecording:
    files = {role: path for role, path in inputs.items() if role != MODEL}
    return open_recording(files, params["subject"], params["fs_hz"])


def _resolve_mode(recording: CalciumRecording, params: Mapping[str, Any], window: int) -> tuple[str, list[str]]:
    """``auto`` divides by F0 where F0 is positive, and subtracts it where the drift was removed before."""
    if params["baseline"] != "auto":
        return params["baseline"], []
    baseline = f0.sliding_percentile(recording.traces(_sample(recording)), window, params["baseline_percentile"])
    bad = f0.nonpositive_baseline(baseline).mean()
    if bad <= _TOLERATED_BASELINES:
        return "divide", []
    share = f"F0 is zero or negative in {100 * bad:.0f} % of the cells"
    return "subtract", [f"{share}, so it was subtracted and not divided by (baseline=auto)"]


def _sample(recording: CalciumRecording) -> np.ndarray:
    """Rows spread over the whole recording, in runs of neighbours that are read together."""
    starts = np.linspace(0, max(recording.cells - _RUN, 0), _SAMPLED_CELLS // _RUN).astype(int)
    return np.unique((starts[:, None] + np.arange(min(_RUN, recording.cells))).ravel())


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Errors of the engine, which knows traces only, name the file they come from."""
    try:
        yield
    except BrokenProcessPool:
        hint = "give fewer workers or a smaller batch_size"
        raise BadInput(file, "a worker process was killed (out of memory?)", hint) from None
    except BadInput as error:
        if Path(error.source).exists():  # it names its file already: of the recording or of the model
            raise
        raise BadInput(file, f"{error.source} {error.problem}", error.hint) from error


def _dff(traces: np.ndarray, settled: Mapping[str, Any], window: int) -> tuple[np.ndarray, np.ndarray]:
    """ΔF/F and, per neuron, whether F0 touched zero where it was to be divided by."""
    mode = settled["baseline"]
    if mode == "none":
        return traces * np.float32(settled["dff_scale"]), np.zeros(len(traces), bool)
    baseline = f0.sliding_percentile(traces, window, settled["baseline_percentile"])
    relative = f0.relative_to_baseline(traces, baseline, mode)
    if settled["dff_scale"] != 1:
        relative *= np.float32(settled["dff_scale"])
    return relative, f0.nonpositive_baseline(baseline) & (mode == "divide")


def _predict(inputs: Mapping[str, Path], settled: Mapping[str, Any], window: int, piece: tuple[int, int]) -> Prediction:
    """One piece of work, in whatever process: neurons ``first`` to ``last``."""
    first, last = piece
    recording = _recording(inputs, settled)
    engine = _engine(_frozen(inputs), _frozen(settled), recording.fs_hz)
    expected = np.empty((last - first, recording.frames), np.float16)
    levels, bad = np.empty(last - first), np.zeros(last - first, bool)
    for start, traces in recording.blocks(ENGINE_NEURONS, first, last):
        here = slice(start - first, start - first + len(traces))
        dff, bad[here] = _dff(traces, settled, window)
        levels[here] = engine.noise_levels(dff)
        usable = np.isfinite(levels[here])
        expected[here] = np.nan
        expected[here][usable] = engine.predict(dff[usable], levels[here][usable])
    return Prediction(expected, levels, bad)


def _write(
    recording: CalciumRecording,
    inputs: Mapping[str, Path],
    settled: Mapping[str, Any],
    path: Path,
    window: int,
    workers: int,
    batch_size: int,
    report: Report,
) -> dict[str, Any]:
    size = min(batch_size, _PIECE_BYTES // (4 * recording.frames))
    size = max(size // ENGINE_NEURONS, 1) * ENGINE_NEURONS
    pieces = [(first, min(first + size, recording.cells)) for first in range(0, recording.cells, size)]
    work = partial(_predict, dict(inputs), dict(settled), window)
    levels, bad, predicted, silent = [], [], np.zeros(recording.frames, bool), 0
    processes = min(workers, len(pieces))
    with writing(path) as file, process_pool(processes) if processes > 1 else nullcontext() as pool:
        column = AppendedColumn(file, "expected_spikes", np.float16, 64, width=recording.frames)
        for (_, last), piece in zip(pieces, in_order(work, pieces, pool, 2 * workers), strict=True):
            column.append(piece.expected)
            levels.append(piece.levels)
            bad.append(piece.bad_baseline)
            finite = np.isfinite(piece.expected)
            predicted |= finite.any(axis=0)
            silent += int((~finite.any(axis=1)).sum())
            report(last, recording.cells)
        column.close()
        file["noise_levels"] = np.concatenate(levels).astype(np.float32)
        file["bad_baseline"] = np.concatenate(bad).astype(np.uint8)
        file["is_predicted"] = predicted.astype(np.uint8)
        file["cell_ids"], file["positions"] = recording.cell_ids, recording.positions
        file.attrs.update(fs_hz=recording.fs_hz, units="spikes per frame", baseline=settled["baseline"])
    facts = {"bad_baseline": int(np.concatenate(bad).sum()), "without_prediction": silent}
    return {**facts, "levels": np.concatenate(levels)}


def _notes(recording: CalciumRecording, facts: Mapping[str, Any]) -> list[str]:
    """Sentences about cells that were left out; :class:`BadInput` where too few are left."""
    notes, bad, silent = list(recording.notes), facts["bad_baseline"], facts["without_prediction"]
    if bad > _TOLERATED_BASELINES * recording.cells:
        problem = f"F0 is zero or negative in {bad} of {recording.cells} cells, so ΔF/F has no meaning"
        raise BadInput(recording.file, problem, "these traces are not raw fluorescence: give baseline=subtract")
    if silent == recording.cells:
        raise BadInput(
            recording.file, "no cell has a single frame that could be inferred (all NaN?)", "check the traces"
        )
    if bad:
        notes.append(f"{bad} of {recording.cells} cells have F0 ≤ 0 and were left out")
    if silent > bad:
        notes.append(f"{silent - bad} of {recording.cells} cells have gaps in every window (all NaN?) and stay silent")
    return notes


def _frozen(mapping: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(mapping.items()))


@lru_cache(maxsize=1)
def _engine(inputs: tuple[tuple[str, Any], ...], settled: tuple[tuple[str, Any], ...], fs_hz: float) -> Any:
    """The engine of this process; networks are loaded once for all pieces."""
    from src.preprocess.cascade.inference import open_engine

    params, package = dict(settled), dict(inputs).get(MODEL)
    if package:
        start_tensorflow()
    return open_engine(
        params["engine"],
        package.name if package else params["model"],
        models_dir=package.parent if package else Path(),
        fs_hz=fs_hz,
        threshold=params["threshold"],
        align=params["align"],
    )


def start_tensorflow() -> None:
    """Import TensorFlow behind a closed door: its greetings pass by Python and by every setting it has."""
    from src.preprocess.cascade.dense import import_tensorflow

    sys.stderr.flush()
    screen = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            import_tensorflow().config.list_physical_devices()
        finally:
            os.dup2(screen, 2)
            os.close(screen)
