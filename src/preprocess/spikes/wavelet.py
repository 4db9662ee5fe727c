"""Denoising with the stationary wavelet transform: shift-invariant, amplitude kept where a spike is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pywt

from src.preprocess.spikes.noise import robust_sigma
from src.signals import BadInput


@dataclass(frozen=True)
class Denoising:
    """Which coefficients are thresholded, and how hard.

    Attributes
    ----------
    wavelet
        ``sym4``, ``db4`` or any orthogonal wavelet of PyWavelets.
    level
        Depth of the transform.
    finest
        Number of detail levels, from the finest, that are thresholded.
    scale
        Factor on the universal threshold.
    rule
        ``soft`` or ``hard``.
    """

    wavelet: str = "sym4"
    level: int = 5
    finest: int = 3
    scale: float = 0.7
    rule: str = "soft"

    def __post_init__(self) -> None:
        if self.wavelet not in pywt.wavelist(kind="discrete"):
            raise BadInput("wavelet", f"'{self.wavelet}' is unknown", "try sym4 or db4")
        if self.rule not in ("soft", "hard"):
            raise BadInput("rule", f"'{self.rule}' is unknown", "choose soft or hard")
        if not 1 <= self.finest <= self.level:
            raise BadInput("finest", f"{self.finest} of {self.level} levels", "threshold between 1 and all levels")
        if self.scale < 0:
            raise BadInput("scale", f"{self.scale} is negative", "give 0 or more")

    @property
    def reach(self) -> int:
        """Samples on either side that an output sample depends on."""
        return (pywt.Wavelet(self.wavelet).dec_len - 1) * (2**self.level - 1)


def denoise(trace: np.ndarray, settings: Denoising) -> np.ndarray:
    """Shrink the finest detail coefficients of a trace.

    The universal threshold of Donoho and Johnstone, ``scale · sigma · sqrt(2 ln N)``, per level. The
    trace is extended by reflection to a multiple of ``2 ** level`` beyond the reach of the transform.

    The noise of a level is the MAD of its coefficients: one estimate per level follows coloured noise.

    Parameters
    ----------
    trace
        ``(time,)``.
    """
    universal = np.sqrt(2 * np.log(max(len(trace), 2)))
    before = min(settings.reach, len(trace) - 1)
    coefficients = _forward(trace, settings)
    for j in range(settings.finest):
        sigma = robust_sigma(coefficients[-1 - j])
        if sigma > 0:
            threshold = settings.scale * sigma * universal
            coefficients[-1 - j] = pywt.threshold(coefficients[-1 - j], threshold, mode=settings.rule)
    whole = pywt.iswt(coefficients, settings.wavelet, norm=True)
    return whole[before : before + len(trace)].astype(trace.dtype)


def _forward(trace: np.ndarray, settings: Denoising) -> list[np.ndarray]:
    if len(trace) < 2:
        raise BadInput("trace", f"{len(trace)} samples cannot be transformed", "give a longer recording")
    before = min(settings.reach, len(trace) - 1)
    block = 2**settings.level
    after = before + (-(len(trace) + 2 * before)) % block
    extended = np.pad(trace, (before, after), mode="symmetric")
    return list(pywt.swt(extended, settings.wavelet, level=settings.level, trim_approx=True, norm=True))
