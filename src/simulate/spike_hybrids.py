"""Hybrid recordings: real labelled waveforms put into a real background at known times.

The field's way to a ground truth that no simulator has smoothed (Rossant et al. 2016; Wouters et al.
2021): neither the variability of the spikes nor the colour of the noise is a model's.
"""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import scipy.signal

from src.preprocess.spikes.waveforms import subtracted
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.signals import BadInput
from src.simulate.spikes import FS_HZ, IN_BAND_HZ, LOOKALIKES, firing, write_set_as_job
from src.storage.batch import Summary

WAVEFORMS = Path("spikes_waveforms") / "ee32009_D1"
BACKGROUND = Path("spikes_raw_short") / "locust_trial_01.raw"
BACKGROUND_CHANNELS = 4
FOLDER_HINT = f"give a folder that holds {WAVEFORMS}/X_classifier.npy and {BACKGROUND}"
BEFORE, TAIL = 20, 50
"""Samples of a stored waveform ahead of the onset, and samples over which its end is led to zero."""


@dataclass(frozen=True)
class WaveformLibrary:
    """Real spikes ``(spike, time)``, onset at column ``BEFORE``, led to zero at both ends, and their units."""

    windows: np.ndarray
    units: np.ndarray

    @property
    def n_units(self) -> int:
        return int(self.units.max())

    def half(self, second: bool) -> "WaveformLibrary":
        """Every other spike, so that what a sorter is trained on and what it is tested on differ."""
        rows = np.arange(int(second), len(self.units), 2)
        return WaveformLibrary(self.windows[rows], self.units[rows])

    def mean_peak(self) -> float:
        """Mean over units of the largest absolute value of the median waveform."""
        medians = [np.median(self.windows[self.units == u], axis=0) for u in np.unique(self.units)]
        return float(np.mean([np.abs(m).max() for m in medians]))


@cache
def read_library(folder: Path) -> WaveformLibrary:
    """The labelled windows of recording D1, each without its own baseline; crowded ones are left out."""
    path = Path(folder) / WAVEFORMS
    if not (path / "X_classifier.npy").is_file():
        raise BadInput(path, "holds no X_classifier.npy", FOLDER_HINT)
    windows = np.load(path / "X_classifier.npy")[..., 0].astype(np.float64)
    units = np.load(path / "y_classifier_raw.npy").astype(np.int64) + 1
    windows -= np.median(windows[:, : BEFORE - 2], axis=1, keepdims=True)
    # A neighbour inside the window would be put in as part of this spike: keep those near their unit's median.
    alone = np.zeros(len(units), bool)
    for unit in np.unique(units):
        rows = np.flatnonzero(units == unit)
        distance = np.abs(windows[rows] - np.median(windows[rows], axis=0)).max(axis=1)
        alone[rows] = distance < 3 * np.median(distance)
    lead = np.clip((np.arange(windows.shape[1]) - 8) / 8, 0, 1)
    fade = 0.5 * (1 + np.cos(np.linspace(0, np.pi, TAIL)))
    tail = windows[:, -4:].mean(axis=1, keepdims=True) * fade
    return WaveformLibrary(np.hstack((windows * lead, tail))[alone], units[alone])


def read_background(folder: Path, channel: int, n_samples: int) -> np.ndarray:
    """``n_samples`` of one electrode's background at 25 kHz, of unit in-band noise, run on by its own mirror image."""
    path = Path(folder) / BACKGROUND
    if not path.is_file():
        raise BadInput(path, "does not exist", FOLDER_HINT)
    if not 0 <= channel < BACKGROUND_CHANNELS:
        raise BadInput(path, f"has no channel {channel}", f"choose 0…{BACKGROUND_CHANNELS - 1}")
    raw = np.fromfile(path, np.int16).reshape(-1, BACKGROUND_CHANNELS)[:, channel].astype(np.float64)
    trace = scipy.signal.resample_poly(raw - np.median(raw), 5, 3)  # 15 kHz to 25 kHz
    sos = scipy.signal.butter(2, IN_BAND_HZ, "bandpass", fs=FS_HZ, output="sos")
    trace /= np.median(np.abs(scipy.signal.sosfiltfilt(sos, trace))) / 0.6744897501960817
    return np.pad(trace, (0, max(n_samples - len(trace), 0)), mode="reflect")[:n_samples]


def hybrid(
    library: WaveformLibrary, background: np.ndarray, n_spikes: int, ratio: float, seed: int
) -> tuple[np.ndarray, SpikeTrain]:
    """Spikes of ``library`` at random times in ``background``, ``ratio`` = mean peak over in-band noise."""
    rng = np.random.default_rng(seed)
    train = firing(n_spikes, len(background), library.n_units, rng)
    trace = background * (library.mean_peak() / ratio)
    chosen = np.zeros(len(train), np.int64)
    for unit in np.unique(train.unit):
        rows = np.flatnonzero(library.units == unit)
        chosen[train.unit == unit] = rng.choice(rows, int((train.unit == unit).sum()))
    return subtracted(trace, train.index - BEFORE, -library.windows[chosen]).astype(np.float32), train


def draw_hybrid(name: str, shared: Path, seed: int, duration_s: float) -> tuple[np.ndarray, SpikeTrain]:
    """Recording ``D1`` … ``D6`` of real spikes and noise.

    D1 has one half of the spikes and the first electrode, the others the other half and other electrodes.
    """
    number, level = list(LOOKALIKES).index(name), LOOKALIKES[name]
    background = read_background(shared, 0 if name == "D1" else 1 + number % 3, round(duration_s * FS_HZ))
    own = read_library(shared).half(second=name != "D1")
    return hybrid(own, background, round(level.n_spikes * duration_s / 57.6), level.ratio, seed * 100 + number)


def hybrids(input_dir: str, output_dir: str, seed: int, duration_s: float) -> Summary:
    """Hybrid recordings as files, made from the real waveforms and background in ``input_dir``."""
    shared = Path(input_dir)
    draw = partial(draw_hybrid, shared=shared, seed=seed, duration_s=duration_s)
    return write_set_as_job("hybrid recordings", Path(output_dir), (shared,), draw)
