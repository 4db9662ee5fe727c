"""All folds of a cross-validation as one table: ``python -m benchmarks.sleep_folds <folder of a multirun>``."""

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from src.models.bundle import load_bundle
from src.models.metrics import accuracy, cohen_kappa, f1_per_class, macro_f1
from src.reports.tables import ResultsTable, markdown_table
from src.runs.folder import read_record
from src.signals import BadInput
from src.storage.progress import show


def collect(folder: Path) -> list[dict[str, Any]]:
    """A row per fold, their mean and spread, and the scores pooled over every recording.

    Every recording must occur once: folds that overlap are no cross-validation.

    Raises
    ------
    BadInput
        If there are no results, a file of them is damaged, or a recording was tested twice.
    """
    files = [f for f in folder.glob("*/results.json") if not f.parent.is_symlink()]  # ``latest`` is one of the others
    files.sort(key=lambda f: str(read_record(f.parent / "run.json").get("started")))
    if not files:
        raise BadInput(folder, "holds no results.json", "give the folder of a finished multirun over split.fold")
    seen: dict[str, Path] = {}
    rows, total, nights = [], None, []
    for file in files:
        bundle = load_bundle(file.parent / "bundle")
        classes = bundle.classes
        recordings = [row for row in read_record(file)["rows"] if row.get("confusion")]
        for row in recordings:
            if row["recording"] in seen:
                raise BadInput(file, f"tests {row['recording']}, as {seen[row['recording']]} did", "collect one sweep")
            seen[row["recording"]] = file
        counts = np.array([row["confusion"] for row in recordings])
        nights += [cohen_kappa(night) for night in counts]
        total = counts.sum(0) if total is None else total + counts.sum(0)
        tested = recordings[0]["recording"] if len(recordings) == 1 else f"{len(recordings)} nights"
        rows.append({"fold": f"{_number(bundle.split['method'])}, {tested}", **_scores(counts.sum(0), classes)})
    assert total is not None
    numeric = [name for name in rows[0] if name not in ("fold", "epochs")]
    values = np.array([[row[name] for name in numeric] for row in rows])
    spread = np.nanstd(values, 0, ddof=1) if len(rows) > 1 else np.full(len(numeric), np.nan)
    blank = dict.fromkeys(numeric)
    return [
        *rows,
        {"fold": "mean of folds", "epochs": None, **dict(zip(numeric, np.nanmean(values, 0).tolist(), strict=True))},
        {"fold": "sd of folds", "epochs": None, **dict(zip(numeric, spread.tolist(), strict=True))},
        {"fold": f"pooled, {len(seen)} nights", **_scores(total, classes)},
        {"fold": "epochs of a stage", "epochs": None, **blank, **_per_stage(total, classes)},
        {"fold": "mean κ of nights", "epochs": None, **blank, "κ": float(np.nanmean(nights))},
        {"fold": "sd", "epochs": None, **blank, "κ": float(np.nanstd(nights, ddof=1))},
    ]


def _number(method: str) -> str:
    """``fold 2`` of ``fold(2 of 6, val=0.1)`` or ``file(folds.json, fold 2 of 6, val=4)``; another method as it is."""
    match = re.search(r"\bfold[( ](\d+) of ", method)
    return f"fold {match[1]}" if match else method


def _per_stage(confusion: np.ndarray, classes: list[str]) -> dict[str, int]:
    return {name: int(n) for name, n in zip(classes, confusion.sum(1), strict=True)}


def _scores(confusion: np.ndarray, classes: list[str]) -> dict[str, Any]:
    return {
        "epochs": int(confusion.sum()),
        "acc": accuracy(confusion),
        "MF1": macro_f1(confusion),
        "κ": cohen_kappa(confusion),
        **{name: float(f1) for name, f1 in zip(classes, f1_per_class(confusion), strict=True)},
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the table; ``--markdown`` for a page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sleep_folds", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--markdown", action="store_true")
    given = parser.parse_args(arguments)
    try:
        rows = collect(given.folder)
    except BadInput as error:
        print(f"error: {error}")
        return 2
    if given.markdown:
        print(markdown_table(rows))
    else:
        show(Console(), ResultsTable(rows, title=str(given.folder)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
