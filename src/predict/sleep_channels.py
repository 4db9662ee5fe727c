"""Which channels of a recording a network can score, when nobody named them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from src.signals import BadInput

_LEAST_HZ = 60.0
_GROUPS = 3
_KIND = re.compile(r"^\s*(EEG|EOG|EMG|ECG|EKG)[\s_:.-]*", re.IGNORECASE)
_EOG = re.compile(r"EOG|^(?:E[12]|LOC|ROC|LEOG|REOG)(?=$|[^A-Z0-9])", re.IGNORECASE)
_ELECTRODE = r"(FP[12Z]|F[3478Z]|C[34Z]|P[34Z]|O[12Z]|T[3-8])"
_DERIVATION = re.compile(rf"^{_ELECTRODE}(?:[-/:\s](.+))?$", re.IGNORECASE)
_MASTOID = re.compile(r"^[AM][12]$", re.IGNORECASE)
_OPPOSITE = {"1": "2", "2": "1", "3": "2", "4": "1", "7": "2", "8": "1", "5": "2", "6": "1", "Z": "2"}
_ORDER = ("FP", "F", "C", "P", "O", "T")
"""From the front to the back: the human network was trained on Fpz-Cz before all."""


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
    eyes = [label for label in fast if _EOG.search(_without_kind(label)) or label.strip().upper().startswith("EOG")]
    found: dict[str, str] = {}
    for label in fast:
        match = _DERIVATION.match(_without_kind(label).strip())
        if match and label not in eyes and not re.match(r"\s*(EMG|ECG|EKG|EOG)", label, re.IGNORECASE):
            region = re.sub(r"[0-9Z]$", "", match[1].upper())
            found.setdefault(region, label if match[2] else _referenced(label, match[1].upper(), fast))
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


def _without_kind(label: str) -> str:
    return _KIND.sub("", label)


def _referenced(label: str, electrode: str, labels: Sequence[str]) -> str:
    """``F3-M2`` where the file has F3 and M2 for themselves; otherwise the label as it is."""
    mastoids = [other for other in labels if _MASTOID.match(_without_kind(other).strip())]
    side = _OPPOSITE[electrode[-1]]
    best = next((m for m in mastoids if m.strip()[-1] == side), next(iter(mastoids), None))
    return label if best is None else f"{_without_kind(label).strip()}-{_without_kind(best).strip()}"
