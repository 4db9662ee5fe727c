"""Exact sliding-percentile baseline of fluorescence traces, and ΔF/F.

The baseline of frame ``t`` is a low percentile of the frames around it. It is computed exactly (the
order statistics and the linear interpolation of ``numpy.percentile``), at a few nanoseconds per sample:
time is cut into blocks of one window, every block keeps the smallest values of its tails and the
following block those of its heads, and a window is the union of one tail and one head (the van Herk
idea for minimum filters, carried over to ranks). All steps are minima and maxima over neurons side by
side, so they run on the processor's vector units.
"""

from __future__ import annotations

from typing import Literal

import numba
import numpy as np

LANES = 32
"""Neurons that are filtered side by side; a multiple of every vector width."""

Mode = Literal["divide", "subtract", "none"]


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
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window of {window} frames: an odd number of frames is needed")
    if not 0 <= percentile <= 100:
        raise ValueError(f"percentile {percentile} is not between 0 and 100")
    traces = np.asarray(traces, dtype=np.float32)
    frames = traces.shape[1]
    fraction, half = percentile / 100, window // 2
    baseline = np.empty_like(traces)
    one_by_one = np.isnan(traces).any(axis=1) | (frames < window)
    for row in np.flatnonzero(one_by_one):
        _sorted_window(traces[row], half, fraction, baseline[row])
    whole = np.flatnonzero(~one_by_one)
    if not len(whole):
        return baseline
    rank, low_weight, high_weight = _interpolation(window, fraction)
    lanes_in = np.zeros((frames, LANES), np.float32)
    edge = np.empty(half, np.float32)
    lanes_out = np.empty((frames - window + 1, LANES), np.float32)
    for first in range(0, len(whole), LANES):
        rows = whole[first : first + LANES]
        lanes_in[:, : len(rows)] = traces[rows].T
        _block_merge(lanes_in, window, rank, low_weight, high_weight, lanes_out)
        baseline[rows, half : frames - half] = lanes_out[:, : len(rows)].T
        for row in rows:
            _sorted_window(traces[row], half, fraction, edge)
            baseline[row, :half] = edge
            _sorted_window(traces[row, ::-1].copy(), half, fraction, edge)  # one memory order, so compiled once
            baseline[row, frames - half :] = edge[::-1]
    return baseline


def relative_to_baseline(traces: np.ndarray, baseline: np.ndarray, mode: Mode) -> np.ndarray:
    """ΔF/F (``divide``, a fraction), F − F0 (``subtract``, units of the trace), or the trace itself.

    ``divide`` needs F0 > 0 in every frame; a neuron where that fails comes back as NaN.
    """
    if mode == "none":
        return traces
    if mode == "subtract":
        return traces - baseline
    if mode != "divide":
        raise ValueError(f"unknown mode {mode!r}")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        relative = (traces - baseline) / baseline
    relative[nonpositive_baseline(baseline)] = np.nan
    return relative


def nonpositive_baseline(baseline: np.ndarray) -> np.ndarray:
    """``(neuron,)`` bool: whether F0 is zero or negative in any frame."""
    return np.asarray((baseline <= 0).any(axis=1))


def _interpolation(count: int, fraction: float) -> tuple[int, np.float32, np.float32]:
    """Lower rank and the two forms of the weight as ``numpy.percentile`` rounds them for float32."""
    position = (count - 1) * fraction
    rank = min(int(position), max(count - 2, 0))
    weight = position - rank
    return rank, np.float32(weight), np.float32(1 - weight)


def _compiled(function):  # type: ignore[no-untyped-def]
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # no writable place for the compiled code: compile anew in each process
        return numba.njit(function)


@_compiled
def _block_merge(x, window, rank, weight, opposite, out):  # type: ignore[no-untyped-def]
    """Windows that lie wholly inside: ``x`` (time, LANES) to ``out`` (time - window + 1, LANES)."""
    frames, lanes = x.shape
    keep = min(rank + 2, window)
    upper = min(rank + 1, window - 1)
    tails = np.empty((window + 1, keep, lanes), np.float32)
    heads = np.empty((keep, lanes), np.float32)
    low = np.empty(lanes, np.float32)
    high = np.empty(lanes, np.float32)
    for start in range(0, frames - window + 1, window):
        tails[window] = np.inf
        for offset in range(window - 1, -1, -1):
            for k in range(keep - 1, 0, -1):
                for lane in range(lanes):
                    pushed = max(tails[offset + 1, k - 1, lane], x[start + offset, lane])
                    tails[offset, k, lane] = min(tails[offset + 1, k, lane], pushed)
            for lane in range(lanes):
                tails[offset, 0, lane] = min(tails[offset + 1, 0, lane], x[start + offset, lane])
        heads[:] = np.inf
        for offset in range(min(window, frames - window - start + 1)):
            if offset:
                new = start + window + offset - 1
                for k in range(keep - 1, 0, -1):
                    for lane in range(lanes):
                        heads[k, lane] = min(heads[k, lane], max(heads[k - 1, lane], x[new, lane]))
                for lane in range(lanes):
                    heads[0, lane] = min(heads[0, lane], x[new, lane])
            for lane in range(lanes):
                low[lane] = min(tails[offset, rank, lane], heads[rank, lane])
                high[lane] = min(tails[offset, upper, lane], heads[upper, lane])
            # The r-th smallest of two sorted lists: the least, over all ways to take r + 1 values
            # from both, of the largest value taken.
            for i in range(rank):
                for lane in range(lanes):
                    low[lane] = min(low[lane], max(tails[offset, i, lane], heads[rank - 1 - i, lane]))
            for i in range(upper):
                for lane in range(lanes):
                    high[lane] = min(high[lane], max(tails[offset, i, lane], heads[upper - 1 - i, lane]))
            for lane in range(lanes):
                difference = high[lane] - low[lane]
                if weight >= 0.5:
                    out[start + offset, lane] = high[lane] - difference * opposite
                else:
                    out[start + offset, lane] = low[lane] + difference * weight


@_compiled
def _sorted_window(x, half, fraction, out):  # type: ignore[no-untyped-def]
    """The first ``len(out)`` frames by keeping the window sorted: for edges, and traces with NaN or too short."""
    frames = x.shape[0]
    window = np.empty(2 * half + 1, np.float32)
    count = 0
    for t in range(min(half, frames)):
        count = _insert(window, count, x[t])
    for t in range(out.shape[0]):
        if t > half:
            count = _remove(window, count, x[t - half - 1])
        if t + half < frames:
            count = _insert(window, count, x[t + half])
        out[t] = _interpolated(window, count, fraction) if count else np.nan


@_compiled
def _interpolated(ordered, count, fraction):  # type: ignore[no-untyped-def]
    """Percentile of ``count`` values whose smallest are in ``ordered``, rounded as NumPy rounds it."""
    position = (count - 1) * fraction
    rank = int(position)
    weight = position - rank
    low = ordered[rank]
    high = ordered[min(rank + 1, count - 1)]
    difference = np.float32(high - low)
    if weight >= 0.5:
        return high - np.float32(difference * np.float32(1 - weight))
    return low + np.float32(difference * np.float32(weight))


@_compiled
def _insert(window, count, value):  # type: ignore[no-untyped-def]
    if np.isnan(value):
        return count
    place = count
    while place > 0 and window[place - 1] > value:
        window[place] = window[place - 1]
        place -= 1
    window[place] = value
    return count + 1


@_compiled
def _remove(window, count, value):  # type: ignore[no-untyped-def]
    if np.isnan(value):
        return count
    place = np.searchsorted(window[:count], value)
    for k in range(place, count - 1):
        window[k] = window[k + 1]
    return count - 1
