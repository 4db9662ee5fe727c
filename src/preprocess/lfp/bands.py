"""Band powers and the theta ratio of every frame, summed from the bins of its power spectrum."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.preprocess.lfp.npz_writer import NpzWriter, deflate
from src.preprocess.sleep.spectrogram import SpectrogramPlan
from src.signals import BadInput

THETA_RATIO_HZ = ((5.0, 10.0), (2.0, 15.0))
"""Power of the first band over that of the second: high in REM sleep and active waking of rodents."""


class BandPowers:
    """Which bins belong to which band.

    Attributes
    ----------
    names
        Bands that lie wholly below half the sampling rate.
    edges_hz
        ``(band, 2)``.
    left_out
        Names of those that do not.
    """

    def __init__(self, plan: SpectrogramPlan, bands: Mapping[str, Sequence[float]]) -> None:
        nyquist = plan.fs_hz / 2
        if plan.scaling != "density":
            raise BadInput("band_powers", "bands are integrals of a density", "set scaling=density")
        kept = {name: edges for name, edges in bands.items() if edges[1] <= nyquist}
        self.names = tuple(kept)
        self.left_out = tuple(name for name in bands if name not in kept)
        self.edges_hz = np.array(list(kept.values()), dtype=np.float64).reshape(-1, 2)
        self._bins = [_bins(plan, *edges) for edges in (*kept.values(), *THETA_RATIO_HZ)]
        self._spacing = np.float32(plan.spacing_hz)

    @property
    def bins(self) -> slice:
        """All bins that any band is made of."""
        return slice(0, max(bins.stop for bins in self._bins))

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


class BandPowersFile:
    """Takes the band powers in any order; see :func:`band_powers_file`."""

    def __init__(self, scratch: int, n_rows: int, n_times: int) -> None:
        self._scratch, self._n_rows, self._n_times = scratch, n_rows, n_times

    def put(self, channel: int, first: int, sums: NDArray[np.float32]) -> None:
        """``(band + 1, time)`` of a channel from its frame ``first`` on."""
        for row, values in enumerate(np.ascontiguousarray(sums)):
            os.pwrite(self._scratch, values.data, self._offset(channel, row) + 4 * first)

    def get(self, channel: int, rows: slice) -> bytes:
        """All frames of some rows."""
        start = self._offset(channel, rows.start)
        return os.pread(self._scratch, self._offset(channel, rows.stop) - start, start)

    def _offset(self, channel: int, row: int) -> int:
        return 4 * self._n_times * (channel * self._n_rows + row)


@contextmanager
def band_powers_file(
    path: Path, bands: BandPowers, axes: Mapping[str, NDArray], n_channels: int, n_times: int
) -> Iterator[BandPowersFile]:
    """Write ``band_powers`` (n_channels, n_bands, n_times) and ``theta_ratio`` (n_channels, n_times).

    Parameters
    ----------
    path
        The ``.npz`` file.
    axes
        Further arrays for the file: times, channel ids.
    """
    n_bands = len(bands.names)
    with NpzWriter(path) as file, tempfile.TemporaryFile(dir=path.parent) as scratch:
        for name, values in axes.items():
            file.add(name, values)
        file.add("bands", np.array(bands.names, dtype=str))
        file.add("band_edges_hz", bands.edges_hz)
        sums = BandPowersFile(scratch.fileno(), n_bands + 1, n_times)
        yield sums
        with file.member("band_powers", (n_channels, n_bands, n_times), np.dtype(np.float32)) as member:
            for channel in range(n_channels):
                member.append(deflate(sums.get(channel, slice(0, n_bands))))
        with file.member("theta_ratio", (n_channels, n_times), np.dtype(np.float32)) as member:
            for channel in range(n_channels):
                member.append(deflate(sums.get(channel, slice(n_bands, n_bands + 1))))
