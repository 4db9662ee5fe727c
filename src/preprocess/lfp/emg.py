"""Muscle activity in the LFP itself: what distant channels share at high frequency without delay.

The electromyogram of neck and jaw reaches all electrodes at once, brain signals at 300-600 Hz do not (Schomburg et
al. 2014, Neuron 84:470; Watson et al. 2016, Neuron 90:839). So the mean correlation of distant channels, half a second
at a time, rises in active waking and falls in sleep.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from src.preprocess.lfp.decimation import Decimator
from src.recordings.extracellular.recording import ExtracellularRecording

BAND_HZ = (300.0, 600.0)
LOWEST_RATE_HZ = 1000.0
"""Below it the band cannot be seen."""
WINDOW_S = 0.5
EMG_FILE = "emg_from_lfp.npz"
_CHANNELS, _RATE_HZ = 8, 2000.0


class HighFrequencyCorrelation:
    """Takes the ``scaled=False`` blocks of a recording; made by :meth:`of`."""

    def __init__(self, recording: ExtracellularRecording, channels: NDArray[np.int64]) -> None:
        self._channels = channels
        self._decimator = Decimator(recording.fs_hz, min(_RATE_HZ, recording.fs_hz), len(channels))
        self.fs_hz = self._decimator.fs_hz if recording.fs_hz > _RATE_HZ else recording.fs_hz
        self._thin = recording.fs_hz > _RATE_HZ
        band = (BAND_HZ[0], min(BAND_HZ[1], 0.45 * self.fs_hz))
        self._filter = scipy.signal.butter(3, band, "band", fs=self.fs_hz, output="sos")
        self._state = np.zeros((len(self._filter), 2, len(channels)))
        self._window = round(WINDOW_S * self.fs_hz)
        self._waiting, self._found = np.empty((0, len(channels))), list[float]()

    @classmethod
    def of(cls, recording: ExtracellularRecording) -> HighFrequencyCorrelation | None:
        """For up to eight channels far from each other; ``None`` where rate or channels do not allow it."""
        if recording.fs_hz < LOWEST_RATE_HZ or recording.n_channels < 2:
            return None
        count = min(_CHANNELS, recording.n_channels)
        places = np.unique(np.linspace(0, recording.n_channels - 1, count).round().astype(np.int64))
        return cls(recording, places if recording.columns is None else recording.columns[places])

    def push(self, block: NDArray) -> None:
        values = block[:, self._channels].astype(np.float32)
        values = self._decimator.push(values) if self._thin else values
        finite = np.isfinite(values)
        filtered, self._state = scipy.signal.sosfilt(self._filter, np.where(finite, values, 0), axis=0, zi=self._state)
        filtered[~finite] = np.nan
        whole = np.concatenate([self._waiting, filtered])
        n_windows = len(whole) // self._window
        for window in whole[: n_windows * self._window].reshape(n_windows, self._window, whole.shape[1]):
            self._found.append(_mean_correlation(window))
        self._waiting = whole[n_windows * self._window :]

    def result(self) -> dict[str, Any]:
        """``emg`` (window,) mean correlation, -1 to 1, and ``times`` (window,) of the windows' centres in s."""
        step = self._window / self.fs_hz
        return {
            "emg": np.array(self._found, np.float32),
            "times": (np.arange(len(self._found)) + 0.5) * step,
            "window_s": step,
            "band_hz": np.array([BAND_HZ[0], min(BAND_HZ[1], 0.45 * self.fs_hz)]),
        }


def _mean_correlation(window: NDArray) -> float:
    """Of all pairs of channels that have a signal; NaN where fewer than two have one."""
    window = window[:, np.isfinite(window).all(axis=0)]
    centred = window - window.mean(axis=0)
    size = np.sqrt((centred**2).sum(axis=0))
    centred = centred[:, size > 0] / size[size > 0]
    pairs = list(combinations(range(centred.shape[1]), 2))
    if not pairs:
        return float("nan")
    together = centred.T @ centred
    return float(np.mean([together[one, other] for one, other in pairs]))
