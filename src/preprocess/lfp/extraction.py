"""The step that brings recordings of acquisition systems down to LFP traces, one file per shank.

The files are those of the original extraction, ``<session>_sh<k>_lfp_traces.npz``, in µV where the recording states
its scale. The recording is read once, whatever the number of shanks, in memory that does not grow with its length.
Muscle activity is taken from the samples as they pass.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from src.preprocess.lfp.states import quietly
from src.recordings.extracellular.arrays import trace_file
from src.recordings.extracellular.binary import parts_of
from src.recordings.extracellular.reader import open_recording
from src.recordings.extracellular.recording import ExtracellularRecording
from src.signals import BadInput, SourceOptions
from src.storage.step import CachedStep, ensure

LFP_HZ = 500.0
_BLOCK_VALUES = 1 << 18  # float32 that fit into a second-level cache
_ATTENUATION_DB = 80.0
_PASSED = 0.4  # share of the output rate up to which nothing is attenuated: 200 of 500 Hz
_GROUPS = 64  # groups of outputs computed in one go, small enough for a second-level cache


def extract(recording: Path, session: str, target: Path, extraction: Mapping[str, Any]) -> Path:
    """The folder with the LFP traces of all shanks of a recording, made unless it is there.

    ``extraction`` is :meth:`LfpParams.extraction`.

    Raises
    ------
    BadInput
        If the recording cannot be read, or has no such channels or rate.
    """
    files = parts_of(recording) if recording.suffix.lower() == ".rec" and recording.is_file() else [recording]
    beside = [recording.with_suffix(suffix) for suffix in (".xml", ".meta")]
    inputs = {f"recording{number}": file for number, file in enumerate(files + [f for f in beside if f.is_file()])}
    return ensure(LFP_TRACES, inputs, {**extraction, "label": session}, label=session, target=target).path


class Decimation:
    """Brings ``(time, channel)`` blocks from one rate to a lower one behind an anti-alias filter.

    Every output is a sum of the inputs around it, weighted by a windowed sinc (Kaiser window, 80 dB). Outputs that
    need the same inputs are computed by one matrix product, so that BLAS does the work: about one nanosecond per input
    sample.

    Parameters
    ----------
    fs_hz
        Rate of the input.
    wanted_hz
        Rate of the output; :attr:`fs_hz` is the rate in fact, which differs if the two have no simple ratio.
    """

    def __init__(self, fs_hz: float, wanted_hz: float) -> None:
        self.ratio = Fraction(wanted_hz / fs_hz).limit_denominator(1000)
        self.fs_hz = fs_hz * float(self.ratio)
        # A wide filter of few taps first; then a steep one on the few samples that are left.
        coarse, passed = max(1, int(fs_hz / wanted_hz / 4)), _PASSED * self.fs_hz
        between = fs_hz / coarse
        filters = (fs_hz, Fraction(1, coarse), between - passed), (between, self.ratio * coarse, self.fs_hz - passed)
        self._kernels = [_Kernel(rate, step, passed, stop) for rate, step, stop in filters if step != 1]

    def n_outputs(self, n_inputs: int) -> int:
        """Number of outputs for a number of inputs."""
        return -int(-n_inputs * self.ratio // 1)

    def apply(self, blocks: Iterable[NDArray], n_inputs: int) -> Iterator[NDArray[np.float32]]:
        """Outputs, the first one at the time of the first input, as if the first and the last sample went on.

        A missing sample (NaN) makes the outputs NaN that it bears on, and those computed with them: at most 64
        outputs before and after it.
        """
        for kernel in self._kernels:
            blocks = _filtered(blocks, kernel)
        left = self.n_outputs(n_inputs)
        for block in blocks:
            yield block[:left].astype(np.float32, copy=False)
            left -= len(block[:left])


class _Kernel:
    """``n_out`` outputs from every ``size`` inputs; inputs have to be delayed by ``half`` samples.

    An output of group ``m`` depends on the inputs of groups ``m`` and ``m + 1``: ``weights`` has the rows for the
    first, then those for the second, because BLAS prefers one product of twice the rows.
    """

    def __init__(self, fs_hz: float, ratio: Fraction, passed_hz: float, stop_hz: float) -> None:
        up, down = ratio.numerator, ratio.denominator
        # Kaiser's formulas for a width and an attenuation A: the taps here, the window's shape 0.1102 (A - 8.7) below.
        width = (stop_hz - passed_hz) / fs_hz
        self.half = int(np.ceil((_ATTENUATION_DB - 7.95) / (2 * 2.285 * 2 * np.pi * width)))
        groups = max(1, -(-(2 * self.half + 1) // down))
        self.size, self.n_out = groups * down, groups * up
        centre = np.arange(self.n_out)[:, None] * (down / up) + self.half
        away = np.arange(2 * self.size)[None, :] - centre
        cutoff = (stop_hz + passed_hz) / fs_hz  # of the sinc, in half cycles per sample
        inside = np.sqrt(np.clip(1 - (away / (self.half + 0.5)) ** 2, 0, None))
        weights = np.sinc(cutoff * away) * np.i0(0.1102 * (_ATTENUATION_DB - 8.7) * inside)
        weights *= np.abs(away) <= self.half
        weights /= weights.sum(axis=1, keepdims=True)
        self.weights = np.concatenate([weights[:, : self.size], weights[:, self.size :]]).astype(np.float32)


def _filtered(blocks: Iterable[NDArray], kernel: _Kernel) -> Iterator[NDArray[np.float32]]:
    waiting = carried = None
    for block in _held(blocks, kernel.half, kernel.half + 2 * kernel.size):
        parts = [block] if waiting is None else [waiting, block]
        whole = np.concatenate(parts, dtype=np.float32, casting="unsafe")
        n_groups = len(whole) // kernel.size
        for first in range(0, n_groups, _GROUPS):
            part = whole[first * kernel.size : min(first + _GROUPS, n_groups) * kernel.size]
            both = kernel.weights @ part.reshape(-1, kernel.size, part.shape[1])
            here, there = both[:, : kernel.n_out], both[:, kernel.n_out :]
            before = here[:-1] if carried is None else np.concatenate([carried, here[:-1]])
            yield (before + there[-len(before) :]).reshape(-1, part.shape[1])
            carried = here[-1:].copy()
        waiting = whole[n_groups * kernel.size :]


def _held(blocks: Iterable[NDArray], before: int, after: int) -> Iterator[NDArray]:
    """The blocks, with the first sample repeated ``before`` times ahead of them and the last one ``after`` times."""
    last = None
    for block in blocks:
        if last is None:
            yield np.repeat(block[:1], before, axis=0)
        yield block
        last = block[-1:]
    if last is not None:
        yield np.repeat(last, after, axis=0)


def _run(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    label, bad, reference = params["label"], params["bad_channels"], params["reference"]
    recording = open_recording(inputs["recording0"], SourceOptions(**params["source"]))
    names = [str(name) for name in recording.channel_ids]
    if unknown := set(bad) - set(names):
        problem = f"{', '.join(sorted(unknown))} not in the recording"
        raise BadInput("bad_channels", problem, f"its ids are {', '.join(names[:8])}, …")
    if bad:
        recording = recording.select([i for i, name in enumerate(names) if name not in bad])
    wanted = params["sampling_rate_hz"] or min(LFP_HZ, recording.fs_hz)
    if wanted > recording.fs_hz:
        problem = f"was sampled at {recording.fs_hz:g} Hz, below the {wanted:g} Hz asked for"
        raise BadInput(recording.path, problem, "lower sampling_rate_hz")
    decimation = Decimation(recording.fs_hz, wanted)
    muscle = HighFrequencyCorrelation.of(recording)
    with ExitStack() as stack:
        writers = {}
        for shank in np.unique(recording.shanks):
            own = recording.shank(shank)
            path = out_dir / f"{label}_sh{shank}_lfp_traces.npz"
            size = (decimation.n_outputs(recording.n_samples), own.n_channels)
            fields = _fields(own, decimation.fs_hz, int(shank), reference)
            writers[shank] = stack.enter_context(trace_file(path, size, np.dtype(np.float32), fields))
        width = recording.n_channels if recording.width is None else recording.width
        blocks = recording.blocks(max(1000, _BLOCK_VALUES // width), scaled=False)
        if muscle is not None:
            blocks = muscle.listen(blocks)
        for block in _joined(decimation.apply(blocks, recording.n_samples), decimation.fs_hz):
            scaled = recording.scaled(block)
            for shank, write in writers.items():
                traces = scaled[:, recording.shanks == shank]
                if reference != "none":
                    shared = quietly(np.nanmedian if reference == "median" else np.nanmean, traces, axis=1)
                    traces = traces - shared[:, None]
                write(traces)
    if muscle is not None:
        muscle.save(out_dir / f"{label}_{EMG_FILE}")
    return {
        "axes": ["time", "channel"],
        "units": recording.units,
        "sampling_rate_hz": decimation.fs_hz,
        "original_fs_hz": recording.fs_hz,
        "source_format": recording.source_format,
        "shanks": {str(k): int(n) for k, n in zip(*np.unique(recording.shanks, return_counts=True), strict=True)},
        "left_out": bad,
        "warnings": recording.notes,
    }


def _joined(blocks: Iterable[NDArray], least: float) -> Iterator[NDArray]:
    """Blocks of more than ``least`` samples, but for the last."""
    waiting = list[NDArray]()
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) > least:
            yield np.concatenate(waiting)
            waiting.clear()
    if waiting:
        yield np.concatenate(waiting)


def _fields(recording: ExtracellularRecording, fs_hz: float, shank: int, reference: str) -> dict[str, Any]:
    referenced = "" if reference == "none" else f", {reference} of the shank subtracted"
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


BAND_HZ = (300.0, 600.0)
LOWEST_RATE_HZ = 1000.0  # below it the band cannot be seen
WINDOW_S, EVERY_S = 0.5, 1.0
"""A window of half a second is looked at in every second: 12 of them in what states are smoothed over."""
EMG_FILE = "emg_from_lfp.npz"
_CHANNELS = 8


class HighFrequencyCorrelation:
    """Muscle activity in the LFP itself: what distant channels share at high frequency without delay.

    The electromyogram of neck and jaw reaches all electrodes at once, brain signals at 300-600 Hz do not (Schomburg et
    al. 2014, Neuron 84:470; Watson et al. 2016, Neuron 90:839). So the mean correlation of distant channels rises in
    active waking and falls in sleep. Looks at the ``scaled=False`` blocks of a recording; made by :meth:`of`.
    """

    def __init__(self, fs_hz: float, channels: NDArray[np.int64]) -> None:
        self._channels, self._fs_hz = channels, fs_hz
        self._every = round(EVERY_S * fs_hz)
        self._samples = np.empty((len(channels), round(WINDOW_S * fs_hz)), np.float32)
        self._taper = scipy.signal.windows.hann(self._samples.shape[1]).astype(np.float32)
        self._nfft = scipy.fft.next_fast_len(self._samples.shape[1], real=True)
        self._band = BAND_HZ[0], min(BAND_HZ[1], 0.45 * fs_hz)
        self._bins = slice(*(round(hz * self._nfft / fs_hz) for hz in self._band))
        self._found = list[float]()

    @classmethod
    def of(cls, recording: ExtracellularRecording) -> "HighFrequencyCorrelation | None":
        """For up to eight channels far from each other; ``None`` where rate or channels do not allow it."""
        if recording.fs_hz < LOWEST_RATE_HZ or recording.n_channels < 2:
            return None
        count = min(_CHANNELS, recording.n_channels)
        places = np.unique(np.linspace(0, recording.n_channels - 1, count).round().astype(np.int64))
        return cls(recording.fs_hz, places if recording.columns is None else recording.columns[places])

    def listen(self, blocks: Iterable[NDArray]) -> Iterator[NDArray]:
        """Yield the blocks unchanged, and measure them."""
        first, length = 0, self._samples.shape[1]
        for block in blocks:
            last = first + len(block)
            for start in range(first // self._every * self._every, last, self._every):
                begin, end = max(start, first), min(start + length, last)
                if begin < end:
                    self._samples[:, begin - start : end - start] = block[begin - first : end - first, self._channels].T
                    if end == start + length:
                        self._found.append(self._mean_correlation())
            first = last
            yield block

    def save(self, path: Path) -> None:
        """Write ``emg`` (window,) mean correlation, -1 to 1, and ``times`` (window,) of the windows' centres in s."""
        times = np.arange(len(self._found)) * self._every / self._fs_hz + WINDOW_S / 2
        fields: dict[str, Any] = {"emg": np.array(self._found, np.float32), "times": times, "window_s": WINDOW_S}
        np.savez(path, **fields, band_hz=np.array(self._band))

    def _mean_correlation(self) -> float:
        """Of all pairs of channels that have a signal; NaN where fewer than two have one.

        The correlation of band-passed signals is the real part of their cross-spectrum, summed over the band.
        """
        whole = self._samples[np.isfinite(self._samples).all(axis=1)]
        spectra = scipy.fft.rfft((whole - whole.mean(axis=1, keepdims=True)) * self._taper, self._nfft)[:, self._bins]
        power = np.sqrt((np.abs(spectra) ** 2).sum(axis=1))
        scaled = spectra[power > 0] / power[power > 0, None]
        count = len(scaled)
        if count < 2:
            return float("nan")
        # |sum of all|² is the sum over all pairs, each channel with itself included.
        return float((np.abs(scaled.sum(axis=0)) ** 2).sum() - count) / (count * (count - 1))


def save_muscle_activity(recording: ExtracellularRecording, path: Path) -> None:
    """Write the muscle activity in a recording, if it can be seen there."""
    if muscle := HighFrequencyCorrelation.of(recording):
        for _ in muscle.listen(recording.blocks(scaled=False)):
            pass
        muscle.save(path)
