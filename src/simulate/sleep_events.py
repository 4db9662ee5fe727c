"""Transients of a night: what a scorer looks for, drawn one by one on top of the background.

Shapes and rates follow the AASM manual's definitions and the usual descriptions of the waves; amplitudes are those of
Sleep-EDF's montage, where Fpz-Cz sees the eyes too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FS_HZ = 100
_Floats = NDArray[np.float32]


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
    def draw(cls, rng: np.random.Generator) -> Traits:
        """A sleeper from the population."""
        factors = np.exp(rng.normal(0.0, [0.2, 0.35, 0.3, 0.3]))
        alpha_hz, spindle_hz = rng.normal(9.8, 0.55), rng.normal(13.2, 0.5)
        return cls(float(np.clip(alpha_hz, 8.8, 10.8)), factors[0], float(spindle_hz), *(float(f) for f in factors[1:]))


@dataclass(frozen=True)
class Wave:
    """A kind of transient.

    Attributes
    ----------
    rate_per_min
        In W, N1, N2, N3, REM.
    amplitude_uv
        Median at Fpz-Cz, Pz-Oz, horizontal EOG; single waves scatter around it.
    shape
        ``shape(rng, n, traits)`` gives ``(n, sample)`` waves of unit amplitude.
    own_rate
        Which trait multiplies the rate.
    clustered
        Whether the waves come in volleys.
    """

    rate_per_min: tuple[float, float, float, float, float]
    amplitude_uv: tuple[float, float, float]
    shape: Callable[[np.random.Generator, int, Traits], _Floats]
    own_rate: str = ""
    clustered: bool = False


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
    """A rate that comes and goes over some ten stretches, one on average."""
    from scipy.signal import lfilter

    slow = lfilter([np.sqrt(1 - 0.9**2)], [1, -0.9], rng.standard_normal(n))
    return np.exp(1.1 * slow - 0.605)
