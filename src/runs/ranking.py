"""The table of a sweep: configurations ranked by their validation score over seeds."""

import csv
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.reports.tables import markdown_table
from src.runs.folder import EXECUTION_KEYS, RUN_FILE, records
from src.storage.atomic import atomic_file

REPLICATES = ("seed", "fold")
"""Last names of the keys that repeat a configuration instead of changing it: ``seed``, ``split.fold``."""


@dataclass(frozen=True)
class SweepRun:
    """One job of a sweep, as its ``run.json`` describes it; ``score`` is ``None`` unless it finished."""

    path: Path
    record: dict[str, Any]

    @property
    def number(self) -> str:
        return self.path.name

    @property
    def status(self) -> str:
        return str(self.record["status"])

    @property
    def score(self) -> float | None:
        return self.record["score"] if self.status == "finished" else None

    @property
    def overrides(self) -> dict[str, str]:
        pairs = (override.lstrip("+~").partition("=") for override in self.record["overrides"])
        return {name: value for name, _, value in pairs if name not in EXECUTION_KEYS}


@dataclass(frozen=True)
class Configuration:
    """The jobs that differ only in their seed or their fold of a cross-validation.

    Attributes
    ----------
    parameters
        What was swept, and the values of these jobs.
    scores, mean, sd
        Validation scores of the finished jobs; ``None`` where there are too few.
    test
        Mean and sd of each score that was measured on test data.
    """

    parameters: dict[str, str]
    jobs: list[SweepRun]
    scores: list[float]
    mean: float | None
    sd: float | None
    test: dict[str, tuple[float | None, float | None]]


def mean_and_sd(values: Sequence[float]) -> tuple[float | None, float | None]:
    """``None`` where there are too few values."""
    return statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None


def read_sweep(folder: Path) -> list[SweepRun]:
    """The jobs of a sweep in the order of their numbers.

    A job that was repeated because its recordings changed counts with the recordings it has now.
    """
    newest: dict[str, SweepRun] = {}
    for path, record in records(folder, RUN_FILE):
        key = record.get("key", path.name)
        if "config" in record and (key not in newest or record["started"] > newest[key].record["started"]):
            newest[key] = SweepRun(path, record)
    return sorted(newest.values(), key=lambda run: (len(run.number), run.number))


def rank(runs: Sequence[SweepRun]) -> list[Configuration]:
    """Configurations from best to worst mean score over seeds and folds; incomplete ones come last.

    What "better" means is what the runs themselves maximised or minimised.
    """
    swept = [name for name in _varied(runs) if name.rpartition(".")[2] not in REPLICATES]
    groups: dict[tuple[str, ...], list[SweepRun]] = {}
    for run in runs:
        groups.setdefault(tuple(run.overrides.get(name, "") for name in swept), []).append(run)
    made = []
    for values, jobs in groups.items():
        scores, tested = [job.score for job in jobs if job.score is not None], dict[str, list[float]]()
        for name, value in (pair for job in jobs for pair in job.record.get("metrics", {}).items()):
            if name.startswith("test/") and name != "test/n":  # a number of epochs has no spread
                tested.setdefault(name, []).append(value)
        test = {name: mean_and_sd(values) for name, values in tested.items()}
        made.append(Configuration(dict(zip(swept, values, strict=True)), jobs, scores, *mean_and_sd(scores), test))
    sign = -1 if mode(runs) == "max" else 1
    return sorted(made, key=lambda c: (len(c.scores) < len(c.jobs), math.inf if c.mean is None else sign * c.mean))


def mode(runs: Sequence[SweepRun]) -> str:
    """``"max"`` or ``"min"``: which scores are better."""
    return next((run.record["mode"] for run in runs if "mode" in run.record), "max")


def monitor(runs: Sequence[SweepRun]) -> str:
    """Name of the validation metric that the jobs are ranked by."""
    return next((run.record["monitor"] for run in runs if "monitor" in run.record), "validation score")


def _varied(runs: Sequence[SweepRun]) -> list[str]:
    """The keys that do not have the same value in every job."""
    names = dict.fromkeys(name for run in runs for name in run.overrides)
    return [name for name in names if len({run.overrides.get(name) for run in runs}) > 1]


def job_rows(runs: Sequence[SweepRun]) -> list[dict[str, Any]]:
    """A row per job: number, status, what it was given, its score, epochs, and why it failed."""
    return [
        {
            "job": run.number,
            "status": run.status,
            **{name: run.overrides.get(name, "") for name in _varied(runs)},
            monitor(runs): run.score,
            "epochs": run.record.get("epochs"),
            "reason": run.record.get("error", ""),
        }
        for run in runs
    ]


def write_tables(folder: Path) -> list[Configuration]:
    """Write ``sweep.csv`` (configurations), ``jobs.csv`` and ``sweep.md`` (both), and return the ranking."""
    runs = read_sweep(folder)
    ranking, metric = rank(runs), monitor(runs)
    rows: list[dict[str, Any]] = [
        {"rank": place, **c.parameters, metric: c.mean, "sd": c.sd}
        | {"finished": len(c.scores), "jobs": " ".join(job.number for job in c.jobs)}
        for place, c in enumerate(ranking, 1)
    ]
    tested = dict.fromkeys(name for c in ranking for name in c.test)
    with_tests = [
        row | {f"{n}{part}": c.test.get(n, (None, None))[i] for n in tested for i, part in enumerate(("", " sd"))}
        for row, c in zip(rows, ranking, strict=True)
    ]
    for name, table in (("sweep.csv", with_tests), ("jobs.csv", job_rows(runs))):
        with atomic_file(folder / name) as part, part.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(table[0]) if table else [])
            writer.writeheader()
            writer.writerows(table)
    with atomic_file(folder / "sweep.md") as part:
        part.write_text(_markdown(folder, rows, runs, ranking[0].test if ranking else {}))
    return ranking


def _markdown(
    folder: Path,
    rows: list[dict[str, Any]],
    runs: list[SweepRun],
    test: dict[str, tuple[float | None, float | None]],
) -> str:
    better = "higher" if mode(runs) == "max" else "lower"
    text = (
        f"# Sweep {folder.name}\n\n"
        f"Configurations ranked by {monitor(runs)} on validation data ({better} is better), "
        f"mean and standard deviation over seeds and folds.\n\n{_brief_table(rows)}\n"
    )
    if test:
        text += (
            "## Test data\n\nMeasured once, for configuration 1 alone; `best` is its best seed on validation data.\n\n"
        )
        tested = [{"metric": name, "mean": mean, "sd": sd} for name, (mean, sd) in test.items()]
        text += f"{_brief_table(tested)}\n![ranking and learning curves](sweep.png)\n\n"
    linked = [{**row, "job": f"[{row['job']}]({row['job']}/)"} for row in job_rows(runs)]
    return f"{text}## Jobs\n\n{_brief_table(linked)}"


def brief(value: Any) -> Any:
    """``value`` as a reader wants it: four digits of a drawn parameter or a score, a count in full."""
    if isinstance(value, str):
        try:
            return f"{float(value):.4g}" if len(value) > 6 and "." in value else value
        except ValueError:
            return value
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) > 1 else f"{value:.4f}"
    return value


def _brief_table(rows: list[dict[str, Any]]) -> str:
    return markdown_table([{name: brief(value) for name, value in row.items()} for row in rows])
