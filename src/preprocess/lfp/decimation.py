"""Signals brought down to a lower rate behind an anti-alias filter, block by block, with little CPU time.

Every output is a sum of the inputs around it, weighted by a windowed sinc (Kaiser window, 80 dB). Outputs that need
the same inputs are computed by one matrix product, so that BLAS does the work: about one nanosecond per input sample.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

_ATTENUATION_DB = 80.0
_PASSED = 0.4
"""Share of the output rate up to which nothing is attenuated: 200 of 500 Hz."""
_GROUPS = 64
"""Groups of outputs computed in one go, small enough for a second-level cache."""


class Decimator:
    """Brings ``(time, channel)`` blocks from one rate to a lower one.

    The first output stands for the first input. A missing sample (NaN) makes the outputs NaN that it bears on, and
    those computed with them: at most 64 outputs before and after it.

    Parameters
    ----------
    fs_hz
        Rate of the input.
    wanted_hz
        Rate of the output; :attr:`fs_hz` is the rate in fact, which differs if the two have no simple ratio.

    Attributes
    ----------
    fs_hz
        Rate of the output.
    """

    def __init__(self, fs_hz: float, wanted_hz: float, n_channels: int) -> None:
        ratio = Fraction(wanted_hz / fs_hz).limit_denominator(1000)
        coarse = max(1, int(fs_hz / wanted_hz / 4))
        # A wide filter of few taps first; then a steep one on the few samples that are left.
        self.fs_hz = fs_hz * float(ratio)
        passed, first = _PASSED * self.fs_hz, fs_hz / coarse
        rates = ((fs_hz, Fraction(1, coarse), first - passed), (first, ratio * coarse, self.fs_hz - passed))
        self._stages = [_Stage(r, step, passed, stop, n_channels) for r, step, stop in rates if step != 1]
        self._ratio = ratio
        self._taken = self._given = 0

    def push(self, block: NDArray) -> NDArray[np.float32]:
        """Outputs that this block completes."""
        self._taken += len(block)
        values = np.asarray(block)
        for stage in self._stages:
            values = stage.push(values)
        self._given += len(values)
        return values.astype(np.float32, copy=False)

    def finish(self) -> NDArray[np.float32]:
        """The outputs that are left, as if the last sample went on."""
        values = np.empty((0, 0), np.float32)
        for stage in self._stages:
            values = stage.finish(values)
        return values[: self.n_outputs(self._taken) - self._given].astype(np.float32, copy=False)

    def n_outputs(self, n_inputs: int) -> int:
        """How many outputs so many inputs give."""
        return -int(-n_inputs * self._ratio // 1)


class _Stage:
    """One filter: ``up`` outputs for every ``down`` inputs.

    Inputs come in groups of ``size``. An output of group ``m`` depends on the groups ``m`` and ``m + 1`` of the
    input delayed by half the filter's length: two products, one of them kept for the next group.
    """

    def __init__(self, fs_hz: float, ratio: Fraction, passed_hz: float, stop_hz: float, n_channels: int) -> None:
        up, down = ratio.numerator, ratio.denominator
        width = (stop_hz - passed_hz) / fs_hz
        half = int(np.ceil((_ATTENUATION_DB - 7.95) / (2 * 2.285 * 2 * np.pi * width)))
        groups = max(1, -(-(2 * half + 1) // down))
        self._size, self._n_out = groups * down, groups * up
        centre = np.arange(self._n_out)[:, None] * (down / up) + half
        away = np.arange(2 * self._size)[None, :] - centre
        cutoff = (stop_hz + passed_hz) / fs_hz  # of the sinc, in half cycles per sample
        inside = np.sqrt(np.clip(1 - (away / (half + 0.5)) ** 2, 0, None))
        kernel = np.sinc(cutoff * away) * np.i0(0.1102 * (_ATTENUATION_DB - 8.7) * inside) * (np.abs(away) <= half)
        kernel /= kernel.sum(axis=1, keepdims=True)
        halves = kernel[:, : self._size], kernel[:, self._size :]
        self._kernel = np.concatenate(halves).astype(np.float32)  # one product of twice the rows: BLAS likes it better
        self._half, self._waiting = half, np.empty((0, n_channels), np.float32)
        self._started = False
        self._carried: NDArray[np.float32] | None = None

    def push(self, block: NDArray) -> NDArray[np.float32]:
        if not len(block):
            return np.empty((0, block.shape[1]), np.float32)
        if not self._started:
            self._waiting = np.repeat(np.asarray(block[:1], np.float32), self._half, axis=0)
            self._started = True
        self._last = np.asarray(block[-1:], np.float32)
        whole, outputs = np.concatenate([self._waiting, block]), list[NDArray[np.float32]]()
        n_groups = len(whole) // self._size
        for first in range(0, n_groups, _GROUPS):
            part = whole[first * self._size : min(first + _GROUPS, n_groups) * self._size]
            outputs.append(self._groups(part.astype(np.float32, copy=False)))
        self._waiting = np.asarray(whole[n_groups * self._size :], np.float32)
        return np.concatenate(outputs) if outputs else np.empty((0, block.shape[1]), np.float32)

    def finish(self, block: NDArray) -> NDArray[np.float32]:
        """The outputs of a last block and of what waits, as if the last sample went on."""
        parts = [self.push(block)] if len(block) else []
        if self._started:
            parts.append(self.push(np.repeat(self._last, self._half + 2 * self._size, axis=0)))
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    def _groups(self, part: NDArray[np.float32]) -> NDArray[np.float32]:
        grouped = part.reshape(-1, self._size, part.shape[1])
        both = self._kernel @ grouped
        here, there = both[:, : self._n_out], both[:, self._n_out :]
        if self._carried is None:
            outputs = here[:-1] + there[1:]
        else:
            outputs = np.concatenate([self._carried[None], here[:-1]]) + there
        self._carried = here[-1].copy()
        return outputs.reshape(-1, part.shape[1])
