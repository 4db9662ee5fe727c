"""Band powers of epochs: five numbers per channel, the coarsest spectrogram a sleep scorer can work with.

They stand in for the log spectrogram wherever one is expected: an image of five rows and one column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from src.signals import BadInput

SLEEP_BANDS_HZ: tuple[tuple[float, float], ...] = ((0.5, 4.0), (4.0, 8.0), (8.0, 12.0), (12.0, 16.0), (16.0, 30.0))
"""Delta, theta, alpha, sigma, beta."""
_FLOOR = 1e-10
_EOG_TOP_HZ = 15.0
_DRAWN_HZ, _DRAWN_WINDOW_S = (0.5, 30.0), 4.0
_BLOCK, _SAMPLES = 256, 1 << 18
_ORDER, _REACH_S = 4, 20.0


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

    def images(self, samples: NDArray[np.floating], channels: Sequence[str] = ()) -> NDArray[np.float32]:
        """Log band powers ``(epoch, channel, band, 1)`` of a recording, float32 in dB re the channel's variance.

        ``samples`` are ``(channel, time)`` at ``fs_hz`` in any unit; a last partial epoch is left out, epochs with
        a sample that is not finite are NaN. Of ``channels`` whose names start with ``EOG`` only what lies below 15 Hz
        is looked at, above it is muscle.
        """
        size, window = self.epoch_samples, round(self.window_s * self.fs_hz)
        n_epochs = samples.shape[-1] // size
        powers = np.empty((n_epochs, len(samples), len(self.bands_hz), 1), np.float32)
        for row, channel in enumerate(samples):
            top_hz = _EOG_TOP_HZ if channels and channels[row].upper().startswith("EOG") else self.max_hz
            epochs = _whitened(channel, self, top_hz)[: n_epochs * size].reshape(n_epochs, size)
            freqs_hz, density = welch(epochs, self.fs_hz, window)
            for band, (low, high) in enumerate(self.bands_hz):
                inside = (freqs_hz >= low) & (freqs_hz <= high)
                power = np.trapezoid(density[:, inside], freqs_hz[inside], axis=-1)
                powers[:, row, band, 0] = 10 * np.log10(power + _FLOOR)
        return powers


def welch(epochs: NDArray[np.floating], fs_hz: float, window: int) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Frequencies in Hz, and power density ``(epoch, frequency)`` of ``(epoch, time)``, median over Hamming windows.

    Equals ``scipy.signal.welch(epochs, fs_hz, "hamming", window, average="median")`` between 0 Hz and the Nyquist
    frequency. ``scipy.signal`` is not used, because it takes a second to import.
    """
    taper = np.hamming(window + 1)[:-1].astype(epochs.dtype)
    density = []
    for first in range(0, max(1, len(epochs)), _BLOCK):  # some epochs at a time, for the memory
        frames = sliding_window_view(epochs[first : first + _BLOCK], window, axis=1)[:, :: window - window // 2]
        spectra = np.fft.rfft((frames - frames.mean(axis=2, keepdims=True)) * taper)
        power = np.sort(np.abs(spectra) ** 2, axis=1)  # a quarter of the time of np.median, the same value
        count = power.shape[1]
        middle = (power[:, (count - 1) // 2] + power[:, count // 2]) / 2
        density.append(np.where(np.isnan(power[:, -1]), np.nan, middle))
    place = np.arange(1, count + count % 2)
    bias = ((-1.0) ** (place + 1) / place).sum()  # median over mean of so many exponential values
    return np.fft.rfftfreq(window, 1 / fs_hz), np.concatenate(density) * (2 / (fs_hz * (taper**2).sum() * bias))


def _whitened(channel: NDArray[np.floating], settings: BandPowerSettings, top_hz: float) -> NDArray[np.float32]:
    """The channel between the lowest band and ``top_hz`` with unit variance; missing samples stay missing."""
    missing = ~np.isfinite(channel)
    if missing.any():
        channel = np.where(missing, np.median(channel[~missing]) if not missing.all() else 0.0, channel)
    edges_hz = min(low for low, _ in settings.bands_hz), min(top_hz, 0.99 * settings.fs_hz / 2)
    filtered = _band_passed(channel, edges_hz, settings.fs_hz)
    filtered[missing] = 0.0
    squares = np.square(filtered).sum(dtype=np.float64)  # the filter has left no mean
    filtered /= np.sqrt(squares / max(1, np.count_nonzero(~missing))) or 1.0
    filtered[missing] = np.nan
    return filtered


def _band_passed(row: NDArray[np.floating], edges_hz: tuple[float, float], fs_hz: float) -> NDArray[np.float32]:
    """A Butterworth band-pass of order 4 forward and backward, some samples at a time, for the memory.

    Both ways multiply the spectrum by ``1 / (1 + ((w² - w₁w₂) / (w (w₂ - w₁)))⁸)`` with ``w = tan(πf / fs)``, which is
    ``scipy.signal.sosfiltfilt`` far from the ends. Both ends are continued, mirrored about the last sample.
    """
    reach = round(_REACH_S * fs_hz)
    low, high = np.tan(np.pi * np.array(edges_hz) / fs_hz)
    with np.errstate(divide="ignore"):
        w = np.tan(np.pi * np.fft.rfftfreq(_SAMPLES))
        gain = 1 / (1 + ((w**2 - low * high) / (w * (high - low))) ** (2 * _ORDER))
    padded = np.pad(row, reach, "reflect", reflect_type="odd")
    out = np.empty(len(row), np.float32)
    for first in range(0, len(row), _SAMPLES - 2 * reach):
        piece = padded[first : first + _SAMPLES].astype(np.float64)
        spectrum = np.fft.rfft(piece, _SAMPLES) * gain
        out[first : first + len(piece) - 2 * reach] = np.fft.irfft(spectrum)[reach : len(piece) - reach]
    return out


def drawn_levels(row: np.ndarray, fs_hz: float, epoch_s: float) -> tuple[np.ndarray, np.ndarray]:
    """``(epoch, frequency)`` dB of a channel ``(time,)``, NaN where it is flat, and the frequencies, 0.5 to 30 Hz."""
    size, window = round(epoch_s * fs_hz), round(min(_DRAWN_WINDOW_S, epoch_s) * fs_hz)
    freqs_hz, density = welch(row[: len(row) // size * size].reshape(-1, size), fs_hz, window)
    shown = (freqs_hz >= _DRAWN_HZ[0] - 1e-9) & (freqs_hz <= _DRAWN_HZ[1] + 1e-9)
    return 10 * np.log10(np.where(density > _FLOOR, density, np.nan)[:, shown]), freqs_hz[shown]
