"""Sorted spikes of recordings nobody labelled: bundles and traces in; MAT, CSV, figures and a ZIP out."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from src.models.bundle import Bundle, inputs_of, load_bundle
from src.predict.sorter import Sorter
from src.predict.spike_exports import SortedTrace, export, require_known
from src.predict.spike_scores import report_scores
from src.preprocess.spikes.prepare import Trace, find_recording, load_trace
from src.preprocess.spikes.signature import UNLIKE, Choice
from src.recordings.extracellular.reader import is_recording
from src.recordings.extracellular.spike_trains import SpikeTrain, read_spikes, write_csv, write_mat
from src.reports.spikes import draw_trace, draw_waveforms
from src.signals import BadInput
from src.storage.batch import Job, Summary, run_batch
from src.storage.output import OutputFolder, distinct_names
from src.storage.step import fingerprint, provenance


def predict(
    bundle: Bundle,
    source: Path,
    output_dir: Path,
    *,
    classifier: str | None = None,
    recordings: list[str] | None = None,
    truth: str | None = None,
    key: str = "d",
    fs_hz: float | None = None,
    channel: int | None = None,
    gain: float | None = None,
    reject: float = 1.0,
    figures: bool = True,
    exports: list[str] | None = None,
) -> Summary:
    """Sort one recording or the recordings of a folder; a bad one does not stop the others.

    Parameters
    ----------
    bundle
        A ``spike_detection`` bundle.
    source
        A ``.mat``, ``.npy`` or HDF5 file, what SpikeInterface reads, or a folder of them. Of a folder
        that holds targets of the bundle, those are sorted; of any other, everything.
    output_dir
        Gets ``<name>.mat`` (``Index`` from 1, ``Class``), ``<name>.csv``, ``<name>.json``, figures, and
        ``submission.zip`` with the MAT files.
    classifier
        A ``spike_classification`` bundle; without one the detector names the neurons.
    recordings
        Names to sort, in place of the rule above.
    truth
        Folder with ``<name>.mat`` that holds ``Index`` and ``Class``: scores and their figures are added.
    key, fs_hz, channel
        Variable that holds the trace, its rate (the bundle's unless given), and the channel of several.
    gain
        Factor to the labelled recording's scale; found from the recording unless given.
    reject
        Spikes that the classifier holds for noise with more than this probability are dropped.
    exports
        Further formats, see :mod:`src.predict.spike_exports`: ``spikeinterface``, ``phy``, ``nwb``.
    """
    require_known(exports or [])
    rate = bundle.signal.fs_hz
    if fs_hz is not None and not np.isclose(fs_hz, rate, rtol=1e-3):
        raise BadInput(
            "options.fs_hz", f"{fs_hz:g} Hz, the bundle was trained at {rate:g} Hz", f"resample to {rate:g} Hz"
        )
    sorter = Sorter.from_bundles(bundle, load_bundle(classifier) if classifier else None)
    paths = _find(Path(source), recordings, sorter.targets)
    settings: dict[str, Any] = {"key": key, "channel": channel, "gain": gain, "reject": reject}
    settings |= {"figures": figures, "truth": truth, "exports": exports or []}
    output = OutputFolder(Path(output_dir), inputs_of(bundle, source, classifier, truth))
    output.check()
    named = dict(zip(distinct_names((path.stem, path) for path in paths), paths, strict=True))
    jobs = [Job(name, sort_file, (sorter, bundle, path, output, name, settings)) for name, path in named.items()]
    summary = run_batch(jobs, title="spike sorting")
    done = {o.name: named[o.name] for o in summary.outcomes if o.ok}
    if done:
        _zip(output, list(done))
    if truth is not None and done:
        report_scores(sorter, bundle, done, Path(truth), output, key=key, channel=channel)
    return summary


def _find(source: Path, recordings: list[str] | None, targets: list[str]) -> list[Path]:
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


def sort_file(
    sorter: Sorter, bundle: Bundle, path: Path, output: OutputFolder, name: str, settings: dict[str, Any]
) -> list[str]:
    """Sort one file and write everything that is made from it; returns lines for the console."""
    fs_hz = sorter.conditioning.fs_hz
    trace = load_trace(path, fs_hz=fs_hz, key=settings["key"], channel=settings["channel"])
    choice = sorter.choose(trace, settings["gain"])
    found = sorter.sort(trace, choice, reject=settings["reject"])
    name, train = output.path(name).name, found.train
    counts = np.bincount(train.unit - 1, minlength=sorter.n_units) if len(train) else np.zeros(sorter.n_units, int)
    linear = sorter.conditioning.linear(trace.centred)
    with output.files() as part:
        write_mat(part / f"{name}.mat", train)
        write_csv(part / f"{name}.csv", train, fs_hz, {"strength": found.strength, "confidence": found.confidence})
        record = _record(sorter, bundle, path, trace, choice, counts)
        (part / f"{name}.json").write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
        sorted_trace = SortedTrace(name, fs_hz, linear, train, sorter.n_units, path.name)
        made = [written.name for written in export(settings["exports"], part, sorted_trace)]
        if settings["figures"]:
            title = f"{name}: {len(train)} spikes, {len(train) / (len(linear) / fs_hz):.1f}/s"
            shown: dict[str, Any] = {"title": title, "linear": linear, "train": train, "fs_hz": fs_hz}
            shown["n_units"] = sorter.n_units
            truth = _truth(settings["truth"], path.stem, len(linear))
            draw_trace(part / f"{name}_trace.png", raw=trace.centred, truth=truth, **shown)
            draw_waveforms(part / f"{name}_waveforms.png", **shown)
    lines = _lines(name, sorter, trace, choice, counts, Path(output.root))
    return lines + [f"{name}  {Path(output.root) / written}" for written in made]


def _truth(folder: str | None, name: str, n_samples: int) -> SpikeTrain | None:
    return read_spikes(find_recording(Path(folder), name), n_samples=n_samples) if folder else None


def _lines(name: str, sorter: Sorter, trace: Trace, choice: Choice, counts: np.ndarray, output_dir: Path) -> list[str]:
    per_unit = " ".join(str(int(c)) for c in counts)
    lines = [
        f"{name}  {int(counts.sum())} spikes ({per_unit}), network for {sorter.targets[choice.expert]}"
        + (f", scaled by {choice.gain:.4g}" if choice.gain != 1 else "")
        + f"  {output_dir / name}.mat"
    ]
    if trace.unusable_share > 0:
        lines.append(
            f"{name}  {trace.unusable_share:.2%} of the samples are NaN or saturated: no spike is reported there"
        )
    if choice.distance > UNLIKE:
        lines.append(
            f"{name}  its background is unlike all that the networks know ({choice.distance:.1f} from the nearest, "
            f"{UNLIKE:g} is far): do not trust this sorting. Is it in the labelled recording's unit (options.gain)? "
            "Else train with it among datamodule.targets"
        )
    if not counts.sum():
        lines.append(f"{name}  no spike was found; Index and Class are empty")
    return lines


def _record(
    sorter: Sorter, bundle: Bundle, source: Path, trace: Trace, choice: Choice, counts: np.ndarray
) -> dict[str, Any]:
    target = sorter.targets[choice.expert]
    return {
        "task": bundle.task,
        "bundle": bundle.record(),
        "recording": {"name": source.name, "sha256": fingerprint(source), "samples": len(trace.centred)},
        "fs_hz": trace.fs_hz,
        "target": target,
        "gain": choice.gain,
        "distance": choice.distance,
        "decision": sorter.decisions[target].to_dict(),
        "spikes": {f"neuron {u + 1}": int(c) for u, c in enumerate(counts)},
        "unusable_share": trace.unusable_share,
        "provenance": provenance(),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _zip(output: OutputFolder, names: list[str]) -> None:
    with output.files() as part, zipfile.ZipFile(part / "submission.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(Path(output.root) / f"{name}.mat", f"{name}.mat")
