"""Muscle activity in the LFP itself: what distant channels share at high frequency without delay.

The electromyogram of neck and jaw reaches all electrodes at once, brain signals at 300-600 Hz do not (Schomburg et
al. 2014, Neuron 84:470; Watson et al. 2016, Neuron 90:839). So the mean correlation of distant channels rises in active
waking and falls in sleep.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from src.recordings.extracellular.recording import ExtracellularRecording

BAND_HZ = (300.0, 600.0)
LOWEST_RATE_HZ = 1000.0  # below it the band cannot be seen
WINDOW_S, EVERY_S = 0.5, 1.0
"""A window of half a second is looked at in every second: 12 of them in what states are smoothed over."""
EMG_FILE = "emg_from_lfp.npz"
_CHANNELS = 8


class HighFrequencyCorrelation:
    """Looks at the ``scaled=False`` blocks of a recording; made by :meth:`of`."""

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
    def of(cls, recording: ExtracellularRecording) -> HighFrequencyCorrelation | None:
        """For up to eight channels far from each other; ``None`` where rate or channels do not allow it."""
        if recording.fs_hz < LOWEST_RATE_HZ or recording.n_channels < 2:
            return None
        count = min(_CHANNELS, recording.n_channels)
        places = np.unique(np.linspace(0, recording.n_channels - 1, count).round().astype(np.int64))
        return cls(recording.fs_hz, places if recording.columns is None else recording.columns[places])

    def listen(self, blocks: Iterable[NDArray]) -> Iterator[NDArray]:
        """The blocks as they are, looked at on their way."""
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
