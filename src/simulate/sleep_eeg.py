"""EEG and EOG of a night from its hypnogram: a background of changing spectrum, and the transients on it.

The background is noise shaped in the frequency domain, frame by frame, and overlap-added, so any spectrum may change at
any time. Its band powers have the means, spreads, correlations and memory that were measured in Sleep-EDF
(:mod:`src.simulate.sleep_statistics`). Shapes and rates of the transients follow the AASM manual's definitions and the
usual descriptions of the waves; their amplitudes are those of Sleep-EDF's montage, where Fpz-Cz sees the eyes too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import uniform_filter1d
from scipy.signal import lfilter
from scipy.special import ndtr

from src.simulate import sleep_statistics as measured
from src.simulate.sleep_statistics import BANDS_HZ, CHANNELS

FS_HZ = 100
_Floats = NDArray[np.float32]
SCALE_UV = np.array([26.0, 18.0, 40.0])
"""Standard deviation of a recording, per channel: what ``stage_statistics`` calls one."""

_FRAME = 4 * FS_HZ
_HOP = _FRAME // 2
_FREQUENCIES = np.fft.rfftfreq(_FRAME, 1 / FS_HZ)
_SHARED = np.array([[1.0, 0.35, 0.4], [0.35, 1.0, 0.1], [0.4, 0.1, 1.0]])
"""Correlation of the background between channels, at every frequency."""
_LIKENESS = 0.6
"""Share of the measured spread between recordings that sleepers get: a cohort of two dozen has to do for a training."""
_EPOCH_MEMORY = 0.6
_ESTIMATE_SD = np.array([0.2, 0.14, 0.14, 0.14, 0.08])
"""``(band,)`` scatter of the estimate of a stationary epoch, part of every spread measured."""
_BORDER_S = 6.0
"""A scorer's epoch border and the sleeper's change of stage lie up to this far apart."""
_FADE_FRAMES = 3
_FLICKER_SD = 0.25
_AROUSALS_PER_H = np.array([0.0, 20.0, 12.0, 2.0, 14.0])
_AROUSAL_LOG_GAIN = np.array([0.2, 0.5, 1.3, 0.9, 1.1])


@dataclass(frozen=True)
class Traits:
    """What is a sleeper's own in the transients, the same every night."""

    alpha_hz: float
    rhythm_rate: float
    spindle_hz: float
    spindle_rate: float
    slow_wave_rate: float
    eye_rate: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Traits":
        """A sleeper from the population."""
        factors = np.exp(rng.normal(0.0, [0.2, 0.35, 0.3, 0.3]))
        alpha_hz, spindle_hz = rng.normal(9.8, 0.55), rng.normal(13.2, 0.5)
        return cls(float(np.clip(alpha_hz, 8.8, 10.8)), factors[0], float(spindle_hz), *(float(f) for f in factors[1:]))


@dataclass(frozen=True)
class Wave:
    """A kind of transient."""

    rate_per_min: tuple[float, float, float, float, float]  # in W, N1, N2, N3, REM
    # median at Fpz-Cz, Pz-Oz, horizontal EOG; single waves scatter around it
    amplitude_uv: tuple[float, float, float]
    # shape(rng, n, traits) gives (n, sample) waves of unit amplitude
    shape: Callable[[np.random.Generator, int, Traits], _Floats]
    own_rate: str = ""  # which trait multiplies the rate
    clustered: bool = False  # whether the waves come in volleys


def _time(seconds: float) -> _Floats:
    return np.arange(int(seconds * FS_HZ), dtype=np.float32)[None] / np.float32(FS_HZ)


def _bump(time: _Floats, centre: float, width: _Floats | float) -> _Floats:
    return np.asarray(np.exp(-(((time - centre) / width) ** 2)), dtype=np.float32)


def _envelope(time: _Floats, duration: _Floats) -> _Floats:
    return np.where(time < duration, np.sin(np.pi * time / duration) ** 2, np.float32(0))


def _uniform(rng: np.random.Generator, n: int, low: float, high: float) -> _Floats:
    return rng.uniform(low, high, (n, 1)).astype(np.float32)


def _spindle(rng: np.random.Generator, n: int, traits: Traits) -> _Floats:
    time = _time(2.0)
    frequency = traits.spindle_hz + 0.4 * rng.standard_normal((n, 1), dtype=np.float32)
    phase = 2 * np.pi * (frequency * time - 0.25 * time**2 + rng.random((n, 1), dtype=np.float32))
    return np.sin(phase) * _envelope(time, _uniform(rng, n, 0.6, 1.6))


def _k_complex(rng: np.random.Generator, n: int, traits: Traits) -> _Floats:
    time, stretch = _time(1.5), _uniform(rng, n, 0.8, 1.3)
    return 0.6 * _bump(time, 0.7, 0.18 * stretch) - _bump(time, 0.35, 0.1 * stretch)


def _slow_wave(rng: np.random.Generator, n: int, traits: Traits) -> _Floats:
    time, period = _time(1.8), _uniform(rng, n, 0.9, 1.7)
    return -np.sin(2 * np.pi * time / period) * _envelope(time, period)


def _vertex_wave(rng: np.random.Generator, n: int, traits: Traits) -> _Floats:
    time, stretch = _time(0.8), _uniform(rng, n, 0.8, 1.2)
    return 0.4 * _bump(time, 0.42, 0.09 * stretch) - _bump(time, 0.25, 0.05 * stretch)


def _sawtooth(rng: np.random.Generator, n: int, traits: Traits) -> _Floats:
    time, frequency = _time(4.0), _uniform(rng, n, 2.2, 4.0)
    cycle = (frequency * time) % 1
    return (2 * cycle - 1).astype(np.float32) * _envelope(time, _uniform(rng, n, 1.5, 4.0))


def _blink(rng: np.random.Generator, n: int, traits: Traits) -> _Floats:
    time, stretch = _time(1.0), _uniform(rng, n, 0.8, 1.3)
    return _bump(time, 0.25, 0.07 * stretch) - 0.25 * _bump(time, 0.55, 0.15 * stretch)


def _saccade(rng: np.random.Generator, n: int, traits: Traits) -> _Floats:
    time = _time(2.0)
    sign = rng.choice(np.array([-1, 1], np.float32), (n, 1))
    return sign * (1 - np.exp(-time / 0.03)) * np.exp(-time / _uniform(rng, n, 0.25, 0.6))


def _rolling_eyes(rng: np.random.Generator, n: int, traits: Traits) -> _Floats:
    time, duration = _time(6.0), _uniform(rng, n, 3.0, 6.0)
    sign = rng.choice(np.array([-1, 1], np.float32), (n, 1))
    return sign * np.sin(2 * np.pi * time / duration * 1.5) * _envelope(time, duration)


def _movement(rng: np.random.Generator, n: int, traits: Traits) -> _Floats:
    time = _time(6.0)
    steps = rng.standard_normal((n, time.shape[1]), dtype=np.float32)
    drift = np.cumsum(steps - steps.mean(axis=1, keepdims=True), axis=1) * np.float32(0.08)
    return (drift + 0.3 * steps) * _envelope(time, _uniform(rng, n, 2.0, 6.0))


WAVES: dict[str, Wave] = {
    "spindle": Wave((0.0, 0.1, 3.2, 1.2, 0.0), (14.0, 15.0, 3.0), _spindle, "spindle_rate"),
    "K-complex": Wave((0.0, 0.05, 1.3, 0.6, 0.0), (65.0, 35.0, 25.0), _k_complex, "slow_wave_rate"),
    "slow wave": Wave((0.0, 0.0, 1.0, 9.0, 0.0), (65.0, 40.0, 25.0), _slow_wave, "slow_wave_rate", True),
    "vertex wave": Wave((0.0, 2.0, 0.4, 0.0, 0.0), (45.0, 12.0, 8.0), _vertex_wave),
    "sawtooth": Wave((0.0, 0.0, 0.0, 0.0, 2.0), (16.0, 6.0, 4.0), _sawtooth, "", True),
    "blink": Wave((9.0, 0.3, 0.0, 0.0, 0.2), (45.0, 4.0, 12.0), _blink, "eye_rate", True),
    "saccade": Wave((6.0, 0.3, 0.0, 0.0, 9.0), (16.0, 2.0, 75.0), _saccade, "eye_rate", True),
    "rolling eyes": Wave((1.2, 3.0, 0.1, 0.0, 0.0), (7.0, 1.0, 45.0), _rolling_eyes, "eye_rate"),
    "movement": Wave((0.5, 0.1, 0.05, 0.03, 0.05), (45.0, 35.0, 60.0), _movement, "", True),
}
"""Everything that is drawn."""


def add_waves(rng: np.random.Generator, samples: _Floats, stages: NDArray[np.int8], hop: int, traits: Traits) -> None:
    """Draw every kind of transient into ``(channel, time)`` samples, in place.

    ``stages`` holds the stage of every stretch of ``hop`` samples; a wave starts anywhere in its stretch.
    """
    for wave in WAVES.values():
        rate = np.array(wave.rate_per_min)[stages] * (hop / FS_HZ / 60)
        if wave.own_rate:
            rate = rate * getattr(traits, wave.own_rate)
        if wave.clustered:
            rate = rate * _volleys(rng, len(stages))
        stretches = np.repeat(np.arange(len(stages)), rng.poisson(rate))
        shapes = wave.shape(rng, len(stretches), traits)
        onsets = stretches * hop + rng.integers(0, hop, len(stretches))
        inside = onsets + shapes.shape[1] <= samples.shape[1]
        places = onsets[inside, None] + np.arange(shapes.shape[1])
        sizes = np.exp(0.35 * rng.standard_normal((len(stretches), 1), dtype=np.float32))
        shapes = (shapes * sizes)[inside]
        for row, amplitude in zip(samples, wave.amplitude_uv, strict=True):
            np.add.at(row, places, np.float32(amplitude) * shapes)


def _volleys(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """A rate that rises and falls over about ten stretches, with a mean of 1."""
    slow = lfilter([np.sqrt(1 - 0.9**2)], [1, -0.9], rng.standard_normal(n))
    return np.exp(1.1 * slow - 0.605)


@dataclass(frozen=True)
class Rhythm:
    """A narrow peak of the spectrum, in bursts of seconds."""

    below_alpha_hz: float  # how far its frequency lies under the sleeper's alpha
    width_hz: float  # of the peak
    duty: tuple[float, float, float, float, float]  # (stage,) share of the time it is there
    log_gain: tuple[float, float, float]  # (channel,) height over the background, in log power


RHYTHMS = (
    # Alpha: relaxed wake, eyes closed; gone for most of stage 1.
    Rhythm(0.0, 1.0, (0.65, 0.15, 0.03, 0.01, 0.03), (1.4, 2.2, 0.8)),
    # The theta of drowsiness that defines stage 1 where alpha is scarce.
    Rhythm(3.7, 0.8, (0.05, 0.60, 0.10, 0.0, 0.08), (1.4, 1.1, 0.5)),
    # Alpha of REM sleep, one to two hertz slower than that of wake.
    Rhythm(1.7, 0.8, (0.03, 0.05, 0.02, 0.0, 0.45), (1.4, 1.2, 0.5)),
)
"""What tells stages of like band powers apart."""


@dataclass(frozen=True)
class Sleeper:
    """Who sleeps: transients and band powers of their own, the same every night."""

    traits: Traits  # of the transients
    levels: NDArray[np.float64]  # (channel, band) what the subject adds to every stage's log power
    lengthening: NDArray[np.float64]  # (stage,) factors on the durations of bouts

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Sleeper":
        """A sleeper from the population."""
        lengthening = np.exp(rng.normal(0.0, [0.4, 0.25, 0.15, 0.35, 0.2]))
        return cls(Traits.draw(rng), _LIKENESS * _between(rng) * measured.SUBJECT_SD, lengthening)


def simulate_eeg(
    rng: np.random.Generator, stages: NDArray[np.int8], sleeper: Sleeper, epoch_s: float = 30.0
) -> NDArray[np.float32]:
    """Signals of one night: ``(channel, time)`` float32 µV at 100 Hz, channels as in ``CHANNELS``.

    ``rng`` is the source of the night's random numbers, ``stages (epoch,)`` are indices into ``HUMAN_STAGES``.
    """
    n_samples = round(len(stages) * epoch_s * FS_HZ)
    n_frames = n_samples // _HOP + 1
    now = _stage_of_frames(rng, stages, epoch_s, n_frames)
    levels = _levels(rng, now, sleeper, epoch_s)
    present, peaks = _rhythms(rng, now, sleeper.traits)
    samples = np.empty((len(CHANNELS), n_samples), np.float32)
    noise = rng.standard_normal((len(CHANNELS), n_frames, len(_FREQUENCIES), 2), dtype=np.float32)
    mixing = np.linalg.cholesky(_SHARED).astype(np.float32)
    for row, scale in enumerate(SCALE_UV):
        spectrum = np.tensordot(mixing[row], noise, 1).view(np.complex64)[..., 0]
        gain = np.array([rhythm.log_gain[row] for rhythm in RHYTHMS], np.float32)
        spectrum *= _amplitude(levels[:, row], np.asarray((present * gain) @ peaks, np.float32))
        samples[row] = _overlap_add(spectrum, n_samples) * np.float32(scale)
    add_waves(rng, samples, now, _HOP, sleeper.traits)
    return samples


def _stage_of_frames(rng: np.random.Generator, stages: NDArray[np.int8], epoch_s: float, n: int) -> NDArray[np.int8]:
    """``(frame,)`` what the sleeper is in, which is not to the second what the scorer wrote."""
    borders = np.flatnonzero(np.diff(stages)) + 1
    reach = min(_BORDER_S, epoch_s / 3)
    changes = borders * epoch_s + rng.uniform(-reach, reach, len(borders))
    bout = np.searchsorted(changes, np.arange(n) * _HOP / FS_HZ)
    return stages[np.r_[0, borders]][bout]


def _levels(rng: np.random.Generator, now: NDArray[np.int8], sleeper: Sleeper, epoch_s: float) -> NDArray[np.float32]:
    """``(frame, channel, band)`` log power of the background."""
    shape = measured.MEAN.shape[1:]
    own = np.stack([_between(rng) for _ in measured.MEAN]) * measured.STAGE_SD + _between(rng) * measured.NIGHT_SD
    mean = measured.MEAN - measured.ADDED + sleeper.levels + _LIKENESS * own
    spread = np.sqrt(np.maximum(measured.EPOCH_SD**2 - _ESTIMATE_SD**2, 0.01))
    frames_per_epoch = epoch_s * FS_HZ / _HOP
    n_epochs = int(np.ceil(len(now) / frames_per_epoch)) + 1
    drift = _correlated(rng, n_epochs, measured.EPOCH_CHANNELS, measured.EPOCH_BANDS)
    drift = lfilter([np.sqrt(1 - _EPOCH_MEMORY**2)], [1, -_EPOCH_MEMORY], drift, axis=0)
    position = np.arange(len(now)) / frames_per_epoch
    before, share = position.astype(int), (position % 1)[:, None, None]
    # A straight line between two correlated values varies less than they do.
    thinner = np.sqrt((1 - share) ** 2 + share**2 + 2 * _EPOCH_MEMORY * share * (1 - share))
    drift = (drift[before] * (1 - share) + drift[before + 1] * share) / thinner
    flicker = _FLICKER_SD * rng.standard_normal((len(now), *shape), dtype=np.float32)
    levels = uniform_filter1d(mean[now] + spread[now] * drift, _FADE_FRAMES, axis=0, mode="nearest") + flicker
    return (levels + _arousals(rng, now)[:, None, None] * _AROUSAL_LOG_GAIN).astype(np.float32)


def _rhythms(rng: np.random.Generator, now: NDArray[np.int8], traits: Traits) -> tuple[_Floats, _Floats]:
    """``(frame, rhythm)`` how strongly each is there, and ``(rhythm, frequency)`` its peak."""
    present, peaks = [], []
    for rhythm in RHYTHMS:
        slow = lfilter([np.sqrt(1 - 0.85**2)], [1, -0.85], rng.standard_normal(len(now)))
        there = ndtr(slow) < np.clip(np.array(rhythm.duty)[now] * traits.rhythm_rate, 0, 0.9)
        present.append(uniform_filter1d(there.astype(np.float32), 2))
        centre = traits.alpha_hz - rhythm.below_alpha_hz
        peaks.append(np.exp(-(((_FREQUENCIES - centre) / rhythm.width_hz) ** 2)))
    return np.stack(present, axis=1), np.array(peaks, dtype=np.float32)


def _arousals(rng: np.random.Generator, now: NDArray[np.int8]) -> NDArray[np.float64]:
    """``(frame,)`` one during the 4 to 12 seconds of an arousal."""
    begins = rng.random(len(now)) < _AROUSALS_PER_H[now] * (_HOP / FS_HZ / 3600)
    lasting = np.convolve(begins, np.ones(4))[: len(now)]
    return np.minimum(lasting, 1.0)


def _amplitude(levels: _Floats, peaks: _Floats) -> _Floats:
    """``(frame, frequency)`` factor on complex noise that gives ``(frame, band)`` powers, with peaks on top."""
    widths = np.array([high - low for low, high in BANDS_HZ], np.float32)
    log_density = (levels - np.log(widths)) @ _interpolation() + peaks
    high_pass = _FREQUENCIES**2 / (_FREQUENCIES**2 + 0.35**2)
    scale: _Floats = (np.sqrt(FS_HZ * _FRAME) / 2 * high_pass).astype(np.float32)
    return np.exp(0.5 * log_density) * scale


def _interpolation() -> NDArray[np.float32]:
    """``(band, frequency)``: log density is a broken line over log frequency through the bands' centres.

    Beyond the first and last centre it goes on at half the slope.
    """
    centres = np.log([np.sqrt(low * high) for low, high in BANDS_HZ])
    where = np.log(np.maximum(_FREQUENCIES, _FREQUENCIES[1]))
    last = len(centres) - 1
    position = np.interp(where, centres, np.arange(last + 1.0))
    position += 0.5 * np.minimum(where - centres[0], 0) / (centres[1] - centres[0])
    position += 0.5 * np.maximum(where - centres[-1], 0) / (centres[-1] - centres[-2])
    low = np.clip(np.floor(position).astype(int), 0, last - 1)
    weights = np.zeros((last + 1, len(where)), np.float32)
    columns = np.arange(len(where))
    weights[low, columns] = 1 - (position - low)
    weights[low + 1, columns] += position - low
    return weights


def _overlap_add(spectrum: NDArray[np.complex64], n_samples: int) -> NDArray[np.float32]:
    """Real noise from ``(frame, frequency)``: sine-tapered frames, half overlapping, keep the variance even."""
    frames = fft.irfft(spectrum, n=_FRAME, axis=1)
    frames *= np.sin(np.pi * (np.arange(_FRAME, dtype=np.float32) + 0.5) / _FRAME)
    out = np.zeros((len(frames) + 1, _HOP), np.float32)
    out[:-1] += frames[:, :_HOP]
    out[1:] += frames[:, _HOP:]
    return out.ravel()[_HOP : _HOP + n_samples]


def _between(rng: np.random.Generator) -> NDArray[np.float64]:
    """``(channel, band)`` unit deviates correlated as recordings are."""
    return _correlated(rng, 1, measured.SUBJECT_CHANNELS, measured.SUBJECT_BANDS)[0]


def _correlated(
    rng: np.random.Generator, n: int, channels: NDArray[np.float64], bands: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``(n, channel, band)`` unit deviates whose correlation is a product of the two."""
    deviates = rng.standard_normal((n, len(channels), len(bands)))
    return np.linalg.cholesky(channels) @ deviates @ np.linalg.cholesky(bands).T
