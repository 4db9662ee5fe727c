"""What is kept of a power spectrogram: its rows, as power or in decibels, and the sums of its bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """From ``(frequency, time)`` power to the rows that are stored.

    Attributes
    ----------
    freqs, n_rows
        ``(row,)`` Hz, what each stored row stands for; how many rows there are.
    dtype, decibel
        How values are stored.
    n_bins
        Bins from 0 Hz on that the rows are made of.
    """

    def __init__(self, plan: SpectrogramPlan, params: Mapping[str, Any]) -> None:
        self.dtype, self.decibel = np.dtype(params["dtype"]), bool(params["decibel"])
        fmax_hz = params["fmax_hz"]
        if fmax_hz is not None and not fmax_hz >= 0:
            raise BadInput("fmax_hz", f"{fmax_hz} Hz", "give a frequency of 0 or more, or null for all")
        linear = plan.freqs if fmax_hz is None else plan.freqs[plan.freqs <= fmax_hz * (1 + 1e-12)]
        self.n_bins, self.freqs = len(linear), linear
        self._weights: scipy.sparse.csr_array | None = None
        if params["log_bins"]:
            self.freqs, self._weights = _logarithmic(linear, int(params["log_bins"]))
        self.n_rows = len(self.freqs)

    def encode(self, power: NDArray[np.float32]) -> NDArray:
        """``(row, time)`` from the power of at least the first ``n_bins`` bins."""
        rows = power[: self.n_bins]
        if self._weights is not None:
            rows = (self._weights @ rows).astype(np.float32, copy=False)
        if self.decibel:
            rows = np.log(np.maximum(rows, np.float32(FLOOR)))
            rows *= _DECIBEL
        return rows.astype(self.dtype, copy=False)


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


THETA_RATIO_HZ = ((5.0, 10.0), (2.0, 15.0))
"""Power of the first band over that of the second: high in REM sleep and active waking of rodents."""


class BandPowers:
    """Which bins belong to which band.

    Attributes
    ----------
    names, edges_hz
        Bands that lie wholly below half the sampling rate, and their edges ``(band, 2)``.
    left_out
        Names of those that do not.
    n_bins
        Bins from 0 Hz on that the bands are made of.
    """

    def __init__(self, plan: SpectrogramPlan, bands: Mapping[str, Sequence[float]]) -> None:
        if plan.scaling != "density":
            raise BadInput("band_powers", "bands are integrals of a density", "set scaling=density")
        kept = {name: edges for name, edges in bands.items() if edges[1] <= plan.fs_hz / 2}
        self.names = tuple(kept)
        self.left_out = tuple(name for name in bands if name not in kept)
        self.edges_hz = np.array(list(kept.values()), dtype=np.float64).reshape(-1, 2)
        self._bins = [_bins(plan, *edges) for edges in (*kept.values(), *THETA_RATIO_HZ)]
        self.n_bins = max(bins.stop for bins in self._bins)
        self._spacing = np.float32(plan.spacing_hz)

    def sum(self, power: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(band + 1, time)``: band powers in units², then the theta ratio, of power from bin 0 on.

        The ratio of a frame without any power between 2 and 15 Hz is NaN.
        """
        sums = np.stack([power[bins].sum(axis=0) * self._spacing for bins in self._bins])
        with np.errstate(invalid="ignore", divide="ignore"):
            sums[-2] /= sums[-1]
        return sums[:-1]


def _bins(plan: SpectrogramPlan, low_hz: float, high_hz: float) -> slice:
    """Bins with their centre in ``[low, high)``: neighbouring bands share none."""
    first, last = np.searchsorted(plan.freqs, [low_hz, high_hz])
    if first == last and high_hz <= plan.freqs[-1]:
        problem = f"no bin between {low_hz:g} and {high_hz:g} Hz (bins are {plan.spacing_hz:.3g} Hz apart)"
        raise BadInput("bands", problem, "lengthen the window or nfft, or widen the band")
    return slice(int(first), int(last))
