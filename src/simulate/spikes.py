"""Look-alikes of the six EE32009 recordings, and any harder or easier relative of them.

Five neurons whose waveforms follow the published statistics (two pairs differ in amplitude alone),
published counts, Poisson firing with a refractory period per neuron and with overlaps between
neurons, small variations of every spike, and a background of coloured noise on a slow sway. The
truth is known to the sample.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.spikes.filters import Spectrum
from src.recordings.extracellular.spike_trains import SpikeTrain, write_mat
from src.signals import BadInput
from src.storage.batch import Job, Summary, run_batch
from src.storage.output import OutputFolder
from src.storage.step import CachedStep

FS_HZ = 25_000.0
SPIKE_SAMPLES = 90
"""Samples after which every waveform has returned to zero."""

IN_BAND_HZ = (150.0, 4000.0)
"""Band in which noise levels are stated."""


@dataclass(frozen=True)
class Neuron:
    """Shape of one neuron's extracellular spike; times in samples at 25 kHz after the onset.

    A concave rise to ``peak`` at ``rise``, a Gaussian fall of width ``fall`` and an undershoot.
    """

    peak: float
    rise: float
    steepness: float
    fall: float
    undershoot: float = 0.0
    undershoot_at: float = 40.0
    undershoot_width: float = 10.0

    def at(self, t: np.ndarray) -> np.ndarray:
        """Amplitude at times ``t`` (samples at 25 kHz after the onset), zero before it."""
        rising = 1 - np.abs(1 - np.clip(t, 0, self.rise) / self.rise) ** self.steepness
        falling = np.exp(-0.5 * (np.maximum(t - self.rise, 0) / self.fall) ** 2)
        dip = np.exp(-0.5 * ((t - self.undershoot_at) / self.undershoot_width) ** 2) * (1 - falling)
        return np.where(t > 0, self.peak * rising * falling - self.undershoot * dip * (t > self.rise), 0.0)


# Fitted to the published median waveforms of recording D1: 1 and 3, and 4 and 5, share a shape.
NEURONS: tuple[Neuron, ...] = (
    Neuron(peak=7.25, rise=6.9, steepness=2.15, fall=7.6, undershoot=0.8, undershoot_at=31, undershoot_width=7.6),
    Neuron(peak=8.1, rise=10.6, steepness=2.1, fall=9.6, undershoot=2.0, undershoot_at=39, undershoot_width=9.6),
    Neuron(peak=2.1, rise=4.2, steepness=1.8, fall=8.3),
    Neuron(peak=3.95, rise=14.5, steepness=2.3, fall=14.7),
    Neuron(peak=6.15, rise=14.5, steepness=2.3, fall=14.7),
)


@dataclass(frozen=True)
class Level:
    """One recording of the set: how many spikes, how loud the background."""

    n_spikes: int
    ratio: float  # mean template peak over the standard deviation of the noise between 150 and 4000 Hz
    sway: float  # standard deviation of the drift below 5 Hz over that of the noise


# Counts as published; ratios at which a threshold-plus-template sorter scores as published.
LOOKALIKES: dict[str, Level] = {
    "D1": Level(2176, 30.0, 2.0),
    "D2": Level(3984, 16.0, 2.0),
    "D3": Level(3329, 9.0, 1.5),
    "D4": Level(3031, 5.5, 1.5),
    "D5": Level(2582, 3.7, 1.0),
    "D6": Level(3911, 2.7, 1.0),
}


def background(ratio: float, sway: float, mean_peak: float, fs_hz: float = FS_HZ, n_fft: int = 1 << 15) -> Spectrum:
    """Spectrum of the look-alikes' noise: white plus a 1/f part below ~300 Hz, and a sway below 5 Hz."""
    f = np.fft.rfftfreq(n_fft, 1 / fs_hz)
    colour = 1 + 300.0 / np.maximum(f, 20.0)
    noise = Spectrum(colour, fs_hz)
    sigma = mean_peak / ratio
    noise = noise.scaled(sigma / noise.sigma(*IN_BAND_HZ))
    drift = np.where(f <= 5, 1.0, 0.0)
    drift *= (sway * sigma) ** 2 / (drift.sum() * f[1])
    return Spectrum(noise.power + drift, fs_hz)


def firing(
    n_spikes: int, n_samples: int, n_units: int, rng: np.random.Generator, *, refractory: int = 50
) -> SpikeTrain:
    """Independent Poisson trains of near-equal size, one per unit, each with a dead time of ``refractory`` samples."""
    shares = rng.multinomial(n_spikes, np.full(n_units, 1 / n_units))
    onsets = [_poisson(int(count), n_samples - SPIKE_SAMPLES, refractory, rng) for count in shares]
    units = [np.full(len(o), u + 1) for u, o in enumerate(onsets)]
    return SpikeTrain.sorted(np.concatenate(onsets), np.concatenate(units))


def _poisson(count: int, span: int, refractory: int, rng: np.random.Generator) -> np.ndarray:
    free = span - count * refractory
    if free < count:
        raise ValueError(f"{count} spikes {refractory} samples apart do not fit into {span} samples")
    return np.sort(rng.integers(0, free, count)) + np.arange(count) * refractory


def place(
    train: SpikeTrain,
    n_samples: int,
    neurons: tuple[Neuron, ...],
    rng: np.random.Generator,
    *,
    amplitude_sd: float = 0.03,
    width_sd: float = 0.01,
    fs_hz: float = FS_HZ,
) -> np.ndarray:
    """Noise-free trace ``(n_samples,)`` of a spike train.

    Each spike has its own amplitude and duration (relative standard deviations) and starts up to half
    a sample before or after its onset index.
    """
    trace = np.zeros(n_samples + SPIKE_SAMPLES)
    t = np.arange(SPIKE_SAMPLES) * FS_HZ / fs_hz
    gain = 1 + amplitude_sd * rng.standard_normal(len(train))
    stretch = np.exp(width_sd * rng.standard_normal(len(train)))
    fraction = rng.uniform(-0.5, 0.5, len(train)) * FS_HZ / fs_hz
    for row, (index, unit) in enumerate(zip(train.index, train.unit, strict=True)):
        shape = neurons[unit - 1].at((t - fraction[row]) / stretch[row])
        trace[index : index + SPIKE_SAMPLES] += gain[row] * shape
    return trace[:n_samples]


def simulate(
    n_spikes: int,
    ratio: float,
    seed: int,
    *,
    duration_s: float = 57.6,
    sway: float = 1.0,
    amplitude_sd: float = 0.03,
    neurons: tuple[Neuron, ...] = NEURONS,
    fs_hz: float = FS_HZ,
) -> tuple[np.ndarray, SpikeTrain]:
    """One labelled recording: trace ``(time,)`` float32 in arbitrary units, and its spikes."""
    rng = np.random.default_rng(seed)
    if not duration_s > 0:
        raise BadInput("duration_s", f"is {duration_s:g}", "give seconds")
    n_samples = round(duration_s * fs_hz)
    train = firing(n_spikes, n_samples, len(neurons), rng)
    clean = place(train, n_samples, neurons, rng, amplitude_sd=amplitude_sd, fs_hz=fs_hz)
    noise = background(ratio, sway, mean_peak(neurons), fs_hz).synthesise(n_samples, rng)
    return (clean + noise).astype(np.float32), train


def mean_peak(neurons: tuple[Neuron, ...] = NEURONS) -> float:
    """Mean peak amplitude of a set of neurons."""
    return float(np.mean([n.peak for n in neurons]))


def lookalike(name: str, seed: int, *, duration_s: float = 57.6) -> tuple[np.ndarray, SpikeTrain]:
    """The look-alike of recording ``name`` (``D1`` … ``D6``); a shorter one has proportionally fewer spikes."""
    level = LOOKALIKES[name]
    count = round(level.n_spikes * duration_s / 57.6)
    number = sorted(LOOKALIKES).index(name)
    return simulate(count, level.ratio, seed * 100 + number, duration_s=duration_s, sway=level.sway)


def write_set(
    folder: Path, draw: Callable[[str], tuple[np.ndarray, SpikeTrain]], truth_dir: Path | None = None
) -> list[Path]:
    """Write ``D1.mat`` with ``d``, ``Index``, ``Class`` and ``D2.mat`` … ``D6.mat`` with ``d`` alone.

    The truth of D2–D6 goes to ``truth_dir`` where given, apart from the data, so that nothing can be tuned to it.
    """
    written = []
    for name in LOOKALIKES:
        trace, train = draw(name)
        written.append(Path(folder) / f"{name}.mat")
        write_mat(written[-1], train if name == "D1" else None, trace)
        if truth_dir is not None and name != "D1":
            write_mat(Path(truth_dir) / f"{name}.mat", train)
    return written


def write_set_as_job(
    title: str, folder: Path, inputs: tuple[Path, ...], draw: Callable[[str], tuple[np.ndarray, SpikeTrain]]
) -> Summary:
    """A set in the user's folder, the truth of D2–D6 in ``truth/``."""

    def write() -> list[str]:
        with OutputFolder(folder, inputs).files() as part:
            write_set(part, draw, part / "truth")
        return [f"D1.mat … D6.mat in {folder}, the truth of D2–D6 in {folder / 'truth'}"]

    return run_batch([Job("D1–D6", write)], title=title)


def lookalikes(output_dir: str, seed: int, duration_s: float) -> Summary:
    """The embedded D1–D6 as files."""
    draw = partial(lookalike, seed=seed, duration_s=duration_s)
    return write_set_as_job("embedded recordings", Path(output_dir), (), draw)


def _make_lookalikes(
    inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None
) -> dict[str, Any] | None:
    draw = partial(lookalike, seed=seed or 0, duration_s=params["duration_s"])
    written = write_set(out_dir, draw, out_dir / "truth")
    return {"units": "a.u.", "axes": {"d": ["channel", "time"]}, "recordings": [p.stem for p in written]}


LOOKALIKE_SET = CachedStep("spike_lookalikes", 1, _make_lookalikes)
