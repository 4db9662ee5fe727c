"""Spike inference from ΔF/F: one interface, three engines.

``dense`` runs CASCADE's networks as convolutions over the whole trace, ``neuralib`` the same window by window (the
reference), ``oasis`` deconvolves without networks. The output is the expected number of spikes in each frame:
neither a probability (it may exceed one) nor a rate (it is not divided by the frame duration).
"""

import logging
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import firwin, resample_poly

from src.preprocess.cascade.dense import ensemble_mean
from src.preprocess.cascade.download import AUTO, MODELS_DIR, find_package, names_for_rate, package_for_rate
from src.preprocess.cascade.neuralib import neuralib_predict
from src.preprocess.cascade.oasis import OasisEngine
from src.preprocess.cascade.output import (
    ALIGNS,
    Align,
    Threshold,
    check_axes,
    check_noise,
    cut_noise_floor,
    nearest_level,
    noise_levels,
    place_windows,
    windows_with_gaps,
)
from src.preprocess.cascade.package import Package, open_package
from src.signals import BadInput

log = logging.getLogger(__name__)

ENGINES = ("dense", "neuralib", "oasis")
RATE_TOLERANCE = 0.05
"""Relative difference of frame rates up to which CASCADE's authors see no loss."""

FARTHEST_RATE = 2.0
"""Ratio of frame rates up to which traces are resampled to a model that was named."""

_UNUSUAL_HZ = 45.0
"""Frame rate above which a rate may be a period in milliseconds (22 ms and more)."""

_FILTER_FRAMES = 5
"""Half width of the resampling filter, in frames of the slower of the two rates."""

_BATCH_SAMPLES = {"dense": 1 << 16, "neuralib": 1 << 20}
"""Samples that are worked on at once: a few blocks of the dense engine, and few enough for neuralib's memory."""


def is_same_rate(fs_hz: float, model_hz: float) -> bool:
    """Whether a recording of one rate goes through a model of the other as it is."""
    return abs(fs_hz - model_hz) <= RATE_TOLERANCE * model_hz * (1 + 1e-9)


def is_too_far(fs_hz: float, model_hz: float, any_rate: bool) -> bool:
    """Whether a recording is not resampled to a model; ``any_rate`` allows a model that is slower by any factor."""
    return model_hz / fs_hz > FARTHEST_RATE or (not any_rate and fs_hz / model_hz > FARTHEST_RATE)


def open_engine(
    engine: str,
    model: str | Path,
    *,
    fs_hz: float,
    models_dir: Path = MODELS_DIR,
    threshold: int | None = 1,
    align: str = "centered",
    any_rate: bool = False,
) -> "CascadeEngine | OasisEngine":
    """Find (or fetch) a model and make it ready to predict.

    Parameters
    ----------
    engine
        One of ``ENGINES``.
    model
        Name, folder or .zip of a CASCADE package, or ``auto`` for the one whose rate is nearest; for ``oasis``
        ``tau1.25s``, the indicator's decay, or ``tau1.25s_amplitude0.2`` with the ΔF/F of one spike.
    fs_hz
        Frame rate of the recording. Where it differs from the model's by more than 5 %, ΔF/F is resampled to the
        model's rate, and the result back.
    models_dir
        Folder of packages. A package that is not there is downloaded into it.
    threshold
        1: cut the noise floor as CASCADE does; 0: only remove negative values; ``None``: keep all.
    align
        ``centered``: predictions stand on the frame of the spikes they were trained on; ``upstream``: where CASCADE
        writes them, one frame earlier.
    any_rate
        Whether the model was chosen for the recording's rate, as ``auto`` does, so that any factor is accepted.

    Raises
    ------
    BadInput
        For an unknown engine, a package that cannot be had or is damaged, or one of quite another frame rate.
    """
    choices = {"engine": (engine, ENGINES), "threshold": (threshold, (0, 1, None)), "align": (align, ALIGNS)}
    for name, (value, known) in choices.items():
        if value not in known or isinstance(value, bool):
            raise BadInput(name, f"is {value!r}", f"give one of {', '.join(str(c) for c in known)}")
    if not (np.isfinite(fs_hz) and fs_hz > 0):
        raise BadInput("fs_hz", f"is {fs_hz}", "give the frame rate in Hz")
    if engine == "oasis":
        return OasisEngine(str(model), fs_hz=fs_hz)
    folder = package_for_rate(fs_hz, models_dir) if model == AUTO else find_package(model, models_dir)
    cascade = CascadeEngine(engine, open_package(folder), threshold, align, fs_hz)  # type: ignore[arg-type]
    rate = cascade.package.config.sampling_rate_hz
    if is_too_far(fs_hz, rate, any_rate or model == AUTO):
        fitting = ", ".join(names_for_rate(models_dir, fs_hz, RATE_TOLERANCE)[:5])
        problem = f"was trained at {rate:g} Hz, the recording has {fs_hz:g} Hz (more than a factor of two apart)"
        hint = f"take one of {fitting}" if fitting else "give cascade_model=auto, or train a model at its rate"
        if fs_hz < 1:
            hint = f"give fs_hz={1 / fs_hz:.4g} if {fs_hz:g} is seconds per frame, or engine=oasis"
        raise BadInput(folder.name, problem, hint)
    return cascade


class Resampling:
    """ΔF/F from the recording's frame rate to the model's, and expected spikes back."""

    def __init__(self, fs_hz: float, model_hz: float) -> None:
        self.ratio = Fraction(model_hz / fs_hz).limit_denominator(200)
        slower = max(self.ratio.numerator, self.ratio.denominator)
        self._filter = firwin(2 * _FILTER_FRAMES * slower + 1, 1 / slower, window=("kaiser", 5.0))

    def forth(self, dff: np.ndarray) -> np.ndarray:
        """At the model's rate; a frame is missing where a neighbour in time is."""
        finite = np.isfinite(dff)
        filled = dff.copy()
        for row in np.flatnonzero(~finite.all(axis=1) & finite.any(axis=1)):
            gaps = ~finite[row]
            filled[row, gaps] = np.interp(np.flatnonzero(gaps), np.flatnonzero(finite[row]), dff[row, finite[row]])
        filled[~finite.any(axis=1)] = 0
        up, down = self.ratio.numerator, self.ratio.denominator
        resampled = resample_poly(filled, up, down, axis=1, window=self._filter).astype(np.float32)
        time = np.arange(resampled.shape[1]) / float(self.ratio)
        before = np.minimum(time.astype(int), dff.shape[1] - 1)
        after = np.minimum(np.ceil(time).astype(int), dff.shape[1] - 1)
        resampled[~(finite[:, before] & finite[:, after])] = np.nan
        return resampled

    def back(self, expected: np.ndarray, frames: int) -> np.ndarray:
        """At the recording's rate: spikes per second are interpolated, so that their number is kept."""
        ratio = float(self.ratio)
        time = np.arange(frames) * ratio
        before = np.minimum(time.astype(int), expected.shape[1] - 1)
        after, weight = np.minimum(before + 1, expected.shape[1] - 1), (time - before).astype(np.float32)
        return ((1 - weight) * expected[:, before] + weight * expected[:, after]) * np.float32(ratio)


class CascadeEngine:
    """CASCADE's networks over whole traces (``dense``) or through neuralib, for recordings at ``fs_hz``."""

    def __init__(self, engine: str, package: Package, threshold: Threshold, align: Align, fs_hz: float) -> None:
        self.engine, self.package, self.threshold, self.align, self.fs_hz = engine, package, threshold, align, fs_hz
        model_hz = package.config.sampling_rate_hz
        self._resampling = None if is_same_rate(fs_hz, model_hz) else Resampling(fs_hz, model_hz)
        self._networks = cache(package.networks)  # read when a neuron first needs them

    def noise_levels(self, dff: np.ndarray) -> np.ndarray:
        """Noise level of every neuron, ``(neuron,)`` float64 in % per √Hz; blocks of cells bound the memory."""
        return self._levels(self._at_model_rate(dff))

    def check(self, levels: np.ndarray) -> list[str]:
        """See :func:`~src.preprocess.cascade.output.check_noise`."""
        return check_noise(levels, self.package.config.noise_levels, self.package.name)

    def predict(self, dff: np.ndarray, noise_levels: np.ndarray | None = None) -> np.ndarray:
        """Expected spikes per frame, ``(neuron, time)`` float32; NaN at the edges and where a window has a gap.

        ``dff`` is a fraction, with NaN where no frame was recorded. ``noise_levels`` ``(neuron,)`` choose the ensemble
        of every neuron, taken as they are; by default they are measured here and checked.

        Raises
        ------
        BadInput
            For traces shorter than a window, a wrong number of noise levels, or a wrong scale.
        """
        config = self.package.config
        check_axes(dff)
        frames = dff.shape[1]
        dff = self._at_model_rate(dff)
        if dff.shape[1] < config.windowsize:
            problem = f"has {dff.shape[1]} frames, a window of {self.package.name} has {config.windowsize}"
            raise BadInput("dF/F", problem, "record longer")
        if noise_levels is None:
            noise_levels = self._levels(dff)
            for line in self.check(noise_levels):
                log.warning("%s", line)
        elif np.shape(noise_levels) != (len(dff),):
            raise BadInput("noise levels", f"have shape {np.shape(noise_levels)}", f"give one for each of {len(dff)}")
        chosen = nearest_level(noise_levels, config.noise_levels)
        out = np.full(dff.shape, np.nan, dtype=np.float32)
        for index, level in enumerate(config.noise_levels):
            for block in _blocks(np.flatnonzero(chosen == index), dff.shape[1], _BATCH_SAMPLES[self.engine]):
                out[block] = self._predict_block(dff[block], level)
        return out if self._resampling is None else self._resampling.back(out, frames)

    def _at_model_rate(self, dff: np.ndarray) -> np.ndarray:
        dff = np.asarray(dff, np.float32)
        return dff if self._resampling is None else self._resampling.forth(dff)

    def _levels(self, dff: np.ndarray) -> np.ndarray:
        rate = self.package.config.sampling_rate_hz
        blocks = _blocks(np.arange(len(dff)), dff.shape[1], _BATCH_SAMPLES["dense"])
        return np.concatenate([np.empty(0), *(noise_levels(dff[block], rate) for block in blocks)])

    def _predict_block(self, dff: np.ndarray, level: int) -> np.ndarray:
        config = self.package.config
        gaps = windows_with_gaps(dff, config.windowsize)
        filled = np.where(np.isfinite(dff), dff, np.float32(0))
        if self.engine == "dense":
            expected = ensemble_mean(filled, self._networks(level), config.windowsize)
            cut_noise_floor(expected, config, self.threshold)
        else:
            by_frame = neuralib_predict(filled, self.package, level, self.threshold)
            expected = by_frame[:, config.first_frame : config.first_frame + gaps.shape[1]].astype(np.float32)
        # Pooling and ReLU let some NaN through and swallow others, so the gaps are masked here.
        expected[gaps] = np.nan
        return place_windows(expected, dff.shape[1], config, self.align)

    def describe(self) -> dict[str, Any]:
        """Plain record for manifests: engine, model, digest, configuration, and the frames one frame depends on."""
        config = self.package.config
        written = config.first_frame + (self.align == "centered")
        stated = ("sampling_rate_hz", "smoothing_s", "causal_kernel", "windowsize", "before_frac", "ensemble_size")
        record = {
            "engine": self.engine,
            "model": self.package.name,
            "sha256": self.package.sha256(),
            "noise_levels": list(config.noise_levels),
            **{name: getattr(config, name) for name in stated},
            "threshold": self.threshold,
            "align": self.align,
            "frames_before": written,
            "frames_after": config.windowsize - 1 - written,
            "units": "expected spikes per frame",
        }
        if self._resampling is None:
            return record
        model_hz, ratio = config.sampling_rate_hz, self.fs_hz / config.sampling_rate_hz
        for name in ("frames_before", "frames_after"):  # the resampling filter looks further
            record[name] = int(np.ceil(record[name] * ratio)) + int(np.ceil(_FILTER_FRAMES * max(1.0, ratio))) + 1
        note = f"ΔF/F was resampled from {self.fs_hz:g} to {model_hz:g} Hz for {record['model']}, the result back"
        if self.fs_hz > _UNUSUAL_HZ:
            note += f"; give fs_hz={1e3 / self.fs_hz:.4g} if {self.fs_hz:g} is milliseconds per frame"
        return record | {"resampled_from_hz": self.fs_hz, "notes": [note]}


def _blocks(rows: np.ndarray, frames: int, samples: int) -> list[np.ndarray]:
    """``rows`` in pieces of about so many samples."""
    size = max(1, samples // max(1, frames))
    return [rows[start : start + size] for start in range(0, len(rows), size)]


Engine = CascadeEngine | OasisEngine
"""What :func:`open_engine` returns."""
