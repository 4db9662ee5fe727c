"""Zero-phase band-pass filtering that gives the same samples however a recording is cut into blocks."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.signal

from src.signals import BadInput


@lru_cache(maxsize=16)
def bandpass_kernel(fs_hz: float, low_hz: float | None, high_hz: float | None, order: int = 2) -> np.ndarray:
    """Symmetric impulse response of a Butterworth filter run forwards and backwards.

    Running the recursive filter itself over a recording lets every sample depend on all others; its
    impulse response, cut where it has decayed to a millionth, does not, and can be applied in blocks.

    Parameters
    ----------
    low_hz, high_hz
        Corner frequencies; ``None`` leaves that side open. With both open the kernel is the identity.
    order
        Order of the one-way filter; the kernel attenuates twice as steeply.

    Returns
    -------
    numpy.ndarray
        Odd number of taps, float64.
    """
    if low_hz is None and high_hz is None:
        return np.ones(1)
    nyquist = fs_hz / 2
    for name, corner in (("low_hz", low_hz), ("high_hz", high_hz)):
        if corner is not None and not 0 < corner < nyquist:
            raise BadInput(name, f"{corner:g} Hz is outside 0…{nyquist:g} Hz", "choose a corner below half the rate")
    if low_hz is not None and high_hz is not None:
        if low_hz >= high_hz:
            raise BadInput("low_hz", f"{low_hz:g} Hz is not below high_hz, {high_hz:g} Hz", "swap them")
        sos = scipy.signal.butter(order, (low_hz, high_hz), "bandpass", fs=fs_hz, output="sos")
    elif low_hz is not None:
        sos = scipy.signal.butter(order, low_hz, "highpass", fs=fs_hz, output="sos")
    else:
        sos = scipy.signal.butter(order, high_hz, "lowpass", fs=fs_hz, output="sos")
    reach = int(np.ceil(fs_hz / min(c for c in (low_hz, high_hz) if c is not None) * 4 * order))
    impulse = np.zeros(2 * reach + 1)
    impulse[reach] = 1
    response = scipy.signal.sosfiltfilt(sos, impulse, padtype=None)
    half = reach - int(np.argmax(np.abs(response) > 1e-6 * np.abs(response).max()))
    return response[reach - half : reach + half + 1]


def bandpass(
    trace: np.ndarray, fs_hz: float, low_hz: float | None, high_hz: float | None, order: int = 2
) -> np.ndarray:
    """Zero-phase band-pass of ``(…, time)``, taken as zero outside; same length and type.

    Raises
    ------
    BadInput
        A corner frequency outside ``0…fs_hz / 2``, or the corners in the wrong order.
    """
    kernel = bandpass_kernel(fs_hz, low_hz, high_hz, order).astype(trace.dtype)
    if len(kernel) == 1:
        return trace * kernel[0]
    half = len(kernel) // 2
    shape = (1,) * (trace.ndim - 1) + (-1,)
    filtered = scipy.signal.oaconvolve(trace, kernel.reshape(shape), axes=-1)
    return filtered[..., half : half + trace.shape[-1]]


def mean_template(templates: np.ndarray) -> np.ndarray:
    """One template for all units: their mean, zero-mean and of unit energy."""
    template = templates.mean(axis=0)
    template = template - template.mean()
    energy = np.linalg.norm(template)
    return template / energy if energy > 0 else template


def matched_filter(trace: np.ndarray, template: np.ndarray, onset: int) -> np.ndarray:
    """Correlation of the trace with a template; a spike with onset at ``t`` peaks at ``t``."""
    full = scipy.signal.oaconvolve(trace, template[::-1].astype(trace.dtype))
    start = len(template) - 1 - onset
    return np.asarray(np.pad(full, (0, onset + 1))[start : start + len(trace)])


def slow_baseline(trace: np.ndarray, *, span: int = 5000, step: int = 250) -> np.ndarray:
    """Running median over ``span`` samples, read every ``step`` samples and joined by straight lines.

    Unlike a high-pass filter it leaves no droop beside a spike, so templates keep their shape.
    """
    if len(trace) < 2 * step:
        return np.full(len(trace), np.median(trace), trace.dtype)
    whole = len(trace) // step * step
    blocks = np.median(trace[:whole].reshape(-1, step), axis=1)
    reach = max(span // step, 1) // 2
    padded = np.pad(blocks, reach, mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1), axis=1)
    return np.interp(np.arange(len(trace)), np.arange(len(blocks)) * step + step / 2, smooth).astype(trace.dtype)
