"""Spikes without labels: the units of every group of channels of a recording, their quality, a page, and exports."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.predict.spike_exports import SortedRecording, export, require_known
from src.predict.spike_quality import MEANING, VIOLATION_MS, SortedGroup, mark_noise, perhaps_one, unit_rows, write_rows
from src.predict.spikes import find_recordings
from src.preprocess.spikes.discover import DiscoverParams, Group, ReadGroup, Units, discover_group
from src.preprocess.spikes.trace import check_clipping
from src.recordings.extracellular.reader import open_recording
from src.recordings.extracellular.spike_trains import SpikeTrain, cut_off
from src.reports.spikes import DrawnUnit, draw_units, write_spike_page
from src.signals import BadInput, SourceOptions, counted
from src.storage.batch import Job, Summary, run_batch
from src.storage.manifest import provenance
from src.storage.output import OutputFolder
from src.storage.step import fingerprint

SHORT_S = 1.0

if TYPE_CHECKING:
    from spikeinterface.core import BaseRecording, NumpySorting


@dataclass
class Discovered:
    """The units of all groups of a recording.

    Attributes
    ----------
    train
        Spikes; the index is the sample of the peak, units count from 1 through all groups, those called noise last.
    rows
        Quality of every unit, see :func:`~src.predict.spike_quality.unit_rows`.
    drawn
        What the page shows of every unit.
    units
        The sorting of every group that has units, by the number of the group.
    notes
        What was repaired, and which groups have no unit and why.
    """

    train: SpikeTrain = field(default_factory=SpikeTrain.empty)
    rows: list[dict[str, Any]] = field(default_factory=list)
    drawn: list[DrawnUnit] = field(default_factory=list)
    units: dict[int, Units] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, number: int, units: Units) -> None:
        """Take in the units of one more group."""
        train = SpikeTrain(units.found.train.index, units.found.train.unit + len(self.rows))
        self.train = SpikeTrain.sorted(
            np.concatenate((self.train.index, train.index)), np.concatenate((self.train.unit, train.unit))
        )
        group = SortedGroup(
            units.found.train, units.amplitude, units.templates, units.noise, units.group.n_samples, units.usable
        )
        rows = unit_rows(group, units.group.fs_hz, number, first=len(self.rows) + 1)
        for row in rows:
            row["channel"] = int(units.channels[row["channel"]])
        mark_noise(rows)
        for place, (row, waveform) in enumerate(zip(rows, units.templates, strict=True)):
            spikes = units.found.train.unit == place + 1
            times = units.found.train.index[spikes] / units.group.fs_hz
            self.drawn.append(DrawnUnit(row["unit"], row["label"], waveform, times, units.amplitude[spikes]))
        self.rows += rows
        self.units[number] = units
        seen = min(units.group.n_samples, units.group.params.block)
        rails = [rail for row in units.group.read(0, seen) for rail in cut_off(row)]
        ceiling = np.inf if units.group.ceiling is None else float(units.group.ceiling.min())
        n_spikes = int(np.searchsorted(units.found.train.index, seen))
        notes = [*units.group.notes, *check_clipping(tuple(rails), ceiling, n_spikes)]
        self.notes += [f"group {number}: {note}" for note in sorted(notes)]

    def noise_last(self) -> None:
        """Number the units anew, those called noise at the end."""
        order = sorted(range(len(self.rows)), key=lambda place: self.rows[place]["label"] == "noise")
        self.rows = [{**self.rows[place], "unit": new + 1} for new, place in enumerate(order)]
        self.drawn = [self.drawn[place]._replace(unit=new + 1) for new, place in enumerate(order)]
        self.train = SpikeTrain.sorted(self.train.index, np.argsort(order)[self.train.unit - 1] + 1)

    def perhaps_one(self, seconds: float) -> list[str]:
        """A note for every set of units that may be one neuron."""
        said = []
        for group in self.units:
            rows = {row["unit"] for row in self.rows if row["group"] == group and row["label"] != "noise"}
            own = [unit for unit in self.drawn if unit.unit in rows]
            for places in perhaps_one([unit.waveform for unit in own], [unit.times_s for unit in own], seconds):
                names = ", ".join(str(own[place].unit) for place in places)
                said.append(
                    f"units {names} may be one neuron whose spikes change in bursts or with time: they are alike in "
                    "shape, and fire within 3 ms of each other more rarely than two neurons would"
                )
        return said

    def without_noise(self) -> tuple[SpikeTrain, list[dict[str, Any]]]:
        """Spikes and rows of the units that are not called noise."""
        rows = [row for row in self.rows if row["label"] != "noise"]
        kept = self.train.unit <= len(rows)
        return SpikeTrain(self.train.index[kept], self.train.unit[kept]), rows


def discover_groups(
    reads: dict[int, ReadGroup], n_samples: int, fs_hz: float, params: DiscoverParams | None = None
) -> Discovered:
    """Sort the groups of a recording, each given by a function that reads its samples.

    Raises
    ------
    BadInput
        If no group has a unit.
    """
    done = Discovered()
    for number, read in reads.items():
        try:
            done.add(number, discover_group(Group(read, n_samples, fs_hz, params or DiscoverParams())))
        except BadInput as error:
            done.notes.append(f"group {number}: {error.problem}")
    if (seconds := n_samples / fs_hz) < SHORT_S:
        done.notes.append(
            f"only {seconds:.3g} s long: neurons with fewer than 10 spikes are missed, others are uncertain"
        )
    done.noise_last()
    done.notes += done.perhaps_one(n_samples / fs_hz)
    if not done.without_noise()[1]:
        problem = f"no unit was found ({'; '.join(done.notes)})"
        raise BadInput("recording", problem, "check the recording and its sampling rate")
    return done


def sort_recording(recording: BaseRecording, params: DiscoverParams | None = None) -> NumpySorting:
    """Sort a SpikeInterface recording of one segment; channels of one ``group`` property are sorted together.

    Returns
    -------
    spikeinterface.core.NumpySorting
        Units from 1 with the properties ``group``, ``label``, ``snr``, ``isi_violations``, ``presence`` and
        ``amplitude_cutoff``, without those called noise; a spike's sample is that of its peak.

    Raises
    ------
    BadInput
        If the recording has several segments, or no unit is found.
    """
    from spikeinterface.core import NumpySorting

    if recording.get_num_segments() != 1:
        problem = f"has {recording.get_num_segments()} segments"
        raise BadInput("recording", problem, "give one: recording.select_segments([0])")
    ids = recording.channel_ids
    _, groups = np.unique(recording.get_channel_groups(), return_inverse=True)

    def reader(channels: np.ndarray) -> ReadGroup:
        return lambda first, last: recording.get_traces(start_frame=first, end_frame=last, channel_ids=channels).T

    reads = {int(g): reader(ids[groups == g]) for g in np.unique(groups)}
    done = discover_groups(reads, recording.get_num_samples(), recording.get_sampling_frequency(), params)
    train, rows = done.without_noise()
    spikes = {row["unit"]: train.index[train.unit == row["unit"]] for row in rows}
    sorting = NumpySorting.from_unit_dict([spikes], recording.get_sampling_frequency())
    for name in ("group", "label", "snr", "isi_violations", "presence", "amplitude_cutoff"):
        sorting.set_property(name, np.array([row[name] for row in rows]))
    return sorting


def discover_units(
    source: Path,
    output_dir: Path,
    *,
    source_options: SourceOptions | None = None,
    figures: bool = True,
    exports: list[str] | None = None,
) -> Summary:
    """``method=discover``: find and sort the units of a recording that nobody labelled.

    Parameters
    ----------
    source
        A recording of any format that ``src/recordings/extracellular`` reads, or a folder of them. Channels are
        sorted by group: a wire, a tetrode or a shank.
    output_dir
        Gets ``<name>_spikes.csv`` (sample from 0, seconds, group, unit), ``<name>_units.csv`` (quality of each unit),
        ``<name>_units.html`` unless ``figures`` is false, and ``<name>.json``.
    source_options
        What the file does not state: the variable, its rate, the type of raw samples.
    exports
        Formats of :mod:`src.predict.spike_exports`; ``spikeinterface`` unless given.
    """
    kinds = ["spikeinterface"] if exports is None else exports
    require_known(kinds)
    paths = find_recordings(Path(source))
    output = OutputFolder(Path(output_dir), (Path(source),))
    output.check()
    names = output.names((path.stem, path) for path in paths)
    how = (output, source_options or SourceOptions(), figures, kinds)
    jobs = [Job(n, _discover_file, (p, n, *how)) for n, p in zip(names, paths, strict=True)]
    return run_batch(jobs, title="spikes without labels")


def _discover_file(
    path: Path, name: str, output: OutputFolder, source: SourceOptions, figures: bool, exports: list[str]
) -> list[str]:
    recording = open_recording(path, source, purpose="spikes")
    groups, fs_hz = np.asarray(recording.shanks), recording.fs_hz
    reads: dict[int, ReadGroup] = {int(g): recording.shank(int(g)).between for g in np.unique(groups)}
    try:
        done = discover_groups(reads, recording.n_samples, fs_hz)
    except BadInput as error:
        raise BadInput(path, error.problem, error.hint) from error
    notes = [*recording.notes, *done.notes]
    name = output.path(name).name

    def read(first: int, last: int) -> np.ndarray:
        traces = np.zeros((len(groups), last - first), np.float32)
        for number, units in done.units.items():
            traces[np.flatnonzero(groups == number)[units.channels]] = units.group.bandpassed(first, last)[0]
        return traces

    train, rows = done.without_noise()
    found = SortedRecording(name, fs_hz, recording.n_samples, read, groups, train, rows, "peak", path.name)
    record = {
        "method": "discover",
        "recording": {"name": path.name, "sha256": fingerprint(path), "samples": recording.n_samples},
        "fs_hz": fs_hz,
        "units": done.rows,
        "notes": notes,
        "provenance": provenance(),
    }
    with output.files() as part:
        _write_tables(part, replace(found, train=done.train, units=done.rows))
        (part / f"{name}.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        written = export(exports, part, found)
        if figures:
            onset, png = next(iter(done.units.values())).onset, part / f"{name}_units.png"
            figure = draw_units(png, done.drawn, fs_hz, onset, VIOLATION_MS)
            written.append(write_spike_page(part / f"{name}_units.html", name, done.rows, notes, MEANING, figure))
    good, root = sum(row["label"] == "good" for row in rows), Path(output.root)
    units, spikes = counted(len(rows), "unit"), counted(len(train), "spike")
    first = f"{name}  {units}, {good} of them good, {spikes}  {root / name}_units.csv"
    if len(done.rows) > len(rows):
        notes.append(f"{len(done.rows) - len(rows)} more are called noise and are in no export")
    return [first, *(f"{name}  {root / w.name}" for w in written), *(f"{name}  {note}" for note in notes)]


def _write_tables(folder: Path, done: SortedRecording) -> None:
    groups = {row["unit"]: row["group"] for row in done.units}
    with (folder / f"{done.name}_spikes.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["sample", "time_s", "group", "unit"])
        for index, unit in zip(done.train.index.tolist(), done.train.unit.tolist(), strict=True):
            writer.writerow([index, f"{index / done.fs_hz:.6f}", groups[unit], unit])
    write_rows(folder / f"{done.name}_units.csv", done.units)
