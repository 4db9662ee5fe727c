"""The background of a recording whose spikes nobody labelled: its spectrum, and whether that says it all.

Where nothing but Gaussian noise lies behind the spikes, its spectrum is all there is to know, and noise
of that spectrum can be made without end. A real electrode also picks up neurons that no template stands
for. Then the recording itself is the only honest sample of its background, and what has to be known is
where the neurons that are looked for probably fire in it, so that these places are not held for noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from src.preprocess.spikes.matched_filter import FilterBank
from src.preprocess.spikes.noise import Spectrum, background_spectrum, quiet_mask, robust_sigma
from src.preprocess.spikes.waveforms import LONG_FFT, WaveformModel, remove_spikes
from src.recordings.extracellular.spike_trains import SpikeTrain

LOUD_SIGMAS = 5.0
MOST_LOUD = 1e-4
"""Share of samples beyond ``LOUD_SIGMAS`` robust standard deviations, once known waveforms are subtracted,
above which a background is not Gaussian; Gaussian noise has 6e-7, jitter of the spikes adds some 4e-5."""

MISFIT = 0.5
LOWEST = 4.0
"""Log-likelihood ratio below which nothing is looked at."""

FEWEST = 20
GRAFTED_SAMPLES = 500_000
"""Samples on which a threshold is chosen; the rest of a long recording would not change it."""

NEAR = 10


@dataclass(frozen=True)
class Measured:
    """What is known of a background.

    Attributes
    ----------
    noise
        Its spectrum behind the band-pass.
    loud_share
        Share of loud samples that the known waveforms do not explain.
    suspects
        Where known neurons probably fire; empty when the background is Gaussian and this does not matter.
    """

    noise: Spectrum
    loud_share: float
    suspects: SpikeTrain

    @property
    def gaussian(self) -> bool:
        return self.loud_share <= MOST_LOUD


def measure_background(
    linear: np.ndarray,
    fs_hz: float,
    seen: WaveformModel,
    labelled: tuple[np.ndarray, SpikeTrain],
    usable: np.ndarray | None = None,
) -> Measured:
    """Measure the background of a band-passed trace ``(time,)``.

    First from the stretches in which nothing sticks out. With that spectrum the known waveforms are
    looked for (whitened bank, greedy subtraction); what is left when they are subtracted gives the
    spectrum at full resolution, small spikes and slow drift included. If much of what is left is loud,
    the search is repeated with a threshold chosen by grafts (:func:`choose_by_grafts`), and everything
    that remains, foreign spikes included, counts as noise.

    Parameters
    ----------
    seen
        Waveforms behind the band-pass.
    labelled
        The band-passed stretch they were fitted to, and its spikes.
    usable
        Mask of samples that carry signal.
    """
    usable = np.ones(len(linear), bool) if usable is None else usable
    first = background_spectrum(np.where(usable, linear, np.nan), fs_hz)
    bank = FilterBank(seen.templates, seen.onset, first, length=512)
    odds_against = np.log(len(labelled[0]) / max(len(labelled[1]), 1))
    train, _ = bank.detect(linear, float(odds_against))
    residual = remove_spikes(linear, train, seen.templates, seen.onset)
    quiet = quiet_mask(np.where(usable, residual, np.nan), before=20, after=20)
    noise = background_spectrum(residual, fs_hz, quiet, n_fft=min(LONG_FFT, len(linear)))
    loud = np.abs(residual) > LOUD_SIGMAS * robust_sigma(residual[usable])
    loud_share = float(loud[usable].mean()) if usable.any() else 0.0
    if loud_share <= MOST_LOUD:
        return Measured(noise, loud_share, SpikeTrain.empty())
    graft, grafted = tiled(*labelled, len(linear))
    suspects = SpikeTrain.empty()
    for _ in range(2):
        bank = FilterBank(seen.templates, seen.onset, noise, length=512)
        suspects = choose_by_grafts(linear, graft, grafted, bank)
        noise = _all_but(linear, suspects, seen, usable, fs_hz)
    return Measured(noise, loud_share, suspects)


def _all_but(linear: np.ndarray, train: SpikeTrain, seen: WaveformModel, usable: np.ndarray, fs_hz: float) -> Spectrum:
    residual = remove_spikes(linear, train, seen.templates, seen.onset)
    return background_spectrum(residual, fs_hz, usable, n_fft=min(LONG_FFT, len(linear)))


def choose_by_grafts(linear: np.ndarray, graft: np.ndarray, train: SpikeTrain, bank: FilterBank) -> SpikeTrain:
    """Spikes of known shape in an unlabelled trace, at the threshold that grafted spikes show to be the best.

    A labelled trace is added to it. The share of its spikes that is found, squared, over the number of
    spikes found without it is proportional to precision times recall (Lee and Liu 2003), whatever the
    trace itself contains.

    Parameters
    ----------
    linear
        ``(time,)`` the unlabelled band-passed trace.
    graft, train
        A labelled one with little noise, of the same length, and its spikes.
    """
    part = slice(0, GRAFTED_SAMPLES)
    train = train.between(0, GRAFTED_SAMPLES)
    _, value = bank.detect(linear[part], LOWEST, misfit=MISFIT)
    both, value_both = bank.detect(linear[part] + graft[part], LOWEST, misfit=MISFIT)
    best, chosen = -1.0, np.inf
    for threshold in np.geomspace(LOWEST, 100 * LOWEST, 40):
        count = int((value >= threshold).sum())
        merit = recovered(train.index, both.index[value_both >= threshold]) ** 2 / max(count, FEWEST)
        if merit > best:
            best, chosen = merit, float(threshold)
    return bank.detect(linear, chosen, misfit=MISFIT)[0] if np.isfinite(chosen) else SpikeTrain.empty()


def tiled(linear: np.ndarray, train: SpikeTrain, n_samples: int) -> tuple[np.ndarray, SpikeTrain]:
    """A labelled trace repeated until it is ``n_samples`` long, and its spikes."""
    repeats = -(-n_samples // len(linear))
    index = np.concatenate([train.index + k * len(linear) for k in range(repeats)])
    unit = np.tile(train.unit, repeats)
    inside = index < n_samples
    return np.tile(linear, repeats)[:n_samples], SpikeTrain(index[inside], unit[inside])


def recovered(grafts: np.ndarray, found: np.ndarray) -> float:
    """Share of grafted onsets with a found one within :data:`NEAR` samples."""
    if len(grafts) == 0 or len(found) == 0:
        return 0.0
    right = np.clip(np.searchsorted(found, grafts), 0, len(found) - 1)
    left = np.clip(right - 1, 0, None)
    nearest = np.minimum(np.abs(found[right] - grafts), np.abs(found[left] - grafts))
    return float(np.mean(nearest <= NEAR))
