"""Rational resampling with an anti-alias filter that is down before the new Nyquist frequency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

from src.signals import BadInput, Recording

_STOP_DB = 60.0
_PASS_FRACTION = 0.9
_LARGEST_FACTOR = 20_000
_BLOCK = 1 << 20


def resample(samples: np.ndarray, from_hz: float, to_hz: float) -> np.ndarray:
    """``(…, time)`` at ``from_hz`` to ``to_hz``: polyphase FIR, linear phase, no delay.

    The pass band ends at 0.9 of the lower Nyquist frequency and the stop band (-60 dB) starts at it.
    The output has ``round(time * to_hz / from_hz)`` samples. Samples that are not finite are bridged
    for the filter and are NaN again afterwards, no wider than before.
    """
    from scipy.signal import resample_poly

    if from_hz == to_hz:
        return samples
    ratio = Fraction(to_hz / from_hz).limit_denominator(_LARGEST_FACTOR)
    up, down = ratio.numerator, ratio.denominator
    n_out = round(samples.shape[-1] * to_hz / from_hz)
    missing = ~np.isfinite(samples)
    bridged = _bridge(samples, missing) if missing.any() else samples
    # The filter assumes zeros outside; without its mean, a signal with an offset has no step at its ends.
    mean = bridged.mean(axis=-1, keepdims=True, dtype=np.float64).astype(samples.dtype)
    out = np.empty((*samples.shape[:-1], n_out), samples.dtype)
    taps = _filter(up, down)
    # A block at a time, for the memory, with as much on both sides as the filter reaches: the sums are the same.
    block, reach = down * -(-_BLOCK // down), down * (len(taps) // (up * down) + 1)
    for first in range(0, samples.shape[-1], block):
        low = max(0, first - reach)
        piece = resample_poly(bridged[..., low : first + block + reach] - mean, up, down, axis=-1, window=taps)
        piece = piece[..., (first - low) * up // down :]
        place = first * up // down
        count = min(block * up // down, piece.shape[-1], n_out - place)
        out[..., place : place + count] = piece[..., :count] + mean
        filled = place + count
    out[..., filled:] = out[..., filled - 1 : filled]
    if missing.any():
        nearest = np.minimum((np.arange(n_out) * (from_hz / to_hz)).round().astype(int), samples.shape[-1] - 1)
        out[missing[..., nearest]] = np.nan
    return out


def require_band(source: str | Path, channel: str, fs_hz: float, max_hz: float | None) -> None:
    """Refuse a channel that holds nothing up to ``max_hz``.

    Raises
    ------
    BadInput
        If the Nyquist frequency of ``fs_hz`` lies below ``max_hz``.
    """
    if max_hz is not None and fs_hz / 2 < max_hz:
        problem = f"channel {channel!r}: sampling rate {fs_hz:g} Hz is too low, up to {max_hz:g} Hz is analysed"
        raise BadInput(source, problem, f"export it at {2 * max_hz:g} Hz or more, or train with a lower max_hz")


def join_channels(channels: Sequence[Recording], fs_hz: float | None = None) -> Recording:
    """One recording from recordings of one channel each, at ``fs_hz`` (``None``: at their own, then common, rate).

    Raises
    ------
    BadInput
        If no rate is given and theirs differ.
    """
    first = channels[0]
    if fs_hz is None:
        if len({channel.fs_hz for channel in channels}) > 1:
            listed = ", ".join(f"{channel.channels[0]} {channel.fs_hz:g} Hz" for channel in channels)
            problem = f"channels have different rates ({listed})"
            raise BadInput(first.source, problem, "give the rate to resample to, fs_hz=...")
        fs_hz = first.fs_hz
    rows = [resample(channel.samples[0], channel.fs_hz, fs_hz) for channel in channels]
    shortest = min(len(row) for row in rows)
    return replace(
        first,
        samples=np.stack([row[:shortest] for row in rows]),
        fs_hz=float(fs_hz),
        channels=tuple(channel.channels[0] for channel in channels),
        units=tuple(channel.units[0] for channel in channels),
        notes=tuple(dict.fromkeys(note for channel in channels for note in channel.notes)),
    )


@cache
def _filter(up: int, down: int) -> np.ndarray:
    from scipy.signal import firwin, kaiserord

    widest = max(up, down)
    taps, beta = kaiserord(_STOP_DB, (1 - _PASS_FRACTION) / widest)
    return firwin(taps | 1, (1 + _PASS_FRACTION) / 2 / widest, window=("kaiser", beta))


def _bridge(samples: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Straight lines over what is missing, the nearest sample beyond the ends, zeros where nothing is known."""
    out = np.zeros_like(samples)
    flat, rows, holes = out.reshape(-1, samples.shape[-1]), samples.reshape(-1, samples.shape[-1]), missing
    for row, known, target in zip(rows, ~holes.reshape(rows.shape), flat, strict=True):
        if known.any():
            positions = np.flatnonzero(known)
            target[:] = np.interp(np.arange(len(row)), positions, row[positions])
    return out
