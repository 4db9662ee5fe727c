"""Channels found by name: spelling does not matter, electrodes have synonyms, differences are formed when asked for."""

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
