"""Sorted spikes in the formats of other tools: a SpikeInterface sorting, a folder for Phy, a file for NWB.

SpikeInterface's and Phy's files are plain arrays and are written without either; NWB takes ``pynwb``.
All of them count samples from 0, and units as the ``Class`` of the MAT files, from 1.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.preprocess.spikes.waveforms import cut
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.signals import BadInput

BEFORE, AFTER = 20, 60
"""Samples of a unit's mean waveform around the onset."""


class SortedTrace(NamedTuple):
    """A sorted recording: its band-passed trace ``(time,)``, its spikes, and the file it was read from."""

    name: str
    fs_hz: float
    linear: np.ndarray
    train: SpikeTrain
    n_units: int
    source: str


def export(kinds: list[str], output_dir: Path, done: SortedTrace) -> list[Path]:
    """Write one recording's spikes in each of ``kinds``; returns what was written.

    Raises
    ------
    BadInput
        If a kind is unknown, or its package is not installed.
    """
    require_known(kinds)
    return [WRITERS[kind](output_dir, done) for kind in kinds]


def require_known(kinds: list[str]) -> None:
    """Refuse kinds of export that do not exist, before anything is computed."""
    for kind in kinds:
        if kind not in WRITERS:
            raise BadInput("options.exports", f"unknown kind '{kind}'", f"choose from: {', '.join(WRITERS)}")


def write_spikeinterface(output_dir: Path, done: SortedTrace) -> Path:
    """``<name>_sorting.npz``, for ``spikeinterface.core.read_npz_sorting``."""
    path = output_dir / f"{done.name}_sorting.npz"
    with path.open("wb") as handle:
        np.savez(
            handle,
            unit_ids=np.arange(1, done.n_units + 1),
            num_segment=np.array([1]),
            sampling_frequency=np.array([done.fs_hz]),
            spike_indexes_seg0=done.train.index,
            spike_labels_seg0=done.train.unit,
        )
    return path


def write_phy(output_dir: Path, done: SortedTrace) -> Path:
    """``<name>_phy/``: spikes, mean waveforms and the band-passed trace, for ``phy template-gui params.py``."""
    templates = _mean_waveforms(done)
    rows = done.train.unit - 1
    windows = cut(done.linear, done.train.index - BEFORE, BEFORE + AFTER)
    energy = np.maximum((templates**2).sum(axis=1), 1e-12)
    amplitudes = (windows * templates[rows]).sum(axis=1) / energy[rows]
    shape = templates / max(float(np.abs(templates).max()), 1e-12)
    direction = templates / np.maximum(np.linalg.norm(templates, axis=1, keepdims=True), 1e-12)
    folder = output_dir / f"{done.name}_phy"
    folder.mkdir()
    arrays = {
        "spike_times": done.train.index,
        "spike_clusters": done.train.unit.astype(np.int32),
        "spike_templates": rows.astype(np.int32),
        "amplitudes": amplitudes.astype(np.float64),
        "templates": shape[:, :, None].astype(np.float32),
        "channel_map": np.zeros(1, np.int32),
        "channel_positions": np.zeros((1, 2)),
        "similar_templates": (direction @ direction.T).astype(np.float32),
        "whitening_mat": np.eye(1),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    scale = 30_000 / max(float(np.abs(done.linear).max()), 1e-12)
    np.rint(done.linear * scale).astype(np.int16).tofile(folder / "recording.dat")
    (folder / "params.py").write_text(
        "dat_path = 'recording.dat'\nn_channels_dat = 1\ndtype = 'int16'\noffset = 0\n"
        f"sample_rate = {done.fs_hz!r}\nhp_filtered = True\n"
    )
    group = "".join(f"{unit}\tgood\n" for unit in range(1, done.n_units + 1))
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n" + group)
    return folder


def write_nwb(output_dir: Path, done: SortedTrace) -> Path:
    """``<name>.nwb``: a units table with spike times in seconds and mean waveforms.

    Raises
    ------
    BadInput
        If ``pynwb`` is not installed.
    """
    try:
        from pynwb import NWBHDF5IO, NWBFile
    except ImportError:
        raise BadInput("options.exports", "nwb takes the package pynwb", "pip install pynwb") from None
    now = datetime.now(UTC)
    content = NWBFile(
        session_description=f"spikes sorted from {done.source}", identifier=done.name, session_start_time=now
    )
    templates = _mean_waveforms(done)
    content.units = _units_table(done, templates)
    path = output_dir / f"{done.name}.nwb"
    with NWBHDF5IO(str(path), "w") as handle:
        handle.write(content)
    return path


def _units_table(done: SortedTrace, templates: np.ndarray) -> object:
    from pynwb.misc import Units

    table = Units(
        name="units", waveform_rate=done.fs_hz, description="times are onsets, in seconds from the first sample"
    )
    for unit in range(1, done.n_units + 1):
        times = done.train.index[done.train.unit == unit] / done.fs_hz
        table.add_unit(id=unit, spike_times=times, waveform_mean=templates[unit - 1])
    return table


def _mean_waveforms(done: SortedTrace) -> np.ndarray:
    windows = cut(done.linear, done.train.index - BEFORE, BEFORE + AFTER)
    means = np.zeros((done.n_units, BEFORE + AFTER))
    for unit in range(1, done.n_units + 1):
        own = done.train.unit == unit
        if own.any():
            means[unit - 1] = windows[own].mean(axis=0)
    return means


WRITERS: dict[str, Callable[[Path, SortedTrace], Path]] = {
    "spikeinterface": write_spikeinterface,
    "phy": write_phy,
    "nwb": write_nwb,
}
