"""Cached stages of the spike domain: the embedded recordings, and what is measured on a target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.spikes.background import measure_background
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import median_removed, slow_baseline
from src.preprocess.spikes.noise import Spectrum, background_spectrum
from src.preprocess.spikes.signature import signature
from src.preprocess.spikes.waveforms import (
    LONG_FFT,
    TEMPLATE_AFTER,
    TEMPLATE_BEFORE,
    WaveformModel,
    conditioned_waveforms,
    fit_waveforms,
    remove_spikes,
)
from src.recordings.extracellular.arrays import SUFFIXES
from src.recordings.extracellular.spike_trains import SpikeTrain, read_spikes, read_trace, unusable
from src.signals import BadInput
from src.simulate.spikes import write_lookalikes
from src.storage.step import CachedStep

MOST_UNUSABLE = 0.5
"""Share of NaN and saturated samples above which a recording is refused."""


@dataclass(frozen=True)
class Trace:
    """A recording ready for the chain: ``centred (time,)`` float32 without NaN, and the mask of real samples."""

    name: str
    centred: np.ndarray
    usable: np.ndarray
    fs_hz: float
    source: str

    @property
    def unusable_share(self) -> float:
        return float(1 - self.usable.mean())


def load_trace(path: Path, *, fs_hz: float, key: str = "d", channel: int | None = None) -> Trace:
    """Read, centre and check one recording; NaN and stuck samples become zero and are marked.

    Raises
    ------
    BadInput
        What :func:`read_trace` raises, or when most of the recording carries no signal.
    """
    recording = read_trace(path, fs_hz=fs_hz, key=key, channel=channel)
    samples = recording.samples[0]
    bad = unusable(samples)
    if bad.mean() > MOST_UNUSABLE:
        raise BadInput(path, f"{bad.mean():.0%} of the samples are NaN or saturated", "give a recording with signal")
    centred, _ = median_removed(np.where(bad, np.nan, samples).astype(np.float32))
    if not centred.any():
        raise BadInput(path, "every sample has the same value", "give a recording with signal")
    return Trace(recording.recording_id, centred, ~bad, fs_hz, str(path))


def find_recording(folder: Path, name: str) -> Path:
    """The file of recording ``name`` in a folder, whatever its suffix.

    Raises
    ------
    BadInput
        If there is none.
    """
    for suffix in SUFFIXES:
        if (path := Path(folder) / f"{name}{suffix}").is_file():
            return path
    raise BadInput(folder, f"holds no recording '{name}'", f"expected {name}.mat (or {', '.join(SUFFIXES[1:])})")


@dataclass(frozen=True)
class LabelledRecording:
    """The recording with known spikes, as the training needs it.

    ``flat`` is the trace without its slow baseline, ``linear`` the band-passed one.
    """

    trace: Trace
    train: SpikeTrain
    flat: np.ndarray
    linear: np.ndarray

    def waveforms(self, part: range, n_units: int | None = None) -> WaveformModel:
        """Waveforms fitted to one stretch alone, of as many neurons as the labels name unless given."""
        n_units = int(self.train.unit.max()) if n_units is None else n_units
        flat, train = self.flat[part.start : part.stop], self.train.between(part.start, part.stop)
        return fit_waveforms(flat, train, n_units, before=TEMPLATE_BEFORE, after=TEMPLATE_AFTER)

    def background(self, part: range, seen: WaveformModel) -> Spectrum:
        """Spectrum of one stretch's own noise, its labelled spikes subtracted."""
        train = self.train.between(part.start, part.stop)
        residual = remove_spikes(self.linear[part.start : part.stop], train, seen.templates, seen.onset)
        quiet = np.ones(len(residual), bool)
        return background_spectrum(residual, self.trace.fs_hz, quiet, n_fft=min(LONG_FFT, len(residual)))


def load_labelled(path: Path, conditioning: Conditioning, *, key: str, n_units: int | None) -> LabelledRecording:
    """Read the labelled recording and its spikes.

    Raises
    ------
    BadInput
        A recording or labels that cannot be used.
    """
    trace = load_trace(path, fs_hz=conditioning.fs_hz, key=key)
    train = read_spikes(path, n_samples=len(trace.centred), n_units=n_units)
    if len(train) == 0:
        raise BadInput(path, "holds no labelled spike", "training needs spikes in Index and Class")
    flat = trace.centred - slow_baseline(trace.centred)
    return LabelledRecording(trace, train, flat, conditioning.linear(trace.centred))


def _measure(
    inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None
) -> dict[str, Any] | None:
    conditioning = Conditioning.from_dict(params["conditioning"])
    labelled = load_labelled(inputs["labelled"], conditioning, key=params["key"], n_units=params["n_units"])
    fit_on = range(*params["fit_on"])
    seen = conditioned_waveforms(labelled.waveforms(fit_on, params["n_units"]), conditioning)
    known = labelled.linear[fit_on.start : fit_on.stop], labelled.train.between(fit_on.start, fit_on.stop)
    trace = load_trace(inputs["recording"], fs_hz=conditioning.fs_hz, key=params["key"])
    linear = conditioning.linear(trace.centred)
    measured = measure_background(linear, conditioning.fs_hz, seen, known, trace.usable)
    np.savez(
        out_dir / "background.npz",
        power=measured.noise.power,
        signature=signature(linear, conditioning.fs_hz, trace.usable),
        level=linear[trace.usable].std(),
        loud_share=measured.loud_share,
        suspects=measured.suspects.index,
        suspect_units=measured.suspects.unit,
    )
    return {
        "units": "a.u.",
        "axes": {"power": ["frequency"], "signature": ["feature"], "suspects": ["spike"]},
        "sigma_in_band": measured.noise.sigma(150, min(4000, 0.45 * conditioning.fs_hz)),
        "loud_share": measured.loud_share,
        "gaussian": measured.gaussian,
        "unusable_share": trace.unusable_share,
    }


def _make_lookalikes(
    inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None
) -> dict[str, Any] | None:
    written = write_lookalikes(out_dir, seed or 0, duration_s=params["duration_s"], truth_dir=out_dir / "truth")
    return {"units": "a.u.", "axes": {"d": ["channel", "time"]}, "recordings": [p.stem for p in written]}


def _condition(
    inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None
) -> dict[str, Any] | None:
    conditioning = Conditioning.from_dict(params["conditioning"])
    trace = load_trace(inputs["recording"], fs_hz=conditioning.fs_hz, key=params["key"])
    np.save(out_dir / "conditioned.npy", conditioning.apply(trace.centred))
    np.save(out_dir / "usable.npy", trace.usable)
    return {
        "units": "a.u.",
        "axes": {"conditioned": ["time"], "usable": ["time"]},
        "fs_hz": conditioning.fs_hz,
        "unusable_share": trace.unusable_share,
    }


CONDITIONING = CachedStep("spike_conditioning", 1, _condition)
BACKGROUND = CachedStep("spike_background", 3, _measure)
LOOKALIKE_SET = CachedStep("spike_lookalikes", 1, _make_lookalikes)
