"""LFP of SpikeGadgets ``.rec`` files, brought down from the amplifier's rate as it is read.

Needs spikeinterface and neo (``pip install 'spikeinterface>=0.103' 'neo>=0.14'``), imported when such a file is met.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.signals import BadInput

LFP_HZ = 500.0
BLOCK_S = 10.0
UPSTREAM = (
    "read from the amplifier's file: brought down to the LFP's rate behind an anti-alias filter; "
    "no high-pass but the amplifier's own, no re-referencing"
)


def shanks_of(path: Path) -> dict[int, list[Any]]:
    """Channel ids of every shank, in order of depth where the file states positions.

    Raises
    ------
    BadInput
        If spikeinterface is not installed or the file cannot be read.
    """
    recording = _open(path)
    ids = np.asarray(recording.channel_ids)
    contacts = recording.get_property("contact_vector")
    if contacts is None:
        return {0: list(ids)}
    names = contacts.dtype.names
    probe = contacts["probe_index"] if "probe_index" in names else np.zeros(len(ids), int)
    shank = contacts["shank_ids"] if "shank_ids" in names else np.full(len(ids), "")
    groups = sorted({(int(p), str(s)) for p, s in zip(probe, shank, strict=True)})
    found = {}
    for number, (p, s) in enumerate(groups):
        own = np.flatnonzero((probe == p) & (shank.astype(str) == s))
        found[number] = list(ids[own[np.argsort(contacts["y"][own], kind="stable")]])
    return found


class RawShank:
    """One shank of a ``.rec`` file at the LFP's rate.

    Attributes
    ----------
    shape, dtype
        ``(n_samples, n_channels)`` float32.
    fs_hz
        Rate after resampling.
    channel_ids
        As text.
    units
        ``uV``, or ``unknown`` where the file states no scale.

    Raises
    ------
    BadInput
        If spikeinterface is not installed, the file cannot be read, or has no such shank.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, path: Path, shank: int, fs_hz: float | None) -> None:
        from spikeinterface import preprocessing

        shanks = shanks_of(path)
        if shank not in shanks:
            raise BadInput(path, f"has no shank {shank}", f"it has shanks {', '.join(map(str, shanks))}")
        recording = _open(path)
        scaled = bool(recording.get_property("physical_unit") is not None and recording.has_scaleable_traces())
        scaled = scaled and set(recording.get_property("physical_unit")) <= {"uV", "mV", "V"}
        fs_hz = LFP_HZ if fs_hz is None else fs_hz
        if recording.get_sampling_frequency() < fs_hz:
            problem = f"was sampled at {recording.get_sampling_frequency():g} Hz, below the {fs_hz:g} Hz asked for"
            raise BadInput(path, problem, "lower sampling_rate_hz")
        recording = recording.select_channels(shanks[shank])
        recording = preprocessing.scale_to_uV(recording) if scaled else preprocessing.astype(recording, "float32")
        self._recording = preprocessing.resample(recording, fs_hz)
        self.shape = (int(self._recording.get_num_samples()), len(shanks[shank]))
        self.fs_hz = float(self._recording.get_sampling_frequency())
        self.channel_ids = np.array([str(i) for i in shanks[shank]])
        self.units = "uV" if scaled else "unknown"

    def blocks(self) -> Iterator[tuple[int, int, NDArray]]:
        """First sample, first channel and ``(sample, channel)`` values, ten seconds at a time."""
        step = max(1, round(BLOCK_S * self.fs_hz))
        for first in range(0, self.shape[0], step):
            values = self._recording.get_traces(start_frame=first, end_frame=min(first + step, self.shape[0]))
            yield first, 0, np.asarray(values, dtype=self.dtype)


def _open(path: Path) -> Any:
    try:
        from spikeinterface.extractors import read_spikegadgets
    except ImportError as error:
        hint = "pip install 'spikeinterface>=0.103' 'neo>=0.14', or extract the traces into low_freq first"
        raise BadInput(path, f"is a SpikeGadgets file, and {error.name} is not installed", hint) from error
    try:
        return read_spikegadgets(str(path), stream_id="trodes")
    except Exception as error:
        # neo's readers raise whatever a damaged file makes them raise.
        text = " ".join(str(error).split())
        raise BadInput(path, f"cannot be read as a SpikeGadgets file ({text})", "check the file") from error
