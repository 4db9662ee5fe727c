"""What logistic regression reaches on the folds of ``experiment=sleep_context_bandpower``: the line to beat.

python -m benchmarks.sleep_baselines [--root <folder of the nights>] [--cache artifacts]

Reads the same nights, folds and views as the experiment, epoch by epoch; classes weigh by the root of their inverse
frequency. Needs scikit-learn, which librosa brings along. Prints a row per fold and the pooled scores.
"""

import argparse
from typing import Any

import numpy as np
from hydra import compose, initialize
from rich.console import Console
from sklearn.linear_model import LogisticRegression

from src import schema
from src.datamodules.sleep_sequences import SleepSequenceData
from src.models.metrics import scores
from src.reports.tables import ResultsTable
from src.runs.assemble import prepared_data
from src.storage.progress import show


def epochs_of(nights: Any, mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardised rows and stages of the scored epochs."""
    levels = np.concatenate([night.levels.numpy()[..., 0] for night in nights.nights]).astype(np.float32)
    stages = nights.stages.numpy()
    known = (stages >= 0) & np.isfinite(levels).all(axis=(1, 2))
    rows = ((levels - mean) / std).clip(-6, 6).reshape(len(levels), -1)
    return rows[known], stages[known]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", default="artifacts")
    parser.add_argument("--root", default="../shared/data/sleep_edfx_bandpower")
    given = parser.parse_args()
    schema.register()
    rows: list[dict[str, Any]] = []
    total = np.zeros((5, 5), int)
    for fold in range(6):
        with initialize("../conf", version_base="1.3"):
            config = compose(
                "train",
                [
                    "experiment=sleep_context_bandpower",
                    f"split.fold={fold}",
                    f"cache_dir={given.cache}",
                    f"source.root={given.root}",
                    "datamodule.augment.spans=null",  # the views are those of the whole night
                ],
            )
        data: SleepSequenceData = prepared_data(config)
        mean, std = (data.statistics()[name] for name in ("mean_db", "std_db"))
        x, y = epochs_of(data.datasets["train"], mean, std)
        weights = np.bincount(y) ** -0.5
        model = LogisticRegression(C=1.0, solver="newton-cholesky").fit(
            x, y, sample_weight=weights[y] / weights[y].mean()
        )
        x, y = epochs_of(data.datasets["test"], mean, std)
        counts = np.zeros((5, 5), int)
        np.add.at(counts, (y, model.predict(x)), 1)
        total = total + counts
        rows.append({"fold": str(fold), **scores(counts, list(data.classes)), "n": int(counts.sum())})
    rows.append({"fold": "pooled", **scores(total, list(data.classes)), "n": int(total.sum())})
    show(Console(), ResultsTable(rows, title="logistic regression, unseen subjects"))


if __name__ == "__main__":
    main()
