"""Sorted spikes of recordings nobody labelled: a sorter and traces in; MAT, CSV, JSON, figures and a ZIP out."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from src.models.bundle import Bundle, inputs_of, load_bundle
from src.predict.sorter import NetworkSorter, conditioning_of
from src.predict.spike_exports import SortedTrace, export, require_known
from src.predict.spike_scores import report_scores
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.labelled import load_labelled
from src.preprocess.spikes.sorting import BankSorter, Sorted
from src.preprocess.spikes.trace import Trace, find_recording, load_trace
from src.recordings.extracellular.reader import is_recording
from src.recordings.extracellular.spike_trains import SpikeTrain, read_spikes, write_csv, write_mat
from src.reports.spikes import draw_trace, draw_waveforms
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
class Settings:
    """What holds for every recording of a run; see :func:`predict` and :func:`sort_with_bank`."""

    output: OutputFolder
    key: str = "d"
    channel: int | None = None
    truth: Path | None = None
    figures: bool = True
    exports: list[str] = field(default_factory=list)
    origin: dict[str, Any] = field(default_factory=dict)


def predict(
    bundle: Bundle,
    source: Path,
    output_dir: Path,
    *,
    classifier: str | None = None,
    detector_config: str | None = None,
    recordings: list[str] | None = None,
    truth: str | None = None,
    key: str = "d",
    fs_hz: float | None = None,
    channel: int | None = None,
    gain: float = 1.0,
    figures: bool = True,
    exports: list[str] | None = None,
) -> Summary:
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
    classifier
        A ``spike_classification`` bundle, which names the neurons.
    detector_config
        A ``detector_config.npz`` whose threshold and refractory period replace those of the bundle.
    recordings
        Names to sort, in place of the rule above.
    truth
        Folder with ``<name>.mat`` that holds ``Index`` and ``Class``: scores and their figures are added.
    key, fs_hz, channel
        Variable that holds the trace, its rate (the bundle's unless given), and the channel of several.
    gain
        Factor from the recordings' unit to that of the labelled recording.
    exports
        Further formats, see :mod:`src.predict.spike_exports`: ``spikeinterface``, ``phy``, ``nwb``.
    """
    require_known(exports or [])
    require_gain(gain)
    conditioning_of(bundle)
    if classifier is None:
        raise BadInput("options.classifier", "is missing", "give the spike_classification bundle that names neurons")
    rate = bundle.signal.fs_hz
    if fs_hz is not None and not np.isclose(fs_hz, rate, rtol=1e-3):
        problem = f"{fs_hz:g} Hz, the bundle was trained at {rate:g} Hz"
        raise BadInput("options.fs_hz", problem, f"resample to {rate:g} Hz")
    config = Path(detector_config) if detector_config else None
    sorter = NetworkSorter.from_bundles(bundle, load_bundle(classifier), config=config, gain=gain)
    paths = find_recordings(Path(source), recordings, list(sorter.decisions))
    output = OutputFolder(Path(output_dir), inputs_of(bundle, source, classifier, truth))
    origin = {"task": bundle.task, "bundle": bundle.record(), "gain": gain}
    settings = Settings(output, key, channel, Path(truth) if truth else None, figures, exports or [], origin)
    return sort_recordings(sorter, paths, settings)


def sort_with_bank(
    source: Path,
    output_dir: Path,
    *,
    labelled: str,
    recordings: list[str] | None = None,
    truth: str | None = None,
    key: str = "d",
    fs_hz: float | None = None,
    channel: int | None = None,
    gain: float | None = None,
    figures: bool = True,
    exports: list[str] | None = None,
) -> Summary:
    """``method=bank``: sort with the neurons of a labelled recording, without training.

    Parameters
    ----------
    labelled
        A file with the trace, ``Index`` and ``Class``. It is left out of a folder that holds it too.
    source, output_dir, recordings, truth, key, fs_hz, channel, figures, exports
        As for :func:`predict`; ``fs_hz`` is 25 000 unless given.
    gain
        Factor from the recordings' unit to that of the labelled recording, negative for the other polarity; found
        from each recording unless given.
    """
    require_known(exports or [])
    require_gain(gain)
    chain = Conditioning(fs_hz=fs_hz or COURSEWORK_HZ)
    known = load_labelled(Path(labelled), chain, key=key)
    sorter = replace(BankSorter.from_labelled(known, chain), gain=gain)
    paths = find_recordings(Path(source), recordings, [])
    if len(paths) > 1:
        paths = [p for p in paths if not p.samefile(labelled)]
    origin = {"method": "bank", "labelled": {"path": str(labelled), "sha256": fingerprint(Path(labelled))}}
    output = OutputFolder(Path(output_dir), tuple(Path(p) for p in (source, labelled, truth) if p))
    settings = Settings(output, key, channel, Path(truth) if truth else None, figures, exports or [], origin)
    return sort_recordings(sorter, paths, settings)


def require_gain(gain: float | None) -> None:
    """Refuse a factor that is no number or nothing."""
    if gain is not None and (not np.isfinite(gain) or gain == 0):
        raise BadInput("options.gain", f"is {gain:g}", "give a factor other than 0, negative for the other polarity")


def sort_recordings(sorter: SpikeSorter, paths: list[Path], settings: Settings) -> Summary:
    """Sort recordings and write everything; a bad one does not stop the others."""
    settings.output.check()
    named = dict(zip(settings.output.names((path.stem, path) for path in paths), paths, strict=True))
    jobs = [Job(name, sort_file, (sorter, path, name, settings)) for name, path in named.items()]
    summary = run_batch(jobs, title="spike sorting")
    done = {o.name: named[o.name].stem for o in summary.outcomes if o.ok}
    if done:
        _zip(settings.output, list(done))
    if settings.truth is not None and done:
        report_scores(done, settings.truth, settings.output, sorter.n_units)
    return summary


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
    chain, fs_hz, root = sorter.conditioning, sorter.conditioning.fs_hz, Path(settings.output.root)
    trace = load_trace(path, fs_hz=fs_hz, key=settings.key, channel=settings.channel)
    found = sorter.sort(trace)
    name, train = settings.output.path(name).name, found.train
    counts = np.bincount(train.unit - 1, minlength=sorter.n_units) if len(train) else np.zeros(sorter.n_units, int)
    bandpassed = chain.linear(trace.centred)
    with settings.output.files() as part:
        write_mat(part / f"{name}.mat", train)
        columns = {"strength": found.strength, "confidence": found.confidence}
        write_csv(part / f"{name}.csv", train, fs_hz, columns)
        record = _record(settings, path, trace, counts, found.facts)
        (part / f"{name}.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        sorted_trace = SortedTrace(name, fs_hz, bandpassed, train, sorter.n_units, path.name)
        made = [written.name for written in export(settings.exports, part, sorted_trace)]
        if settings.figures:
            shown: dict[str, Any] = {"linear": bandpassed, "train": train, "fs_hz": fs_hz, "n_units": sorter.n_units}
            shown["title"] = f"{name}: {len(train)} spikes, {len(train) / (len(bandpassed) / fs_hz):.1f}/s"
            truth = _truth(settings.truth, path.stem, len(bandpassed))
            draw_trace(part / f"{name}_trace.png", raw=trace.centred, truth=truth, **shown)
            draw_waveforms(part / f"{name}_waveforms.png", **shown)
    return [
        f"{name}  {len(train)} spikes ({' '.join(str(int(c)) for c in counts)})  {root / name}.mat",
        *(f"{name}  {note}" for note in (*_notes(trace, train), *found.notes)),
        *(f"{name}  {root / written}" for written in made),
    ]


def _truth(folder: Path | None, name: str, n_samples: int) -> SpikeTrain | None:
    return read_spikes(find_recording(folder, name), n_samples=n_samples, n_units=None) if folder else None


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
