"""A recording that is ready to be filtered: read, centred, and repaired where that is safe, else refused.

Every check states what it found in one sentence, which the console, the record and the page repeat.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy.signal

from src.preprocess.spikes.filters import bandpass, grow, robust_sigma
from src.recordings.extracellular.arrays import SUFFIXES
from src.recordings.extracellular.reader import open_recording
from src.recordings.extracellular.recording import require_rate
from src.recordings.extracellular.spike_trains import SpikeTrain, cut_off, unusable
from src.signals import BadInput, SourceOptions, counted

MOST_UNUSABLE = 0.5  # share of NaN and saturated samples above which a recording is refused
SOME_CUT_OFF, MOST_CUT_OFF = 0.01, 0.1  # share of deflections cut off at a rail that is said, and that is refused
MAINS_HZ = (50.0, 60.0)
HUM_RATIO = 8.0  # power of a line over that of its neighbourhood above which it is taken off
HARMONICS = 12
HUM_BLOCK_S = 2.0

LEAST_GAP, LEAST_ARTEFACT = 5.0, 60.0
"""Artefacts are so many times larger than the largest spike, and than the noise."""

CEILING = 3.0  # times the largest known spike above which a deflection is an artefact
NOISIEST = 1.5
"""Standard deviations of the noise, in units of the largest known spike, beyond which nothing can be found."""

BLANK_BEFORE_MS, BLANK_AFTER_MS = 1.0, 4.0

TWICE_MS = 0.2  # labels of one neuron nearer than this to each other are one spike given twice
FASTEST_HZ = 300.0  # mean rate that no neuron keeps up over a recording
SHORTEST_ISI_MS, MOST_SHORT = 0.5, 0.2


@dataclass(frozen=True)
class Trace:
    """``centred (time,)`` float32 without NaN, the mask of real samples, and what is :func:`cut_off` at rails."""

    name: str
    centred: np.ndarray
    usable: np.ndarray
    fs_hz: float
    source: str
    cut_off: tuple[tuple[float, int], ...] = ()

    @property
    def duration_s(self) -> float:
        return len(self.centred) / self.fs_hz

    @property
    def unusable_share(self) -> float:
        return float(1 - self.usable.mean())


def load_trace(path: Path, *, fs_hz: float, options: SourceOptions | None = None, channel: int | None = None) -> Trace:
    """Read, centre and check one channel of any recording; NaN and stuck samples become zero and are marked.

    ``options`` is what the file does not state, ``channel`` a row of several. The rate a file states has to be
    ``fs_hz``.

    Raises
    ------
    BadInput
        What :func:`open_recording` raises, several channels and no choice, or a recording that mostly has no signal.
    """
    path, options = Path(path), options or SourceOptions()
    options = replace(options, fs_hz=fs_hz, key=options.key or ("d" if path.suffix.lower() in SUFFIXES else None))
    recording = open_recording(path, options, purpose="spikes")
    n_channels = recording.n_channels
    if n_channels > 1 and channel is None:
        raise BadInput(path, f"{n_channels} channels", f"choose one with options.channel=0…{n_channels - 1}")
    if channel is not None and not 0 <= channel < n_channels:
        raise BadInput(path, f"no channel {channel} among {n_channels}", "count channels from 0")
    return as_trace(recording.select([channel or 0]).samples()[0], fs_hz, path.stem, str(path))


def as_trace(samples: np.ndarray, fs_hz: float, name: str, source: str = "signal") -> Trace:
    """Centre and check samples in memory, as :func:`load_trace` does; ``source`` is named in errors."""
    require_rate(source, fs_hz, "spikes")
    if n_infinite := int(np.isinf(samples).sum()):
        raise BadInput(source, f"{n_infinite} infinite samples", "mark samples that were not recorded with NaN")
    bad = unusable(samples)
    if bad.mean() > MOST_UNUSABLE:
        raise BadInput(source, f"{bad.mean():.0%} of the samples are NaN or saturated", "give a recording with signal")
    present = samples.astype(np.float32)
    centred = np.where(bad, np.float32(0), present - np.float32(np.median(present[~bad])))
    if not centred.any():
        raise BadInput(source, "every sample has the same value", "give a recording with signal")
    return Trace(name, centred, ~bad, fs_hz, source, cut_off(samples))


def check_clipping(
    rails: tuple[tuple[float, int], ...], ceiling: float, n_spikes: int, source: str | None = None
) -> tuple[str, ...]:
    """What to say where deflections are cut off at the limit of an amplifier or a converter.

    ``rails`` are those of :func:`cut_off`; beyond the ``ceiling`` are artefacts, which may be cut off.

    Raises
    ------
    BadInput
        If they are many and a ``source`` is given: where amplitudes are known beforehand, spikes are lost and confused.
    """
    n_cut_off = sum(count for height, count in rails if height < ceiling)
    share = n_cut_off / max(n_cut_off + n_spikes, 1)
    cut, whole = counted(n_cut_off, "deflection"), counted(n_spikes, "spike")
    said = f"{cut} cut off at the largest value that was recorded ({whole} not)"
    if source is not None and share > MOST_CUT_OFF:
        raise BadInput(source, said, "give a recording with less gain: spikes that are cut off cannot be told apart")
    return (f"{said}: the largest neurons are incomplete, and may be confused",) if share > SOME_CUT_OFF else ()


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


def without_hum(samples: np.ndarray, fs_hz: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """A trace ``(time,)`` without mains hum, and what was done.

    A line of the mains or a harmonic counts as hum where its power is many times that of its neighbourhood. It is
    fitted as a sine and a cosine in half-overlapping blocks and subtracted; spikes have next to no part in so narrow a
    band, so they keep their shape. Pulses at regular times would pass for hum: it is fitted without them.
    """
    length = round(HUM_BLOCK_S * fs_hz)
    if len(samples) < 2 * length:
        return samples, ()
    pulses = np.abs(samples) > pulse_ceiling(samples, fs_hz)
    calm = bridged(samples, ~grow(pulses, *_around_pulse(fs_hz))) if pulses.any() else samples
    starts = np.linspace(0, len(samples) - length, min(16, len(samples) // length)).astype(int)
    window = np.hanning(length)
    power = np.median([np.abs(np.fft.rfft(calm[s : s + length] * window)) ** 2 for s in starts], axis=0)
    resolution = fs_hz / length
    for mains in MAINS_HZ:
        lines = [h * mains for h in range(1, HARMONICS + 1) if h * mains < 0.45 * fs_hz]
        loud = [f for f in lines if _stands_out(power, f / resolution)]
        if mains in loud or len(loud) >= 3:
            order = max(round(loud[0] / mains), 1)
            frequency = _refined(calm, mains * order, fs_hz) / order
            cleaned = _subtract_lines(calm, [frequency * round(f / mains) for f in loud], fs_hz, length)
            names = ", ".join(f"{f:g}" for f in loud)
            return samples + (cleaned - calm), (f"mains hum was taken off at {names} Hz",)
    return samples, ()


def _stands_out(power: np.ndarray, place: float) -> bool:
    centre = round(place)
    line = power[max(centre - 1, 0) : centre + 2].max()
    around = np.r_[power[max(centre - 14, 1) : max(centre - 4, 2)], power[centre + 5 : centre + 15]]
    return bool(len(around) and line > HUM_RATIO * np.median(around))


def _refined(samples: np.ndarray, near_hz: float, fs_hz: float) -> float:
    """Frequency of the line near ``near_hz``, to half a hundredth of a hertz."""
    part = samples[: round(20 * fs_hz)]
    time = np.arange(len(part)) / fs_hz
    tried = near_hz + np.arange(-0.5, 0.501, 0.005)
    base = part * np.exp(-2j * np.pi * near_hz * time)
    step = round(fs_hz / 100)
    slow = base[: len(base) // step * step].reshape(-1, step).mean(axis=1)
    at = (np.arange(len(slow)) + 0.5) * step / fs_hz
    strength = [abs((slow * np.exp(-2j * np.pi * (f - near_hz) * at)).sum()) for f in tried]
    return float(tried[int(np.argmax(strength))])


def _subtract_lines(samples: np.ndarray, lines: list[float], fs_hz: float, length: int) -> np.ndarray:
    """Sinusoids fitted in half-overlapping blocks, whose fits are joined by triangular weights."""
    time = np.arange(length) / fs_hz
    basis = np.concatenate([[np.cos(2 * np.pi * f * time), np.sin(2 * np.pi * f * time)] for f in lines])
    solve = np.linalg.pinv(basis.T)
    hop = length // 2
    total, weight = np.zeros(len(samples)), np.zeros(len(samples))
    triangle = 1 - np.abs(np.linspace(-1, 1, length)) + 1e-6
    for start in (*range(0, len(samples) - length, hop), len(samples) - length):
        span = slice(start, start + length)
        total[span] += triangle * ((solve @ samples[span].astype(np.float64)) @ basis)
        weight[span] += triangle
    hum = total / weight
    return (samples - hum).astype(samples.dtype)


def artefact_ceiling(heights: np.ndarray) -> float:
    """The middle of the first wide gap between ``heights`` in units of the noise: what is beyond it is no spike."""
    heights = np.sort(heights)
    wide = np.flatnonzero((heights[1:] > LEAST_GAP * heights[:-1]) & (heights[1:] > LEAST_ARTEFACT))
    return float(np.sqrt(heights[wide[0]] * heights[wide[0] + 1])) if len(wide) else np.inf


def without_pulses(trace: Trace) -> tuple[Trace, tuple[str, ...]]:
    """A trace in which what no spike can be is blanked, and what was done, before anything is known of the spikes.

    Pulses would pass for the spikes that say which unit a recording is in.
    """
    ceiling = pulse_ceiling(trace.centred, trace.fs_hz)
    return without_artefacts(trace, ceiling / CEILING, 0.0) if np.isfinite(ceiling) else (trace, ())


def pulse_ceiling(centred: np.ndarray, fs_hz: float) -> float:
    """Deflection of a trace ``(time,)`` beyond which it is no spike; infinite where nothing is so large.

    Zeros are samples without a signal and do not count for the noise.
    """
    size = np.abs(centred)
    sigma = robust_sigma(centred[size > 0][:: max(len(size) >> 18, 1)])
    if sigma == 0 or size.max() < LEAST_ARTEFACT * sigma:
        return np.inf
    peaks, _ = scipy.signal.find_peaks(size, height=4.5 * sigma, distance=round(0.01 * fs_hz))
    return artefact_ceiling(size[peaks] / sigma) * sigma


def without_artefacts(trace: Trace, largest: float, low_hz: float) -> tuple[Trace, tuple[str, ...]]:
    """A trace in which deflections far beyond the largest spike are blanked, and what was done.

    Parameters
    ----------
    largest
        Largest deflection of a spike.
    low_hz
        Corner above which a deflection counts: slow drift is none.

    Raises
    ------
    BadInput
        If they fill most of the recording, or the noise drowns every spike.
    """
    ceiling = CEILING * largest
    fs_hz = trace.fs_hz
    centred, usable, highest = trace.centred, trace.usable, 0.0
    for _ in range(3):
        fast = bandpass(centred, fs_hz, max(low_hz, 100.0), None, 1)
        sigma, fast = robust_sigma(fast[usable][:: max(len(fast) >> 18, 1)]), np.abs(fast)
        if sigma > NOISIEST * largest:
            problem = f"its noise ({sigma:.3g}) is louder than any known spike ({largest:.3g})"
            raise BadInput(trace.source, problem, "give options.gain, the factor to the labelled recording's unit")
        loud = fast > max(ceiling, 8 * sigma)
        if not loud.any():
            break
        highest = max(highest, float(fast.max()))
        usable = usable & ~grow(loud, *_around_pulse(fs_hz))
        centred = bridged(trace.centred, usable)
    if usable is trace.usable:
        return trace, ()
    lost = float(trace.usable.mean() - usable.mean())
    if usable.mean() < 0.5:
        problem = f"artefacts fill {1 - usable.mean():.0%} of it (the largest known spike is {largest:.3g})"
        raise BadInput(trace.source, problem, "give a recording with signal, or options.gain if the unit is another")
    count = int(np.sum(np.diff(np.concatenate(([0], (~usable & trace.usable).astype(np.int8)))) == 1))
    note = (
        f"blanked: {counted(count, 'artefact')} up to {highest:.3g} (spikes are below {ceiling:.3g}), "
        f"{lost:.2%} of the recording"
    )
    return replace(trace, centred=centred, usable=usable), (note,)


def _around_pulse(fs_hz: float) -> tuple[int, int]:
    """Samples before and after a pulse that are lost: the amplifier needs some time to recover."""
    return round(BLANK_BEFORE_MS * fs_hz / 1000), round(BLANK_AFTER_MS * fs_hz / 1000)


def bridged(samples: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Straight lines across what is not usable."""
    here = np.arange(len(samples))
    return np.interp(here, here[usable], samples[usable]).astype(samples.dtype)


def checked_labels(train: SpikeTrain, fs_hz: float, n_samples: int, source: str) -> tuple[SpikeTrain, tuple[str, ...]]:
    """Labels without spikes given twice, and what was done.

    Raises
    ------
    BadInput
        If a neuron fires faster than any neuron does, or too often within its refractory period.
    """
    within = round(TWICE_MS * fs_hz / 1000)
    keep = np.ones(len(train), bool)
    for unit in np.unique(train.unit):
        rows = np.flatnonzero(train.unit == unit)
        keep[rows[1:]] = np.diff(train.index[rows]) > within
    twice = int((~keep).sum())
    clean = SpikeTrain(train.index[keep], train.unit[keep])
    for unit in np.unique(clean.unit):
        times = clean.index[clean.unit == unit] / fs_hz
        short = float(np.mean(np.diff(times) < SHORTEST_ISI_MS / 1000)) if len(times) > 20 else 0.0
        if short > MOST_SHORT:
            problem = (
                f"{short:.0%} of the intervals of neuron {unit} are below {SHORTEST_ISI_MS:g} ms, which no neuron has"
            )
            raise BadInput(source, problem, "check Index (in samples from 1) and the sampling rate")
    check_rates(clean, n_samples / fs_hz, source)
    return clean, ((f"{counted(twice, 'label')} given twice: each counts once",) if twice else ())


def check_rates(train: SpikeTrain, seconds: float, source: str) -> None:
    """Refuse spikes at a rate that no neuron keeps up.

    Raises
    ------
    BadInput
        Naming the neuron and its rate.
    """
    for unit in np.unique(train.unit):
        rate = float((train.unit == unit).sum()) / max(seconds, 1e-9)
        if rate > FASTEST_HZ and seconds > 0.5:
            problem = f"neuron {unit} would fire {rate:.0f} times a second, which no neuron does"
            raise BadInput(source, problem, "check the sampling rate (source.fs_hz) and the unit (options.gain)")
