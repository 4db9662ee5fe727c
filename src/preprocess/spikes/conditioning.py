"""The chain every trace goes through before a network sees it, in training and in inference alike.

Median removal and a zero-phase band-pass are linear; wavelet denoising and the matched filter follow
where they are switched on. Amplitude is kept throughout: nothing is normalised per window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from src.preprocess.spikes.filters import bandpass, bandpass_kernel
from src.preprocess.spikes.matched_filter import matched_filter
from src.preprocess.spikes.wavelet import Denoising, denoise, detail_sigmas

CALIBRATION_SAMPLES = 1 << 18
"""Longest stretch of a recording from which the wavelet thresholds are set; keeps memory flat."""


@dataclass(frozen=True)
class Conditioning:
    """Switches of the chain, in plain types; ``None`` or ``False`` leaves a step out.

    Attributes
    ----------
    fs_hz
        Sampling rate the chain is made for.
    low_hz, high_hz, order
        Zero-phase Butterworth band-pass.
    wavelet, level, finest, scale, rule
        Stationary wavelet denoising (see :class:`Denoising`); ``wavelet=None`` leaves it out.
    template, template_onset
        Template of the matched filter as plain numbers, and the column of its onset; empty leaves it out.
    """

    fs_hz: float = 25_000.0
    low_hz: float | None = 100.0
    high_hz: float | None = None
    order: int = 1
    wavelet: str | None = None
    level: int = 5
    finest: int = 3
    scale: float = 0.7
    rule: str = "soft"
    template: tuple[float, ...] = field(default=())
    template_onset: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain types for a bundle."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Conditioning:
        """Inverse of :meth:`to_dict`; unknown keys raise ``TypeError``."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        return cls(**values)

    @property
    def denoising(self) -> Denoising | None:
        if self.wavelet is None:
            return None
        return Denoising(self.wavelet, self.level, self.finest, self.scale, self.rule)

    @property
    def enhance_reach(self) -> int:
        """Samples on either side that one sample behind :meth:`enhance` depends on."""
        return (self.denoising.reach if self.denoising else 0) + len(self.template)

    @property
    def reach(self) -> int:
        """Samples on either side that one conditioned sample depends on."""
        linear = len(bandpass_kernel(self.fs_hz, self.low_hz, self.high_hz, self.order)) // 2
        return linear + self.enhance_reach

    def linear(self, trace: np.ndarray) -> np.ndarray:
        """The band-pass alone: what spikes and noise may go through separately before they are added."""
        return bandpass(np.asarray(trace, np.float32), self.fs_hz, self.low_hz, self.high_hz, self.order)

    def linear_only(self) -> Conditioning:
        """The same chain without the steps that change shapes: what a classifier reads."""
        return replace(self, wavelet=None, template=(), template_onset=0)

    def calibrate(self, centred: np.ndarray) -> np.ndarray | None:
        """Noise of the wavelet levels of a centred trace, from its first :data:`CALIBRATION_SAMPLES` at most."""
        if self.denoising is None:
            return None
        start = self.linear(centred[: CALIBRATION_SAMPLES + self.reach])[:CALIBRATION_SAMPLES]
        return detail_sigmas(start, self.denoising)

    def enhance(self, linear: np.ndarray, sigmas: np.ndarray | None = None, n_total: int | None = None) -> np.ndarray:
        """Wavelet denoising and matched filter of a band-passed trace, where switched on."""
        trace = denoise(linear, self.denoising, sigmas, n_total) if self.denoising else linear
        if self.template:
            trace = matched_filter(trace, np.array(self.template, np.float32), self.template_onset)
        return trace.astype(np.float32, copy=False)

    def apply(self, centred: np.ndarray) -> np.ndarray:
        """The whole chain on a whole trace ``(time,)`` that is centred and free of NaN."""
        return self.enhance(self.linear(centred), self.calibrate(centred), len(centred))

    def blocks(self, centred: np.ndarray, block: int, margin: int = 0) -> Iterator[tuple[int, int, np.ndarray]]:
        """The chain block by block: ``(start, stop, conditioned[start - margin : stop + margin])``.

        Each block is conditioned from real samples on both sides, as far as the chain reaches, so the
        result does not depend on ``block``. Beyond the ends of the recording a piece is cut short.
        """
        n = len(centred)
        sigmas = self.calibrate(centred)
        for start in range(0, n, block):
            stop = min(start + block, n)
            first, last = max(start - margin, 0), min(stop + margin, n)
            lead, tail = max(first - self.reach, 0), min(last + self.reach, n)
            piece = self.enhance(self.linear(centred[lead:tail]), sigmas, n)
            yield start, stop, piece[first - lead : last - lead]
