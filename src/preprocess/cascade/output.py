"""What happens around CASCADE's networks: noise levels, the noise floor, edges, gaps, frame alignment.

Pure functions on arrays, after the published method (Rupprecht et al. 2021, Nature Neuroscience
24:1324-1337) and the behaviour of ``neuralib.spikes.cascade``.
"""

import warnings
from typing import Literal, get_args

import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter1d

from src.preprocess.cascade.package import PackageConfig
from src.signals import BadInput

Align = Literal["centered", "upstream"]
ALIGNS = get_args(Align)
Threshold = Literal[0, 1] | None
PERCENT_NOISE = 100.0
"""Median noise level above which ΔF/F cannot be a fraction; percent instead of fractions give hundreds."""


def check_axes(dff: np.ndarray) -> None:
    """Refuse what is not ``(neuron, time)``."""
    if np.ndim(dff) != 2:
        raise BadInput("dF/F", f"has {np.ndim(dff)} axes", "give (neuron, time)")


def noise_levels(dff: np.ndarray, fs_hz: float) -> np.ndarray:
    """Standardised noise of every trace, 100 · median |ΔF/F[t+1] − ΔF/F[t]| / √fs, in % per square root of Hz.

    ``dff`` is ``(neuron, time)`` as a fraction, ``fs_hz`` the rate the networks were trained at, not the recording's:
    the level only chooses a network. ``(neuron,)`` float64, NaN where no two neighbouring frames are finite.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        warnings.filterwarnings("ignore", "invalid value", RuntimeWarning)
        median = np.nanmedian(np.abs(np.diff(dff, axis=-1)), axis=-1)
    return np.asarray(median / np.sqrt(np.float64(fs_hz)) * 100)


def nearest_level(levels: np.ndarray, available: tuple[int, ...]) -> np.ndarray:
    """Index into ``available`` of the closest noise level; the first of two equally close ones."""
    distance = np.abs(np.asarray(levels, dtype=float)[:, None] - np.asarray(available, dtype=float)[None, :])
    return np.argmin(np.nan_to_num(distance, nan=0.0, posinf=0.0), axis=1)


def floor_value(config: PackageConfig) -> float:
    """A single spike's smoothed peak over e: what lies below is taken for noise."""
    spike = np.zeros(1001)
    spike[501] = 1.0
    return float(gaussian_filter1d(spike, config.smoothing_s * config.sampling_rate_hz).max() / np.e)


def cut_noise_floor(expected: np.ndarray, config: PackageConfig, threshold: Threshold) -> None:
    """Apply the threshold to ``(neuron, window)`` predictions in place.

    ``None`` leaves them as they are, 0 sets what is negative to zero, 1 sets to zero all that is
    not within ``int(smoothing · rate)`` frames of a value above :func:`floor_value` as well (where
    that is 0 frames, all of a trace stays that has one such value).
    """
    if threshold is None:
        return
    if threshold == 1:
        reach = int(config.smoothing_s * config.sampling_rate_hz)
        active = expected > floor_value(config)
        if reach:
            active = binary_dilation(active, structure=np.ones((1, 2 * reach + 1), dtype=bool))
        else:
            # CASCADE asks SciPy for a dilation of 0 steps, which SciPy takes for "until nothing changes".
            active = np.broadcast_to(active.any(axis=1, keepdims=True), active.shape)
        expected[~active] = 0
    np.maximum(expected, 0, out=expected)


def place_windows(expected: np.ndarray, frames: int, config: PackageConfig, align: Align) -> np.ndarray:
    """Predictions by window start, ``(neuron, window)``, as predictions by frame, NaN where there are none.

    ``upstream`` writes them where CASCADE does, one frame earlier than the spikes they were trained
    on, and gives up the frames that CASCADE gives up; ``centered`` is the same one frame later.
    """
    placed = np.full((expected.shape[0], frames + 1), np.nan, dtype=np.float32)
    placed[:, config.first_frame : config.first_frame + expected.shape[1]] = expected
    placed[:, : config.trained_frame] = np.nan
    placed[:, frames - int((1 - config.before_frac) * config.windowsize) :] = np.nan
    return placed[:, :-1] if align == "upstream" else np.roll(placed, 1, axis=1)[:, :-1]


def windows_with_gaps(dff: np.ndarray, windowsize: int) -> np.ndarray:
    """``(neuron, window)``: whether any frame of the window is not finite."""
    bad = np.zeros((dff.shape[0], dff.shape[1] + 1), dtype=np.int32)
    np.cumsum(~np.isfinite(dff), axis=1, out=bad[:, 1:])
    return bad[:, windowsize:] != bad[:, :-windowsize]


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
            "give dff_scale=0.01 if it is in percent, dff_scale=<1/F0> if F0 was only subtracted, or engine=oasis",
        )
    warnings = []
    above = finite.mean() - max(available)
    if above > 2:
        warnings.append(
            f"{model}: the mean noise level is {finite.mean():.1f}, {above:.1f} above the noisiest networks "
            f"({max(available)}): expect invented spikes; give dff_scale=0.01 if dF/F is in percent, baseline=subtract "
            "if the traces are dF/F with an offset, or take a high_noise model"
        )
    if typical < min(available) / 2:
        warnings.append(
            f"{model}: the median noise level is {typical:.2f}, less than half of the quietest networks' "
            f"({min(available)}): check that dF/F was neither smoothed nor scaled down"
        )
    return warnings
