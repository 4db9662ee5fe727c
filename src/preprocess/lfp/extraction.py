"""The step that brings recordings of acquisition systems down to LFP traces, one file per shank.

The files are those of the original extraction, ``<session>_sh<k>_lfp_traces.npz``, in µV where the recording states
its scale. The recording is read once, whatever the number of shanks, in memory that does not grow with its length.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.preprocess.lfp.decimation import Decimator
from src.preprocess.lfp.emg import EMG_FILE, HighFrequencyCorrelation
from src.recordings.extracellular.arrays import trace_file
from src.recordings.extracellular.formats import SourceOptions
from src.recordings.extracellular.reader import open_recording
from src.recordings.extracellular.recording import ExtracellularRecording
from src.recordings.extracellular.sessions import Session
from src.recordings.extracellular.spikegadgets import parts_of
from src.signals import BadInput
from src.storage.step import CachedStep, ensure

LFP_HZ = 500.0
_BLOCK_VALUES = 1 << 18  # float32 that fit into a second-level cache


def shank_traces(session: Session, shank: int, target: Path, extraction: Mapping[str, Any]) -> Path:
    """The trace file of a shank of a recording of an acquisition system, made unless it is there.

    Parameters
    ----------
    target
        The session's folder below ``output_dir``; the traces are in ``lfp_traces`` there.
    extraction
        :meth:`LfpParams.extraction`.

    Raises
    ------
    BadInput
        If there is no such shank, or the recording cannot be read.
    """
    assert session.raw is not None
    folder = extract(session.raw, session.name, target / "lfp_traces", extraction)
    path = folder / f"{session.name}_sh{shank}_lfp_traces.npz"
    if not path.is_file():
        there = ", ".join(sorted(file.name.split("_sh")[-1].split("_")[0] for file in folder.glob("*_sh*.npz")))
        raise BadInput(session.path, f"no traces for shank {shank}", f"there are shanks {there}")
    return path


def extract(recording: Path, session: str, target: Path, extraction: Mapping[str, Any]) -> Path:
    """The folder with the LFP traces of all shanks of a recording, made unless it is there."""
    files = parts_of(recording) if recording.suffix.lower() == ".rec" and recording.is_file() else [recording]
    beside = [recording.with_suffix(suffix) for suffix in (".xml", ".meta")]
    inputs = {f"recording{number}": file for number, file in enumerate(files + [f for f in beside if f.is_file()])}
    return ensure(LFP_TRACES, inputs, {**extraction, "label": session}, label=session, target=target).path


def _run(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    recording = open_recording(inputs["recording0"], SourceOptions(**params["source"]))
    bad = [i for i, name in enumerate(recording.channel_ids) if str(name) in params["bad_channels"]]
    if unknown := set(params["bad_channels"]) - set(map(str, recording.channel_ids)):
        known = ", ".join(map(str, recording.channel_ids[:8]))
        raise BadInput("bad_channels", f"{', '.join(sorted(unknown))} not in the recording", f"its ids are {known}, …")
    if bad:
        recording = recording.select([i for i in range(recording.n_channels) if i not in bad])
    wanted = params["sampling_rate_hz"] or min(LFP_HZ, recording.fs_hz)
    if wanted > recording.fs_hz:
        problem = f"was sampled at {recording.fs_hz:g} Hz, below the {wanted:g} Hz asked for"
        raise BadInput(recording.path, problem, "lower sampling_rate_hz")
    width = recording.n_channels if recording.width is None else recording.width
    decimator = Decimator(recording.fs_hz, wanted, width)
    shape = decimator.n_outputs(recording.n_samples)
    muscle = HighFrequencyCorrelation.of(recording)
    with ExitStack() as stack:
        writers = {}
        for shank in np.unique(recording.shanks):
            own = recording.shank(shank)
            path = out_dir / f"{params['label']}_sh{shank}_lfp_traces.npz"
            fields = _fields(own, decimator.fs_hz, int(shank), params)
            size = (shape, own.n_channels)
            writers[shank] = stack.enter_context(trace_file(path, size, np.dtype(np.float32), fields))
        waiting = list[NDArray]()
        for block in recording.blocks(max(1000, _BLOCK_VALUES // width), scaled=False):
            if muscle is not None:
                muscle.push(block)
            waiting.append(decimator.push(block))
            if sum(map(len, waiting)) > decimator.fs_hz:
                _write(writers, recording, np.concatenate(waiting), params["reference"])
                waiting.clear()
        if rest := [part for part in (*waiting, decimator.finish()) if part.size]:
            _write(writers, recording, np.concatenate(rest), params["reference"])
    if muscle is not None:
        muscle.save(out_dir / f"{params['label']}_{EMG_FILE}")
    return {
        "axes": ["time", "channel"],
        "units": recording.units,
        "sampling_rate_hz": decimator.fs_hz,
        "original_fs_hz": recording.fs_hz,
        "source_format": recording.source_format,
        "shanks": {str(k): int(n) for k, n in zip(*np.unique(recording.shanks, return_counts=True), strict=True)},
        "left_out": params["bad_channels"],
        "warnings": list(recording.warnings),
    }


def _write(writers: Mapping[int, Any], recording: ExtracellularRecording, block: NDArray, reference: str) -> None:
    scaled = recording.scaled(block)
    for shank, write in writers.items():
        own = scaled[:, recording.shanks == shank]
        if reference != "none":
            own = own - (np.nanmedian if reference == "median" else np.nanmean)(own, axis=1, keepdims=True)
        write(own)


def _fields(recording: ExtracellularRecording, fs_hz: float, shank: int, params: Mapping[str, Any]) -> dict[str, Any]:
    referenced = "" if params["reference"] == "none" else f", {params['reference']} of the shank subtracted"
    start = recording.start_s or 0.0
    lost = f"; {'; '.join(recording.warnings)}" if recording.gaps else ""
    return {
        "sampling_rate": fs_hz,
        "channel_ids": recording.channel_ids,
        "units": recording.units,
        "shank": shank,
        "time_range": np.array([start, start + recording.duration_s]),
        "upstream": f"{recording.upstream}; brought down to {fs_hz:g} Hz behind an anti-alias filter"
        f" ({recording.fs_hz:g} Hz before), no high-pass{referenced}{lost}",
        **recording.coordinates,
    }


LFP_TRACES = CachedStep("lfp_traces", 2, _run)
"""Inputs ``recording0`` and what belongs to it; parameters :meth:`LfpParams.extraction` and ``label``."""
