"""Sorted spikes in the formats of other tools: a SpikeInterface sorting, a folder for Phy, a file for NWB.

SpikeInterface's and Phy's files are plain arrays and are written without either.
All of them count samples from 0, and units from 1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from src.preprocess.spikes.waveforms import cut_windows
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.signals import BadInput

BEFORE, AFTER = 20, 60
"""Samples of a unit's mean waveform around the spike's index."""

BLOCK = 1 << 20
"""Samples that are read at a time."""


@dataclass(frozen=True)
class SortedRecording:
    """A sorted recording.

    Attributes
    ----------
    read
        Band-passed samples ``[first, last)`` as ``(channel, time)``.
    groups
        ``(channel,)`` the group of each channel.
    units
        A row per unit, numbered from 1: ``unit``, ``group``, ``label`` and what is known of its quality.
    event
        What the index of a spike is: ``onset`` or ``peak``.
    source
        Name of the file.
    """

    name: str
    fs_hz: float
    n_samples: int
    read: Callable[[int, int], np.ndarray]
    groups: np.ndarray
    train: SpikeTrain
    units: list[dict[str, Any]]
    event: str
    source: str

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Pieces of the traces, rows of the spikes in each, and windows ``(spike, channel, time)`` around these."""
        for first in range(0, self.n_samples, BLOCK):
            stop = min(first + BLOCK, self.n_samples)
            start, end = max(first - BEFORE, 0), min(stop + AFTER, self.n_samples)
            traces = self.read(start, end)
            rows = np.flatnonzero((self.train.index >= first) & (self.train.index < stop))
            windows = cut_windows(traces, self.train.index[rows] - start, BEFORE, AFTER)
            yield traces[:, first - start : stop - start], rows, windows

    def mean_waveforms(self) -> np.ndarray:
        """``(unit, channel, time)``, zero on the channels of other groups."""
        sums = np.zeros((len(self.units), len(self.groups), BEFORE + AFTER))
        for _, rows, windows in self.blocks():
            np.add.at(sums, self.train.unit[rows] - 1, windows)
        counts = np.bincount(self.train.unit - 1, minlength=len(self.units))
        own = np.array([row["group"] for row in self.units])[:, None] == self.groups
        return sums / np.maximum(counts, 1)[:, None, None] * own[:, :, None]


def export(kinds: list[str], output_dir: Path, done: SortedRecording) -> list[Path]:
    """Write one recording's spikes in each of ``kinds``, which are known; returns what was written."""
    return [WRITERS[kind](output_dir, done) for kind in kinds]


def require_known(kinds: list[str]) -> None:
    """Refuse kinds of export that do not exist, before anything is computed."""
    for kind in kinds:
        if kind not in WRITERS:
            raise BadInput("options.exports", f"unknown kind '{kind}'", f"choose from: {', '.join(WRITERS)}")


def write_spikeinterface(output_dir: Path, done: SortedRecording) -> Path:
    """``<name>_sorting.npz``, for ``spikeinterface.core.read_npz_sorting``."""
    path = output_dir / f"{done.name}_sorting.npz"
    with path.open("wb") as handle:
        np.savez(
            handle,
            unit_ids=np.array([row["unit"] for row in done.units]),
            num_segment=np.array([1]),
            sampling_frequency=np.array([done.fs_hz]),
            spike_indexes_seg0=done.train.index,
            spike_labels_seg0=done.train.unit,
        )
    return path


def write_phy(output_dir: Path, done: SortedRecording) -> Path:
    """``<name>_phy/``: spikes, mean waveforms and the band-passed traces, for ``phy template-gui params.py``."""
    templates = done.mean_waveforms()
    flat = templates.reshape(len(templates), -1)
    energy, rows = np.maximum((flat**2).sum(axis=1), 1e-12), done.train.unit - 1
    direction = flat / np.sqrt(energy)[:, None]
    amplitudes = np.zeros(len(rows))
    folder = output_dir / f"{done.name}_phy"
    folder.mkdir()
    scale = 3_000 / max(float(np.abs(templates).max()), 1e-12)
    with (folder / "recording.dat").open("wb") as handle:
        for traces, spikes, windows in done.blocks():
            np.clip(np.rint(traces.T * scale), -32_768, 32_767).astype(np.int16).tofile(handle)
            own = rows[spikes]
            amplitudes[spikes] = np.einsum("nct,nct->n", windows, templates[own]) / energy[own]
    n_channels = len(done.groups)
    arrays = {
        "spike_times": done.train.index,
        "spike_clusters": done.train.unit.astype(np.int32),
        "spike_templates": rows.astype(np.int32),
        "amplitudes": amplitudes,
        "templates": np.swapaxes(templates / max(float(np.abs(templates).max()), 1e-12), 1, 2).astype(np.float32),
        "channel_map": np.arange(n_channels, dtype=np.int32),
        "channel_shanks": done.groups.astype(np.int32),
        "channel_positions": np.stack((100.0 * done.groups, 20.0 * np.arange(n_channels)), axis=1),
        "similar_templates": (direction @ direction.T).astype(np.float32),
        "whitening_mat": np.eye(n_channels),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "params.py").write_text(
        f"dat_path = 'recording.dat'\nn_channels_dat = {n_channels}\ndtype = 'int16'\noffset = 0\n"
        f"sample_rate = {done.fs_hz!r}\nhp_filtered = True\n"
    )
    group = "".join(f"{row['unit']}\t{row['label']}\n" for row in done.units)
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n" + group)
    return folder


def write_nwb(output_dir: Path, done: SortedRecording) -> Path:
    """``<name>.nwb``: a units table with spike times in seconds, mean waveforms and quality."""
    from pynwb import NWBHDF5IO, NWBFile
    from pynwb.misc import Units

    now = datetime.now(UTC)
    description = f"spikes sorted by neurolit from {done.source}; the start time is that of the sorting"
    content = NWBFile(session_description=description, identifier=done.name, session_start_time=now)
    said = f"sorted automatically; times are those of the {done.event}, in seconds from the first sample"
    table = Units(name="units", waveform_rate=done.fs_hz, description=said)
    table.add_column("quality", "good, or mua where a measure speaks against a single unit")
    table.add_column("group", "number of the group of channels: wire, tetrode or shank")
    for row, waveform in zip(done.units, done.mean_waveforms(), strict=True):
        times = done.train.index[done.train.unit == row["unit"]] / done.fs_hz
        own = waveform[done.groups == row["group"]].T
        shown = own[:, 0] if own.shape[1] == 1 else own
        table.add_unit(
            id=row["unit"], spike_times=times, waveform_mean=shown, quality=row["label"], group=int(row["group"])
        )
    content.units = table
    path = output_dir / f"{done.name}.nwb"
    with NWBHDF5IO(str(path), "w") as handle:
        handle.write(content)
    return path


WRITERS: dict[str, Callable[[Path, SortedRecording], Path]] = {
    "spikeinterface": write_spikeinterface,
    "phy": write_phy,
    "nwb": write_nwb,
}
