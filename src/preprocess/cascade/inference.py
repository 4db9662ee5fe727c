"""Spike inference from ΔF/F: one interface, three engines.

``dense``
    CASCADE's networks as dilated convolutions over the whole trace, in TensorFlow. The default.
``neuralib``
    The same through ``neuralib.spikes.cascade``, window by window: the reference.
``oasis``
    Non-negative deconvolution with one time constant; no networks, no TensorFlow.

The output is the expected number of spikes in each frame. It is neither a probability (it may exceed
one) nor a rate (it is not divided by the frame duration).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from src.preprocess.cascade.download import fetch_package, models_for_rate
from src.preprocess.cascade.output import (
    Align,
    cut_noise_floor,
    nearest_level,
    noise_levels,
    place_windows,
    windows_with_gaps,
)
from src.preprocess.cascade.package import Package, open_package
from src.signals import BadInput

log = logging.getLogger(__name__)

EngineName = Literal["dense", "neuralib", "oasis"]
Threshold = Literal[0, 1] | None
RATE_TOLERANCE = 0.05
"""Relative difference of frame rates up to which CASCADE's authors see no loss."""
PERCENT_NOISE = 100.0
"""Median noise level above which ΔF/F cannot be a fraction; percent instead of fractions give hundreds."""
_BATCH_SAMPLES = {"dense": 1 << 16, "neuralib": 1 << 20}
"""Samples that are worked on at once: a few blocks of the dense engine, and few enough for neuralib's memory."""


class Engine(Protocol):
    """What :func:`open_engine` returns."""

    def predict(self, dff: np.ndarray, noise_levels: np.ndarray | None = None) -> np.ndarray:
        """Expected spikes per frame, ``(neuron, time)`` float32, NaN where no prediction can be made."""

    def noise_levels(self, dff: np.ndarray) -> np.ndarray:
        """Noise level of every neuron, ``(neuron,)`` float64 in % per square root of Hz."""

    def check(self, levels: np.ndarray) -> list[str]:
        """Judge the noise levels of a whole recording: warnings, or :class:`BadInput` for a wrong scale."""

    def describe(self) -> dict[str, Any]:
        """Plain record for manifests: engine, model, digest, configuration."""


def open_engine(
    engine: EngineName,
    model: str,
    *,
    models_dir: Path,
    fs_hz: float,
    threshold: Threshold = 1,
    align: Align = "upstream",
    threads: int = 1,
) -> Engine:
    """Find (or fetch) a model and make it ready to predict.

    Parameters
    ----------
    engine
        ``dense``, ``neuralib`` or ``oasis``.
    model
        Name of a CASCADE package; for ``oasis`` the decay of the indicator (``tau1.25s``, or
        ``tau1.25s_amplitude0.2`` with the ΔF/F of one spike).
    models_dir
        Folder of packages. A package that is not there is downloaded into it.
    fs_hz
        Frame rate of the recording.
    threshold
        1: cut the noise floor as CASCADE does; 0: only remove negative values; ``None``: keep all.
    align
        ``upstream``: frame by frame where CASCADE writes its output, one frame earlier than the spikes
        it was trained on; ``centered``: on the frame of those spikes.
    threads
        Threads of TensorFlow in this process. Does not change the result.

    Raises
    ------
    BadInput
        For an unknown engine, a package that cannot be had or is damaged, or one whose frame rate
        differs by more than 5 % from the recording's.
    """
    if threshold not in (0, 1, None) or isinstance(threshold, bool):
        raise BadInput("threshold", f"is {threshold!r}", "give 0, 1 or null")
    if align not in ("upstream", "centered"):
        raise BadInput("align", f"is {align!r}", "give upstream or centered")
    if engine == "oasis":
        from src.preprocess.cascade.oasis import OasisEngine

        return OasisEngine(model, fs_hz=fs_hz)
    if engine not in ("dense", "neuralib"):
        raise BadInput("engine", f"is {engine!r}", "give dense, neuralib or oasis")
    package = open_package(fetch_package(model, Path(models_dir)))
    rate = package.config.sampling_rate_hz
    if not abs(fs_hz - rate) <= RATE_TOLERANCE * rate * (1 + 1e-9):
        fitting = models_for_rate(Path(models_dir), fs_hz, RATE_TOLERANCE)
        hint = f"take one of {', '.join(fitting)}" if fitting else "resample the recording or train a model at its rate"
        raise BadInput(model, f"was trained at {rate:g} Hz, the recording has {fs_hz:g} Hz (more than 5 % apart)", hint)
    return CascadeEngine(engine, package, threshold=threshold, align=align, threads=threads)


class CascadeEngine:
    """CASCADE's networks, through TensorFlow directly (``dense``) or through neuralib."""

    def __init__(
        self, engine: EngineName, package: Package, *, threshold: Threshold, align: Align, threads: int = 1
    ) -> None:
        self.engine, self.package, self.threshold, self.align, self.threads = engine, package, threshold, align, threads
        self._dense: Any = None

    def noise_levels(self, dff: np.ndarray) -> np.ndarray:
        """Noise level of every neuron, ``(neuron,)`` float64 in % per square root of Hz."""
        rate = self.package.config.sampling_rate_hz
        rows = max(1, _BATCH_SAMPLES["dense"] // max(1, dff.shape[1]))
        blocks = [noise_levels(np.asarray(dff[i : i + rows], np.float32), rate) for i in range(0, len(dff), rows)]
        return np.concatenate(blocks) if blocks else np.empty(0)

    def check(self, levels: np.ndarray) -> list[str]:
        """Judge the noise levels of a whole recording.

        Returns
        -------
        One sentence for each way in which the levels leave the range the networks were trained on.

        Raises
        ------
        BadInput
            If ΔF/F is evidently not a fraction: in percent, or a fluorescence that was never divided by F0.
        """
        return check_noise(levels, self.package.config.noise_levels, self.package.name)

    def predict(self, dff: np.ndarray, noise_levels: np.ndarray | None = None) -> np.ndarray:
        """Expected spikes per frame.

        Parameters
        ----------
        dff
            ``(neuron, time)`` ΔF/F as a fraction. NaN marks frames that were not recorded: a window
            that holds one has no prediction.
        noise_levels
            ``(neuron,)``, chooses the ensemble of every neuron, taken as they are. By default they
            are measured here and checked.

        Returns
        -------
        ``(neuron, time)`` float32 expected number of spikes in the frame; NaN at the edges, where
        no window fits, and where a window has a gap.

        Raises
        ------
        BadInput
            For traces shorter than a window, a wrong number of noise levels, or a wrong scale.
        """
        config = self.package.config
        if dff.ndim != 2:
            raise BadInput("dF/F", f"has {dff.ndim} axes", "give (neuron, time)")
        if dff.shape[1] < config.windowsize:
            raise BadInput(
                "dF/F",
                f"has {dff.shape[1]} frames, {self.package.name} needs windows of {config.windowsize}",
                "leave this recording out",
            )
        if noise_levels is None:
            noise_levels = self.noise_levels(dff)
            for warning in self.check(noise_levels):
                log.warning(warning)
        if np.shape(noise_levels) != dff.shape[:1]:
            raise BadInput("noise levels", f"have shape {np.shape(noise_levels)}", f"give one for each of {len(dff)}")
        chosen = nearest_level(noise_levels, config.noise_levels)
        out = np.empty(dff.shape, dtype=np.float32)
        batch = max(1, _BATCH_SAMPLES[self.engine] // dff.shape[1])
        for index in np.unique(chosen):
            neurons = np.flatnonzero(chosen == index)
            for start in range(0, len(neurons), batch):
                rows = neurons[start : start + batch]
                out[rows] = self._predict_level(np.asarray(dff[rows], dtype=np.float32), config.noise_levels[index])
        return out

    def _predict_level(self, dff: np.ndarray, level: int) -> np.ndarray:
        gaps = windows_with_gaps(dff, self.package.config.windowsize)
        if gaps.any():
            # Pooling and ReLU let some NaN through and swallow others, so gaps are masked by hand.
            dff = np.where(np.isfinite(dff), dff, np.float32(0))
        if self.engine == "neuralib":
            return self._reference(dff, level, gaps)
        if self._dense is None:
            from src.preprocess.cascade.dense import DenseEnsembles

            self._dense = DenseEnsembles(self.package.config, self.package.networks, self.threads)
        expected = self._dense.expected(dff, level)
        cut_noise_floor(expected, self.package.config, self.threshold)
        expected[gaps] = np.nan
        return place_windows(expected, dff.shape[1], self.package.config, self.align)

    def _reference(self, dff: np.ndarray, level: int, gaps: np.ndarray) -> np.ndarray:
        from src.preprocess.cascade.neuralib import neuralib_predict

        config, frames = self.package.config, dff.shape[1]
        by_frame = neuralib_predict(dff, self.package, level, self.threshold, self.threads)
        expected = by_frame[:, config.first_frame : config.first_frame + gaps.shape[1]].astype(np.float32)
        expected[gaps] = np.nan
        return place_windows(expected, frames, config, self.align)

    def describe(self) -> dict[str, Any]:
        """Plain record for manifests: engine, model, digest, configuration."""
        config = self.package.config
        return {
            "engine": self.engine,
            "model": self.package.name,
            "sha256": self.package.sha256(),
            "sampling_rate_hz": config.sampling_rate_hz,
            "noise_levels": list(config.noise_levels),
            "smoothing_s": config.smoothing_s,
            "causal_kernel": config.causal_kernel,
            "windowsize": config.windowsize,
            "before_frac": config.before_frac,
            "ensemble_size": config.ensemble_size,
            "threshold": self.threshold,
            "align": self.align,
            "units": "expected spikes per frame",
        }


def check_noise(levels: np.ndarray, available: tuple[int, ...], model: str) -> list[str]:
    """Warnings about noise levels outside ``available``; :class:`BadInput` for a wrong scale of ΔF/F."""
    finite = np.asarray(levels, dtype=float)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return []
    typical = float(np.median(finite))
    if typical > PERCENT_NOISE:
        raise BadInput(
            "dF/F",
            f"has a median noise level of {typical:.0f}, typical is 1 to 10: it is not a fraction of F0",
            "divide by F0, or by 100 if it is in percent",
        )
    warnings = []
    above = finite.mean() - max(available)
    if above > 2:
        warnings.append(
            f"{model}: the mean noise level is {finite.mean():.1f}, {above:.1f} above the noisiest networks "
            f"({max(available)}): expect invented spikes; check dF/F or take a high_noise model"
        )
    if typical < min(available) / 2:
        warnings.append(
            f"{model}: the median noise level is {typical:.2f}, less than half of the quietest networks' "
            f"({min(available)}): check that dF/F was neither smoothed nor scaled down"
        )
    return warnings
