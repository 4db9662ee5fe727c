"""Recordings that SpikeInterface reads: NWB files, and folders saved by it. The package is an optional extra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from src.signals import BadInput

MARKERS = ("si_folder.json", "binary.json", "cached.json", "provenance.json")
"""Files by which a folder saved by SpikeInterface is known."""


def is_spikeinterface(path: Path) -> bool:
    """Whether a path is an NWB file, a zarr folder, or a folder saved by SpikeInterface."""
    path = Path(path)
    if path.is_dir():
        return path.suffix == ".zarr" or any((path / name).is_file() for name in MARKERS)
    return path.suffix == ".nwb"


def read_spikeinterface(path: Path) -> tuple[np.ndarray, float]:
    """Samples ``(channel, time)`` float32 of the one segment, and their rate in Hz.

    Raises
    ------
    BadInput
        If SpikeInterface is not installed, cannot read it, or finds several segments.
    """
    try:
        import spikeinterface.core as si
    except ImportError:
        raise BadInput(path, "is read through SpikeInterface", "pip install spikeinterface neo pynwb") from None
    try:
        recording: Any
        if path.suffix == ".nwb":
            from spikeinterface.extractors import read_nwb_recording

            recording = read_nwb_recording(path)
        else:
            recording = si.load(path)
        segments = recording.get_num_segments()
    except Exception as error:  # its readers fail in as many ways as there are formats
        raise BadInput(
            path, f"SpikeInterface cannot read it ({error})", "check that it is a whole recording"
        ) from error
    if segments != 1:
        raise BadInput(path, f"has {segments} segments", "give each segment as a recording of its own")
    return np.ascontiguousarray(recording.get_traces().T, np.float32), float(recording.get_sampling_frequency())
