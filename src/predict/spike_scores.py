"""Sorted recordings whose truth is known: scores, chance levels, and the figures that show them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from src.models.spikes.scores import WEIGHTS, Tolerances, detection, final_score, score
from src.predict.spike_quality import write_rows
from src.preprocess.spikes.trace import find_recording
from src.recordings.extracellular.spike_trains import SpikeTrain, read_spikes
from src.reports.media import draw_confusion
from src.reports.spikes import draw_precision_recall, draw_scores
from src.reports.tables import ResultsTable
from src.storage.output import OutputFolder
from src.storage.progress import show

COLUMNS = {
    "found": "found",
    "f1_loose": "F1±{loose_ms:g} ms",
    "f1_strict": "F1±{strict_ms:g} ms",
    "class_accuracy": "class",
    "recall_close": "close",
    "weighted": "score",
}
"""What is printed of a row, and under which name; ``scores.csv`` has all of it."""
Row = dict[str, Any]


def report_scores(
    names: Mapping[str, str], truth_dir: Path, output: OutputFolder, n_units: int, console: Console | None = None
) -> list[Row]:
    """Score predictions that are in ``output``, by the name of their truth, print the scores and draw them.

    Writes ``scores.csv``, ``scores.png``, ``confusion.png`` and ``precision_recall.png`` beside the predictions.

    Returns
    -------
    list of dict
        A row per recording.
    """
    rows: list[Row] = []
    tables: dict[str, np.ndarray] = {}
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    tolerances = Tolerances()
    root = Path(output.root)
    for name, recording in names.items():
        record = json.loads((root / f"{name}.json").read_text())
        n_samples, fs_hz = int(record["recording"]["samples"]), float(record["fs_hz"])
        truth = read_spikes(find_recording(truth_dir, recording), n_samples=n_samples, n_units=None)
        found = read_spikes(root / f"{name}.mat", n_samples=n_samples, n_units=None)
        units = max(n_units, int(truth.unit.max(initial=1)))
        result = score((truth.index, truth.unit), (found.index, found.unit), n_samples, fs_hz=fs_hz, n_units=units)
        rows.append({"recording": name, "method": str(record.get("method", "networks")), **result.row()})
        tables[name] = result.confusion
        within, *_ = tolerances.samples(fs_hz)
        with (root / f"{name}.csv").open() as handle:
            strength = np.array([float(row["strength"]) for row in csv.DictReader(handle)])
        curves[name] = _precision_recall(truth, found, strength, within)
    chosen = {name: (float(recall[0]), float(precision[0])) for name, (recall, precision) in curves.items()}
    with output.files() as part:
        write_rows(part / "scores.csv", rows)
        title = "Scores from the cleanest to the noisiest recording"
        draw_scores(part / "scores.png", title=title, rows=rows, loose_ms=tolerances.loose_ms)
        draw_confusion(
            part / "confusion.png",
            tables=tables,
            title="Matched spikes: per cent of each true neuron",
            axis_names=("true neuron", "found as neuron"),
        )
        draw_precision_recall(
            part / "precision_recall.png",
            title=f"Precision and recall of detection within ±{tolerances.loose_ms:g} ms",
            curves=curves,
            chosen=chosen,
        )
    _print(rows, console or Console(), tolerances)
    return rows


def _precision_recall(
    truth: SpikeTrain, found: SpikeTrain, strength: np.ndarray, within: int
) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision when only spikes of at least some strength are kept, from all of them to a tenth."""
    if len(found) == 0:
        return np.zeros(1), np.zeros(1)
    limits = np.quantile(strength, np.linspace(0, 0.9, 25))
    counts = [detection(truth.index, found.index[strength >= limit], within) for limit in limits]
    return np.array([c.recall for c in counts]), np.array([c.precision for c in counts])


def _print(rows: Sequence[Row], console: Console, tolerances: Tolerances) -> None:
    titles = {column: title.format(**tolerances.__dict__) for column, title in COLUMNS.items()}
    shown = [{"": r["recording"]} | {title: r[column] for column, title in titles.items()} for r in rows]
    show(console, ResultsTable(shown, title="scores against the truth"))
    explanation = f"class: right names of matched spikes; close: recall within {tolerances.close_ms:g} ms of another"
    console.print(explanation, highlight=False)
    for row in rows:
        chance = f"random {row['chance_random']:.3f}, comb {row['chance_comb']:.3f}"
        line = f"{row['recording']}  chance level of F1 within ±{tolerances.loose_ms:g} ms: {chance}"
        console.print(line, highlight=False, markup=False)
    weighted = {r["recording"]: r["weighted"] for r in rows}
    if set(weighted) >= set(WEIGHTS):
        console.print(f"final score of D2–D6 (of 1): {final_score(weighted):.3f}", highlight=False)
