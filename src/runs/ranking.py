"""The table of a sweep: configurations ranked by their validation score over seeds."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from src.reports.tables import markdown_table
from src.runs.folder import EXECUTION_KEYS, RUN_FILE, records
from src.storage.atomic import atomic_file

REPLICATES = ("seed", "fold")
"""Last names of the keys that repeat a configuration instead of changing it: ``seed``, ``split.fold``."""


@dataclass(frozen=True)
class SweepRun:
    """One job of a sweep as its ``run.json`` tells it; ``score`` is ``None`` unless it finished."""

    path: Path
    status: str
    overrides: dict[str, str]
    score: float | None
    record: dict[str, Any]

    @property
    def number(self) -> str:
        return self.path.name


@dataclass(frozen=True)
class Configuration:
    """The jobs that differ in nothing but their seed or their fold of a cross-validation.

    Attributes
    ----------
    parameters
        What was swept, with this configuration's values; seeds and folds are not among them.
    mean, sd
        Of the validation scores of the finished jobs; ``sd`` needs two.
    """

    parameters: dict[str, str]
    jobs: list[SweepRun]
    mean: float | None = None
    sd: float | None = None
    test: dict[str, tuple[float, float | None]] = field(default_factory=dict)

    @property
    def scores(self) -> list[float]:
        return [job.score for job in self.jobs if job.score is not None]

    @property
    def complete(self) -> bool:
        return len(self.scores) == len(self.jobs)


def read_sweep(folder: Path) -> list[SweepRun]:
    """The jobs of a sweep in the order of their numbers.

    A job that was repeated because its recordings changed counts with the recordings it has now.
    """
    newest: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path, record in records(folder, RUN_FILE):
        key = record.get("key", path.name)
        if "config" in record and (key not in newest or record["started"] > newest[key][1]["started"]):
            newest[key] = path, record
    runs = []
    for path, record in newest.values():
        if "config" in record:
            pairs = (override.lstrip("+~").partition("=") for override in record["overrides"])
            overrides = {name: value for name, _, value in pairs if name not in EXECUTION_KEYS}
            score = record["score"] if record["status"] == "finished" else None
            runs.append(SweepRun(path, record["status"], overrides, score, record))
    return sorted(runs, key=lambda run: (len(run.number), run.number))


def rank(runs: Sequence[SweepRun]) -> list[Configuration]:
    """Configurations from best to worst mean score over seeds and folds; incomplete ones come last.

    What "better" means is what the runs themselves maximised or minimised.
    """
    swept = [
        n
        for n in _names(runs)
        if n.rpartition(".")[2] not in REPLICATES and len({run.overrides.get(n) for run in runs}) > 1
    ]
    groups: dict[tuple[str | None, ...], list[SweepRun]] = {}
    for run in runs:
        groups.setdefault(tuple(run.overrides.get(name) for name in swept), []).append(run)
    configurations = []
    for values, jobs in groups.items():
        scores = [job.score for job in jobs if job.score is not None]
        parameters = {name: value or "" for name, value in zip(swept, values, strict=True)}
        mean = statistics.fmean(scores) if scores else None
        sd = statistics.stdev(scores) if len(scores) > 1 else None
        configurations.append(Configuration(parameters, jobs, mean, sd, _test_scores(jobs)))
    sign = -1 if mode(runs) == "max" else 1
    return sorted(
        configurations, key=lambda c: (not c.complete, c.mean is None, math.inf if c.mean is None else sign * c.mean)
    )


def mode(runs: Sequence[SweepRun]) -> str:
    """``"max"`` or ``"min"``: which scores are better."""
    return next((run.record["mode"] for run in runs if "mode" in run.record), "max")


def monitor(runs: Sequence[SweepRun]) -> str:
    """Name of the validation metric that the jobs are ranked by."""
    return next((run.record["monitor"] for run in runs if "monitor" in run.record), "validation score")


def _names(runs: Sequence[SweepRun]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.overrides))


def _test_scores(jobs: Sequence[SweepRun]) -> dict[str, tuple[float, float | None]]:
    """Mean and sd over seeds of what was measured on test data, where it was."""
    columns: dict[str, list[float]] = {}
    for job in jobs:
        for name, value in job.record.get("metrics", {}).items():
            if name.startswith("test/"):
                columns.setdefault(name, []).append(value)
    return {n: (statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else None) for n, v in columns.items()}


def configuration_rows(configurations: Sequence[Configuration], metric: str) -> list[dict[str, Any]]:
    """A row per configuration: rank, swept parameters, mean and sd, seeds, jobs, and test scores where they exist."""
    tested = list(dict.fromkeys(name for c in configurations for name in c.test))
    return [
        {
            "rank": place,
            **c.parameters,
            metric: c.mean,
            "sd": c.sd,
            "finished": len(c.scores),
            "jobs": " ".join(job.number for job in c.jobs),
            **{
                f"{name}{part}": c.test.get(name, (None, None))[i]
                for name in tested
                for i, part in enumerate(("", " sd"))
            },
        }
        for place, c in enumerate(configurations, 1)
    ]


def job_rows(runs: Sequence[SweepRun], metric: str) -> list[dict[str, Any]]:
    """A row per job: number, status, what it was given, its score, epochs, and why it failed."""
    names = [n for n in _names(runs) if len({run.overrides.get(n) for run in runs}) > 1]
    return [
        {
            "job": run.number,
            "status": run.status,
            **{name: run.overrides.get(name, "") for name in names},
            metric: run.score,
            "epochs": run.record.get("epochs"),
            "reason": run.record.get("error", ""),
        }
        for run in runs
    ]


def write_tables(folder: Path) -> list[Configuration]:
    """Write ``sweep.csv`` (configurations), ``jobs.csv`` and ``sweep.md`` (both), and return the ranking."""
    runs = read_sweep(folder)
    ranking, metric = rank(runs), monitor(runs)
    rows, jobs = configuration_rows(ranking, metric), job_rows(runs, metric)
    _write_csv(folder / "sweep.csv", rows)
    _write_csv(folder / "jobs.csv", jobs)
    with atomic_file(folder / "sweep.md") as part:
        part.write_text(_markdown(folder, ranking, jobs, metric, mode(runs)))
    return ranking


def _markdown(
    folder: Path, ranking: Sequence[Configuration], jobs: list[dict[str, Any]], metric: str, better: str
) -> str:
    untested = configuration_rows([replace(c, test={}) for c in ranking], metric)
    linked = [{**row, "job": f"[{row['job']}]({row['job']}/)"} for row in jobs]
    text = (
        f"# Sweep {folder.name}\n\n"
        f"Configurations ranked by {metric} on validation data ({'higher' if better == 'max' else 'lower'} is better), "
        "mean and standard deviation over seeds and folds.\n\n"
        f"{markdown_table([_short(row) for row in untested])}\n"
    )
    if ranking and ranking[0].test:
        tested = [{"metric": name, "mean": mean, "sd": sd} for name, (mean, sd) in ranking[0].test.items()]
        text += (
            "## Test data\n\nMeasured once, for configuration 1 alone; `best` is its best seed on validation data.\n\n"
        )
        text += f"{markdown_table([_short(row) for row in tested])}\n![ranking and learning curves](sweep.png)\n\n"
    return text + f"## Jobs\n\n{markdown_table([_short(row) for row in linked])}"


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


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {name: brief(value) for name, value in row.items()}


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with atomic_file(path) as part, part.open("w", newline="") as handle:
        if rows:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
