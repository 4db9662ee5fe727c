"""Ground truth at the frame rate and noise level of a model.

As published: Fourier resampling, spike counts in the frames of the resampled trace, and added noise that grows
with the square root of the fluorescence (Rupprecht et al. 2021, Nature Neuroscience 24:1324-1337).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import resample
from scipy.stats import invgauss

from src.preprocess.cascade.output import noise_levels
from src.preprocess.cascade.package import PackageConfig
from src.recordings.calcium.ground_truth import Trial

SAME_RATE = 0.05
"""Relative difference of frame rates up to which a trace is not resampled."""
_NOISE_GRID = np.array([0.0, *np.geomspace(0.05, 60, 28)])


@dataclass(frozen=True)
class Example:
    """A trial at the model's frame rate; arrays are ``(time,)`` float32 but the last."""

    trial: Trial
    dff: np.ndarray  # ΔF/F as a fraction
    counts: np.ndarray  # spikes in the frame
    target: np.ndarray  # the same, smoothed with the model's kernel
    noise_profile: np.ndarray  # mean about 1: how the added noise follows the fluorescence
    measured_noise: np.ndarray  # noise level of the recording, and with added noise of each strength of the grid

    @property
    def base_noise(self) -> float:
        return float(self.measured_noise[0])

    def added_noise(self, level: float) -> float | None:
        """Standard deviation, in % per √Hz, that lifts the trial to a noise level; ``None`` if it is above it."""
        if level < self.measured_noise[0] or level > self.measured_noise[-1]:
            return None
        return float(np.interp(level, np.maximum.accumulate(self.measured_noise), _NOISE_GRID))

    def noise_of(self, level: float, config: PackageConfig) -> np.ndarray:
        """``(time,)`` standard deviation of the noise that lifts the trial to a noise level at or above its own."""
        return np.float32((self.added_noise(level) or 0) / 100 * np.sqrt(config.sampling_rate_hz)) * self.noise_profile


def prepare(trials: Sequence[Trial], config: PackageConfig, seed: int = 0) -> list[Example]:
    """Bring trials to the model's frame rate; noise is added later, for each noise level anew.

    Where all trials of a neuron are shorter than a window, they are put behind each other as trial -1. A joint is a
    jump that no indicator makes, but without it such a neuron can neither train nor be scored.
    """
    neurons: dict[tuple[str, str], list[Example]] = {}
    for number, trial in enumerate(trials):
        example = _prepare(trial, config, np.random.default_rng([seed, number]))
        neurons.setdefault((trial.dataset, trial.neuron), []).append(example)
    result: list[Example] = []
    for own in neurons.values():
        is_short = max(len(example.dff) for example in own) < config.windowsize
        result += [_joined(own)] if is_short else own
    return result


def _joined(trials: Sequence[Example]) -> Example:
    names = ("dff", "counts", "target", "noise_profile")
    arrays = {name: np.concatenate([getattr(trial, name) for trial in trials]) for name in names}
    curve = np.median([trial.measured_noise for trial in trials], axis=0)
    return Example(replace(trials[0].trial, number=-1), measured_noise=curve, **arrays)


def _prepare(trial: Trial, config: PackageConfig, draw: np.random.Generator) -> Example:
    rate, fs_hz = config.sampling_rate_hz, trial.fs_hz
    dff, time = trial.dff, trial.time_s
    if abs(rate - fs_hz) / fs_hz > SAME_RATE:
        dff, time = resample(dff, max(2, round(len(dff) * rate / fs_hz)), time)
    frame_s = float(np.mean(np.diff(time)))
    edges = np.append(time, time[-1] + frame_s) - frame_s / 2
    counts = np.histogram(trial.spikes_s, bins=edges)[0].astype(np.float64)
    profile = np.sqrt(np.abs(dff + 1))
    return Example(
        trial,
        dff.astype(np.float32),
        counts.astype(np.float32),
        smooth_counts(counts, config).astype(np.float32),
        (profile / np.median(profile)).astype(np.float32),
        _noise_curve(trial, fs_hz, draw),
    )


def _noise_curve(trial: Trial, fs_hz: float, draw: np.random.Generator) -> np.ndarray:
    # Measured with one draw for all strengths, so that the curve rises smoothly and can be inverted.
    noise = draw.standard_normal(len(trial.dff))
    strengths = _NOISE_GRID / 100 * np.sqrt(fs_hz)
    return np.concatenate([noise_levels((trial.dff + s * noise)[None], fs_hz) for s in strengths])


def smooth_counts(counts: np.ndarray, config: PackageConfig) -> np.ndarray:
    """Spike counts smoothed with the model's kernel: what the networks are trained to give.

    Gaussian of ``smoothing_s``, or the causal kernel of the paper: an inverse Gaussian density, moved so
    that most of it lies behind the spike.
    """
    sigma = config.smoothing_s * config.sampling_rate_hz
    if not config.causal_kernel:
        return gaussian_filter1d(np.asarray(counts, dtype=np.float64), sigma)
    rate = config.sampling_rate_hz
    time = np.arange(199) / rate
    density = invgauss.pdf(time, sigma / rate * 2.0, 101 / rate, 1)
    density = np.roll(density, int((99 - np.argmax(density)) / 1.5))
    return np.convolve(counts, density / density.sum(), mode="full")[99 : 99 + len(counts)]


def with_noise(example: Example, level: float, config: PackageConfig, draw: np.random.Generator) -> np.ndarray | None:
    """``(time,)`` float32 ΔF/F with noise added up to a noise level; ``None`` if the recording is noisier."""
    if example.added_noise(level) is None:
        return None
    return example.dff + example.noise_of(level, config) * draw.standard_normal(len(example.dff), dtype=np.float32)
