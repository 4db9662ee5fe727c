"""``preprocess=cascade_grid`` and ``preprocess=cascade_coo``: folders of recordings to folders of grids."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from src.preprocess.calcium import expected_spikes as spikes
from src.preprocess.calcium.grid_metadata import COMBINED_FILE, write_combined
from src.preprocess.calcium.memory import PeakMemory
from src.preprocess.calcium.subject_grids import CASCADE_COO, CASCADE_GRID, EXPECTED
from src.recordings.calcium.recording import find_subjects, subject_files
from src.signals import BadInput
from src.storage.batch import Job, Outcome, Summary, run_batch, selected
from src.storage.output import OutputFolder
from src.storage.step import ensure, folder_lock, read_artifact

_CHOICES = {
    "grid_format": ("dense", "coo"),
    "baseline": ("auto", "divide", "subtract", "none"),
    "sampling": ("bernoulli", "poisson"),
    "engine": ("dense", "neuralib", "oasis"),
    "align": ("upstream", "centered"),
    "threshold": (0, 1, None),
}
EMBEDDED = "embedded"
"""Name of the small model that is trained here, on simulated cells, where no other can be had."""

_ENGINE_WINDOW = 64
"""Frames assumed to bear on one output of an engine that does not state its window (OASIS)."""


@dataclass(frozen=True)
class GridSettings:
    """All settings of a run; ``conf/preprocess/cascade_grid.yaml`` explains them."""

    grid_format: str
    cache_dir: Path
    models_dir: Path
    seed: int
    num_neurons: int
    batch_size: int
    split_ratio: float
    split_block_frames: int
    split_guard_frames: int | None
    cascade_model: str
    engine: str
    threshold: int | None
    align: str
    fs_hz: float | None
    baseline: str
    baseline_window_s: float
    baseline_percentile: float
    dff_scale: float
    sampling: str
    z_markers: bool

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                given = ", ".join("null" if c is None else str(c) for c in choices)
                raise BadInput(name, f"is {getattr(self, name)!r}", f"give one of {given}")
        at_least = {"num_neurons": 0, "batch_size": 1, "split_block_frames": 1, "split_guard_frames": 0}
        for name, least in at_least.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise BadInput(name, f"is {value}", f"give {least} or more")
        if not 0 < self.split_ratio < 1:
            raise BadInput("split_ratio", f"is {self.split_ratio}", "give the training share, such as 0.95")
        if not 0 <= self.baseline_percentile <= 100:
            raise BadInput("baseline_percentile", f"is {self.baseline_percentile}", "give 0 to 100")
        for name in ("baseline_window_s", "dff_scale"):
            if not getattr(self, name) > 0:
                raise BadInput(name, f"is {getattr(self, name)}", "give a positive number")


def run(
    grid_format: str,
    input_dir: str,
    output_dir: str,
    cache_dir: str,
    models_dir: str,
    workers: int,
    seed: int,
    skip: list[str],
    num_neurons: int,
    batch_size: int,
    split_ratio: float,
    split_block_frames: int,
    split_guard_frames: int | None,
    cascade_model: str,
    engine: str,
    threshold: int | None,
    align: str,
    fs_hz: float | None,
    baseline: str,
    baseline_window_s: float,
    baseline_percentile: float,
    dff_scale: float,
    sampling: str,
    z_markers: bool,
) -> GridSummary:
    """Process every subject of ``input_dir`` into ``output_dir``; see ``docs/calcium.md``.

    Raises
    ------
    BadInput
        For settings that make no sense, a model that cannot be had, no subjects, or an output folder
        that another run is writing. What is wrong with one subject is in the summary instead.
    """
    settings = GridSettings(
        grid_format, Path(cache_dir), Path(models_dir), seed, num_neurons, batch_size, split_ratio, split_block_frames,
        split_guard_frames, cascade_model, engine, threshold, align, fs_hz, baseline, baseline_window_s,
        baseline_percentile, dff_scale, sampling, z_markers,
    )  # fmt: skip
    subjects = find_subjects(Path(input_dir), skip)
    target = Path(output_dir)
    output = OutputFolder(target, (Path(input_dir),))
    # Jobs of a cluster share the folder: each locks its subjects alone, and waits for its turn at the common file.
    with folder_lock(target, wait=False) if selected().everything else nullcontext():
        package = _package(settings)
        inside = max(workers // len(subjects), 1)
        jobs = [Job(s.name, process_subject, (s, output, settings, package, inside)) for s in subjects]
        summary = run_batch(jobs, title=f"{input_dir} → {target}", workers=workers)
        outcomes = list(summary.outcomes)
        try:
            totals = write_combined(output, _finished(target, settings, summary), settings.grid_format == "coo")
        except BadInput as error:
            totals = {}
            outcomes.append(Outcome(COMBINED_FILE, reason=str(error)))
    return GridSummary(summary.title, tuple(outcomes), tuple(totals.items()), tuple(sorted(set(skip))))


@dataclass(frozen=True)
class SubjectResult:
    """What is reported of one finished subject."""

    facts: dict[str, Any]
    cells: dict[str, Any]
    fs_hz: float
    inferred: bool
    gridded: bool
    inference_s: float
    gridding_s: float
    inference_mb: float
    gridding_mb: float


def process_subject(
    folder: Path, output: OutputFolder, settings: GridSettings, package: Path | None, workers: int
) -> SubjectResult:
    """One subject, in whatever process: expected spikes from the cache or anew, then grids and figures."""
    target = output.path(folder.name)
    files = subject_files(folder)
    memory, clock = PeakMemory(), time.monotonic()
    with _reported(folder.name) as report:
        stage = spikes.with_resources(workers, settings.batch_size, report)
        inputs = files | ({spikes.MODEL: package} if package else {})
        params = _inference_params(folder.name, settings, package)
        expected = ensure(stage, inputs, params, label=folder.name, cache=settings.cache_dir)
    inference_s, inference_mb = time.monotonic() - clock, memory.megabytes()
    memory, clock = PeakMemory(), time.monotonic()
    facts = expected.manifest["facts"]
    grids = ensure(
        CASCADE_COO if settings.grid_format == "coo" else CASCADE_GRID,
        files | {EXPECTED: expected.path / spikes.SPIKES_FILE},
        _grid_params(folder.name, settings, facts, params),
        label=folder.name,
        target=target,
        seed=settings.seed,
        wait=False,
    )
    return SubjectResult(
        grids.manifest["facts"],
        facts["cells"],
        facts["fs_hz"],
        not expected.reused,
        not grids.reused,
        inference_s,
        time.monotonic() - clock,
        inference_mb,
        memory.megabytes(),
    )


def _inference_params(subject: str, settings: GridSettings, package: Path | None) -> dict[str, Any]:
    names = (
        "engine",
        "threshold",
        "align",
        "fs_hz",
        "baseline",
        "baseline_window_s",
        "baseline_percentile",
        "dff_scale",
    )
    model = package.name if package else settings.cascade_model
    return {"subject": subject, "model": model} | {name: getattr(settings, name) for name in names}


def _grid_params(subject: str, settings: GridSettings, facts: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    names = ("sampling", "z_markers", "split_ratio", "split_block_frames", "num_neurons")
    guard = settings.split_guard_frames
    if guard is None:
        # Two frames share no sample of the recording if they are farther apart than all windows together.
        guard = facts["engine"].get("windowsize", _ENGINE_WINDOW) - 1 + facts["baseline"]["window_frames"]
    upstream = {name: facts[name] for name in ("engine", "baseline", "fs_hz", "notes")} | {"params": params}
    plain = {name: getattr(settings, name) for name in names}
    return plain | {"subject": subject, "split_guard_frames": guard, "upstream": upstream}


def _package(settings: GridSettings) -> Path | None:
    """Folder of the model package, fetched or trained if need be; None for an engine without one."""
    if settings.engine == "oasis":
        return None
    if settings.cascade_model == EMBEDDED:
        # In a process of its own: TensorFlow stays out of the one that only hands out work.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return settings.models_dir / pool.submit(_embedded, settings.models_dir).result()
    from src.preprocess.cascade.download import fetch_package

    return Path(fetch_package(settings.cascade_model, settings.models_dir))


def _embedded(models_dir: Path) -> str:
    from src.preprocess.cascade.embedded import EMBEDDED_NAME, embedded_package

    if not (models_dir / EMBEDDED_NAME).exists():
        print(f"training {EMBEDDED_NAME} on simulated cells, once, in under two minutes", file=sys.stderr, flush=True)
    spikes.start_tensorflow()
    return embedded_package(models_dir)


def _finished(target: Path, settings: GridSettings, summary: Summary) -> list[str]:
    """Subjects with whole results in ``target``, also from earlier runs, without those that failed now."""
    failed = {outcome.name for outcome in summary.failures}
    names = sorted(p.name for p in target.glob("subject_*") if p.is_dir() and p.name not in failed)
    stage = (CASCADE_COO if settings.grid_format == "coo" else CASCADE_GRID).name
    found = [(name, read_artifact(target / name)) for name in names]
    return [name for name, artifact in found if artifact and artifact.manifest["step"] == stage]


@contextmanager
def _reported(subject: str) -> Iterator[spikes.Report]:
    """A bar of cells in the main process; a line every half minute in a worker, which shares the screen."""
    if multiprocessing.parent_process() is None:
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"{subject}: cells", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    started = said = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= 30 and done < total:
            said, left = now, (now - started) * (total - done) / done / 60
            print(f"{subject}: {done:,} of {total:,} cells, {left:.1f} min left", file=sys.stderr, flush=True)

    yield say


@dataclass(frozen=True)
class GridSummary(Summary):
    """Outcomes with the numbers a person wants to see after a run."""

    totals: tuple[tuple[str, Any], ...] = ()
    skipped: tuple[str, ...] = ()

    def table(self) -> Table:
        """A line per subject; the totals below; what to know about each subject below that."""
        totals = dict(self.totals)
        caption = []
        if totals:
            subjects = "subject" if totals["total_subjects"] == 1 else "subjects"
            caption.append(
                f"{totals['total_subjects']} {subjects} in {COMBINED_FILE}: {totals['total_spikes']:,} active pixels, "
                f"{totals['overall_sparsity_percent']:.4f} % of all (markers included)"
            )
        if self.skipped:
            caption.append(f"skipped: {', '.join(self.skipped)}")
        table = Table(
            title=self.title,
            title_justify="left",
            caption_justify="left",
            box=SIMPLE_HEAD,
            padding=(0, 0, 0, 1),
            pad_edge=False,
        )
        table.add_column("subject", min_width=9, overflow="fold")
        for column in ("cells", "T×Z", "spikes", "density", "MB", "saves", "infer", "grids", "peak GB"):
            table.add_column(column, justify="right", no_wrap=True)
        for outcome in self.outcomes:
            if outcome.ok:
                table.add_row(outcome.name, *_numbers(outcome.value))
                caption += [f"{outcome.name}: {note}" for note in outcome.value.facts["notes"]]
            else:
                table.add_row(f"[red]{outcome.name}[/]", "[red]failed[/]")
                caption.append(f"{outcome.name} failed: {outcome.reason}")
        table.caption = "\n".join(caption).replace("[", r"\[")
        return table


def _numbers(result: SubjectResult) -> list[str]:
    facts, saved = result.facts, 100 * (1 - result.facts["grid_file_bytes"] / result.facts["dense_bytes"])
    return [
        f"{facts['num_cells']:,}",
        f"{facts['shape'][0]}×{facts['shape'][1]}",
        f"{facts['active_voxels']:,}",
        f"{facts['density_percent']:.2g}%",
        f"{facts['grid_file_bytes'] / 1e6:,.1f}",
        f"{saved:.1f}%",
        f"{result.inference_s:.0f} s" if result.inferred else "kept",
        f"{result.gridding_s:.0f} s" if result.gridded else "kept",
        f"{max(result.inference_mb, result.gridding_mb) / 1000:.2f}",
    ]
