"""The step that turns one shank's LFP traces into its spectrogram file.

Threads suffice: the transform, NumPy's loops and ISA-L release the interpreter lock. What is computed
when, by how many threads and in how much memory does not show in a single byte of the result.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.preprocess.lfp.extraction import EMG_FILE, save_muscle_activity
from src.preprocess.lfp.parameters import plan as plan_of
from src.preprocess.lfp.parameters import resolution_warnings
from src.preprocess.lfp.spectrogram_file import (
    SPECTROGRAMS,
    SUFFIX,
    BandPowers,
    Encoding,
    Piece,
    deflate,
    filtered,
    rows_per_piece,
    write_hdf5,
    write_npz,
)
from src.preprocess.spectrogram import SpectrogramPlan
from src.recordings.check_signal import check_channel
from src.recordings.extracellular.reader import open_recording
from src.recordings.extracellular.recording import ExtracellularRecording, ReadRow, channel_rows
from src.signals import BadInput, SourceOptions
from src.storage.parallel import in_order
from src.storage.progress import job_progress

STEP, VERSION = "lfp_spectrogram", 5
TRACES = "traces"
_CHECKED, _CHECKED_S = 12, 10.0
_FINDINGS = {"missing": "samples missing", "move": "flat", "clipped": "clipped", "hum": "mains hum"}
"""A word of what :func:`check_channel` says of a channel, and how it is called where channels are listed."""


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
    inputs, params
        ``traces``; :meth:`SpectrogramParams.transform`, ``label`` and ``source``.
    threads, memory_mb
        Threads that compute and compress, and memory for the parts of a spectrogram that they are at.
    """
    traces = open_recording(inputs[TRACES], SourceOptions(**params["source"]))
    work, label = ShankSpectrogram(traces, params), params["label"]
    work.check_room(out_dir)
    target = out_dir / f"{label}_{SPECTROGRAMS}{SUFFIX[params['format']]}"
    channel_bytes = traces.n_samples * traces.block_dtype.itemsize
    with (
        ThreadPoolExecutor(threads) as pool,
        channel_rows(traces, out_dir, pool) as read,
        job_progress(f"{label} channels", traces.n_channels, step_bytes=channel_bytes) as advance,
    ):
        signal = _signal(traces, read)
        if params["format"] == "npz":
            pieces = work.pieces(read, pool, advance, int(memory_mb * 1e6))
            write_npz(target, work.axes(), work.shape, work.encoding.dtype, pieces)
        else:
            depth = min(frames_per_task(work.plan), work.n_times)
            attributes = {"axes": "channel, time, frequency", "units": work.description["units"]}
            chunks = work.chunks(read, pool, advance, depth, 3 * threads)
            write_hdf5(target, work.axes(), work.shape, work.encoding.dtype, depth, chunks, attributes)
    if work.bands is not None:
        same = {name: work.axes()[name] for name in ("times", "channel_ids", "sampling_rate", "start_time")}
        named = {"bands": np.array(work.bands.names, dtype=str), "band_edges_hz": work.bands.edges_hz}
        sums = {"band_powers": work.sums[:, :-1], "theta_ratio": work.sums[:, -1]}
        np.savez(out_dir / f"{label}_band_powers.npz", **(same | named | sums))
        save_muscle_activity(traces, out_dir / f"{label}_{EMG_FILE}")
    return work.facts(signal)


class ShankSpectrogram:
    """One shank's spectrograms: what is wanted, and what was found on the way.

    Attributes
    ----------
    plan, encoding, bands
        How frames become power, what of it is stored, and the bands to sum (or none).
    time_last
        Whether stored values are ``(channel, row, time)`` as in npz, or ``(channel, time, row)`` as in HDF5.
    description
        How it was computed, in which units, at which resolution: ``spec_params`` of the file, part of the facts.
    masked
        ``(channel, time)`` frames that touch a sample that is not finite.
    sums
        ``(channel, band + 1, time)`` band powers and theta ratio.
    """

    def __init__(self, traces: ExtracellularRecording, params: Mapping[str, Any]) -> None:
        plan = plan_of(params, traces.fs_hz)
        if traces.n_samples < plan.nperseg:
            problem = f"{traces.n_samples} samples ({traces.duration_s:.3f} s) are shorter than one window"
            raise BadInput(traces.path, f"{problem} of {plan.nperseg}", "give a longer recording or a shorter window")
        self.traces, self.plan, self.time_last = traces, plan, params["format"] == "npz"
        self.encoding = Encoding(plan, params)
        self.bands = BandPowers(plan, params["bands"]) if params["band_powers"] else None
        self.n_times = plan.n_frames(traces.n_samples)
        unit = "unit of the traces" if traces.units == "unknown" else traces.units
        unit = (unit if unit.isalpha() else f"({unit})") + ("^2/Hz" if plan.scaling == "density" else "^2")
        self.description = {
            "fs_hz": traces.fs_hz,
            "n_samples": traces.n_samples,
            "nperseg": plan.nperseg,
            "noverlap": plan.noverlap,
            "nfft": plan.nfft,
            "detrend": plan.detrend,
            "scaling": plan.scaling,
            "mode": "psd",
            "quantity": "decibel" if params["decibel"] else "power",
            "units": f"dB re 1 {unit}" if params["decibel"] else unit,
            "window": params["window"],
            "fmax_hz": params["fmax_hz"],
            "log_bins": params["log_bins"],
            "window_s": plan.nperseg / plan.fs_hz,
            "hop_s": plan.hop / plan.fs_hz,
            "bin_spacing_hz": plan.spacing_hz,
            "resolution_hz": plan.resolution_hz,
            "noise_bandwidth_hz": plan.noise_bandwidth_hz,
            "source_format": traces.source_format,
            "upstream": traces.upstream,
        }
        self._bins = slice(0, max(self.encoding.n_bins, self.bands.n_bins if self.bands else 0))
        self.masked = np.zeros((traces.n_channels, self.n_times), bool)
        self.sums = np.empty((traces.n_channels, len(self.bands.names) + 1 if self.bands else 0, self.n_times), "f4")

    @property
    def shape(self) -> tuple[int, int, int]:
        rows, times = self.encoding.n_rows, self.n_times
        return (self.traces.n_channels, *((rows, times) if self.time_last else (times, rows)))

    def check_room(self, folder: Path) -> None:
        """Refuse before the work rather than after it; a tenth is what deflate saves at the least.

        Raises
        ------
        BadInput
            If the disk has no room for the result and the transposed traces.
        """
        traces, encoding = self.traces, self.encoding
        scratch = traces.n_channels * traces.n_samples * traces.block_dtype.itemsize
        result = 0.9 * traces.n_channels * self.n_times * encoding.n_rows * encoding.dtype.itemsize
        needed, free = scratch + result / (2 if encoding.decibel else 1), shutil.disk_usage(folder).free
        if free < needed:
            problem = (
                f"no space left on the disk for it: {needed / 1e6:.4g} MB are needed, {free / 1e6:.4g} MB are free"
            )
            raise BadInput(folder.parent, problem, "free some space or choose another output_dir")

    def frames(self, read: ReadRow, channel: int, first: int, last: int) -> NDArray:
        """``(row, time)`` of some frames of a channel as they are stored; bands and gaps are collected meanwhile."""
        power = self.plan.power(read(channel, self.plan.stretch(first, last)), bins=self._bins)
        self.masked[channel, first:last] = np.isnan(power[0])
        if self.bands is not None:
            self.sums[channel, :, first:last] = self.bands.sum(power)
        return self.encoding.encode(power)

    def pieces(self, read: ReadRow, pool: Executor, advance: Callable[[], None], memory_bytes: int) -> Iterator[Piece]:
        """``spectrograms`` (channel, frequency, time) in deflated pieces, in C order.

        Time is the last axis of the file, so all frames of some rows have to be there before the first of them is
        written. Two slabs of rows take ``memory_bytes``; where a channel does not fit into one, its transform is
        repeated for every slab.
        """
        row_bytes, n_rows = self.n_times * self.encoding.dtype.itemsize, self.encoding.n_rows
        step, depth = rows_per_piece(row_bytes), frames_per_task(self.plan)
        height = min(n_rows, max(1, memory_bytes // 2 // row_bytes // step) * step)
        slabs = [
            (channel, slice(first, min(first + height, n_rows)))
            for channel in range(self.traces.n_channels)
            for first in range(0, n_rows, height)
        ]
        buffers = [np.empty((height, self.n_times), self.encoding.dtype) for _ in range(min(2, len(slabs)))]

        def fill(index: int) -> tuple[NDArray, list[Future[None]]]:
            channel, rows = slabs[index]
            slab = buffers[index % 2][: rows.stop - rows.start]

            def one(first: int) -> None:
                last = min(first + depth, self.n_times)
                slab[:, first:last] = self.frames(read, channel, first, last)[rows]

            return slab, [pool.submit(one, first) for first in range(0, self.n_times, depth)]

        slab, filling = fill(0)
        for index, (_, rows) in enumerate(slabs):
            for task in filling:
                task.result()
            packing = [pool.submit(deflate, slab[i : i + step].data) for i in range(0, len(slab), step)]
            if index + 1 < len(slabs):  # the next slab is computed while this one is written
                slab, filling = fill(index + 1)
            for packed in packing:
                yield packed.result()
            if rows.stop == n_rows:
                advance()

    def chunks(
        self, read: ReadRow, pool: Executor, advance: Callable[[], None], depth: int, ahead: int
    ) -> Iterator[tuple[int, int, bytes]]:
        """``spectrograms`` (channel, time, frequency) in filtered chunks of ``depth`` frames."""

        def pack(place: tuple[int, int]) -> tuple[int, int, bytes]:
            channel, first = place
            values = np.zeros((depth, self.encoding.n_rows), self.encoding.dtype)
            last = min(first + depth, self.n_times)
            values[: last - first] = self.frames(read, channel, first, last).T
            return channel, first, filtered(values)

        starts = range(0, self.n_times, depth)
        places = [(channel, first) for channel in range(self.traces.n_channels) for first in starts]
        for channel, first, chunk in in_order(pack, places, pool, ahead):
            yield channel, first, chunk
            if first + depth >= self.n_times:
                advance()

    def axes(self) -> dict[str, Any]:
        """The arrays of the file besides the spectrograms."""
        traces = self.traces
        return {
            "freqs": self.encoding.freqs.astype(np.float32),
            "times": self.plan.times(self.n_times).astype(np.float32),
            "channel_ids": traces.channel_ids,
            "sampling_rate": int(traces.fs_hz) if traces.fs_hz == int(traces.fs_hz) else traces.fs_hz,
            "start_time": traces.start_s or 0.0,
            "spec_params": json.dumps(self.description, sort_keys=True),
            "n_channels": traces.n_channels,
            "n_freqs": self.encoding.n_rows,
            "n_times": self.n_times,
            **traces.coordinates,
        }

    def facts(self, signal: Mapping[str, list[str]]) -> dict[str, Any]:
        """What the manifest states; ``signal`` is what was found of the traces, and in which channels."""
        traces, freqs = self.traces, self.encoding.freqs
        counts = zip(traces.channel_ids, self.masked.sum(axis=1), strict=True)
        masked = {str(channel): int(count) for channel, count in counts if count}
        warnings = [*traces.warnings, *resolution_warnings(self.plan)]
        if worst := sorted(masked.items(), key=lambda item: -item[1]):
            shares = ", ".join(f"{100 * count / self.n_times:.3g} % of channel {name}" for name, count in worst[:4])
            more = f" and of {len(worst) - 4} more" if len(worst) > 4 else ""
            warnings.append(f"samples are missing: NaN in the frames that touch them, {shares}{more}")
        if self.bands and self.bands.left_out:
            warnings.append(f"bands above half the sampling rate left out: {', '.join(self.bands.left_out)}")
        warnings += [f"{what}: channels {', '.join(ids)}" for what, ids in signal.items() if what != "samples missing"]
        return self.description | {
            "axes": ["channel", "frequency", "time"] if self.time_last else ["channel", "time", "frequency"],
            "shape": list(self.shape),
            "dtype": str(self.encoding.dtype),
            "sampling_rate_hz": traces.fs_hz,
            "start_time_s": traces.start_s,
            "gaps_s": [[first / traces.fs_hz, last / traces.fs_hz] for first, last in traces.gaps],
            "frequency_range_hz": [float(freqs[0]), float(freqs[-1])],
            "bands": list(self.bands.names) if self.bands else [],
            "masked_frames": masked,
            "signal": signal,
            "warnings": warnings,
        }


def frames_per_task(plan: SpectrogramPlan) -> int:
    """Frames that are computed in one go: a power of two, at most 2 MiB of samples and 8 MiB of power."""
    fit = min((1 << 19) // plan.hop, (1 << 21) // plan.n_freqs, 1 << 11)
    return 1 << max(4, fit.bit_length() - 1)


def _signal(traces: ExtracellularRecording, read: ReadRow) -> dict[str, list[str]]:
    """What :func:`check_channel` finds (flat, clipped, missing, hum), and in which channels.

    Stretches spread over the recording are looked at: two minutes in all, however long it is.
    """
    length = min(traces.n_samples, round(_CHECKED_S * traces.fs_hz))
    count = min(_CHECKED, traces.n_samples // length)
    starts = np.linspace(0, traces.n_samples - length, count).astype(np.int64)
    found: dict[str, list[str]] = {}
    for channel, name in enumerate(traces.channel_ids):
        samples = np.concatenate([read(channel, slice(start, start + length)) for start in starts])
        report = check_channel(samples.astype(np.float32), traces.fs_hz, str(name), traces.units, None)
        for finding in report.findings:
            what = next(short for word, short in _FINDINGS.items() if word in finding)
            found.setdefault(what, []).append(str(name))
    return found
