"""The costly product of the calcium chain: expected spikes of every cell, kept and reused.

Traces are read in pieces, turned into ΔF/F, given to a spike inference engine in fixed groups of
neurons, and stored as float16. Which process handled which piece, and how large the pieces were, does
not change the result.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from src.recordings.calcium.recording import GROUP, CalciumRecording
from src.recordings.calcium.sources import open_recording
from src.signals import BadInput, counted
from src.storage.hdf5 import AppendedColumn, writing
from src.storage.parallel import call, in_order, process_pool
from src.storage.progress import job_progress
from src.storage.step import CachedStep

SPIKES_FILE = "expected_spikes.h5"
MODEL, EXPECTED = "model", "expected_spikes"
"""Roles of the model package and of the expected spikes among a step's inputs; all others are the recording's."""

_SAMPLED_CELLS, _RUN = 1024, 64
_NAMED_CELLS, _GAPS_TOLD = 8, 0.1
_CONTROL_S, _CONTROL_SAMPLES, _CLEAR = 300.0, 1 << 16, 2.0
"""Seconds and samples of the control with noise; how many times its spikes the cells have to have."""


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
        Those of :class:`~src.preprocess.calcium.parameters.InferenceParams`, ``subject`` and ``need_positions``.
    workers, batch_size
        How the work is cut; the result does not depend on them.
    """
    inference = Inference(open_files(inputs, params), params, inputs.get(MODEL))
    recording, baseline = inference.recording, inference.baseline
    with inference.naming():
        inference.check(recording.traces(_sample(recording)))
        found = _write(inference, partial(predict_piece, inputs, params), out_dir / SPIKES_FILE, workers, batch_size)
        rate_hz, notes = inference.judge(found)
    described = inference.engine.describe()
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
        "notes": notes,
    }


EXPECTED_SPIKES = CachedStep("expected_spikes", 4, make_expected_spikes)


def open_files(inputs: Mapping[str, Path], params: Mapping[str, Any]) -> CalciumRecording:
    """The recording among a step's inputs."""
    files = {role: path for role, path in inputs.items() if role not in (MODEL, EXPECTED)}
    options = {name: params[name] for name in ("neuropil", "need_positions")}
    return open_recording(files, params["subject"], params["fs_hz"], **options)


def baseline_of(params: Mapping[str, Any], fs_hz: float, mode: str) -> Baseline:
    """How ΔF/F is made at this frame rate."""
    # Without a baseline one frame of ΔF/F depends on one frame of the recording.
    window = 1 if mode == "none" else window_frames(params["baseline_window_s"], fs_hz)
    return Baseline(mode, window, params["baseline_percentile"], params["dff_scale"])  # type: ignore[arg-type]


def choose_baseline(recording: CalciumRecording, params: Mapping[str, Any]) -> tuple[Baseline, list[str]]:
    """The baseline of a recording, and a sentence where ``auto`` chose another than dividing by it.

    ``auto`` divides, unless the source holds ΔF/F, or F0 ≤ 0 in most of the cells that live: then the drift was
    removed before.

    Raises
    ------
    BadInput
        If the recording is shorter than the window.
    """
    asked, notes = params["baseline"], []
    if asked == "auto" and recording.signal == "dff":
        asked, notes = "none", ["the source holds ΔF/F, so no baseline was taken off (baseline=auto)"]
    baseline = baseline_of(params, recording.fs_hz, "divide" if asked == "auto" else asked)
    if recording.frames < baseline.window:
        window = f"{baseline.window} ({params['baseline_window_s']:g} s at {recording.fs_hz:g} Hz)"
        shape = f"{recording.frames} frames of {recording.cells} cells"
        problem = f"{shape} are fewer than the baseline's window of {window}"
        raise BadInput(recording.file, problem, "check rate and axes, or give a smaller baseline_window_s")
    if asked == "auto":
        traces = recording.traces(_sample(recording))
        traces = traces[trace_states(traces) == 0]
        bad = np.any(sliding_percentile(traces, baseline.window, baseline.percentile) <= 0, axis=1)
        if len(traces) and bad.mean() > 0.5:
            baseline = baseline_of(params, recording.fs_hz, "subtract")
            share = f"F0 is zero or negative in {100 * bad.mean():.0f} % of the cells"
            unit = "the number of spikes depends on the unit of the traces, which dff_scale changes"
            notes = [f"{share}, so it was subtracted and not divided by (baseline=auto): {unit}"]
    return baseline, notes


@lru_cache(maxsize=1)
def _engine(engine: str, model: str | Path, fs_hz: float, threshold: int | None, align: str, any_rate: bool) -> Engine:
    """The engine of this process; networks are loaded once for all pieces."""
    return open_engine(engine, model, fs_hz=fs_hz, threshold=threshold, align=align, any_rate=any_rate)


def _sample(recording: CalciumRecording) -> np.ndarray:
    """Rows spread over the whole recording, in runs of neighbours that are read together."""
    starts = np.linspace(0, max(recording.cells - _RUN, 0), _SAMPLED_CELLS // _RUN).astype(int)
    return np.unique((starts[:, None] + np.arange(min(_RUN, recording.cells))).ravel())


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


class Inference:
    """Spike inference of one recording: ``params`` as in :func:`make_expected_spikes`, ``model`` a package's folder."""

    def __init__(self, recording: CalciumRecording, params: Mapping[str, Any], model: Path | None = None) -> None:
        self.recording = recording
        self.baseline, self.notes = choose_baseline(recording, params)
        chosen = params["engine"], model or params["cascade_model"], recording.fs_hz
        with self.naming():
            self.engine = _engine(*chosen, params["threshold"], params["align"], params["cascade_model"] == AUTO)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Errors of the engine, which knows traces only, name the file they come from."""
        file = self.recording.file
        try:
            yield
        except BrokenProcessPool:
            hint = "give fewer workers or a smaller batch_size"
            raise BadInput(file, "a worker process was killed (out of memory?)", hint) from None
        except BadInput as error:
            if error.source == str(file) or Path(error.source).exists():  # it names a file already
                raise
            raise BadInput(file, f"{error.source} {error.problem}", error.hint) from error

    def check(self, traces: np.ndarray) -> None:
        """Refuse a recording whose ΔF/F cannot be a fraction, judged by some traces."""
        self.engine.check(self.engine.noise_levels(self.baseline.dff(traces)[0]))

    def infer(self, traces: np.ndarray) -> tuple[np.ndarray, np.ndarray, CellResults]:
        """ΔF/F and expected spikes per frame of ``(neuron, time)`` traces, both NaN where there are none."""
        dff, state = self.baseline.dff(traces)
        levels = self.engine.noise_levels(dff)
        usable = np.isfinite(levels)
        expected = np.full(dff.shape, np.nan, np.float32)
        expected[usable] = self.engine.predict(dff[usable], levels[usable])
        predicted = np.isfinite(expected).sum(axis=1)
        state[(state == 0) & (predicted == 0)] = GAPS
        return dff, expected, CellResults(levels, state, predicted, np.nansum(expected, axis=1, dtype=float))

    def judge(self, found: CellResults) -> tuple[dict[str, float], list[str]]:
        """Spikes per second of the cells and of white noise, and what to know of the result before use.

        Raises
        ------
        BadInput
            If no cell can be used.
        """
        notes = [*self.notes, *self.recording.notes, *self._left_out(found.state), *self.engine.check(found.levels)]
        mean_hz = float(found.spikes.sum() / found.predicted.sum()) * self.recording.fs_hz
        control_hz = self._noise_control(float(np.nanmedian(found.levels)))
        notes += self._gap_note(found)
        if mean_hz < _CLEAR * control_hz:
            notes.append(
                f"white noise as strong as the cells' gives {control_hz:.2g} spikes/s through the same baseline and "
                f"model, the cells give {mean_hz:.2g}: most of these spikes may be noise"
            )
        return {"cells": mean_hz, "white_noise": control_hz}, notes + self.engine.describe().get("notes", [])

    def _noise_control(self, level: float) -> float:
        """Spikes per second that white noise of the cells' median noise level gives, by the same baseline and engine.

        A low percentile of noise lies below the resting level, so noise alone has a positive ΔF/F, and networks trained
        on active cells answer it.
        """
        fs_hz = self.recording.fs_hz
        frames = min(self.recording.frames, int(_CONTROL_S * fs_hz))
        # The median absolute difference of white noise is 0.954 of its standard deviation; see noise_levels().
        noise = np.random.default_rng(0).standard_normal((max(1, _CONTROL_SAMPLES // frames), frames))
        noise = (level / 100 * np.sqrt(fs_hz) / 0.954 * noise).astype(np.float32)
        if self.baseline.mode != "none":
            noise -= sliding_percentile(noise, self.baseline.window, self.baseline.percentile)
        return float(np.nanmean(self.engine.predict(noise, np.full(len(noise), level)))) * fs_hz

    def _gap_note(self, found: CellResults) -> list[str]:
        """A sentence where gaps take a tenth or more of what could be predicted in the cells that are used."""
        used, described = found.state == 0, self.engine.describe()
        possible = self.recording.frames - described["frames_before"] - described["frames_after"]
        missing = np.where(used, 1 - found.predicted / max(possible, 1), 0)
        if missing.sum() < _GAPS_TOLD * used.sum():
            return []
        share = f"{100 * missing.sum() / used.sum():.0f} %"
        said = f"gaps in the traces take {share} of the frames of the cells that are used"
        most = f"; more than half: {counted((missing > 0.5).sum(), 'cell')}: {self._cells(missing > 0.5)}"
        return [said + (most if (missing > 0.5).any() else "")]

    def _cells(self, chosen: np.ndarray) -> str:
        ids = self.recording.cell_ids[chosen]
        return ", ".join(map(str, ids[:_NAMED_CELLS])) + (", … (all in cell_state)" if len(ids) > _NAMED_CELLS else "")

    def _left_out(self, state: np.ndarray) -> list[str]:
        """A sentence on the cells that were left out, by reason and number of the cell."""
        bad, cells = np.count_nonzero(state), self.recording.cells
        if not bad:
            return []
        reasons = "; ".join(
            f"{(state == number).sum()} {CELL_STATES[number]} ({self._cells(state == number)})"
            for number in np.unique(state[state > 0])
        )
        if bad < cells:
            return [f"{bad} of {cells} cells left out: {reasons}"]
        hint = "check the traces (all NaN?)"
        if (state == GAPS).any():
            hint = "fill short gaps by interpolation, or give engine=oasis, which uses every frame"
        if (state == BAD_BASELINE).any():
            hint = "these traces are not raw fluorescence: give baseline=subtract, or baseline=none if they are ΔF/F"
        raise BadInput(self.recording.file, f"no cell can be used: {reasons}", hint)


def predict_piece(
    inputs: Mapping[str, Path], params: Mapping[str, Any], mode: str, rows: np.ndarray
) -> tuple[np.ndarray, CellResults]:
    """The cells of some rows, in whatever process: ``(neuron, time)`` float16, and what is known of each.

    ``mode`` is that of the baseline which was chosen for the whole recording.
    """
    inference = Inference(open_files(inputs, params), {**params, "baseline": mode}, inputs.get(MODEL))
    traces = inference.recording.traces(rows)
    # The last bit of a network's output may depend on how many traces are computed side by side: always as many.
    blocks = [inference.infer(traces[first : first + GROUP])[1:] for first in range(0, len(rows), GROUP)]
    expected = np.concatenate([block.astype(np.float16) for block, _ in blocks])
    return expected, CellResults.joined([found for _, found in blocks])


def _write(inference: Inference, predict: Callable[..., Any], path: Path, workers: int, batch_size: int) -> CellResults:
    """Write the file piece by piece."""
    recording = inference.recording
    calls = [partial(predict, inference.baseline.mode, rows) for rows in recording.pieces(batch_size)]
    parts, predicted, processes = [], np.zeros(recording.frames, bool), min(workers, len(calls))
    with (
        writing(path) as file,
        process_pool(processes) if processes > 1 else nullcontext() as pool,
        job_progress(f"{recording.subject}: cells inferred", recording.cells) as advance,
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
        file.attrs.update(fs_hz=recording.fs_hz, units="spikes per frame", baseline=inference.baseline.mode)
    return found
