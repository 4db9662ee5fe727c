"""What a network reads, and whether a recording is that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.models.bundle import Bundle
from src.preprocess.sleep.epochs import EpochSet
from src.preprocess.sleep.night_normalization import NIGHT_VIEW
from src.signals import BadInput, SignalSpec


def bundle_views(bundle: Bundle) -> list[str]:
    """The views of the levels that the network was trained with."""
    return next((list(s["params"]["views"]) for s in bundle.steps if s["step"] == NIGHT_VIEW), ["absolute"])


def require_contract(
    signal: SignalSpec,
    epochs: EpochSet,
    channels: Sequence[str] | None,
    fs_hz: float,
    epoch_s: float,
    units: str,
    *,
    source: str | Path,
    any_unit: bool = False,
) -> None:
    """Refuse epochs that are not what a network was trained on.

    Parameters
    ----------
    signal
        What the bundle reads.
    epochs, channels, fs_hz, epoch_s, units
        What was read; ``channels=None`` for names that the user chose.
    any_unit
        The network takes levels relative to the recording.

    Raises
    ------
    BadInput
        Naming the property and both values. A rate of 0 and frequencies that are not stated are not compared.
    """
    rows, frames = epochs.features.shape[2:]
    views = max(1, (signal.shape[-2] or rows) // rows) if signal.shape else 1
    pairs: list[tuple[str, object, object]] = [("channels", len(signal.channels), epochs.features.shape[1])]
    if channels is not None:
        pairs.append(("channels", list(signal.channels), list(channels)))
    if signal.fs_hz and fs_hz:
        pairs.append(("sampling rate (Hz)", signal.fs_hz, fs_hz))
    pairs.append(("epoch length (s)", signal.window_s, epoch_s))
    if signal.shape:
        pairs.append(("frequencies × times of an epoch", signal.shape[-2:], (views * rows, frames)))
    if signal.freqs_hz:
        pairs.append(("frequencies (Hz)", _band(signal.freqs_hz), _band(epochs.freqs_hz)))
    if not any_unit:
        pairs.append(("unit", signal.units, units))
    for name, expected, found in pairs:
        if expected != found:
            raise BadInput(
                source,
                f"{name}: the recording has {found}, the bundle reads {expected}",
                "give a recording of the bundle's kind, or train a bundle on recordings like this one",
            )


def _band(freqs_hz: Sequence[float] | NDArray[np.floating]) -> tuple[float, float, int]:
    """Lowest and highest frequency, and their number."""
    return round(float(freqs_hz[0]), 3), round(float(freqs_hz[-1]), 3), len(freqs_hz)
