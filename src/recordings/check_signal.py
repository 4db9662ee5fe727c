"""Is this signal what it says it is? Looked at before anything is scored: flat, clipped, hum, wrong units."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from src.signals import BadInput, PlainRecord, Recording

_BLOCK_S = 30.0
EEG_UV = (2.0, 150.0)
"""Standard deviation that an EEG or EOG channel has in an ordinary stretch of sleep or quiet wake."""
_MAINS_HZ = (50.0, 60.0)
_FLAT_LIMIT, _CLIPPED_LIMIT, _MISSING_LIMIT, _HUM_LIMIT_DB = 0.02, 0.005, 0.01, 10.0
_DEAD_LIMIT = 0.5
"""A channel that does not move for a larger share of the time cannot be scored."""


@dataclass(frozen=True)
class ChannelReport(PlainRecord):
    """What was found in one channel."""

    channel: str
    units: str
    fs_hz: float
    flat_share: float  # of the time: stretches of a second or more without any change
    clipped_share: float  # of the samples: at the channel's greatest or smallest value, three or more in a row
    missing_share: float  # of the samples: not recorded
    amplitude: float  # median over blocks of 30 s of the standard deviation, in `units`
    hum_db: float | None  # mains frequency above its surroundings, the worse of 50 and 60 Hz; None: rate too low
    findings: tuple[str, ...]  # sentences for a person; empty if nothing is wrong
    usable: bool = True  # false for what cannot be EEG: hardly ever moving, or far too large or small in any unit


def require_signal(channel: Recording) -> None:
    """Refuse a recording of one channel that is NaN throughout or never moves."""
    row, hint = channel.samples[0], "choose another channel or leave this recording out"
    low, high = np.fmin.reduce(row, initial=np.nan), np.fmax.reduce(row, initial=np.nan)
    if np.isnan(low):
        raise BadInput(channel.source, f"channel {channel.channels[0]!r} is NaN throughout", hint)
    if low == high:
        raise BadInput(channel.source, f"channel {channel.channels[0]!r} is flat ({low:g} throughout)", hint)


def check_channel(
    row: NDArray[np.floating], fs_hz: float, name: str, units: str, usual_uv: tuple[float, float] | None = EEG_UV
) -> ChannelReport:
    """Look for what makes a signal useless: never moving, clipped, missing, mains hum, units that cannot be.

    ``row`` is ``(time,)``, NaN where nothing was recorded. ``usual_uv`` is the standard deviation that such a channel
    has in an ordinary stretch, in microvolts; ``None`` for signals of which that is not known.
    """
    missing = ~np.isfinite(row)
    seen, known = (row[~missing], np.where(missing, np.float32(0), row)) if missing.any() else (row, row)
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 0.0)
    missing_share = float(missing.mean())
    flat = in_runs(known[1:] == known[:-1], round(fs_hz))
    clipped = known == low
    clipped |= known == high
    for flags, gaps in ((flat, missing[1:]), (clipped, missing)):
        flags[gaps] = False
    del missing, seen, gaps
    clipped = in_runs(clipped, 3) if low < high else np.zeros(len(row), bool)
    clipped[1:] &= ~flat
    shares = (float(flat.mean()) if len(flat) else 0.0, float(clipped.mean()), missing_share)
    del flat, clipped
    block = max(1, round(_BLOCK_S * fs_hz))
    n_blocks = len(row) // block or 1
    blocks = known[: n_blocks * block].reshape(n_blocks, -1)
    amplitude = float(np.median([part.std() for part in blocks]))
    report = ChannelReport(name, units, fs_hz, *shares, amplitude, _hum(blocks, fs_hz), ())
    usable = report.flat_share <= _DEAD_LIMIT and (usual_uv is None or bool(_scales(report, usual_uv)))
    return replace(report, findings=tuple(_findings(report, usual_uv)), usable=usable)


def _scales(report: ChannelReport, usual_uv: tuple[float, float]) -> list[float]:
    """Factors, 1 first, that make an amplitude usual; an unknown unit admits any."""
    low, high = usual_uv
    return [s for s in (1.0, 1e3, 1e6, 1e-3, 1e-6) if report.units != "uV" or low <= report.amplitude * s <= high]


def _findings(report: ChannelReport, usual_uv: tuple[float, float] | None) -> Iterator[str]:
    """Sentences; ``src/preprocess/lfp/spectrogram_step.py`` tells them apart by a word of each."""
    if report.missing_share > _MISSING_LIMIT:
        yield f"{report.missing_share:.1%} of the samples are missing; epochs with gaps are not scored"
    if report.flat_share > _FLAT_LIMIT:
        yield f"{report.flat_share:.1%} of the time the signal does not move: electrode off or amplifier paused?"
    if report.clipped_share > _CLIPPED_LIMIT:
        yield f"{report.clipped_share:.1%} of the samples are clipped at the ends of the range"
    if report.hum_db is not None and report.hum_db > _HUM_LIMIT_DB:
        yield f"mains hum stands {report.hum_db:.0f} dB above its surroundings: check electrodes and reference"
    if usual_uv is None:
        return
    (low, _), amplitude, scales = usual_uv, report.amplitude, _scales(report, usual_uv)
    if report.units != "uV":
        yield f"amplitudes are in {report.units}, not in microvolts: what depends on the level may be off"
    elif not report.channel.upper().startswith("EMG") and amplitude and 1.0 not in scales:
        ordinary = "; {0:g} times that is ordinary: is the unit right? (options.scale={0:g})"
        hint = ordinary.format(*scales) if scales else ""
        side = "little" if amplitude < low else "much"
        yield f"typical amplitude {amplitude:.3g} µV is {side} for a scalp or eye channel{hint}"


def in_runs(flags: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Of the true stretches those that are at least ``least`` long."""
    bounds = np.r_[0, np.flatnonzero(flags[1:] != flags[:-1]) + 1, len(flags)]
    lengths = np.diff(bounds)
    return np.repeat(flags[bounds[:-1]] & (lengths >= max(1, least)), lengths) if len(flags) else flags


def _hum(blocks: NDArray[np.floating], fs_hz: float) -> float | None:
    seen = [hz for hz in _MAINS_HZ if hz + 6 < fs_hz / 2]
    if not seen or blocks.shape[1] < 4 * fs_hz:
        return None
    some = blocks[:: max(1, len(blocks) // 40)]
    power = np.abs(np.fft.rfft((some - some.mean(axis=1, keepdims=True)) * np.hanning(some.shape[1]), axis=1)) ** 2
    density = np.median(power, axis=0) + 1e-12
    freqs_hz = np.fft.rfftfreq(some.shape[1], 1 / fs_hz)

    def level(low: float, high: float, centre: float) -> float:
        distance = np.abs(freqs_hz - centre)
        return float(10 * np.log10(density[(distance >= low) & (distance <= high)].mean()))

    return max(level(0, 0.5, hz) - level(2, 5, hz) for hz in seen)
