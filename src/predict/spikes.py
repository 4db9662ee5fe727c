"""Sorted spikes of recordings nobody labelled: a sorter and traces in; MAT, CSV, JSON, figures and a ZIP out."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from src.predict.spike_exports import SortedRecording, export, require_known
from src.predict.spike_quality import SortedGroup, unit_rows
from src.predict.spike_scores import report_scores
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.noise import robust_sigma
from src.preprocess.spikes.sorting import Sorted
from src.preprocess.spikes.trace import Trace, find_recording, load_trace
from src.preprocess.spikes.waveforms import mean_waveforms
from src.recordings.extracellular.reader import is_recording
from src.recordings.extracellular.spike_trains import SpikeTrain, read_spikes, write_csv, write_mat
from src.reports.spikes import DrawnSorting, draw_trace, draw_waveforms
from src.signals import BadInput
from src.storage.batch import Job, Summary, run_batch
from src.storage.output import OutputFolder
from src.storage.provenance import provenance
from src.storage.step import fingerprint

COURSEWORK_HZ = 25_000.0


class SpikeSorter(Protocol):
    """Anything that sorts a recording with known neurons."""

    @property
    def conditioning(self) -> Conditioning: ...

    @property
    def n_units(self) -> int: ...

    def sort(self, trace: Trace) -> Sorted: ...


@dataclass(frozen=True)
class SortOptions:
    """What may be given under ``options`` of ``infer.py``.

    Attributes
    ----------
    recordings
        Names to sort, in place of all recordings of a folder, or of the targets of a bundle in it.
    truth
        Folder with ``<name>.mat`` that holds ``Index`` and ``Class``: scores and their figures are added.
    key, fs_hz, channel
        Variable that holds the trace, its rate (that of the sorter unless given), and the channel of several.
    gain
        Factor from the recordings' unit to that of the labelled recording, negative for the other polarity.
    figures
        Draw the trace and the waveforms.
    exports
        Further formats, see :mod:`src.predict.spike_exports`: ``spikeinterface``, ``phy``, ``nwb``.
    classifier
        A ``spike_classification`` bundle, which names the neurons that a detector finds.
    detector_config
        A ``detector_config.npz`` whose threshold and refractory period replace those of the bundle.

    Raises
    ------
    BadInput
        A kind of export that does not exist, or a gain that is no number or nothing.
    """

    recordings: list[str] | None = None
    truth: str | None = None
    key: str = "d"
    fs_hz: float | None = None
    channel: int | None = None
    gain: float | None = None
    figures: bool = True
    exports: list[str] = field(default_factory=list)
    classifier: str | None = None
    detector_config: str | None = None

    def __post_init__(self) -> None:
        require_known(self.exports)
        if self.gain is not None and (not np.isfinite(self.gain) or self.gain == 0):
            hint = "give a factor other than 0, negative for the other polarity"
            raise BadInput("options.gain", f"is {self.gain:g}", hint)


OPTIONS = tuple(f.name for f in fields(SortOptions))


def sort_recordings(
    sorter: SpikeSorter, paths: list[Path], output: OutputFolder, options: SortOptions, origin: dict[str, Any]
) -> Summary:
    """Sort recordings and write everything; a bad one does not stop the others. ``origin`` begins every record."""
    output.check()
    named = dict(zip(output.names((path.stem, path) for path in paths), paths, strict=True))
    settings = Settings(output, options, origin)
    jobs = [Job(name, sort_file, (sorter, path, name, settings)) for name, path in named.items()]
    summary = run_batch(jobs, title="spike sorting")
    done = {o.name: named[o.name].stem for o in summary.outcomes if o.ok}
    if done:
        _zip(output, list(done))
    if options.truth is not None and done:
        report_scores(done, Path(options.truth), output, sorter.n_units)
    return summary


@dataclass(frozen=True)
class Settings:
    """What holds for every recording of a run."""

    output: OutputFolder
    options: SortOptions
    origin: dict[str, Any]


def find_recordings(source: Path, recordings: list[str] | None, targets: list[str]) -> list[Path]:
    """The recordings to sort: the file itself, those named, those of a folder that are targets, or all of them.

    Raises
    ------
    BadInput
        If there is none.
    """
    if source.is_file() or is_recording(source):
        return [source]
    if not source.is_dir():
        raise BadInput(source, "does not exist", "give a recording or a folder of them")
    if recordings:
        return [find_recording(source, name) for name in recordings]
    present = sorted(p for p in source.iterdir() if is_recording(p))
    if not present:
        raise BadInput(source, "holds no recording", "give a folder of recordings: .mat, .npy, .h5, NWB, …")
    return [p for p in present if p.stem in targets] or present


def sort_file(sorter: SpikeSorter, path: Path, name: str, settings: Settings) -> list[str]:
    """Sort one file and write everything that is made from it; returns lines for the console."""
    options, fs_hz, root = settings.options, sorter.conditioning.fs_hz, Path(settings.output.root)
    trace = load_trace(path, fs_hz=fs_hz, key=options.key, channel=options.channel)
    found = sorter.sort(trace)
    name, train = settings.output.path(name).name, found.train
    counts = np.bincount(train.unit - 1, minlength=sorter.n_units) if len(train) else np.zeros(sorter.n_units, int)
    bandpassed = sorter.conditioning.linear(trace.centred)
    made: list[Path] = []
    with settings.output.files() as part:
        write_mat(part / f"{name}.mat", train)
        columns = {"strength": found.strength, "confidence": found.confidence}
        write_csv(part / f"{name}.csv", train, fs_hz, columns)
        record = _record(settings, path, trace, counts, found.facts)
        (part / f"{name}.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        if options.exports:
            whole = _sorted_recording(name, trace, bandpassed, train, sorter.n_units)
            made = export(options.exports, part, whole)
        if options.figures:
            truth = _truth(options.truth, path.stem, len(bandpassed))
            title = f"{name}: {len(train)} spikes, {len(train) / trace.duration_s:.1f}/s"
            shown = DrawnSorting(title, bandpassed, train, fs_hz, sorter.n_units)
            draw_trace(part / f"{name}_trace.png", shown, trace.centred, truth)
            draw_waveforms(part / f"{name}_waveforms.png", shown)
    return [
        f"{name}  {len(train)} spikes ({' '.join(str(int(c)) for c in counts)})  {root / name}.mat",
        *(f"{name}  {note}" for note in (*_notes(trace, train), *found.notes)),
        *(f"{name}  {root / written.name}" for written in made),
    ]


def _sorted_recording(
    name: str, trace: Trace, bandpassed: np.ndarray, train: SpikeTrain, n_units: int
) -> SortedRecording:
    """What exports are made from; the quality of each neuron is measured at its largest deflection."""
    before, after = (round(ms * trace.fs_hz / 1000) for ms in (0.4, 2.4))
    templates = mean_waveforms(bandpassed[None], train, n_units, before, after)
    late = np.abs(templates[:, 0]).argmax(axis=1) - before
    peaks = np.clip(train.index + late[train.unit - 1], 0, len(bandpassed) - 1)
    noise = np.maximum([robust_sigma(bandpassed[trace.usable])], 1e-30)
    usable = int(trace.usable.sum())
    group = SortedGroup(train, bandpassed[peaks], templates, noise, len(bandpassed), usable)
    rows = unit_rows(group, trace.fs_hz, 0, first=1)
    only, source = np.zeros(1, np.int64), Path(trace.source).name
    read = lambda first, last: bandpassed[None, first:last]  # noqa: E731
    return SortedRecording(name, trace.fs_hz, len(bandpassed), read, only, train, rows, "onset", source)


def _truth(folder: str | None, name: str, n_samples: int) -> SpikeTrain | None:
    return read_spikes(find_recording(Path(folder), name), n_samples=n_samples, n_units=None) if folder else None


def _notes(trace: Trace, train: SpikeTrain) -> list[str]:
    notes = []
    if trace.unusable_share > 0:
        notes.append(f"{trace.unusable_share:.2%} of the samples are NaN or saturated: no spike is reported there")
    if len(train) == 0:
        notes.append("no spike was found; Index and Class are empty")
    return notes


def _record(
    settings: Settings, source: Path, trace: Trace, counts: np.ndarray, facts: dict[str, Any]
) -> dict[str, Any]:
    return {
        **settings.origin,
        "recording": {"name": source.name, "sha256": fingerprint(source), "samples": len(trace.centred)},
        "fs_hz": trace.fs_hz,
        "spikes": {f"neuron {u + 1}": int(c) for u, c in enumerate(counts)},
        "unusable_share": trace.unusable_share,
        **facts,
        "provenance": provenance(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _zip(output: OutputFolder, names: list[str]) -> None:
    with output.files() as part, zipfile.ZipFile(part / "submission.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(Path(output.root) / f"{name}.mat", f"{name}.mat")
