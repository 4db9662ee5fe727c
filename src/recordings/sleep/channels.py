"""Channels found by name and put on one rate.

Spelling does not matter, electrodes have synonyms, differences are formed when asked for. Where nobody named a channel,
:func:`choose_channels` says which ones a network for EEG can score. :func:`resample` has an anti-alias filter that is
down before the new Nyquist frequency.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np

from src.recordings.check_signal import in_runs
from src.signals import BadInput, Recording

_KIND = re.compile(r"^(EEG|EOG|EMG|ECG|EKG|POL)(?=.)")
_COMMON_REFERENCE = re.compile(r"(REF|LE|AVG|AVE|CAR)$")
_SYNONYMS = {"M1": "A1", "M2": "A2", "T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}
"""10-20 names that changed when the 10-10 system came; the mastoids stand for the ears."""

_LEAST_HZ = 50.0
_GROUPS = 2
_PREFIX = re.compile(r"^\s*(EEG|EOG|EMG|ECG|EKG)[\s_:.-]*", re.IGNORECASE)
_EOG = re.compile(r"EOG|^(?:E[12]|LOC|ROC|LEOG|REOG)(?=$|[^A-Z0-9])", re.IGNORECASE)
_ELECTRODE = r"(FP[12Z]|F[3478Z]|C[34Z]|P[34Z]|O[12Z]|T[3-8])"
_DERIVATION = re.compile(
    rf"([AM][12]\s*[-/:]\s*)?{_ELECTRODE}(\s*[-/:]\s*.+|[_\s]*(?:[AM][12]|REF|LE|AVG?|CAR|{_ELECTRODE}))?",
    re.IGNORECASE,
)
"""``C3``, ``C3-M2``, ``C3/(A1+A2)``, ``C3M2``, and ``A2-C3``, whose polarity is no matter; ``O2 sat`` is no EEG."""
_MASTOID = re.compile(r"^[AM][12]$", re.IGNORECASE)
_OPPOSITE = {"1": "2", "2": "1", "3": "2", "4": "1", "7": "2", "8": "1", "5": "2", "6": "1", "Z": "2"}
_STOP_DB, _PASS_FRACTION, _LARGEST_FACTOR = 60.0, 0.9, 20_000
_BLOCK = 1 << 20
_ORDER = ("C", "F", "FP", "P", "O", "T")
"""From the front to the back: the human network was trained on Fpz-Cz before all."""


def derivation(
    source: str | Path, name: str, labels: Sequence[str], more: Sequence[str] = ()
) -> tuple[int, int | None]:
    """The row of a channel among the labels of a file, and the row to subtract from it where it is a difference.

    It is found by its name or the further names in ``more``.

    A name matches exactly, or when case, spaces and punctuation are disregarded, or without its
    kind ("EEG "), with electrode synonyms (M1 = A1, T7 = T3), or without a common reference ("-REF").
    ``X-Y`` is formed as a difference where ``X`` and ``Y`` are there and ``X-Y`` is not.

    Raises
    ------
    BadInput
        If a channel is absent or two labels fit equally well; the message lists what is there.
    """
    for candidate in (name, *more):
        if (row := _find(source, candidate, labels)) is not None:
            return row, None
        electrodes = re.split(r"\s*-\s*", _without_kind(candidate))
        if len(electrodes) == 2 and all(electrodes):
            plus, minus = (_find(source, electrode, labels) for electrode in electrodes)
            if plus is not None and minus is not None:
                return plus, minus
    raise BadInput(source, f"has no channel {name!r}", f"choose from: {', '.join(labels) or 'none'}")


def is_channel(name: str, labels: Sequence[str]) -> bool:
    """Whether ``name`` is one of the labels, however it is spelled, or the difference of two."""
    try:
        return bool(derivation("", name, labels))
    except BadInput:
        return False


def _find(source: str | Path, name: str, labels: Sequence[str]) -> int | None:
    """The row whose label fits best; a looser comparison is tried only when a stricter one finds nothing."""
    for spelling in (str.strip, _letters, _bare, _referenced):
        key = spelling(name)
        rows = [row for row, label in enumerate(labels) if spelling(label) == key]
        if len(rows) > 1:
            listed = ", ".join(labels[row] for row in rows)
            raise BadInput(
                source, f"{name!r} fits {len(rows)} channels ({listed})", "give the full name of one of them"
            )
        if rows:
            return rows[0]
    return None


def _letters(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper())


def _without_kind(name: str) -> str:
    return re.sub(r"^\s*(EEG|EOG|EMG|ECG|EKG|POL)[\s_:.-]+(?=.)", "", name, flags=re.IGNORECASE)


def _bare(name: str) -> str:
    electrodes = (_letters(part) for part in re.split(r"[-/:]", _without_kind(name)))
    joined = "".join(_SYNONYMS.get(electrode, electrode) for electrode in electrodes)
    return _KIND.sub("", joined)


def _referenced(name: str) -> str:
    return _COMMON_REFERENCE.sub("", _bare(name)) or _bare(name)


def choose_channels(
    source: str, wanted: Sequence[str], labels: Sequence[str], rates_hz: Sequence[float], absent: str
) -> list[tuple[str, ...]]:
    """Groups of channels that vote, in the order of a network's channels.

    A recording with the network's first EEG channel gives one group, with ``absent`` for what it lacks. Otherwise up
    to two EEG channels of one region of the scalp, central if there are any, make a group each, in the place of the
    network's first. The first eye channel stands in the place of the EOG (a name in ``wanted`` that begins so). An
    electrode without a reference is taken against the opposite mastoid if the file has it. A recording without an EEG
    channel raises :class:`BadInput`.
    """
    fast = [label for label, rate in zip(labels, rates_hz, strict=True) if rate >= _LEAST_HZ]
    eyes = [label for label in fast if _EOG.search(_without_prefix(label)) or label.strip().upper().startswith("EOG")]
    eye = next(iter(eyes), absent)
    places = [name.upper().startswith("EOG") for name in wanted]
    first = places.index(False)
    own = [name if is_channel(name, fast) else absent for name in wanted]
    if own[first] != absent:
        pairs = zip(own, places, strict=True)
        return [tuple(eye if is_eye and name == absent else name for name, is_eye in pairs)]
    found: dict[str, dict[str, str]] = {}
    for label in fast:
        match = _DERIVATION.fullmatch(_without_prefix(label).strip("[]() "))
        if match and label not in eyes and not re.match(r"\s*(EMG|ECG|EKG|EOG)", label, re.IGNORECASE):
            electrode = match[2].upper()
            of_region = found.setdefault(re.sub(r"[0-9Z]$", "", electrode), {})
            of_region.setdefault(electrode, label if match[1] or match[3] else _against_mastoid(label, electrode, fast))
    named = [label for label in fast if re.match(r"\s*EEG", label, re.IGNORECASE) and label not in eyes]
    chosen = next((list(found[region].values()) for region in _ORDER if region in found), named)[:_GROUPS]
    if not chosen:
        hint = f"name one with options.channels; there are: {', '.join(labels) or 'none'}"
        problem = f"has no channel of {_LEAST_HZ:g} Hz or more whose name says that it is EEG"
        raise BadInput(source, problem, hint)
    return [
        tuple(label if place == first else (eye if is_eye else absent) for place, is_eye in enumerate(places))
        for label in chosen
    ]


def _without_prefix(label: str) -> str:
    return _PREFIX.sub("", label).strip()


def _against_mastoid(label: str, electrode: str, labels: Sequence[str]) -> str:
    """``F3-M2`` where the file has F3 and M2 for themselves; otherwise the label as it is."""
    mastoids = [other for other in labels if _MASTOID.match(_without_prefix(other))]
    side = _OPPOSITE[electrode[-1]]
    best = next((m for m in mastoids if m.strip()[-1] == side), next(iter(mastoids), None))
    return label if best is None else f"{_without_prefix(label)}-{_without_prefix(best)}"


def resample(samples: np.ndarray, from_hz: float, to_hz: float) -> np.ndarray:
    """``(…, time)`` at ``from_hz`` to ``to_hz``: polyphase FIR, linear phase, no delay.

    The pass band ends at 0.9 of the lower Nyquist frequency and the stop band (-60 dB) starts at it.
    The output has ``round(time * to_hz / from_hz)`` samples. Samples that are not finite are bridged
    for the filter and are NaN again afterwards, no wider than before. A stretch of a second or more in which the signal
    does not move keeps its value, or the rounding of the filter would look like a signal.
    """
    if from_hz == to_hz:
        return samples
    from scipy.signal import resample_poly

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
    held = np.zeros(samples.shape, bool)
    runs = np.apply_along_axis(in_runs, -1, samples[..., 1:] == samples[..., :-1], round(from_hz))
    held[..., 1:] = runs
    held[..., :-1] |= runs
    if (kept := missing | held).any():
        nearest = np.minimum((np.arange(n_out) * (from_hz / to_hz)).round().astype(int), samples.shape[-1] - 1)
        found = kept[..., nearest]
        out[found] = np.where(missing, np.nan, samples)[..., nearest][found]
    return out


def require_band(channel: Recording, max_hz: float) -> None:
    """Refuse a recording of one channel whose rate is too low to hold all that is analysed, up to ``max_hz``."""
    if channel.fs_hz / 2 < max_hz:
        problem = f"sampling rate {channel.fs_hz:g} Hz is too low, up to {max_hz:g} Hz is analysed"
        hint = f"export it at {2 * max_hz:g} Hz or more, or train with a lower max_hz"
        raise BadInput(channel.source, f"channel {channel.channels[0]!r}: {problem}", hint)


def join_channels(channels: Sequence[Recording], fs_hz: float) -> Recording:
    """One recording, at ``fs_hz``, from recordings of one channel each."""
    rows = [resample(channel.samples[0], channel.fs_hz, fs_hz) for channel in channels]
    shortest = min(len(row) for row in rows)
    return replace(
        channels[0],
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
    n = samples.shape[-1]
    for row, holes, bridged in zip(*(x.reshape(-1, n) for x in (samples, missing, out)), strict=True):
        if not holes.all():
            known = np.flatnonzero(~holes)
            bridged[:] = np.interp(np.arange(n), known, row[known])
    return out
