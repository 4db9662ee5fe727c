"""The costly product of the calcium chain: expected spikes of every cell, kept and reused.

Traces are read in pieces, turned into ΔF/F, given to a spike inference engine in fixed groups of
neurons, and stored as float16. Which process handled which piece, and how large the pieces were, does
not change the result.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import astuple, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.calcium.baseline import (
    BAD_BASELINE,
    CELL_STATES,
    GAPS,
    Baseline,
    sliding_percentile,
    trace_states,
    window_frames,
)
from src.preprocess.cascade.download import AUTO
from src.preprocess.cascade.inference import Engine, open_engine
from src.recordings.calcium.recording import CalciumRecording
from src.recordings.calcium.sources import open_recording
from src.signals import BadInput, counted
from src.storage.hdf5 import AppendedColumn, writing
from src.storage.parallel import call, in_order, process_pool
from src.storage.progress import steps
from src.storage.step import CachedStep

SPIKES_FILE = "expected_spikes.h5"
MODEL = "model"
"""Role of the model package among the step's input files; all other roles are the recording's."""

ENGINE_NEURONS = 512
"""Neurons that the engine sees in one call. Fixed, because the last bit of a network's output may depend
on how many traces are computed side by side."""

_PIECE_BYTES = 1 << 26
_SAMPLED_CELLS, _RUN = 1024, 64
_NAMED_CELLS, _GAPS_TOLD = 8, 0.1
_CONTROL_S, _CONTROL_SAMPLES, _CLEAR = 300.0, 1 << 16, 2.0
"""Seconds and samples of the control with noise; how many times its spikes the cells have to have."""


@dataclass(frozen=True)
class SpikeTask:
    """One subject's inference: its files by role, and the parameters.

    ``params`` are those of :class:`~src.preprocess.calcium.parameters.InferenceParams`, ``subject`` and
    ``need_positions``.
    """

    inputs: Mapping[str, Path]
    params: Mapping[str, Any]

    def recording(self) -> CalciumRecording:
        files = {role: path for role, path in self.inputs.items() if role != MODEL}
        options = {name: self.params[name] for name in ("neuropil", "need_positions")}
        return open_recording(files, self.params["subject"], self.params["fs_hz"], **options)

    def baseline(self, fs_hz: float, mode: str | None = None) -> Baseline:
        """How ΔF/F is made at this frame rate; ``mode`` is what :func:`choose_baseline` chose."""
        params, mode = self.params, mode or self.params["baseline"]
        # Without a baseline one frame of ΔF/F depends on one frame of the recording.
        window = 1 if mode == "none" else window_frames(params["baseline_window_s"], fs_hz)
        return Baseline(mode, window, params["baseline_percentile"], params["dff_scale"])  # type: ignore[arg-type]

    def engine(self, fs_hz: float) -> Engine:
        model, params = self.inputs.get(MODEL, self.params["cascade_model"]), self.params
        any_rate = params["cascade_model"] == AUTO
        return _engine(params["engine"], model, fs_hz, params["threshold"], params["align"], any_rate)


@lru_cache(maxsize=1)
def _engine(engine: str, model: str | Path, fs_hz: float, threshold: int | None, align: str, any_rate: bool) -> Engine:
    """The engine of this process; networks are loaded once for all pieces."""
    return open_engine(engine, model, fs_hz=fs_hz, threshold=threshold, align=align, any_rate=any_rate)


def make_expected_spikes(
    inputs: Mapping[str, Path],
    params: dict[str, Any],
    out_dir: Path,
    seed: int | None,
    *,
    workers: int = 1,
    batch_size: int = 30_000,
) -> dict[str, Any]:
    """Write ``expected_spikes.h5`` for one subject.

    Parameters
    ----------
    inputs
        Files of the recording by role, and the model package (``MODEL``) unless the engine needs none.
    params
        See :class:`SpikeTask`.
    workers, batch_size
        How the work is cut; the result does not depend on them.
    """
    task = SpikeTask(inputs, params)
    recording = task.recording()
    baseline, notes = choose_baseline(recording, task)
    with naming(recording.file):
        engine = task.engine(recording.fs_hz)
        engine.check(engine.noise_levels(baseline.dff(recording.traces(_sample(recording)))[0]))
        found = _write(recording, task, baseline, out_dir / SPIKES_FILE, workers, batch_size)
        rate_hz, said = judge(recording, baseline, engine, found)
    described = engine.describe()
    return {
        "axes": {"expected_spikes": ["neuron", "time"]},
        "units": {"expected_spikes": "spikes per frame", "noise_levels": "percent per sqrt(Hz)"},
        "fs_hz": recording.fs_hz,
        "frames": recording.frames,
        "cells": recording.counts
        | {"kept": recording.cells}
        | {name: int((found.state == number).sum()) for number, name in enumerate(CELL_STATES)},
        "baseline": {"mode": baseline.mode, "window_frames": baseline.window},
        "engine": described,
        "rate_hz": rate_hz,
        # What one frame of the result depends on: the engine's window and half of the baseline's.
        "frames_before": described["frames_before"] + baseline.window // 2,
        "frames_after": described["frames_after"] + baseline.window // 2,
        "notes": notes + said,
    }


EXPECTED_SPIKES = CachedStep("expected_spikes", 4, make_expected_spikes)


def choose_baseline(recording: CalciumRecording, task: SpikeTask) -> tuple[Baseline, list[str]]:
    """The baseline of a recording, and a sentence where ``auto`` chose another than dividing by it.

    ``auto`` divides, unless the source holds ΔF/F, or F0 ≤ 0 in most of the cells that live: then the drift was
    removed before.

    Raises
    ------
    BadInput
        If the recording is shorter than the window.
    """
    asked, notes = task.params["baseline"], []
    baseline = task.baseline(recording.fs_hz, "divide" if asked == "auto" else asked)
    if asked == "auto" and recording.signal == "dff":
        baseline = task.baseline(recording.fs_hz, "none")
        notes = ["the source holds ΔF/F, so no baseline was taken off (baseline=auto)"]
    if recording.frames < baseline.window:
        window = f"{baseline.window} ({task.params['baseline_window_s']:g} s at {recording.fs_hz:g} Hz)"
        shape = f"{recording.frames} frames of {recording.cells} cells"
        problem = f"{shape} are fewer than the baseline's window of {window}"
        raise BadInput(recording.file, problem, "check rate and axes, or give a smaller baseline_window_s")
    if asked == "auto" and not notes:
        traces = recording.traces(_sample(recording))
        traces = traces[trace_states(traces) == 0]
        bad = np.any(sliding_percentile(traces, baseline.window, baseline.percentile) <= 0, axis=1)
        if len(traces) and bad.mean() > 0.5:
            baseline = task.baseline(recording.fs_hz, "subtract")
            share = f"F0 is zero or negative in {100 * bad.mean():.0f} % of the cells"
            unit = "the number of spikes depends on the unit of the traces, which dff_scale changes"
            notes = [f"{share}, so it was subtracted and not divided by (baseline=auto): {unit}"]
    return baseline, notes


def _sample(recording: CalciumRecording) -> np.ndarray:
    """Rows spread over the whole recording, in runs of neighbours that are read together."""
    starts = np.linspace(0, max(recording.cells - _RUN, 0), _SAMPLED_CELLS // _RUN).astype(int)
    return np.unique((starts[:, None] + np.arange(min(_RUN, recording.cells))).ravel())


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Errors of the engine, which knows traces only, name the file they come from."""
    try:
        yield
    except BrokenProcessPool:
        hint = "give fewer workers or a smaller batch_size"
        raise BadInput(file, "a worker process was killed (out of memory?)", hint) from None
    except BadInput as error:
        if error.source == str(file) or Path(error.source).exists():  # it names a file already
            raise
        raise BadInput(file, f"{error.source} {error.problem}", error.hint) from error


@dataclass(frozen=True)
class CellResults:
    """Of every cell ``(cell,)``: noise level, index into :data:`CELL_STATES`, frames with a prediction, spikes."""

    levels: np.ndarray
    state: np.ndarray
    predicted: np.ndarray
    spikes: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["CellResults"]) -> "CellResults":
        return cls(*map(np.concatenate, zip(*map(astuple, parts), strict=True)))


def infer(traces: np.ndarray, baseline: Baseline, engine: Engine) -> tuple[np.ndarray, np.ndarray, CellResults]:
    """ΔF/F and expected spikes per frame of ``(neuron, time)`` traces, both NaN where there are none."""
    dff, state = baseline.dff(traces)
    levels = engine.noise_levels(dff)
    usable = np.isfinite(levels)
    expected = np.full(dff.shape, np.nan, np.float32)
    expected[usable] = engine.predict(dff[usable], levels[usable])
    predicted = np.isfinite(expected).sum(axis=1)
    state[(state == 0) & (predicted == 0)] = GAPS
    return dff, expected, CellResults(levels, state, predicted, np.nansum(expected, axis=1, dtype=float))


def judge(
    recording: CalciumRecording, baseline: Baseline, engine: Engine, found: CellResults
) -> tuple[dict[str, float], list[str]]:
    """Spikes per second of the cells and of white noise, and what to know of the result before use."""
    notes = [*recording.notes, *left_out(recording, found.state), *engine.check(found.levels)]
    described = engine.describe()
    mean_hz = float(found.spikes.sum() / found.predicted.sum()) * recording.fs_hz
    control_hz = noise_control(baseline, engine, found.levels, recording)
    notes += gap_note(recording, described, found)
    if mean_hz < _CLEAR * control_hz:
        notes.append(
            f"white noise as strong as the cells' gives {control_hz:.2g} spikes/s through the same baseline and model, "
            f"the cells give {mean_hz:.2g}: most of these spikes may be noise"
        )
    return {"cells": mean_hz, "white_noise": control_hz}, notes + described.get("notes", [])


def predict_piece(task: SpikeTask, baseline: Baseline, first: int, last: int) -> tuple[np.ndarray, CellResults]:
    """Neurons ``first`` to ``last``, in whatever process: ``(neuron, time)`` float16, and what is known of each."""
    recording = task.recording()
    engine = task.engine(recording.fs_hz)
    blocks = [infer(traces, baseline, engine)[1:] for _, traces in recording.blocks(ENGINE_NEURONS, first, last)]
    expected = np.concatenate([block.astype(np.float16) for block, _ in blocks])
    return expected, CellResults.joined([found for _, found in blocks])


def _write(
    recording: CalciumRecording, task: SpikeTask, baseline: Baseline, path: Path, workers: int, batch_size: int
) -> CellResults:
    """Write the file piece by piece."""
    size = min(batch_size, _PIECE_BYTES // (4 * recording.frames))
    size = max(size // ENGINE_NEURONS, 1) * ENGINE_NEURONS
    pieces = [(first, min(first + size, recording.cells)) for first in range(0, recording.cells, size)]
    parts, predicted = [], np.zeros(recording.frames, bool)
    calls = [partial(predict_piece, task, baseline, *piece) for piece in pieces]
    processes = min(workers, len(pieces))
    with (
        writing(path) as file,
        process_pool(processes) if processes > 1 else nullcontext() as pool,
        steps(f"{recording.subject}: cells inferred", recording.cells) as advance,
    ):
        column = AppendedColumn(file, "expected_spikes", np.float16, 64, width=recording.frames)
        for expected, part in in_order(call, calls, pool, 2 * workers):
            column.append(expected)
            parts.append(part)
            predicted |= np.isfinite(expected).any(axis=0)
            advance(len(expected))
        column.close()
        found = CellResults.joined(parts)
        file["noise_levels"] = found.levels.astype(np.float32)
        file["cell_state"] = found.state
        file["cell_state"].attrs["meaning"] = list(CELL_STATES)
        file["is_predicted"] = predicted.astype(np.uint8)
        file["cell_ids"], file["positions"] = recording.cell_ids, recording.positions
        file.attrs.update(fs_hz=recording.fs_hz, units="spikes per frame", baseline=baseline.mode)
    return found


def noise_control(baseline: Baseline, engine: Engine, levels: np.ndarray, recording: CalciumRecording) -> float:
    """Spikes per second that white noise of the cells' median noise level gives, through the same baseline and engine.

    A low percentile of noise lies below the resting level, so noise alone has a positive ΔF/F, and networks trained
    on active cells answer it.
    """
    frames, level = min(recording.frames, int(_CONTROL_S * recording.fs_hz)), float(np.nanmedian(levels))
    shape = max(1, _CONTROL_SAMPLES // frames), frames
    # The median absolute difference of white noise is 0.954 of its standard deviation; see noise_levels().
    sd = level / 100 * np.sqrt(recording.fs_hz) / 0.954
    noise = (sd * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    if baseline.mode != "none":
        noise -= sliding_percentile(noise, baseline.window, baseline.percentile)
    return float(np.nanmean(engine.predict(noise, np.full(len(noise), level)))) * recording.fs_hz


def gap_note(recording: CalciumRecording, described: Mapping[str, Any], found: CellResults) -> list[str]:
    """A sentence where gaps take a tenth or more of what could be predicted in the cells that are used."""
    used, possible = found.state == 0, recording.frames - described["frames_before"] - described["frames_after"]
    missing = np.where(used, 1 - found.predicted / max(possible, 1), 0)
    if missing.sum() < _GAPS_TOLD * used.sum():
        return []
    said = f"gaps in the traces take {100 * missing.sum() / used.sum():.0f} % of the frames of the cells that are used"
    most = f"; more than half: {counted((missing > 0.5).sum(), 'cell')}: {_cells(recording, missing > 0.5)}"
    return [said + (most if (missing > 0.5).any() else "")]


def _cells(recording: CalciumRecording, chosen: np.ndarray) -> str:
    ids = recording.cell_ids[chosen]
    return ", ".join(map(str, ids[:_NAMED_CELLS])) + (", … (all in cell_state)" if len(ids) > _NAMED_CELLS else "")


def left_out(recording: CalciumRecording, state: np.ndarray) -> list[str]:
    """A sentence on the cells that were left out, by reason and number of the cell.

    Raises
    ------
    BadInput
        If none is left.
    """
    bad = np.flatnonzero(state)
    if not len(bad):
        return []
    reasons = []
    for number in np.unique(state[bad]):
        reasons.append(f"{(state == number).sum()} {CELL_STATES[number]} ({_cells(recording, state == number)})")
    if len(bad) < recording.cells:
        return [f"{len(bad)} of {recording.cells} cells left out: {'; '.join(reasons)}"]
    hint = "check the traces (all NaN?)"
    if (state == GAPS).any():
        hint = "fill short gaps by interpolation, or give engine=oasis, which uses every frame"
    if (state == BAD_BASELINE).any():
        hint = "these traces are not raw fluorescence: give baseline=subtract, or baseline=none if they are ΔF/F"
    raise BadInput(recording.file, f"no cell can be used: {'; '.join(reasons)}", hint)
