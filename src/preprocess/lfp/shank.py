"""The step that turns one shank's LFP traces into its spectrogram file.

Threads suffice: the transform, NumPy's loops and ISA-L release the interpreter lock. What is computed
when, by how many threads and in how much memory does not show in a single byte of the result.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.preprocess.lfp.encoding import BandPowers, Encoding
from src.preprocess.lfp.parameters import plan as plan_of
from src.preprocess.lfp.parameters import resolution_warnings
from src.preprocess.lfp.spectrogram_file import (
    SPECTROGRAMS,
    SUFFIX,
    Piece,
    deflate,
    filtered,
    rows_per_piece,
    write_hdf5,
    write_npz,
)
from src.preprocess.sleep.spectrogram import SpectrogramPlan
from src.recordings.extracellular.formats import SourceOptions
from src.recordings.extracellular.reader import open_recording
from src.recordings.extracellular.recording import ExtracellularRecording, ReadRow, channel_rows
from src.recordings.sleep.check_signal import check_signal
from src.signals import BadInput
from src.storage.parallel import in_order
from src.storage.progress import steps
from src.storage.step import CachedStep

STEP, VERSION = "lfp_spectrogram", 4
TRACES = "traces"
_CHECKED, _CHECKED_S = 12, 10.0
_FINDINGS = {"missing": "samples missing", "move": "flat", "clipped": "clipped", "hum": "mains hum"}
"""A word of what :func:`check_signal` says of a channel, and how it is called where channels are listed."""


@dataclass
class Computation:
    """One shank's spectrograms: what goes in, what is wanted, and what was found on the way.

    Attributes
    ----------
    plan, encoding, bands
        How frames become power, what of it is stored, and the bands to sum (or none).
    n_channels, n_times
        Of the result.
    read
        Gives any stretch of any channel.
    pool
        Its threads compute and compress.
    advance
        Called after every channel.
    masked
        ``(channel, time)`` frames that touch a sample that is not finite.
    sums
        ``(channel, band + 1, time)`` band powers and theta ratio, if there are bands.
    """

    plan: SpectrogramPlan
    encoding: Encoding
    bands: BandPowers | None
    n_channels: int
    n_times: int
    read: ReadRow
    pool: Executor
    advance: Callable[[], None]
    masked: NDArray[np.bool_] = field(init=False)
    sums: NDArray[np.float32] | None = field(init=False)

    def __post_init__(self) -> None:
        self.masked = np.zeros((self.n_channels, self.n_times), bool)
        rows = len(self.bands.names) + 1 if self.bands else 0
        self.sums = np.empty((self.n_channels, rows, self.n_times), np.float32) if rows else None

    def rows(self, channel: int, rows: slice, span: slice, out: NDArray | None = None) -> NDArray:
        """``(row, time)`` of some frames of a channel as they are stored; bands are summed with its first rows."""
        bins = self.encoding.bins(rows)
        needed = bins
        if self.bands is not None and rows.start == 0:
            needed = slice(min(bins.start, self.bands.bins.start), max(bins.stop, self.bands.bins.stop))
        samples = self.read(channel, self.plan.stretch(span.start, span.stop))
        if out is not None and self.encoding.plain and needed == bins:
            power = values = self.plan.power(samples, bins=bins, out=out)
        else:
            power = self.plan.power(samples, bins=needed)
            values = self.encoding.encode(power, needed, rows)
            if out is not None:
                out[:] = values
        if rows.start == 0:
            if self.bands is not None and self.sums is not None:
                self.sums[channel, :, span] = self.bands.sum(power)
            self.masked[channel, span] = np.isnan(power[0])
        return values


def shank_step(*, threads: int = 1, memory_mb: float = 256) -> CachedStep:
    """The step, with what decides how it runs and never what comes out.

    Parameters
    ----------
    threads
        Threads that compute and compress.
    memory_mb
        For the parts of a spectrogram that are being computed and compressed.
    """
    return CachedStep(STEP, VERSION, partial(run, threads=threads, memory_mb=memory_mb))


def run(
    inputs: Mapping[str, Path],
    params: dict[str, Any],
    out_dir: Path,
    seed: int | None,
    *,
    threads: int = 1,
    memory_mb: float = 256,
) -> dict[str, Any]:
    """Write ``<label>_spectrograms`` and, if wanted, ``<label>_band_powers.npz``; return the facts.

    With band powers, traces of 1000 Hz and more also give ``<label>_emg_from_lfp.npz``.

    Parameters
    ----------
    inputs
        ``{"traces": file}``.
    params
        :meth:`SpectrogramParams.transform` with ``label`` and ``source``.
    """
    traces = open_recording(inputs[TRACES], SourceOptions(**params["source"]))
    plan = plan_of(params, traces.fs_hz)
    if traces.n_samples < plan.nperseg:
        problem = f"{traces.n_samples} samples ({traces.duration_s:.3f} s) are shorter than one window"
        raise BadInput(traces.path, f"{problem} of {plan.nperseg}", "give a longer recording or a shorter window")
    encoding = Encoding(plan, params)
    bands = BandPowers(plan, params["bands"]) if params["band_powers"] else None
    n_times = plan.n_frames(traces.n_samples)
    _check_room(out_dir, traces, n_times, encoding)
    axes = _axes(traces, plan, encoding, n_times, params)
    channel_bytes = traces.n_samples * traces.block_dtype.itemsize
    with (
        ThreadPoolExecutor(threads) as pool,
        channel_rows(traces, out_dir, pool) as read,
        steps(f"{params['label']} channels", traces.n_channels, step_bytes=channel_bytes) as advance,
    ):
        work = Computation(
            plan=plan,
            encoding=encoding,
            bands=bands,
            n_channels=traces.n_channels,
            n_times=n_times,
            read=read,
            pool=pool,
            advance=advance,
        )
        signal = _signal(traces, read)
        target = out_dir / f"{params['label']}_{SPECTROGRAMS}{SUFFIX[params['format']]}"
        if params["format"] == "npz":
            shape = (work.n_channels, encoding.n_rows, n_times)
            write_npz(target, axes, shape, encoding.dtype, _pieces(work, int(memory_mb * 1e6)))
        else:
            shape, depth = (work.n_channels, n_times, encoding.n_rows), min(frames_per_task(plan), n_times)
            attributes = {"axes": "channel, time, frequency", "units": _units(traces, params)}
            write_hdf5(target, axes, shape, encoding.dtype, depth, _chunks(work, depth, 3 * threads), attributes)
    if bands is not None and work.sums is not None:
        from src.preprocess.lfp.emg import EMG_FILE, save_muscle_activity

        _save_bands(out_dir / f"{params['label']}_band_powers.npz", axes, bands, work.sums)
        save_muscle_activity(traces, out_dir / f"{params['label']}_{EMG_FILE}")
    return _facts(traces, plan, work, params, signal)


def _save_bands(target: Path, axes: Mapping[str, Any], bands: BandPowers, sums: NDArray[np.floating]) -> None:
    """``sums`` is ``(channel, band + 1, time)``; its last row is the theta ratio."""
    same: dict[str, Any] = {name: axes[name] for name in ("times", "channel_ids", "sampling_rate", "start_time")}
    named = {"bands": np.array(bands.names, dtype=str), "band_edges_hz": bands.edges_hz}
    np.savez(target, **(same | named), band_powers=sums[:, :-1], theta_ratio=sums[:, -1])


def frames_per_task(plan: SpectrogramPlan) -> int:
    """Frames that are computed in one go: a power of two, at most 2 MiB of samples and 8 MiB of power."""
    fit = min((1 << 19) // plan.hop, (1 << 21) // plan.n_freqs, 1 << 11)
    return 1 << max(4, fit.bit_length() - 1)


def _pieces(work: Computation, memory_bytes: int) -> Iterator[Piece]:
    """``spectrograms`` (channel, frequency, time) in deflated pieces, in C order.

    Time is the last axis of the file, so all frames of some rows have to be there before the first of them is
    written. Two slabs of rows take ``memory_bytes``; where a channel does not fit into one, its transform is repeated
    for every slab.
    """
    row_bytes = work.n_times * work.encoding.dtype.itemsize
    step, n_rows = rows_per_piece(row_bytes), work.encoding.n_rows
    height = min(n_rows, max(1, memory_bytes // 2 // row_bytes // step) * step)
    slabs = [
        (channel, slice(first, min(first + height, n_rows)))
        for channel in range(work.n_channels)
        for first in range(0, n_rows, height)
    ]
    buffers = [np.empty((height, work.n_times), work.encoding.dtype) for _ in range(min(2, len(slabs)))]
    depth = frames_per_task(work.plan)
    spans = [slice(first, min(first + depth, work.n_times)) for first in range(0, work.n_times, depth)]

    def fill(index: int) -> list[Future[NDArray]]:
        channel, rows = slabs[index]
        out = buffers[index % 2][: rows.stop - rows.start]
        return [work.pool.submit(work.rows, channel, rows, span, out[:, span]) for span in spans]

    filling = fill(0)
    for index, (_, rows) in enumerate(slabs):
        for task in filling:
            task.result()
        slab = buffers[index % 2][: rows.stop - rows.start]
        packing = [work.pool.submit(deflate, slab[i : i + step].data) for i in range(0, len(slab), step)]
        # The next slab is computed while this one is written.
        filling = fill(index + 1) if index + 1 < len(slabs) else []
        for packed in packing:
            yield packed.result()
        if rows.stop == n_rows:
            work.advance()


def _chunks(work: Computation, depth: int, ahead: int) -> Iterator[tuple[int, int, bytes]]:
    """``spectrograms`` (channel, time, frequency) in filtered chunks of ``depth`` frames."""
    n_rows = work.encoding.n_rows

    def pack(place: tuple[int, int]) -> tuple[int, int, bytes]:
        channel, first = place
        values = np.zeros((depth, n_rows), work.encoding.dtype)
        last = min(first + depth, work.n_times)
        values[: last - first] = work.rows(channel, slice(0, n_rows), slice(first, last)).T
        return channel, first, filtered(values)

    places = [(channel, first) for channel in range(work.n_channels) for first in range(0, work.n_times, depth)]
    for channel, first, chunk in in_order(pack, places, work.pool, ahead):
        yield channel, first, chunk
        if first + depth >= work.n_times:
            work.advance()


def _axes(
    traces: ExtracellularRecording,
    plan: SpectrogramPlan,
    encoding: Encoding,
    n_times: int,
    params: Mapping[str, Any],
) -> dict[str, Any]:
    kept = ("window", "fmax_hz", "log_bins")
    spec_params = {
        "fs_hz": traces.fs_hz,
        "n_samples": traces.n_samples,
        "nperseg": plan.nperseg,
        "noverlap": plan.noverlap,
        "nfft": plan.nfft,
        "detrend": plan.detrend,
        "scaling": plan.scaling,
        "mode": "psd",
        "quantity": "decibel" if params["decibel"] else "power",
        "units": _units(traces, params),
        **{name: params[name] for name in kept},
        **_resolution(plan),
        "source_format": traces.source_format,
        "upstream": traces.upstream,
    }
    return {
        "freqs": encoding.freqs.astype(np.float32),
        "times": plan.times(n_times).astype(np.float32),
        "channel_ids": traces.channel_ids,
        "sampling_rate": int(traces.fs_hz) if traces.fs_hz == int(traces.fs_hz) else traces.fs_hz,
        "start_time": traces.start_s or 0.0,
        "spec_params": json.dumps(spec_params, sort_keys=True),
        "n_channels": traces.n_channels,
        "n_freqs": encoding.n_rows,
        "n_times": n_times,
        **traces.coordinates,
    }


def _resolution(plan: SpectrogramPlan) -> dict[str, float]:
    return {
        "window_s": plan.nperseg / plan.fs_hz,
        "hop_s": plan.hop / plan.fs_hz,
        "bin_spacing_hz": plan.spacing_hz,
        "resolution_hz": plan.resolution_hz,
        "noise_bandwidth_hz": plan.noise_bandwidth_hz,
    }


def _units(traces: ExtracellularRecording, params: Mapping[str, Any]) -> str:
    unit = "unit of the traces" if traces.units == "unknown" else traces.units
    unit = unit if unit.isalpha() else f"({unit})"
    power = f"{unit}^2/Hz" if params["scaling"] == "density" else f"{unit}^2"
    return f"dB re 1 {power}" if params["decibel"] else power


def _facts(
    traces: ExtracellularRecording,
    plan: SpectrogramPlan,
    work: Computation,
    params: Mapping[str, Any],
    signal: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    counts = work.masked.sum(axis=1)
    masked = {str(i): int(n) for i, n in zip(traces.channel_ids, counts, strict=True) if n}
    warnings = [*traces.warnings, *resolution_warnings(plan), *_masked_warning(masked, work.n_times)]
    if work.bands and work.bands.left_out:
        warnings.append(f"bands above half the sampling rate left out: {', '.join(work.bands.left_out)}")
    warnings += [f"{what}: channels {', '.join(ids)}" for what, ids in signal.items() if what != "samples missing"]
    rows = work.encoding.n_rows
    time_last = params["format"] == "npz"
    return {
        "axes": ["channel", "frequency", "time"] if time_last else ["channel", "time", "frequency"],
        "shape": [work.n_channels, *((rows, work.n_times) if time_last else (work.n_times, rows))],
        "dtype": str(work.encoding.dtype),
        "units": _units(traces, params),
        "sampling_rate_hz": traces.fs_hz,
        "n_samples": traces.n_samples,
        "start_time_s": traces.start_s,
        "gaps_s": [[first / traces.fs_hz, last / traces.fs_hz] for first, last in traces.gaps],
        "nperseg": plan.nperseg,
        "noverlap": plan.noverlap,
        "nfft": plan.nfft,
        **_resolution(plan),
        "frequency_range_hz": [float(work.encoding.freqs[0]), float(work.encoding.freqs[-1])],
        "bands": list(work.bands.names) if work.bands else [],
        "masked_frames": masked,
        "signal": signal,
        "source_format": traces.source_format,
        "upstream": traces.upstream,
        "warnings": warnings,
    }


def _signal(traces: ExtracellularRecording, read: ReadRow) -> dict[str, list[str]]:
    """What :func:`check_signal` finds (flat, clipped, missing, hum), and in which channels.

    Stretches spread over the recording are looked at: two minutes in all, however long it is.
    """
    length = min(traces.n_samples, round(_CHECKED_S * traces.fs_hz))
    count = min(_CHECKED, traces.n_samples // length)
    starts = np.linspace(0, traces.n_samples - length, count).astype(np.int64)
    found: dict[str, list[str]] = {}
    for channel, name in enumerate(traces.channel_ids):
        samples = np.concatenate([read(channel, slice(start, start + length)) for start in starts])
        (report,) = check_signal(
            samples[None].astype(np.float32), traces.fs_hz, channels=[str(name)], units=[traces.units], usual_uv=None
        )
        for finding in report.findings:
            what = next(short for word, short in _FINDINGS.items() if word in finding)
            found.setdefault(what, []).append(str(name))
    return found


def _masked_warning(masked: Mapping[str, int], n_times: int) -> Sequence[str]:
    if not masked:
        return ()
    worst = sorted(masked.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{100 * n / n_times:.3g} % of channel {name}" for name, n in worst[:4])
    more = f" and of {len(worst) - 4} more" if len(worst) > 4 else ""
    return (f"samples are missing: NaN in the frames that touch them, {shares}{more}",)


def _check_room(folder: Path, traces: ExtracellularRecording, n_times: int, encoding: Encoding) -> None:
    """Refuse before the work rather than after it; a tenth is what deflate saves at the least."""
    scratch = traces.n_channels * traces.n_samples * traces.block_dtype.itemsize
    result = 0.9 * traces.n_channels * n_times * encoding.n_rows * encoding.dtype.itemsize
    needed, free = scratch + result / (1 if encoding.plain else 2), shutil.disk_usage(folder).free
    if free < needed:
        problem = f"no space left on the disk for it: {needed / 1e6:.4g} MB are needed, {free / 1e6:.4g} MB are free"
        raise BadInput(folder.parent, problem, "free some space or choose another output_dir")
