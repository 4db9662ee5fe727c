"""Which channels of a recording are scored: those named, else the bundle's own, else usable ones."""

from collections.abc import Sequence
from pathlib import Path

from src.models.bundle import Bundle
from src.preprocess.sleep.epochs import EpochSettings
from src.recordings.sleep.channels import choose_channels, derivation
from src.recordings.sleep.edf import EDF_SUFFIXES, read_header
from src.recordings.sleep.nights import Night, load_channels
from src.signals import BadInput, Recording, counted

ABSENT = "none"
"""Stands for a channel that the recording lacks."""


def load_groups(
    bundle: Bundle, night: Night, settings: EpochSettings, given: Sequence[str]
) -> tuple[list[tuple[str, ...]], dict[str, Recording], list[str]]:
    """The groups of channels, each channel at its own rate, and notes.

    Where nobody named channels, a dead one is left out, and others are chosen in its place.
    """
    path, any_channel = night.psg[0], bool(bundle.decision.get("any_channel"))
    rates_hz: dict[str, float] = {}
    if any_channel:
        signals = read_header(path).signals if path.suffix.lower() in EDF_SUFFIXES else ()
        rates_hz = {signal.label: signal.fs_hz for signal in signals if not signal.problem}
        # Of other files, and of an EDF without a usable channel, for which it raises, the reader is asked.
        rates_hz = rates_hz or {c.channels[0]: c.fs_hz for c in load_channels(night)}
    native: dict[str, Recording] = {}
    dead: dict[str, BadInput] = {}
    while True:
        alive = [label for label in rates_hz if label not in dead]
        try:
            groups, notes = choose_groups(bundle, path, alive, [rates_hz[label] for label in alive], given)
        except BadInput as error:
            raise next(iter(dead.values()), error) from None
        names = dict.fromkeys(name for group in groups for name in group if name != ABSENT)
        known = len(dead)
        for name in names.keys() - native.keys():
            try:
                (native[name],) = load_channels(night, (name,), settings.aliases)
            except BadInput as error:
                if given or not any_channel:
                    raise
                dead[alive[derivation(path, name, alive)[0]]] = error
        if len(dead) == known:
            notes += [f"{label} left out: {error.problem}" for label, error in dead.items()]
            return groups, {name: native[name] for name in names}, notes


def choose_groups(
    bundle: Bundle, source: str | Path, labels: Sequence[str], rates_hz: Sequence[float], given: Sequence[str]
) -> tuple[list[tuple[str, ...]], list[str]]:
    """The groups of channels that vote, and a note on them: those named, else the bundle's own, else usable ones.

    Raises
    ------
    BadInput
        If names were given that make no groups, or no channel is usable.
    """
    wanted = bundle.signal.channels
    if not given and bundle.decision.get("any_channel"):
        groups = choose_channels(str(source), wanted, labels, rates_hz, ABSENT)
        listed = "; ".join(" + ".join(name for name in group if name != ABSENT) for group in groups)
        note = f"channels chosen: {listed} (options.channels names others)"
        return groups, [] if groups == [tuple(wanted)] else [note]
    size, names = len(wanted), tuple(given) or tuple(wanted)
    if len(names) % size:
        expected = ", ".join(wanted)
        hint = f"give one for each of: {expected} ({ABSENT} for one that is absent)"
        raise BadInput("options.channels", f"names {counted(len(names), 'channel')}", hint)
    groups = [names[i : i + size] for i in range(0, len(names), size)]
    for group in groups:
        there = [name for name in group if name != ABSENT]
        if not there:
            raise BadInput("options.channels", "names no channel", "give at least one that the recording has")
        if twice := [name for name in there if there.count(name) > 1]:
            problem = f"names {twice[0]!r} twice in one group"
            raise BadInput("options.channels", problem, f"write {ABSENT} for an absent one")
    return groups, []
