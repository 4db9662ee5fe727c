"""Channels found by name: spelling does not matter, electrodes have synonyms, differences are formed when asked for.

Where nobody named a channel, :func:`choose_channels` says which ones a network for EEG can score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from src.signals import BadInput

_KIND = re.compile(r"^(EEG|EOG|EMG|ECG|EKG|POL)(?=.)")
_COMMON_REFERENCE = re.compile(r"(REF|LE|AVG|AVE|CAR)$")
_SYNONYMS = {"M1": "A1", "M2": "A2", "T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}
"""10-20 names that changed when the 10-10 system came; the mastoids stand for the ears."""

_LEAST_HZ = 50.0
_GROUPS = 3
_PREFIX = re.compile(r"^\s*(EEG|EOG|EMG|ECG|EKG)[\s_:.-]*", re.IGNORECASE)
_EOG = re.compile(r"EOG|^(?:E[12]|LOC|ROC|LEOG|REOG)(?=$|[^A-Z0-9])", re.IGNORECASE)
_ELECTRODE = r"(FP[12Z]|F[3478Z]|C[34Z]|P[34Z]|O[12Z]|T[3-8])"
_DERIVATION = re.compile(rf"^{_ELECTRODE}(?:[-/:\s](.+))?$", re.IGNORECASE)
_MASTOID = re.compile(r"^[AM][12]$", re.IGNORECASE)
_OPPOSITE = {"1": "2", "2": "1", "3": "2", "4": "1", "7": "2", "8": "1", "5": "2", "6": "1", "Z": "2"}
_ORDER = ("FP", "F", "C", "P", "O", "T")
"""From the front to the back: the human network was trained on Fpz-Cz before all."""


@dataclass(frozen=True)
class ChannelRequest:
    """What to read from a recording."""

    names: tuple[str, ...] | None = None  # channels in the order wanted; None for whatever is there
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)  # further names of a channel, best first
    max_hz: float | None = None  # highest frequency that will be analysed: a rate too low for it is refused


@dataclass(frozen=True)
class Derivation:
    """How to get a channel: row ``plus``, less row ``minus`` where that is given."""

    name: str
    plus: int
    minus: int | None = None


def derivations(
    source: str | Path, wanted: Sequence[str], labels: Sequence[str], aliases: Mapping[str, Sequence[str]]
) -> list[Derivation]:
    """Find every wanted channel among the labels of a file.

    A name matches exactly, or when case, spaces and punctuation are disregarded, or without its
    kind ("EEG "), with electrode synonyms (M1 = A1, T7 = T3), or without a common reference ("-REF").
    ``X-Y`` is formed as a difference where ``X`` and ``Y`` are there and ``X-Y`` is not.

    Raises
    ------
    BadInput
        If a channel is absent or two labels fit equally well; the message lists what is there.
    """
    return [_derivation(source, name, labels, aliases.get(name, ())) for name in wanted]


def _derivation(source: str | Path, name: str, labels: Sequence[str], more: Sequence[str]) -> Derivation:
    for candidate in (name, *more):
        if (row := _find(source, candidate, labels)) is not None:
            return Derivation(name, row)
        electrodes = re.split(r"\s*-\s*", _without_kind(candidate))
        if len(electrodes) == 2 and all(electrodes):
            plus, minus = (_find(source, electrode, labels) for electrode in electrodes)
            if plus is not None and minus is not None:
                return Derivation(name, plus, minus)
    listed = ", ".join(labels) or "none"
    raise BadInput(source, f"has no channel {name!r}", f"choose from: {listed}")


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

    Each group has one EEG channel in the place of the network's first, the first eye channel that there is in the
    place of its EOG, and ``absent`` in all others. Up to three EEG channels are taken, one of each region of the
    scalp, from the front to the back. An electrode without a reference is taken against the opposite mastoid if the
    file has it.

    Parameters
    ----------
    source
        Named in messages.
    wanted
        The network's channels; those whose name begins with EOG are for the eyes.
    labels, rates_hz
        The recording's channels and their rates.

    Raises
    ------
    BadInput
        If no label is an EEG channel.
    """
    fast = [label for label, rate in zip(labels, rates_hz, strict=True) if rate >= _LEAST_HZ]
    eyes = [label for label in fast if _EOG.search(_without_prefix(label)) or label.strip().upper().startswith("EOG")]
    found: dict[str, str] = {}
    for label in fast:
        match = _DERIVATION.match(_without_prefix(label))
        if match and label not in eyes and not re.match(r"\s*(EMG|ECG|EKG|EOG)", label, re.IGNORECASE):
            region = re.sub(r"[0-9Z]$", "", match[1].upper())
            found.setdefault(region, label if match[2] else _against_mastoid(label, match[1].upper(), fast))
    named = [label for label in fast if re.match(r"\s*EEG", label, re.IGNORECASE) and label not in eyes]
    chosen = [found[region] for region in _ORDER if region in found][:_GROUPS] or named[:_GROUPS]
    if not chosen:
        hint = f"name one with options.channels; there are: {', '.join(labels) or 'none'}"
        problem = f"has no channel of {_LEAST_HZ:g} Hz or more whose name says that it is EEG"
        raise BadInput(source, problem, hint)
    eye = next(iter(eyes), absent)
    places = [name.upper().startswith("EOG") for name in wanted]
    first = places.index(False)
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
