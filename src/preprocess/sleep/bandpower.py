"""Band powers of epochs: five numbers per channel, the coarsest spectrogram a sleep scorer can work with.

They stand in for the log spectrogram wherever one is expected: an image of five rows and one column.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from src.signals import BadInput

SLEEP_BANDS_HZ: tuple[tuple[float, float], ...] = ((0.5, 4.0), (4.0, 8.0), (8.0, 12.0), (12.0, 16.0), (16.0, 30.0))
"""Delta, theta, alpha, sigma, beta."""
_FLOOR = 1e-10
_EOG_TOP_HZ = 15.0
_BLOCK, _SAMPLES = 256, 1 << 20


@dataclass(frozen=True)
class BandPowerSettings:
    """How an epoch becomes band powers; takes the place of ``FeatureSettings``.

    The signal of a channel is filtered, scaled to unit variance over the recording, and the power
    density of every epoch (Welch: median over half-overlapping Hamming windows) is integrated over each
    band. Levels are therefore relative to the recording and do not depend on its unit or gain.
    """

    kind: Literal["bandpower"] = "bandpower"
    fs_hz: float = 100.0  # of the signal
    epoch_s: float = 30.0
    window_s: float = 4.0  # of a Welch window
    bands_hz: tuple[tuple[float, float], ...] = SLEEP_BANDS_HZ  # (low, high) of each row

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands_hz", tuple((float(low), float(high)) for low, high in self.bands_hz))
        if not 0 < self.window_s <= self.epoch_s:
            problem = f"window {self.window_s:g} s, epoch {self.epoch_s:g} s"
            raise BadInput("features.window_s", problem, "give 0 < window <= epoch")
        for low, high in self.bands_hz:
            if not 0 < low < high < self.fs_hz / 2:
                raise BadInput("features.bands_hz", f"{low:g}..{high:g} Hz", f"stay within 0..{self.fs_hz / 2:g} Hz")

    @property
    def epoch_samples(self) -> int:
        return round(self.epoch_s * self.fs_hz)

    @property
    def max_hz(self) -> float:
        return max(high for _, high in self.bands_hz)

    @property
    def freqs_hz(self) -> NDArray[np.float64]:
        """``(band,)`` middles of the bands."""
        return np.array([(low + high) / 2 for low, high in self.bands_hz])

    @property
    def times_s(self) -> NDArray[np.float64]:
        """``(1,)`` middle of the epoch."""
        return np.array([self.epoch_s / 2])

    @property
    def shape(self) -> tuple[int, int]:
        """``(band, 1)``."""
        return len(self.bands_hz), 1

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for parameters of a step."""
        return asdict(self) | {"bands_hz": [list(band) for band in self.bands_hz]}

    def images(self, samples: NDArray[np.floating], channels: Sequence[str] = ()) -> NDArray[np.float32]:
        """Log band powers ``(epoch, channel, band, 1)`` of a recording, float32 in dB re the channel's variance.

        ``samples`` are ``(channel, time)`` at ``fs_hz`` in any unit; a last partial epoch is left out, epochs with
        a sample that is not finite are NaN. Of ``channels`` whose names start with ``EOG`` only what lies below 15 Hz
        is looked at, above it is muscle.
        """
        from scipy.signal import welch

        size, window = self.epoch_samples, round(self.window_s * self.fs_hz)
        n_epochs = samples.shape[-1] // size
        powers = np.empty((n_epochs, len(samples), len(self.bands_hz), 1), np.float32)
        for row, channel in enumerate(samples):
            top_hz = _EOG_TOP_HZ if channels and channels[row].upper().startswith("EOG") else self.max_hz
            epochs = _whitened(channel, self, top_hz)[: n_epochs * size].reshape(n_epochs, size)
            for first in range(0, n_epochs, _BLOCK):  # some epochs at a time, for the memory
                block = slice(first, first + _BLOCK)
                freqs_hz, density = welch(epochs[block], self.fs_hz, "hamming", window, average="median", axis=-1)
                for band, (low, high) in enumerate(self.bands_hz):
                    inside = (freqs_hz >= low) & (freqs_hz <= high)
                    power = np.trapezoid(density[:, inside], freqs_hz[inside], axis=-1)
                    powers[block, row, band, 0] = 10 * np.log10(power + _FLOOR)
        return powers


def _whitened(channel: NDArray[np.floating], settings: BandPowerSettings, top_hz: float) -> NDArray[np.float64]:
    """The channel between the lowest band and ``top_hz`` with unit variance; missing samples stay missing."""
    from scipy.signal import butter

    missing = ~np.isfinite(channel)
    if missing.any():
        channel = np.where(missing, np.median(channel[~missing]) if not missing.all() else 0.0, channel)
    edges_hz = min(low for low, _ in settings.bands_hz), min(top_hz, 0.99 * settings.fs_hz / 2)
    filtered = _filtered_both_ways(butter(4, edges_hz, "bandpass", fs=settings.fs_hz, output="sos"), channel)
    if missing.any():
        filtered[missing] = np.nan
        filtered /= (np.nanstd(filtered) if not missing.all() else 1.0) or 1.0
        return filtered
    mean = filtered.mean()
    squares = sum(float(np.square(block - mean).sum()) for block in _blocks(filtered))
    filtered /= np.sqrt(squares / len(filtered)) or 1.0
    return filtered


def _blocks(row: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    return (row[first : first + _SAMPLES] for first in range(0, len(row), _SAMPLES))


def _filtered_both_ways(sections: NDArray[np.float64], row: NDArray[np.floating]) -> NDArray[np.float64]:
    """What ``scipy.signal.sosfiltfilt(sections, row)`` returns, a block at a time, for the memory."""
    from scipy.signal import sosfilt, sosfilt_zi

    zeros = min((sections[:, 2] == 0).sum(), (sections[:, 5] == 0).sum())
    edge = 3 * (2 * len(sections) + 1 - int(zeros))
    first, last = 2 * row[0].astype(np.float64), 2 * row[-1].astype(np.float64)
    out = np.concatenate([first - row[edge:0:-1], row, last - row[-2 : -edge - 2 : -1]])
    for way in (out, out[::-1]):
        state = sosfilt_zi(sections) * way[0]
        for block in _blocks(way):
            block[:], state = sosfilt(sections, block, zi=state)
    return out[edge:-edge]
