"""ΔF/F of fluorescence traces: an exact sliding percentile as baseline, and which cells have none.

The baseline of frame ``t`` is a low percentile of the frames around it, with the order statistics and the linear
interpolation of ``numpy.percentile``: the window is kept sorted while it moves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np

CELL_STATES = ("used", "no finite frame", "constant", "F0 ≤ 0", "too many gaps")
"""What ``cell_state`` in the files means: 0 is used, all others are left out."""

NO_DATA, CONSTANT, BAD_BASELINE, GAPS = 1, 2, 3, 4


@dataclass(frozen=True)
class Baseline:
    """How ΔF/F is made of a trace.

    Attributes
    ----------
    mode
        ``divide``: (F − F0) / F0, a fraction | ``subtract``: F − F0 | ``none``: the trace itself.
    window, percentile
        Odd number of frames of the centred window, and F0's percentile in it.
    scale
        Multiplies the result.
    """

    mode: Literal["divide", "subtract", "none"]
    window: int
    percentile: float = 8.0
    scale: float = 1.0

    def dff(self, traces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ΔF/F ``(neuron, time)`` and the state of every neuron; what is left out is NaN."""
        state = trace_states(traces)
        if self.mode == "none":
            dff = traces.copy()
        else:
            baseline = sliding_percentile(traces, self.window, self.percentile)
            dff = traces - baseline
            if self.mode == "divide":
                state[(baseline <= 0).any(axis=1) & (state == 0)] = BAD_BASELINE
                with np.errstate(divide="ignore", invalid="ignore"):
                    dff /= baseline
        dff *= np.float32(self.scale)
        dff[state != 0] = np.nan
        return dff, state


def trace_states(traces: np.ndarray) -> np.ndarray:
    """``(neuron,)`` uint8: index into :data:`CELL_STATES`, as far as the trace alone tells."""
    finite = np.isfinite(traces)
    state = np.zeros(len(traces), np.uint8)
    low = np.where(finite, traces, np.inf).min(axis=1, initial=np.inf)
    high = np.where(finite, traces, -np.inf).max(axis=1, initial=-np.inf)
    state[low == high] = CONSTANT
    state[~finite.any(axis=1)] = NO_DATA
    return state


def window_frames(window_s: float, fs_hz: float) -> int:
    """Odd number of frames in a centred window: half of ``window_s`` on each side of the frame itself.

    The half is ``int(window_s * fs_hz) // 2``: 30 s at 2 Hz give 30 + 1 + 30 = 61 frames.
    """
    return 2 * (int(window_s * fs_hz) // 2) + 1


def sliding_percentile(traces: np.ndarray, window: int, percentile: float) -> np.ndarray:
    """Percentile of the centred window around every frame, ``(neuron, time)`` float32.

    ``window`` is an odd number of frames, cut off at both ends, not padded. NaN frames are left out of every window;
    one without any recorded frame gives NaN. Without NaN the result equals ``numpy.percentile``, interpolated linearly,
    of the float32 window bit for bit.
    """
    traces = np.ascontiguousarray(traces, dtype=np.float32)
    baseline = np.empty_like(traces)
    _slide(traces, window // 2, percentile / 100, baseline)
    return baseline


def _compiled(function: Callable[..., Any]) -> Any:
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # no writable place for the compiled code: compile anew in each process
        return numba.njit(function)


@_compiled
def _slide(traces: np.ndarray, half: int, fraction: float, out: np.ndarray) -> None:
    frames = traces.shape[1]
    window = np.empty(2 * half + 2, np.float32)
    for row in range(len(traces)):
        trace, count = traces[row], 0
        for t in range(-half, frames):
            # One value leaves the sorted window and one comes: the values between their places move by one.
            place = count
            if t > half and not np.isnan(trace[t - half - 1]):
                place = np.searchsorted(window[:count], trace[t - half - 1])
                count -= 1
                gap = True
            else:
                gap = False
            if t + half < frames and not np.isnan(trace[t + half]):
                value = trace[t + half]
                while gap and place < count and window[place + 1] < value:
                    window[place] = window[place + 1]
                    place += 1
                while place > 0 and window[place - 1] > value:
                    window[place] = window[place - 1]
                    place -= 1
                window[place] = value
                count += 1
            elif gap:
                for k in range(place, count):
                    window[k] = window[k + 1]
            if t >= 0:
                out[row, t] = _interpolated(window, count, fraction) if count else np.nan


@_compiled
def _interpolated(ordered: np.ndarray, count: int, fraction: float) -> np.floating:
    """Percentile of ``count`` sorted values, rounded as NumPy rounds it for float32."""
    position = (count - 1) * fraction
    rank = int(position)
    weight = position - rank
    low = ordered[rank]
    high = ordered[min(rank + 1, count - 1)]
    difference = np.float32(high - low)
    if weight >= 0.5:
        return high - np.float32(difference * np.float32(1 - weight))
    return low + np.float32(difference * np.float32(weight))
