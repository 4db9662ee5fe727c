"""EEG and EOG of a night from its hypnogram: stage-wise spectra with subject, epoch and moment-to-moment variation.

Noise is shaped in the frequency domain, frame by frame, and overlap-added, so any spectrum may change at any time. The
band powers were measured in the Sleep-EDF nights of 42 subjects (``benchmarks/simulated_sleep.py measure``).
"""

from __future__ import annotations

import numpy as np
from scipy import fft

FS_HZ = 100
CHANNELS = ("EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal")
SCALE_UV = np.array([24.0, 16.0, 45.0])
BANDS_HZ = ((0.5, 4.0), (4.0, 8.0), (8.0, 12.0), (12.0, 16.0), (16.0, 30.0))

LOG_POWER = np.array(
    [
        [[-0.98, -3.06, -3.78, -4.42, -3.46], [-1.74, -2.81, -2.85, -3.70, -2.94], [-0.93, -3.63, -4.57, -5.33, -7.53]],
        [[-2.10, -3.63, -4.24, -4.97, -4.43], [-1.66, -2.80, -3.48, -4.47, -4.25], [-2.86, -5.01, -5.66, -6.39, -8.63]],
        [[-1.24, -3.13, -4.14, -4.69, -5.04], [-1.00, -2.42, -3.55, -4.34, -4.73], [-2.82, -4.76, -5.67, -6.48, -8.94]],
        [[0.24, -2.63, -4.04, -4.76, -5.46], [0.05, -2.18, -3.70, -4.56, -5.25], [-1.56, -4.18, -5.59, -6.47, -8.93]],
        [[-2.17, -3.63, -4.56, -5.38, -4.77], [-1.86, -3.08, -3.80, -4.82, -4.58], [-2.69, -5.16, -6.03, -6.71, -8.89]],
    ]
)
"""``(stage, channel, band)`` median of the natural log of band power, in units of the recording's variance."""

_FRAME = 4 * FS_HZ
_HOP = _FRAME // 2
_FREQUENCIES = np.fft.rfftfreq(_FRAME, 1 / FS_HZ)


def simulate_eeg(rng: np.random.Generator, stages: np.ndarray, epoch_s: float = 30.0) -> np.ndarray:
    """``(channel, time)`` float32 microvolts for a hypnogram of ``(epoch,)`` stages."""
    n_samples = int(len(stages) * epoch_s * FS_HZ)
    n_frames = n_samples // _HOP + 1
    frame_epoch = np.minimum(np.arange(n_frames) * _HOP / FS_HZ / epoch_s, len(stages) - 1).astype(int)
    shape = LOG_POWER.shape[1:]
    levels = LOG_POWER[stages] + 0.35 * rng.standard_normal(shape) + 0.4 * rng.standard_normal((len(stages), *shape))
    rows = [
        _coloured_noise(rng, levels[frame_epoch, row].astype(np.float32), n_samples) * scale
        for row, scale in enumerate(SCALE_UV)
    ]
    return np.stack(rows).astype(np.float32)


def _coloured_noise(rng: np.random.Generator, levels: np.ndarray, n_samples: int) -> np.ndarray:
    """Noise whose spectrum in every frame passes through the band levels ``(frame, band)``."""
    n_frames = len(levels)
    widths = np.array([high - low for low, high in BANDS_HZ], np.float32)
    amplitude = np.exp(0.5 * (levels - np.log(widths)) @ _interpolation()) * np.float32(
        np.sqrt(FS_HZ * _FRAME / 2) / np.sqrt(2)
    )
    spectrum = rng.standard_normal((n_frames, len(_FREQUENCIES), 2), dtype=np.float32).view(np.complex64)[..., 0]
    frames = fft.irfft(spectrum * amplitude, n=_FRAME, axis=1)
    frames *= np.sin(np.pi * (np.arange(_FRAME, dtype=np.float32) + 0.5) / _FRAME)
    out = np.zeros((n_frames + 1, _HOP), np.float32)
    out[:-1] += frames[:, :_HOP]
    out[1:] += frames[:, _HOP:]
    return out.ravel()[_HOP : _HOP + n_samples]


def _interpolation() -> np.ndarray:
    """``(band, frequency)`` weights: log power density is linear in log frequency between the bands' centres."""
    centres = np.array([np.sqrt(low * high) for low, high in BANDS_HZ])
    weights = np.zeros((len(centres), len(_FREQUENCIES)), np.float32)
    position = np.interp(np.log(np.maximum(_FREQUENCIES, 1e-3)), np.log(centres), np.arange(len(centres)))
    low = np.minimum(position.astype(int), len(centres) - 2)
    columns = np.arange(len(_FREQUENCIES))
    weights[low, columns] += 1 - (position - low)
    weights[low + 1, columns] += position - low
    return weights
