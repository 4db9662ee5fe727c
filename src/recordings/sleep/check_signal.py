"""Is this signal what it says it is? Looked at before anything is scored: flat, clipped, hum, wrong units."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.signals import Recording

_BLOCK_S = 30.0
_EEG_UV = (2.0, 150.0)
"""Standard deviation that an EEG or EOG channel has in an ordinary stretch of sleep or quiet wake."""
_MAINS_HZ = (50.0, 60.0)
_FLAT_LIMIT, _CLIPPED_LIMIT, _MISSING_LIMIT, _HUM_LIMIT_DB = 0.02, 0.005, 0.01, 10.0


@dataclass(frozen=True)
class ChannelReport:
    """What was found in one channel.

    Attributes
    ----------
    flat_share, clipped_share, missing_share
        Shares of the recording: stretches of a second or more without any change, samples that sit at
        the channel's greatest or smallest value for three or more in a row, samples not recorded.
    amplitude
        Median over blocks of 30 s of the standard deviation, in ``units``.
    hum_db
        Level at the mains frequency above its surroundings, the worse of 50 and 60 Hz; ``None`` where the
        rate is too low to see it.
    findings
        Sentences for a person; empty if nothing is wrong.
    """

    channel: str
    units: str
    fs_hz: float
    flat_share: float
    clipped_share: float
    missing_share: float
    amplitude: float
    hum_db: float | None
    findings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"findings": list(self.findings)}


def inspect(recording: Recording) -> list[ChannelReport]:
    """Look at every channel of a recording at the rate it was recorded with."""
    return [
        _inspect(name, units, row, recording.fs_hz)
        for name, units, row in zip(recording.channels, recording.units, recording.samples, strict=True)
    ]


def _inspect(name: str, units: str, row: NDArray[np.floating], fs_hz: float) -> ChannelReport:
    missing = ~np.isfinite(row)
    known = np.where(missing, 0.0, row).astype(np.float32)
    flat = _in_runs(np.diff(known) == 0, round(fs_hz)) & ~missing[1:]
    low, high = (float(row[~missing].min()), float(row[~missing].max())) if not missing.all() else (0.0, 0.0)
    rails = ((known == low) | (known == high)) & ~missing & (low < high)
    clipped = _in_runs(rails, 3)
    clipped[1:] &= ~flat
    block = max(1, round(_BLOCK_S * fs_hz))
    n_blocks = len(row) // block or 1
    blocks = known[: n_blocks * block].reshape(n_blocks, -1)
    amplitude = float(np.median(blocks.std(axis=1)))
    hum_db = _hum(blocks, fs_hz)
    report = (float(flat.mean()) if len(flat) else 0.0, float(clipped.mean()), float(missing.mean()))
    return ChannelReport(
        name, units, fs_hz, *report, amplitude, hum_db, _findings(name, units, *report, amplitude, hum_db)
    )


def _findings(
    name: str, units: str, flat: float, clipped: float, missing: float, amplitude: float, hum_db: float | None
) -> tuple[str, ...]:
    found = []
    if missing > _MISSING_LIMIT:
        found.append(f"{missing:.1%} of the samples are missing; epochs with gaps are not scored")
    if flat > _FLAT_LIMIT:
        found.append(f"{flat:.1%} of the time the signal does not move: electrode off or amplifier paused?")
    if clipped > _CLIPPED_LIMIT:
        found.append(f"{clipped:.1%} of the samples are clipped at the ends of the range")
    if hum_db is not None and hum_db > _HUM_LIMIT_DB:
        found.append(f"mains hum stands {hum_db:.0f} dB above its surroundings: check electrodes and reference")
    low, high = _EEG_UV
    if units == "uV" and not name.upper().startswith("EMG") and amplitude and not low <= amplitude <= high:
        side = "little" if amplitude < low else "much"
        guess = _unit_guess(amplitude)
        hint = (
            f"; it would be ordinary if the file's numbers were {guess[0]} (options.scale={guess[1]:g})"
            if guess
            else ""
        )
        found.append(f"typical amplitude {amplitude:.3g} µV is {side} for a scalp or eye channel{hint}")
    elif units != "uV":
        found.append(f"amplitudes are in {units}, not in microvolts: what depends on the level may be off")
    return tuple(found)


def _unit_guess(amplitude_uv: float) -> tuple[str, float] | None:
    """Which slip of units would explain the amplitude: numbers of one unit under the name of another."""
    for said, factor in (("millivolts", 1e3), ("volts", 1e6), ("nanovolts", 1e-3)):
        if _EEG_UV[0] <= amplitude_uv * factor <= _EEG_UV[1]:
            return said, factor
    return None


def _in_runs(flags: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Of the true stretches those that are at least ``least`` long."""
    if not flags.any():
        return flags
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False].astype(np.int8)))
    first, last = edges[::2], edges[1::2]
    long = last - first >= max(1, least)
    out = np.zeros(len(flags) + 1, np.int32)
    np.add.at(out, first[long], 1)
    np.add.at(out, last[long], -1)
    return np.cumsum(out[:-1]) > 0


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
