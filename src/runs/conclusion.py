"""The end of a sweep: choose a configuration on validation data, test it once, write the table and the figures."""

import csv
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from safetensors.torch import load_file

from src.models.bundle import WEIGHTS, export_bundle, load_bundle
from src.reports.sweeps import SHOWN, draw_ranking, draw_search
from src.reports.tables import ResultsTable
from src.runs.assemble import adopt_checkpoint, assemble, make_trainer, quiet_trainer
from src.runs.folder import RUN_FILE, SWEEP_FILE, data_identity, now, read_record, replace_link, write_record
from src.runs.ranking import Configuration, SweepRun, brief, mode, monitor, read_sweep, write_tables
from src.runs.targets import check_targets
from src.signals import BadInput
from src.storage.progress import say, show


def finalize_sweep(folder: Path, console: Console) -> int:
    """Rank the jobs in ``folder``, test the best configuration, draw; returns how many jobs did not finish."""
    quiet_trainer()
    ranking, runs = write_tables(folder), read_sweep(folder)
    failures = [run for run in runs if run.score is None]
    chosen = ranking[0] if ranking and ranking[0].scores else None
    best = None
    if chosen is not None:
        finished = [job for job in chosen.jobs if job.score is not None]
        for job in finished:
            if not any(name.startswith("test/") for name in job.record["metrics"]):
                say(console, f"testing job {job.number}, of the configuration that validation chose")
                test_run(job.path)
        best = (max if mode(runs) == "max" else min)(finished, key=lambda job: job.score or 0.0)
        replace_link(folder / "best", f"{best.path.name}/bundle")
        ranking, runs = write_tables(folder), read_sweep(folder)
        _draw(folder, ranking, runs)
    facts = {
        "status": "incomplete" if failures else "finished",
        "finished": now(),
        "monitor": monitor(runs),
        "mode": mode(runs),
        "chosen": chosen.parameters if chosen else None,
        "best": best.number if best else None,
    }
    write_record(folder / SWEEP_FILE, read_record(folder / SWEEP_FILE) | facts)
    _report(folder, ranking, runs, console)
    return len(failures)


def test_run(path: Path) -> None:
    """Test a finished run's best checkpoint, and add the scores to its records and its bundle."""
    record = read_record(path / RUN_FILE)
    cfg = DictConfig(record["config"])
    check_targets(cfg)
    datamodule, model = assemble(cfg)
    if record.get("data") not in (None, data_identity(datamodule)):
        raise BadInput(path, "was trained on other recordings than there are now", "put them back, then test it")
    adopt_checkpoint(model, path / "checkpoints" / "best.ckpt")
    cfg.trainer["enable_progress_bar"] = False
    make_trainer(cfg, folder=path, monitor=model.monitor, loggers=[]).test(model, datamodule, verbose=False)
    metrics: dict[str, float] = {**record["metrics"], **model.test_metrics()}
    bundle = load_bundle(path)
    assert bundle.folder is not None
    export_bundle(path / "bundle", replace(bundle, metrics=metrics), load_file(bundle.folder / WEIGHTS))
    write_record(path / "results.json", {"metrics": metrics, "rows": model.results()})
    write_record(path / RUN_FILE, {**record, "metrics": metrics})


def _draw(folder: Path, ranking: list[Configuration], runs: list[SweepRun]) -> None:
    metric = monitor(runs)
    places = {job.number: place for place, c in enumerate(ranking) for job in c.jobs}
    labels = [" ".join(f"{name}={value}" for name, value in _parameters(c).items()) or "all" for c in ranking]
    curves = [(places[run.number], curve) for run in runs if (curve := learning_curve(run.path, metric))]
    draw_ranking(folder / "sweep.png", metric=metric, labels=labels, scores=[c.scores for c in ranking], curves=curves)
    scored = [c for c in ranking if c.scores]
    if len(ranking[0].parameters) < 2 or len(scored) < 4:
        return
    importances: dict[str, float] = {}
    if (folder / "study.db").is_file():
        from src.runs import search  # Optuna is loaded for searches alone

        importances = search.importances(f"sqlite:///{folder}/study.db")
    draw_search(
        folder / "search.png",
        metric=metric,
        better=mode(runs),
        history=[run.score for run in runs],
        parameters={name: [c.parameters[name] for c in scored] for name in ranking[0].parameters},
        scores=[c.mean for c in scored if c.mean is not None],
        importances=importances,
    )


def learning_curve(path: Path, metric: str) -> list[float]:
    """The values of ``metric`` in a run's ``metrics.csv``, in the order of its epochs."""
    if not (path / "metrics.csv").is_file():
        return []
    with (path / "metrics.csv").open(newline="") as handle:
        return [float(row[metric]) for row in csv.DictReader(handle) if row.get(metric)]


def _report(folder: Path, ranking: list[Configuration], runs: list[SweepRun], console: Console) -> None:
    shown = [
        {"rank": place, monitor(runs): brief(c.mean), "sd": brief(c.sd), **_parameters(c)}
        for place, c in enumerate(ranking[:SHOWN], 1)
    ]
    if shown:
        show(console, ResultsTable(shown, title="sweep"))
    if len(ranking) > SHOWN:
        say(console, f"and {len(ranking) - SHOWN} more in sweep.md")
    for run in (run for run in runs if run.score is None):
        say(console, str(run.record.get("error", run.status)), label=f"job {run.number} did not finish:", style="red")
    if ranking and ranking[0].test:
        tests = [
            f"{name.removeprefix('test/')} {brief(mean)}{f' ± {brief(sd)}' if sd else ''}"
            for name, (mean, sd) in ranking[0].test.items()
        ]
        say(console, "held-out test data, chosen configuration: " + ", ".join(tests))
    best = f"\nbest    {folder}/best" if ranking and ranking[0].scores else ""
    say(console, f"sweep   {folder}/sweep.md{best}")


def _parameters(configuration: Configuration) -> dict[str, str]:
    """What was swept, by the last part of its name unless two parameters share it."""
    last = [name.rpartition(".")[2] for name in configuration.parameters]
    return {
        short if last.count(short) == 1 else name: brief(value)
        for (name, value), short in zip(configuration.parameters.items(), last, strict=True)
    }
