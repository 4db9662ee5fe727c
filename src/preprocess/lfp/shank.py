"""The stage that turns one shank's LFP traces into its spectrogram file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.lfp import parameters as lfp_parameters
from src.preprocess.lfp.artifact import SPECTROGRAMS, SUFFIX
from src.preprocess.lfp.bands import BandPowers, band_powers_file
from src.preprocess.lfp.compute import Computation, write_hdf5, write_npz
from src.preprocess.lfp.encoding import Encoding
from src.preprocess.sleep.spectrogram import SpectrogramPlan
from src.recordings.extracellular.traces import Traces, open_traces
from src.signals import BadInput
from src.storage.step import CachedStep

STAGE, VERSION = "lfp_spectrogram", 2
TRACES = "traces"
Advance = Callable[..., None]


def shank_stage(
    *, threads: int = 1, memory_mb: float = 256, progress: Callable[[int, int], Advance] | None = None
) -> CachedStep:
    """The stage, with what decides how it runs and never what comes out.

    Parameters
    ----------
    threads
        Threads that compute and compress.
    memory_mb
        For the slabs of spectrogram being computed and compressed; :func:`compute.write_npz`.
    progress
        Called with the number of channels and the bytes of a channel's samples when these are known;
        returns what to call after each channel, or with the part of one that is done.
    """
    return CachedStep(STAGE, VERSION, partial(run, threads=threads, memory_mb=memory_mb, progress=progress))


def run(
    inputs: Mapping[str, Path],
    params: dict[str, Any],
    out_dir: Path,
    seed: int | None,
    *,
    threads: int = 1,
    memory_mb: float = 256,
    progress: Callable[[int, int], Advance] | None = None,
) -> dict[str, Any]:
    """Write ``<label>_spectrograms`` and, if wanted, ``<label>_band_powers.npz``; return the facts.

    Parameters
    ----------
    inputs
        ``{"traces": file}``.
    params
        As :func:`parameters.resolve` returns them, with ``label``, ``shank`` and ``sampling_rate_hz``.
    """
    traces = open_traces(inputs[TRACES], params["sampling_rate_hz"], params["shank"])
    plan = lfp_parameters.plan(params, traces.fs_hz)
    if traces.n_samples < plan.nperseg:
        problem = f"{traces.n_samples} samples ({traces.n_samples / traces.fs_hz:.3f} s) are shorter than one window"
        raise BadInput(traces.path, f"{problem} of {plan.nperseg}", "give a longer recording or a shorter window")
    encoding = Encoding(plan, params)
    bands = BandPowers(plan, params["bands"]) if params["band_powers"] else None
    n_times = plan.n_frames(traces.n_samples)
    # What is stored frame by frame can do without a scratch file where the traces come so.
    scratch = 0 if params["format"] != "npz" and traces.in_time else traces.nbytes
    _check_room(out_dir, scratch, traces.n_channels * n_times, encoding)
    axes = _axes(traces, plan, encoding, n_times, params)
    times = {name: axes[name] for name in ("times", "channel_ids", "sampling_rate", "start_time")}
    powers = out_dir / f"{params['label']}_band_powers.npz"
    writer = band_powers_file(powers, bands, times, traces.n_channels, n_times) if bands else nullcontext(None)
    with ThreadPoolExecutor(threads) as pool, writer as file:
        work = Computation(
            traces=traces,
            n_times=n_times,
            plan=plan,
            encoding=encoding,
            bands=bands,
            bands_file=file,
            pool=pool,
            threads=threads,
            advance=progress(traces.n_channels, traces.nbytes // traces.n_channels) if progress else _unseen,
        )
        target = out_dir / f"{params['label']}_{SPECTROGRAMS}{SUFFIX[params['format']]}"
        if params["format"] == "npz":
            write_npz(target, work, axes, int(memory_mb * 1e6))
        else:
            write_hdf5(target, work, axes, {"axes": "channel, time, frequency", "units": _units(traces, params)})
    return _facts(traces, plan, encoding, bands, params, work)


def _unseen(amount: float = 1.0) -> None:
    """Progress that nobody looks at."""


def _axes(
    traces: Traces, plan: SpectrogramPlan, encoding: Encoding, n_times: int, params: Mapping[str, Any]
) -> dict[str, Any]:
    rate = int(traces.fs_hz) if traces.fs_hz == int(traces.fs_hz) else traces.fs_hz
    return {
        "freqs": encoding.freqs.astype(np.float32),
        "times": plan.times(n_times).astype(np.float32),
        "channel_ids": traces.channel_ids,
        "sampling_rate": rate,
        "start_time": traces.start_s or 0.0,
        "spec_params": json.dumps(_spec_params(traces, plan, params), sort_keys=True),
        "n_channels": traces.n_channels,
        "n_freqs": encoding.n_rows,
        "n_times": n_times,
        **traces.coordinates,
    }


def _spec_params(traces: Traces, plan: SpectrogramPlan, params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "fs_hz": traces.fs_hz,
        "n_samples": traces.n_samples,
        "window": params["window"],
        "nperseg": plan.nperseg,
        "noverlap": plan.noverlap,
        "nfft": plan.nfft,
        "detrend": plan.detrend,
        "scaling": plan.scaling,
        "mode": "psd",
        "quantity": "decibel" if params["decibel"] else "power",
        "units": _units(traces, params),
        "fmax_hz": params["fmax_hz"],
        "log_bins": params["log_bins"],
        **_resolution(plan),
        "upstream": traces.upstream,
    }


def _resolution(plan: SpectrogramPlan) -> dict[str, float]:
    return {
        "window_s": plan.nperseg / plan.fs_hz,
        "hop_s": plan.hop / plan.fs_hz,
        "bin_spacing_hz": plan.spacing_hz,
        "resolution_hz": plan.resolution_hz,
        "noise_bandwidth_hz": plan.noise_bandwidth_hz,
    }


def _units(traces: Traces, params: Mapping[str, Any]) -> str:
    unit = "unit of the traces" if traces.units == "unknown" else traces.units
    unit = unit if unit.isalpha() else f"({unit})"
    power = f"{unit}^2/Hz" if params["scaling"] == "density" else f"{unit}^2"
    return f"dB re 1 {power}" if params["decibel"] else power


def _facts(
    traces: Traces,
    plan: SpectrogramPlan,
    encoding: Encoding,
    bands: BandPowers | None,
    params: Mapping[str, Any],
    work: Computation,
) -> dict[str, Any]:
    masked = {str(i): int(n) for i, n in zip(traces.channel_ids, work.masked, strict=True) if n}
    warnings = list(traces.warnings)
    if masked:
        worst = sorted(masked.items(), key=lambda item: -item[1])
        shares = ", ".join(f"{100 * n / work.n_times:.3g} % of channel {name}" for name, n in worst[:4])
        more = f" and of {len(worst) - 4} more" if len(worst) > 4 else ""
        warnings.append(f"samples are missing: NaN in the frames that touch them, {shares}{more}")
    if bands and bands.left_out:
        warnings.append(f"bands above half the sampling rate left out: {', '.join(bands.left_out)}")
    time_last, last = params["format"] == "npz", (encoding.n_rows, work.n_times)
    return {
        "axes": ["channel", "frequency", "time"] if time_last else ["channel", "time", "frequency"],
        "shape": [traces.n_channels, *(last if time_last else last[::-1])],
        "dtype": str(encoding.dtype),
        "units": _units(traces, params),
        "sampling_rate_hz": traces.fs_hz,
        "n_samples": traces.n_samples,
        "start_time_s": traces.start_s,
        "nperseg": plan.nperseg,
        "noverlap": plan.noverlap,
        "nfft": plan.nfft,
        **_resolution(plan),
        "frequency_range_hz": [float(encoding.freqs[0]), float(encoding.freqs[-1])],
        "bands": list(bands.names) if bands else [],
        "masked_frames": masked,
        "upstream": traces.upstream,
        "warnings": warnings,
    }


def _check_room(folder: Path, scratch: int, frames: int, encoding: Encoding) -> None:
    """Refuse before the work rather than after it; a tenth is what deflate saves at the least."""
    result = 0.9 * frames * encoding.n_rows * encoding.dtype.itemsize
    needed, free = scratch + result / (1 if encoding.plain else 2), shutil.disk_usage(folder).free
    if free < needed:
        problem = f"no space left on the disk for it: {needed / 1e6:.4g} MB are needed, {free / 1e6:.4g} MB are free"
        raise BadInput(folder.parent, problem, "free some space or choose another output_dir")
