"""Sorted recordings whose truth is known: scores beside the baselines', and the figures that show them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from src.models.bundle import Bundle
from src.models.spike_scoring import WEIGHTS, Score, detection, final_score, score
from src.models.spikes.baselines import baselines
from src.models.spikes.decision import Decision
from src.models.spikes.inference import detect
from src.models.spikes.networks import TEMPLATE_ONSET
from src.predict.sorter import Sorter
from src.preprocess.spikes.prepare import Trace, find_recording, load_trace
from src.preprocess.spikes.signature import Choice
from src.recordings.extracellular.spike_trains import SpikeTrain, read_spikes
from src.reports.spikes import draw_confusion, draw_precision_recall, draw_scores
from src.reports.tables import results_table
from src.storage.output import OutputFolder

OURS = "neurolit"
LOWEST = 0.05
COLUMNS = {"f1_50": "F1±50", "f1_10": "F1±10", "class_accuracy": "class", "recall_close": "close", "weighted": "score"}
"""What is printed of a row, and under which name; ``scores.csv`` has all of it."""
Row = dict[str, Any]


def report_scores(
    sorter: Sorter,
    bundle: Bundle,
    paths: Mapping[str, Path],
    truth_dir: Path,
    output: OutputFolder,
    *,
    key: str,
    channel: int | None,
    gain: float | None = None,
    console: Console | None = None,
) -> list[Row]:
    """Score the written predictions of ``paths`` by name, run the bundle's baselines on them, print and write it all.

    Writes ``scores.csv``, ``scores.png``, ``confusion.png`` and ``precision_recall.png`` into ``output``.

    Returns
    -------
    list of dict
        A row per recording and method; the rows of :data:`OURS` come first for each recording.
    """
    rows: list[Row] = []
    tables: dict[str, np.ndarray] = {}
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    chosen: dict[str, tuple[float, float]] = {}
    n_units = sorter.n_units
    for name, path in paths.items():
        trace = load_trace(path, fs_hz=sorter.conditioning.fs_hz, key=key, channel=channel)
        n = len(trace.centred)
        truth = read_spikes(find_recording(truth_dir, path.stem), n_samples=n, n_units=n_units)
        choice = sorter.choose(trace, gain)
        ours = _score(truth, read_spikes(Path(output.root) / f"{name}.mat", n_samples=n, n_units=n_units), n, n_units)
        rows.append(_row(name, OURS, ours))
        rows += [_row(name, m, _score(truth, t, n, n_units)) for m, t in _baselines(sorter, bundle, trace, choice)]
        tables[name] = ours.confusion
        curves[name] = _precision_recall(sorter, trace, choice, truth)
        chosen[name] = (ours.loose.recall, ours.loose.precision)
    with output.files() as part:
        _write_csv(part / "scores.csv", rows)
        draw_scores(part / "scores.png", title="Scores from the cleanest to the noisiest recording", rows=rows)
        draw_confusion(part / "confusion.png", title="Matched spikes: per cent of each true neuron", tables=tables)
        draw_precision_recall(
            part / "precision_recall.png", title="Detection within ±50 samples", curves=curves, chosen=chosen
        )
    _print(rows, console or Console())
    return rows


def _score(truth: SpikeTrain, found: SpikeTrain, n_samples: int, n_units: int) -> Score:
    return score((truth.index, truth.unit), (found.index, found.unit), n_samples, n_units=n_units)


def _row(name: str, method: str, result: Score) -> Row:
    return {"recording": name, "method": method, **result.row()}


def _baselines(sorter: Sorter, bundle: Bundle, trace: Trace, choice: Choice) -> list[tuple[str, SpikeTrain]]:
    network = sorter.detector
    thresholds = bundle.decision["baselines"][sorter.targets[choice.expert]]
    noise = network.noise(choice.expert, trace.fs_hz)
    linear = sorter.conditioning.linear(trace.centred * np.float32(choice.gain))
    found = []
    for method, baseline in baselines(network.templates.double().numpy(), TEMPLATE_ONSET, noise).items():
        baseline.threshold = thresholds[method]
        found.append((method, baseline.sort(linear)))
    return found


def _precision_recall(sorter: Sorter, trace: Trace, choice: Choice, truth: SpikeTrain) -> tuple[np.ndarray, np.ndarray]:
    tuned = sorter.decisions[sorter.targets[choice.expert]]
    scaled = trace.centred * np.float32(choice.gain)
    lowest = Decision(min(LOWEST, tuned.threshold), tuned.refractory)
    found, strength = detect(sorter.detector, sorter.conditioning, scaled, choice.expert, lowest)
    counts = [detection(truth.index, found.index[strength >= t], 50) for t in np.linspace(lowest.threshold, 0.98, 25)]
    kept = [c for c in counts if c.n_found]
    return np.array([c.recall for c in kept]), np.array([c.precision for c in kept])


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})


def _print(rows: Sequence[Row], console: Console) -> None:
    shown = [
        {"": r["recording"], "method": r["method"], "found": r["found"]}
        | {name: r[column] for column, name in COLUMNS.items()}
        for r in rows
    ]
    console.print(results_table(shown, title="scores against the truth"))
    console.print("class: right names of matched spikes; close: recall within 1 ms of another spike", highlight=False)
    for row in rows:
        if row["method"] == OURS:
            chance = f"random {row['chance_random']:.3f}, comb {row['chance_comb']:.3f}"
            console.print(f"{row['recording']}  chance level of F1 within ±50 samples: {chance}", highlight=False)
    for method in dict.fromkeys(r["method"] for r in rows):
        weighted = {r["recording"]: r["weighted"] for r in rows if r["method"] == method}
        if set(weighted) >= set(WEIGHTS):
            console.print(f"final score of D2–D6 (of 1): {final_score(weighted):.3f}  {method}", highlight=False)
