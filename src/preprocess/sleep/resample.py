"""Rational resampling with an anti-alias filter that is down before the new Nyquist frequency."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

from src.signals import BadInput

_STOP_DB = 60.0
_PASS_FRACTION = 0.9
_LARGEST_FACTOR = 20_000


def resample(samples: np.ndarray, from_hz: float, to_hz: float) -> np.ndarray:
    """``(…, time)`` at ``from_hz`` to ``to_hz``: polyphase FIR, linear phase, no delay.

    The pass band ends at 0.9 of the lower Nyquist frequency and the stop band (-60 dB) starts at it.
    The output has ``round(time * to_hz / from_hz)`` samples; NaN stays within the length of the filter.
    """
    from scipy.signal import resample_poly

    if from_hz == to_hz:
        return samples
    ratio = Fraction(to_hz / from_hz).limit_denominator(_LARGEST_FACTOR)
    up, down = ratio.numerator, ratio.denominator
    n_out = round(samples.shape[-1] * to_hz / from_hz)
    # The filter assumes zeros outside; without its mean, a signal with an offset has no step at its ends.
    mean = np.nan_to_num(_finite_mean(samples)).astype(samples.dtype)
    out = resample_poly(samples - mean, up, down, axis=-1, window=_filter(up, down)) + mean
    missing = n_out - out.shape[-1]
    if missing > 0:
        out = np.concatenate([out, np.repeat(out[..., -1:], missing, axis=-1)], axis=-1)
    return np.ascontiguousarray(out[..., :n_out], dtype=samples.dtype)


def require_band(source: str | Path, fs_hz: float, max_hz: float) -> None:
    """Refuse a recording that holds nothing up to ``max_hz``.

    Raises
    ------
    BadInput
        If the Nyquist frequency of ``fs_hz`` lies below ``max_hz``.
    """
    if fs_hz / 2 < max_hz:
        problem = (
            f"sampling rate {fs_hz:g} Hz is too low: nothing above {fs_hz / 2:g} Hz is in it, {max_hz:g} Hz is analysed"
        )
        raise BadInput(source, problem, f"export it at {2 * max_hz:g} Hz or more, or train with a lower max_hz")


@cache
def _filter(up: int, down: int) -> np.ndarray:
    from scipy.signal import firwin, kaiserord

    widest = max(up, down)
    taps, beta = kaiserord(_STOP_DB, (1 - _PASS_FRACTION) / widest)
    return firwin(taps | 1, (1 + _PASS_FRACTION) / 2 / widest, window=("kaiser", beta))


def _finite_mean(samples: np.ndarray) -> np.ndarray:
    finite = np.isfinite(samples)
    count = np.maximum(finite.sum(axis=-1, keepdims=True), 1)
    return np.where(finite, samples, 0).sum(axis=-1, keepdims=True, dtype=np.float64) / count
