"""Spikes without labels: the units of every group of channels of a recording, their quality, and exports."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from src.predict.spikes import find_recordings
from src.preprocess.spikes.discover import DiscoverParams, Units, discover
from src.preprocess.spikes.plausibility import without_hum
from src.recordings.extracellular.reader import SourceOptions, open_recording
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.signals import BadInput
from src.storage.batch import Job, Summary, run_batch
from src.storage.output import OutputFolder
from src.storage.provenance import provenance
from src.storage.step import fingerprint

VIOLATION_MS = 1.5
GOOD = {"isi_violations": 0.01, "snr": 5.0, "presence": 0.9}
"""A unit is called ``good`` with at most so many intervals below 1.5 ms, and at least this SNR and presence."""


def discover_units(
    source: Path,
    output_dir: Path,
    *,
    recordings: list[str] | None = None,
    key: str | None = None,
    fs_hz: float | None = None,
) -> Summary:
    """``method=discover``: find and sort the units of a recording that nobody labelled.

    Parameters
    ----------
    source
        A recording of any format that ``src/recordings/extracellular`` reads, or a folder of them. Channels are
        sorted by group: a wire, a tetrode or a shank.
    output_dir
        Gets ``<name>_spikes.csv`` (sample from 0, seconds, group, unit), ``<name>_units.csv`` (quality of each unit),
        ``<name>_sorting.npz`` for ``spikeinterface.core.read_npz_sorting``, and ``<name>.json``.
    recordings
        Names to sort, in place of everything.
    key, fs_hz
        Name of the variable, and its rate where the file states none.
    """
    paths = find_recordings(Path(source), recordings, [])
    output = OutputFolder(Path(output_dir), (Path(source),))
    output.check()
    names = output.names((path.stem, path) for path in paths)
    jobs = [Job(n, _discover_file, (p, output, n, key, fs_hz)) for n, p in zip(names, paths, strict=True)]
    return run_batch(jobs, title="spikes without labels")


def _discover_file(path: Path, output: OutputFolder, name: str, key: str | None, fs_hz: float | None) -> list[str]:
    options = SourceOptions(fs_hz=fs_hz, key=key)
    recording = open_recording(path, options, purpose="spikes", rate_hint="give options.fs_hz=<Hz>")
    samples, notes = recording.samples(), list(recording.warnings)
    index: list[np.ndarray] = []
    unit: list[np.ndarray] = []
    rows: list[dict[str, Any]] = []
    for group in np.unique(recording.shanks):
        channels = np.flatnonzero(recording.shanks == group)
        cleaned = [without_hum(np.nan_to_num(samples[c]), recording.fs_hz) for c in channels]
        traces = np.where(np.isnan(samples[channels]), np.nan, np.stack([trace for trace, _ in cleaned]))
        notes += [f"group {group}: {note}" for note in sorted({n for _, said in cleaned for n in said})]
        try:
            units = discover(traces, recording.fs_hz, DiscoverParams())
        except BadInput as error:
            notes.append(f"group {group}: {error.problem}")
            continue
        found = unit_rows(units, recording.fs_hz, int(group), first=len(rows) + 1)
        index.append(units.found.train.index)
        unit.append(units.found.train.unit + len(rows))
        rows += found
    if not rows:
        raise BadInput(path, f"no unit was found ({'; '.join(notes)})", "check the recording and its sampling rate")
    train = SpikeTrain.sorted(np.concatenate(index), np.concatenate(unit))
    name = output.path(name).name
    with output.files() as part:
        _write(part, name, train, rows, recording.fs_hz)
        record = {
            "method": "discover",
            "recording": {"name": path.name, "sha256": fingerprint(path), "samples": recording.n_samples},
            "fs_hz": recording.fs_hz,
            "units": rows,
            "notes": notes,
            "provenance": provenance(),
        }
        (part / f"{name}.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    good = sum(row["label"] == "good" for row in rows)
    lines = [
        f"{name}  {len(rows)} units, {good} of them good, {len(train)} spikes  {Path(output.root) / name}_units.csv"
    ]
    return lines + [f"{name}  {note}" for note in notes]


def unit_rows(units: Units, fs_hz: float, group: int, first: int) -> list[dict[str, Any]]:
    """Quality of every unit of a group.

    ``isi_violations`` is the share of intervals below 1.5 ms, ``snr`` the peak of the mean waveform over the standard
    deviation of the noise of that channel, ``presence`` the share of 20 equal parts of the recording with a spike,
    ``amplitude_cutoff`` an estimate of the share of spikes too small to be found.
    """
    rows = []
    usable_s = float(units.usable.sum()) / fs_hz
    for number, template in enumerate(units.templates):
        own = units.found.train.index[units.found.train.unit == number + 1]
        height = np.abs(template).max(axis=1) / units.noise
        channel = int(height.argmax())
        intervals = np.diff(own) / fs_hz
        edges = np.linspace(0, units.bandpassed.shape[1], 21)
        amplitude = np.abs(units.bandpassed[channel, own])
        row: dict[str, Any] = {
            "unit": first + number,
            "group": group,
            "channel": channel,
            "spikes": len(own),
            "rate_hz": len(own) / max(usable_s, 1e-9),
            "isi_violations": float(np.mean(intervals < VIOLATION_MS / 1000)) if len(intervals) else 0.0,
            "snr": float(height[channel]),
            "presence": float(np.mean(np.histogram(own, edges)[0] > 0)),
            "amplitude_cutoff": _amplitude_cutoff(amplitude),
        }
        clean = row["isi_violations"] <= GOOD["isi_violations"] and row["snr"] >= GOOD["snr"]
        row["label"] = "good" if clean and row["presence"] >= GOOD["presence"] else "mua"
        rows.append(row)
    return rows


def _amplitude_cutoff(amplitude: np.ndarray) -> float:
    """Share of the histogram's missing lower side, if it were symmetric (Hill et al. 2011)."""
    if len(amplitude) < 20:
        return 0.5
    counts, _ = np.histogram(amplitude, 20)
    smooth = np.convolve(counts, np.ones(3) / 3, "same")
    peak = int(smooth.argmax())
    above = np.abs(smooth[peak:] - smooth[0]).argmin() + peak
    return float(min(smooth[above:].sum() / max(smooth.sum(), 1e-9), 0.5))


def _write(folder: Path, name: str, train: SpikeTrain, rows: list[dict[str, Any]], fs_hz: float) -> None:
    groups = {row["unit"]: row["group"] for row in rows}
    with (folder / f"{name}_spikes.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["sample", "time_s", "group", "unit"])
        for index, unit in zip(train.index.tolist(), train.unit.tolist(), strict=True):
            writer.writerow([index, f"{index / fs_hz:.6f}", groups[unit], unit])
    with (folder / f"{name}_units.csv").open("w", newline="") as handle:
        table = csv.DictWriter(handle, list(rows[0]))
        table.writeheader()
        table.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    np.savez(
        folder / f"{name}_sorting.npz",
        unit_ids=np.array([row["unit"] for row in rows]),
        num_segment=np.array([1]),
        sampling_frequency=np.array([fs_hz]),
        spike_indexes_seg0=train.index,
        spike_labels_seg0=train.unit,
    )
