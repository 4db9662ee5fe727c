"""Noise of a given spectrum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft


@dataclass(frozen=True)
class Spectrum:
    """One-sided power spectral density of a background.

    Attributes
    ----------
    power
        ``(frequency,)`` in units² / Hz, from 0 to ``fs_hz / 2`` in equal steps.
    fs_hz
        Sampling rate it was measured at.
    """

    power: np.ndarray
    fs_hz: float

    @property
    def frequencies(self) -> np.ndarray:
        return np.linspace(0, self.fs_hz / 2, len(self.power))

    def sigma(self, low_hz: float = 0.0, high_hz: float | None = None) -> float:
        """Standard deviation of the part of the noise between two frequencies."""
        f = self.frequencies
        inside = (f >= low_hz) & (f <= (high_hz if high_hz is not None else self.fs_hz / 2))
        return float(np.sqrt(np.sum(self.power[inside]) * (f[1] - f[0])))

    def scaled(self, gain: float) -> Spectrum:
        """Spectrum of the same noise multiplied by ``gain``."""
        return Spectrum(self.power * gain**2, self.fs_hz)

    def synthesise(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Gaussian noise ``(n_samples,)`` with this spectrum and random phases."""
        size = scipy.fft.next_fast_len(max(n_samples, 2 * len(self.power)), real=True)
        f = np.fft.rfftfreq(size, 1 / self.fs_hz)
        amplitude = np.sqrt(np.interp(f, self.frequencies, self.power) * self.fs_hz * size / 2)
        draw = rng.standard_normal((2, len(f)), dtype=np.float32)
        shaped = amplitude * (draw[0] + 1j * draw[1]) / np.sqrt(2)
        shaped[0] = amplitude[0] * draw[0, 0]
        return scipy.fft.irfft(shaped.astype(np.complex64), size)[:n_samples].astype(np.float32)
