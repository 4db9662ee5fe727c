"""All folds of a cross-validation as one table: ``python -m src.reports.sleep_folds <folder of a multirun>``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from src.models.metrics import accuracy, cohen_kappa, f1_per_class, macro_f1
from src.reports.tables import markdown_table, results_table
from src.signals import BadInput


def collect(folder: Path) -> list[dict[str, Any]]:
    """A row per fold, their mean and spread, and the scores pooled over every recording.

    Every recording must occur once: folds that overlap are no cross-validation.

    Raises
    ------
    BadInput
        If there are no results, or a recording was tested twice.
    """
    files = sorted(
        folder.glob("*/results.json"), key=lambda f: json.loads((f.parent / "run.json").read_text())["started"]
    )
    if not files:
        raise BadInput(folder, "holds no results.json", "give the folder of a finished multirun over split.fold")
    seen: dict[str, Path] = {}
    rows, total, nights = [], None, []
    for file in files:
        bundle = json.loads((file.parent / "bundle" / "bundle.json").read_text())
        classes = bundle["classes"]
        recordings = [row for row in json.loads(file.read_text())["rows"] if row.get("confusion")]
        for row in recordings:
            if row["recording"] in seen:
                raise BadInput(file, f"tests {row['recording']}, as {seen[row['recording']]} did", "collect one sweep")
            seen[row["recording"]] = file
        counts = np.array([row["confusion"] for row in recordings])
        nights += [cohen_kappa(night) for night in counts]
        total = counts.sum(0) if total is None else total + counts.sum(0)
        rows.append({"fold": bundle["split"]["method"], **_scores(counts.sum(0), classes)})
    assert total is not None
    numeric = [name for name in rows[0] if name not in ("fold", "epochs")]
    values = np.array([[row[name] for name in numeric] for row in rows])
    spread = values.std(0, ddof=1) if len(rows) > 1 else np.full(len(numeric), np.nan)
    totals = "  ".join(f"{name} {int(n)}" for name, n in zip(classes, total.sum(1), strict=True))
    return [
        *rows,
        {"fold": "mean of folds", "epochs": None, **dict(zip(numeric, values.mean(0).tolist(), strict=True))},
        {"fold": "sd of folds", "epochs": None, **dict(zip(numeric, spread.tolist(), strict=True))},
        {"fold": f"pooled, {len(seen)} nights ({totals})", **_scores(total, classes)},
        {
            "fold": "nights, mean κ",
            "epochs": None,
            **dict.fromkeys(numeric),
            "κ": float(np.nanmean(nights)),
        },
        {"fold": "nights, sd of κ", "epochs": None, **dict.fromkeys(numeric), "κ": float(np.nanstd(nights, ddof=1))},
    ]


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
    parser = argparse.ArgumentParser(prog="python -m src.reports.sleep_folds", description=__doc__)
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
        Console().print(results_table(rows, title=str(given.folder)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
