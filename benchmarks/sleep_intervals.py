"""How often the intervals of a night's statistics hold the value of a person's scoring, on held-back nights.

python -m benchmarks.sleep_intervals [folder of the 84 Sleep-EDF nights as band powers] [--work artifacts/sleep_human]

Six folds over subjects: a night is scored by a network that has seen no night of its subject, and the margins of its
intervals are measured on the nights of the other folds. The networks of ``python -m pretrained.make_sleep_human`` are
taken from ``--work``, or trained. Stated: 0.90. Prints a row per statistic: nights that have it, coverage and median
width without and with the margins.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pretrained.make_sleep_human import WORK, held_back_intervals, interval_margins, score_folds
from src.predict.sleep_statistics import LABELS, Interval
from src.reports.tables import markdown_table
from src.signals import HUMAN_STAGES

COUNTED = ("trt_min", "unscored_min")
"""Statistics that nothing has to be guessed for."""
NAMES = [name for name in LABELS if name not in COUNTED] + [
    f"{kind}_{stage}" for kind in ("min", "percent", "latency_min") for stage in HUMAN_STAGES
]


def coverage(
    intervals: Sequence[Mapping[str, Interval]], truths: Sequence[Mapping[str, float | None]], name: str
) -> tuple[int, float, float]:
    """Nights that have a statistic, the share of them whose true value lies inside, and the median width."""
    pairs = [(i[name], t[name]) for i, t in zip(intervals, truths, strict=True)]
    rows = np.array([(*low_high, true) for low_high, true in pairs if low_high is not None and true is not None])
    low, high, true = rows.T
    inside = (true >= low - 1e-9) & (true <= high + 1e-9)
    return len(rows), float(inside.mean()), float(np.median(high - low))


def widened(intervals: Mapping[str, Interval], margins: Mapping[str, tuple[float, float]]) -> dict[str, Interval]:
    found: dict[str, Interval] = {}
    for name, interval in intervals.items():
        below, above = margins.get(name, (0.0, 0.0))
        found[name] = interval and (max(0.0, interval[0] - below), interval[1] + above)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/data/sleep_edfx_bandpower"))
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    folds = held_back_intervals([fold["whole nights"] for fold in score_folds(given.folder, given.work, given.jobs)])
    plain, wide, truths = [], [], []
    for fold, nights in enumerate(folds):
        others = [pair for k, pairs in enumerate(folds) if k != fold for pair in pairs]
        margins = interval_margins(*zip(*others, strict=True))
        for intervals, truth in nights:
            plain.append(intervals)
            wide.append(widened(intervals, margins))
            truths.append(truth)
    rows: list[dict[str, Any]] = []
    for name in NAMES:
        if name not in truths[0]:
            continue
        count, before, narrow = coverage(plain, truths, name)
        _, after, width = coverage(wide, truths, name)
        rows.append(
            {
                "statistic": name,
                "nights": count,
                "without": before,
                "width ": narrow,
                "coverage": after,
                "width": width,
            }
        )
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
