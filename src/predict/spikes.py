"""Spikes of recordings nobody labelled: a sorter and traces in; MAT, CSV, JSON, figures and a ZIP out.

:func:`sort_with_bank` is ``infer.py method=bank``, :func:`predict` sorts with the two networks of a training.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from src.predict.spike_exports import SortedRecording, export, require_known
from src.predict.spike_quality import SortedGroup, unit_rows
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import robust_sigma
from src.preprocess.spikes.sorting import BankSorter
from src.preprocess.spikes.trace import Trace, find_recording, load_trace
from src.preprocess.spikes.waveforms import load_labelled, median_waveforms
from src.recordings.extracellular.reader import is_recording, open_recording
from src.recordings.extracellular.recording import require_rate
from src.recordings.extracellular.spike_trains import SpikeTrain, read_spikes, write_csv, write_mat
from src.reports.spikes import DrawnSorting, draw_trace, draw_waveforms
from src.signals import BadInput, SourceOptions, counted
from src.storage.batch import Job, Summary, run_batch
from src.storage.foreign_files import absent
from src.storage.manifest import provenance
from src.storage.output import OutputFolder
from src.storage.progress import say
from src.storage.step import fingerprint

if TYPE_CHECKING:
    from src.models.bundle import Bundle
    from src.predict.spike_networks import NetworkSorter

COURSEWORK_HZ = 25_000.0


@dataclass(frozen=True)
class SortOptions:
    """What may be given under ``options`` of ``infer.py``.

    Attributes
    ----------
    truth
        Folder with ``<name>.mat`` that holds ``Index`` and ``Class``: scores and their figures are added.
    source_options, channel
        What the file does not state (its rate is the sorter's unless given), and the channel of several.
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

    truth: str | None = None
    source_options: SourceOptions = field(default_factory=SourceOptions)
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


_NAMES = [f.name for f in fields(SortOptions)]
OPTIONS = {
    "predict": _NAMES,
    "sort_with_bank": [*(n for n in _NAMES if n not in ("classifier", "detector_config")), "sorting", "labelled_fs_hz"],
}
"""What may be given under ``options``, by function."""


def predict(bundle: Bundle, source: Path, output_dir: Path, **options: Any) -> Summary:
    """Sort one recording or the recordings of a folder with trained networks.

    Parameters
    ----------
    bundle
        A ``spike_detection`` bundle.
    source
        A recording of any format that ``src/recordings/extracellular`` reads, or a folder of them. Of a folder
        that holds targets of the bundle, those are sorted; of any other, everything.
    output_dir
        Gets ``<name>.mat`` (``Index`` from 1, ``Class``), ``<name>.csv``, ``<name>.json``, figures, and
        ``submission.zip`` with the MAT files.
    options
        Of :class:`SortOptions`, ``classifier`` among them.
    """
    from src.models.bundle import load_bundle  # loads torch, and the sorter too
    from src.predict.spike_networks import NetworkSorter, conditioning_of

    chosen, rate = SortOptions(**options), bundle.signal.fs_hz
    conditioning_of(bundle, "spike_detection")
    if chosen.classifier is None:
        raise BadInput("options.classifier", "is missing", "give the spike_classification bundle that names neurons")
    output = OutputFolder(Path(output_dir), (bundle.folder, source, chosen.classifier, chosen.truth))
    output.check()
    given_hz = chosen.source_options.fs_hz
    if given_hz is not None and not np.isclose(given_hz, rate, rtol=1e-3):
        problem = f"{given_hz:g} Hz, the bundle was trained at {rate:g} Hz"
        raise BadInput("source.fs_hz", problem, f"resample to {rate:g} Hz")
    config = Path(chosen.detector_config) if chosen.detector_config else None
    gain = 1.0 if chosen.gain is None else chosen.gain
    sorter = NetworkSorter.from_bundles(bundle, load_bundle(chosen.classifier), config=config, gain=gain)
    paths = find_recordings(Path(source), list(sorter.decisions))
    origin = {"task": bundle.task, "bundle": bundle.record(), "gain": gain}
    return _sort_recordings(sorter, paths, output, chosen, origin)


def sort_with_bank(
    source: Path,
    output_dir: Path,
    *,
    labelled: str,
    sorting: str | None = None,
    labelled_fs_hz: float | None = None,
    **options: Any,
) -> Summary:
    """Sort one recording or the recordings of a folder with the neurons of a labelled one, without training.

    Parameters
    ----------
    source, output_dir
        As for :func:`predict`.
    labelled
        A file with the trace, ``Index`` and ``Class``. It is left out of a folder that holds it too.
    sorting
        An earlier sorting of ``labelled`` in place of ``Index`` and ``Class``: a Phy folder, or a file or folder of
        SpikeInterface.
    labelled_fs_hz
        Rate of ``labelled`` if its file states none; 25 000 Hz unless given. ``fs_hz`` is that of the others.
    options
        Of :class:`SortOptions`. ``gain`` is found from each recording unless given.
    """
    chosen = SortOptions(**options)
    output = OutputFolder(Path(output_dir), tuple(Path(p) for p in (source, labelled, sorting, chosen.truth) if p))
    output.check()
    chain = Conditioning(fs_hz=_labelled_rate(Path(labelled), labelled_fs_hz, chosen.source_options))
    known = load_labelled(
        Path(labelled), chain, options=chosen.source_options, sorting=Path(sorting) if sorting else None
    )
    sorter = replace(BankSorter.from_labelled(known, chain), gain=chosen.gain)
    paths = find_recordings(Path(source))
    if len(paths) > 1:
        paths = [p for p in paths if not p.samefile(labelled)]
    origin = {"method": "bank", "labelled": {"path": str(labelled), "sha256": fingerprint(Path(labelled))}}
    return _sort_recordings(sorter, paths, output, chosen, origin)


def _labelled_rate(labelled: Path, fs_hz: float | None, source: SourceOptions) -> float:
    """The rate in Hz that the labelled recording states, else the one given for it, else that of the coursework.

    ``source`` is about the other recordings, but for the layout of raw binary files, which has to be one for all.

    Raises
    ------
    BadInput
        If the other recordings are said to have another rate.
    """
    usual = source.fs_hz if source.dtype else COURSEWORK_HZ
    own = replace(source, fs_hz=fs_hz or (usual if source.dtype else None))
    rate = open_recording(labelled, own, purpose="spikes", usual_hz=usual).fs_hz
    if source.fs_hz is not None:
        require_rate("source.fs_hz", source.fs_hz, "spikes")
        if not np.isclose(source.fs_hz, rate, rtol=1e-3):
            hint = f"resample one of them; if both have {source.fs_hz:g} Hz, add options.labelled_fs_hz"
            problem = f"is {source.fs_hz:g} Hz, the labelled recording {labelled.name} has {rate:g} Hz"
            raise BadInput("source.fs_hz", problem, f"{hint}={source.fs_hz:g}")
    return rate


def find_recordings(source: Path, targets: Sequence[str] = ()) -> list[Path]:
    """The recordings to sort: the file itself, those of a folder that are targets, or all of them.

    Raises
    ------
    BadInput
        If there is none.
    """
    if source.is_file() or is_recording(source):
        return [source]
    if not source.is_dir():
        raise absent(source)
    entries = sorted(p for p in source.iterdir() if not p.name.startswith("."))
    present = [p for p in entries if is_recording(p)]
    if not present:
        raise BadInput(source, "holds no recording", "give a folder of recordings: .mat, .npy, .h5, NWB, …")
    chosen = [p for p in present if p.stem in targets] or present
    if others := [p.name for p in entries if p not in chosen]:
        say(Console(stderr=True), f"{source}: {', '.join(others)} passed over: no recording, or not one to be sorted")
    return chosen


def _sort_recordings(
    sorter: BankSorter | NetworkSorter,
    paths: list[Path],
    output: OutputFolder,
    options: SortOptions,
    origin: dict[str, Any],
) -> Summary:
    """Sort recordings and write everything; a bad one does not stop the others. ``origin`` begins every record."""
    named = dict(zip(output.names((path.stem, path) for path in paths), paths, strict=True))
    jobs = [Job(name, _sort_file, (sorter, path, name, output, options, origin)) for name, path in named.items()]
    summary = run_batch(jobs, title="spike sorting")
    done = {o.name: named[o.name].stem for o in summary.outcomes if o.ok}
    if done:
        with output.files() as part, zipfile.ZipFile(part / "submission.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name in done:
                archive.write(Path(output.root) / f"{name}.mat", f"{name}.mat")
    if options.truth is not None and done:
        from src.predict.spike_scores import report_scores  # loads what only scores need

        report_scores(done, Path(options.truth), output, sorter.n_units)
    return summary


def _sort_file(
    sorter: BankSorter | NetworkSorter,
    path: Path,
    name: str,
    output: OutputFolder,
    options: SortOptions,
    origin: dict[str, Any],
) -> list[str]:
    """Sort one file and write everything that is made from it; returns lines for the console."""
    fs_hz, root = sorter.conditioning.fs_hz, Path(output.root)
    trace = load_trace(path, fs_hz=fs_hz, options=options.source_options, channel=options.channel)
    found = sorter.sort(trace)
    name, train = output.path(name).name, found.train
    counts = np.bincount(train.unit - 1, minlength=sorter.n_units).tolist()
    bandpassed = sorter.conditioning.bandpassed(trace.centred)
    record = {
        **origin,
        "recording": {"name": path.name, "sha256": fingerprint(path), "samples": len(trace.centred)},
        "fs_hz": trace.fs_hz,
        "spikes": {f"neuron {unit}": count for unit, count in enumerate(counts, 1)},
        "unusable_share": trace.unusable_share,
        **found.facts,
        "provenance": provenance(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    made: list[Path] = []
    with output.files() as part:
        write_mat(part / f"{name}.mat", train)
        write_csv(part / f"{name}.csv", train, fs_hz, {"strength": found.strength, "confidence": found.confidence})
        (part / f"{name}.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        if options.exports:
            made = export(options.exports, part, _sorted_recording(name, trace, bandpassed, train, sorter.n_units))
        if options.figures:
            truth = None
            if options.truth:
                file = find_recording(Path(options.truth), path.stem)
                truth = read_spikes(file, n_samples=len(bandpassed), n_units=None)
            title = f"{name}: {len(train)} spikes, {len(train) / trace.duration_s:.1f}/s"
            shown = DrawnSorting(title, bandpassed, train, fs_hz, sorter.n_units)
            draw_trace(part / f"{name}_trace.png", shown, trace.centred, truth)
            draw_waveforms(part / f"{name}_waveforms.png", shown)
    notes = [*found.notes]
    if not len(train):
        notes.insert(0, "no spike was found; Index and Class are empty")
    if trace.unusable_share > 0:
        share = f"{trace.unusable_share:.2%} of the samples are NaN or saturated: no spike is reported there"
        notes.insert(0, share)
    first = f"{name}  {counted(len(train), 'spike')} ({' '.join(map(str, counts))})  {root / name}.mat"
    return [first, *(f"{name}  {note}" for note in notes), *(f"{name}  {root / written.name}" for written in made)]


def _sorted_recording(
    name: str, trace: Trace, bandpassed: np.ndarray, train: SpikeTrain, n_units: int
) -> SortedRecording:
    """What exports are made from; the quality of each neuron is measured at its largest deflection."""
    before, after = (round(ms * trace.fs_hz / 1000) for ms in (0.4, 2.4))
    templates = median_waveforms(bandpassed[None], train, n_units, before, after)
    late = np.abs(templates[:, 0]).argmax(axis=1) - before
    peaks = np.clip(train.index + late[train.unit - 1], 0, len(bandpassed) - 1)
    noise = np.maximum([robust_sigma(bandpassed[trace.usable])], 1e-30)
    usable = int(trace.usable.sum())
    group = SortedGroup(train, bandpassed[peaks], templates, noise, len(bandpassed), usable)
    rows = unit_rows(group, trace.fs_hz, 0, first=1)
    only, source = np.zeros(1, np.int64), Path(trace.source).name

    def read(first: int, last: int) -> np.ndarray:
        return bandpassed[None, first:last]

    return SortedRecording(name, trace.fs_hz, len(bandpassed), read, only, train, rows, "onset", source)
