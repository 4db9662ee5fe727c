"""Many recordings at once: a process pool in which one bad recording never stops the others."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from src.signals import BadInput


@dataclass(frozen=True)
class Job:
    """One recording's work: ``call(*args)`` in a worker. ``call`` is a module-level function."""

    name: str
    call: Callable[..., Any]
    args: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its ``value``, or the ``reason`` it failed."""

    name: str
    value: Any = None
    reason: str | None = None
    detail: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.reason is None


@dataclass(frozen=True)
class Summary:
    """Outcomes in the order of the jobs."""

    title: str
    outcomes: tuple[Outcome, ...] = field(default=())

    @property
    def failures(self) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if not o.ok)

    @property
    def values(self) -> dict[str, Any]:
        return {o.name: o.value for o in self.outcomes if o.ok}

    @property
    def exit_code(self) -> int:
        return 1 if self.failures else 0

    def table(self) -> Table:
        """A line per recording: done in how many seconds, or why not."""
        table = Table(title=self.title, title_justify="left")
        for column in ("recording", "seconds", "result"):
            table.add_column(column, overflow="fold")
        for outcome in self.outcomes:
            result = "[green]done[/]" if outcome.ok else f"[red]{_escape(outcome.reason or '')}[/]"
            table.add_row(_escape(outcome.name), f"{outcome.seconds:.1f}", result)
        return table


def run_batch(jobs: Sequence[Job], *, title: str, workers: int = 1, console: Console | None = None) -> Summary:
    """Run every job and report on every job; no failure, not even a killed worker, stops the rest.

    ``workers=1`` runs in this process. With more, each job runs in a spawned worker; when a worker
    dies (out of memory, ``kill -9``) the unfinished jobs are repeated one at a time, so the guilty
    one is named and the innocent finish.
    """
    outcomes: dict[str, Outcome] = {}
    with _progress(console) as bar:
        task = bar.add_task(title, total=len(jobs))
        for outcome in _outcomes(jobs, workers):
            outcomes[outcome.name] = outcome
            bar.advance(task)
    return Summary(title, tuple(outcomes[job.name] for job in jobs))


def _outcomes(jobs: Sequence[Job], workers: int) -> Iterable[Outcome]:
    if workers <= 1 or len(jobs) <= 1:
        yield from map(_attempt, jobs)
        return
    survivors: list[Job] = []
    for job, outcome in _pooled(jobs, workers):
        if outcome is None:
            survivors.append(job)
        else:
            yield outcome
    for job in survivors:
        for _, outcome in _pooled([job], 1):
            yield outcome or Outcome(job.name, reason="its worker process was killed (out of memory?)")


def _pooled(jobs: Sequence[Job], workers: int) -> Iterable[tuple[Job, Outcome | None]]:
    """Run jobs in one pool; ``None`` for those that a dying worker took along."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=min(workers, len(jobs)), mp_context=context) as pool:
        try:
            pending: dict[Future[Outcome], Job] = {pool.submit(_attempt, job): job for job in jobs}
        except BrokenProcessPool:
            yield from ((job, None) for job in jobs)
            return
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                job = pending.pop(future)
                try:
                    yield job, future.result()
                except BrokenProcessPool:
                    yield job, None


def _attempt(job: Job) -> Outcome:
    clock = time.monotonic()
    try:
        value, reason, detail = job.call(*job.args), None, ""
    except BadInput as error:
        value, reason, detail = None, str(error), ""
    except Exception as error:
        value, reason, detail = None, f"{type(error).__name__}: {error}", traceback.format_exc()
    return Outcome(job.name, value, reason, detail, time.monotonic() - clock)


def _progress(console: Console | None) -> Progress:
    name, count = TextColumn("{task.description}"), MofNCompleteColumn()
    console = console or Console(stderr=True)
    return Progress(name, BarColumn(), count, TimeElapsedColumn(), TimeRemainingColumn(), console=console)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
