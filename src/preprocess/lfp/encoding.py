"""What is kept of a power spectrogram: which frequencies, as power or in decibels, in how many bits."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from src.preprocess.sleep.spectrogram import SpectrogramPlan
from src.signals import BadInput

FLOOR = 1e-30
"""Power that stands for silence in decibels (-300 dB): a flat channel stays finite."""

_DECIBEL = np.float32(10 / np.log(10))


class Encoding:
    """From ``(frequency, time)`` power of all bins to the rows that are stored.

    Attributes
    ----------
    freqs
        ``(row,)`` Hz, what each stored row stands for.
    dtype, decibel
        How values are stored.
    plain
        Whether stored rows are the first bins' float32 power as it is.
    """

    def __init__(self, plan: SpectrogramPlan, params: Mapping[str, Any]) -> None:
        self.dtype, self.decibel = np.dtype(params["dtype"]), bool(params["decibel"])
        fmax_hz = params["fmax_hz"]
        if fmax_hz is not None and not fmax_hz >= 0:
            raise BadInput("fmax_hz", f"{fmax_hz} Hz", "give a frequency of 0 or more, or null for all")
        linear = plan.freqs if fmax_hz is None else plan.freqs[plan.freqs <= fmax_hz * (1 + 1e-12)]
        self._weights: scipy.sparse.csr_array | None = None
        if params["log_bins"]:
            self.freqs, self._weights = _logarithmic(linear, int(params["log_bins"]))
        else:
            self.freqs = linear
        self.plain = self._weights is None and not self.decibel and self.dtype == np.float32

    @property
    def n_rows(self) -> int:
        return len(self.freqs)

    def bins(self, rows: slice) -> slice:
        """The bins that these rows are made of."""
        if self._weights is None:
            return rows
        columns = self._weights[rows].indices
        return slice(int(columns.min()), int(columns.max()) + 1)

    def encode(self, power: NDArray[np.float32], bins: slice, rows: slice) -> NDArray:
        """``(row, time)`` of the given rows from the power of at least :meth:`bins`."""
        needed = self.bins(rows)
        part = power[needed.start - bins.start : needed.stop - bins.start]
        if self._weights is not None:
            part = (self._weights[rows, needed] @ part).astype(np.float32, copy=False)
        if self.decibel:
            part = np.log(np.maximum(part, np.float32(FLOOR)))
            part *= _DECIBEL
        return part.astype(self.dtype, copy=False)


def _logarithmic(linear: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], scipy.sparse.csr_array]:
    """Bins evenly spaced in log frequency, from the first bin above 0 Hz to the last.

    A row is the mean of the bins between the geometric midpoints to its neighbours; where none lies
    there, it is interpolated between the two bins around it.
    """
    if count < 2 or len(linear) < 3:
        raise BadInput("log_bins", f"{count} of {len(linear)} bins", "give at least 2, of at least 3 linear ones")
    centres = np.geomspace(linear[1], linear[-1], count)
    inner = np.sqrt(centres[1:] * centres[:-1])
    edges = np.searchsorted(linear, np.concatenate([centres[:1], inner, centres[-1:] * (1 + 1e-12)]))
    weights = scipy.sparse.lil_array((count, len(linear)), dtype=np.float32)
    for row, (first, last) in enumerate(pairwise(edges)):
        if last > first:
            weights[row, first:last] = 1 / (last - first)
            continue
        upper = int(np.clip(np.searchsorted(linear, centres[row]), 1, len(linear) - 1))
        share = (centres[row] - linear[upper - 1]) / (linear[upper] - linear[upper - 1])
        weights[row, upper - 1], weights[row, upper] = 1 - share, share
    return centres, weights.tocsr()
