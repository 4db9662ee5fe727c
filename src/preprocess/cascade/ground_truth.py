"""Ground truth for spike inference: calcium traces with the spikes that were recorded at the same time.

Reads the ``.mat`` files of CASCADE's ground truth (one neuron per file, folders ``DSxx-indicator-…``)
and brings them to a frame rate and a noise level as published: Fourier resampling, spike counts in the
frames of the resampled trace, and added noise that grows with the square root of the fluorescence
(Rupprecht et al. 2021, Nature Neuroscience 24:1324-1337).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io.matlab import MatReadError
from scipy.ndimage import gaussian_filter1d
from scipy.signal import resample
from scipy.stats import invgauss

from src.preprocess.cascade.output import noise_levels
from src.preprocess.cascade.package import PackageConfig
from src.recordings.matlab import load_mat
from src.signals import BadInput

EPHYS_HZ = 1e4
"""Clock of ``events_AP``."""
SAME_RATE = 0.05
"""Relative difference of frame rates up to which a trace is not resampled."""
_NOISE_GRID = np.array([0.0, *np.geomspace(0.05, 60, 28)])
_DATASET = re.compile(r"^DS(\d+)-")


@dataclass(frozen=True)
class Trial:
    """One uninterrupted recording of one neuron.

    Attributes
    ----------
    dataset, neuron, number
        Folder name, file name without its suffix, position in the file.
    dff
        ``(time,)`` float64 ΔF/F as a fraction.
    time_s
        ``(time,)`` s, the middle of every frame.
    spikes_s
        Spike times in s, on the same clock.
    """

    dataset: str
    neuron: str
    number: int
    dff: np.ndarray
    time_s: np.ndarray
    spikes_s: np.ndarray

    @property
    def fs_hz(self) -> float:
        return float(1 / np.mean(np.diff(self.time_s)))


@dataclass(frozen=True)
class Example:
    """A trial at the model's frame rate.

    Attributes
    ----------
    trial
        Where it comes from.
    dff
        ``(time,)`` float32 ΔF/F.
    counts, target
        ``(time,)`` float32 spikes in the frame, as they were and smoothed with the model's kernel.
    noise_profile
        ``(time,)`` float32, mean about 1: how the added noise follows the fluorescence.
    measured_noise
        Noise level of the recording, and with added noise of each strength of the grid.
    """

    trial: Trial
    dff: np.ndarray
    counts: np.ndarray
    target: np.ndarray
    noise_profile: np.ndarray
    measured_noise: np.ndarray

    @property
    def base_noise(self) -> float:
        return float(self.measured_noise[0])

    def added_noise(self, level: float) -> float | None:
        """Standard deviation, in % per √Hz, that lifts the trial to a noise level; ``None`` if it is above it."""
        if level < self.measured_noise[0] or level > self.measured_noise[-1]:
            return None
        return float(np.interp(level, np.maximum.accumulate(self.measured_noise), _NOISE_GRID))


def read_ground_truth(folder: Path, datasets: Sequence[str]) -> list[Trial]:
    """All trials of the named datasets, in the order of names and files.

    Raises
    ------
    BadInput
        If a dataset is not there or holds no usable trial, or a file cannot be read.
    """
    trials = []
    for name, found in find_datasets(folder, datasets).items():
        if found is None:
            raise BadInput(Path(folder) / name, "does not exist", "fetch this dataset, or leave it out")
        of_dataset = [trial for path in sorted(found.glob("*_mini.mat")) for trial in read_neuron(path)]
        if not of_dataset:
            raise BadInput(found, "holds no *_mini.mat with a usable trial", "fetch the dataset again")
        trials += of_dataset
    return trials


def find_datasets(folder: Path, datasets: Sequence[str]) -> dict[str, Path | None]:
    """Folder of every named dataset, ``None`` where there is none.

    CASCADE raised the numbers of its datasets by one in 2021, and configurations from before carry the
    old ones. If a dataset is only there under the next number, all numbers are taken for old.
    """
    exact = {name: _folder(Path(folder) / name) for name in datasets}
    raised = {name: _folder(Path(folder) / _DATASET.sub(_next_number, name)) for name in datasets}
    old = any(exact[name] is None and raised[name] is not None for name in datasets)
    return raised if old else exact


def _folder(path: Path) -> Path | None:
    return path if path.is_dir() else None


def _next_number(match: re.Match[str]) -> str:
    return f"DS{int(match[1]) + 1:02d}-"


def read_neuron(path: Path) -> list[Trial]:
    """The usable trials of one ground truth file.

    Trials without fluorescence are left out, and so are frames without a time.

    Raises
    ------
    BadInput
        If the file is no MATLAB 5 file with a cell array ``CAttached``.
    """
    try:
        cells = load_mat(path, ["CAttached"])["CAttached"]
        structs = [cell[0, 0] for cell in cells[0]]  # where there is a second row, it repeats the recordings
    except FileNotFoundError:
        raise BadInput(path, "does not exist", "check the path") from None
    except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, MatReadError, NotImplementedError) as error:
        text = " ".join(str(error).split())[:100]
        raise BadInput(path, f"is no ground truth file with CAttached ({text})", "fetch it again") from error
    trials = []
    for number, struct in enumerate(structs):
        names = struct.dtype.names or ()
        if not {"fluo_time", "fluo_mean", "events_AP"} <= set(names):
            continue
        fields = (struct[name] for name in ("fluo_time", "fluo_mean", "events_AP"))
        time, dff, events = (np.asarray(field, dtype=np.float64).reshape(-1) for field in fields)
        frames = min(len(time), len(dff))
        kept = np.isfinite(time[:frames]) & np.isfinite(dff[:frames])
        time, dff = time[:frames][kept], dff[:frames][kept]
        if len(time) < 2 or np.ptp(dff) == 0 or not (np.diff(time) > 0).all():
            continue
        spikes = np.sort(events[np.isfinite(events)]) / EPHYS_HZ
        trials.append(Trial(path.parent.name, path.stem, number, dff, time, spikes))
    return trials


def prepare(trials: Sequence[Trial], config: PackageConfig, seed: int = 0) -> list[Example]:
    """Bring trials to the model's frame rate; noise is added later, for each noise level anew."""
    return [_prepare(trial, config, np.random.default_rng([seed, i])) for i, trial in enumerate(trials)]


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
    strength = example.added_noise(level)
    if strength is None:
        return None
    scale = strength / 100 * np.sqrt(config.sampling_rate_hz)
    noise = draw.standard_normal(len(example.dff), dtype=np.float32)
    return example.dff + np.float32(scale) * example.noise_profile * noise
