"""Many recordings at once: a process pool in which one bad recording never stops the others."""

import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from src.signals import BadInput
from src.storage.parallel import process_pool
from src.storage.progress import batch_progress, printable


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

    def table(self) -> RenderableType:
        """A line per recording: done in how many seconds, or why not."""
        table = Table(title=Text(printable(self.title)), title_justify="left")
        for column in ("recording", "seconds", "result"):
            table.add_column(column, overflow="fold")
        for outcome in self.outcomes:
            result = Text("done", "green") if outcome.ok else Text(printable(outcome.reason or ""), "red")
            table.add_row(Text(printable(outcome.name)), f"{outcome.seconds:.1f}", result)
        return table


_EVERYTHING = (None, 1, 1)
_selection: ContextVar[tuple[str | None, int, int]] = ContextVar("selection", default=_EVERYTHING)


def all_selected() -> bool:
    """Whether :func:`run_batch` runs every job here."""
    return _selection.get() == _EVERYTHING


@contextmanager
def selection(*, only: str | None, part: int, parts: int) -> Iterator[None]:
    """Inside the block, :func:`run_batch` runs of the jobs whose name matches ``only`` every ``parts``-th.

    Raises
    ------
    BadInput
        Unless ``1 <= part <= parts``.
    """
    if not 1 <= part <= parts:
        raise BadInput("part", f"part {part} of {parts}", f"give a part from 1 to {max(parts, 1)}")
    token = _selection.set((only, part, parts))
    try:
        yield
    finally:
        _selection.reset(token)


def run_batch(jobs: Sequence[Job], *, title: str, workers: int = 1, console: Console | None = None) -> Summary:
    """Run every job and report on every job; no failure, not even a killed worker, stops the rest.

    ``workers=1`` runs in this process. With more, each job runs in a spawned worker with one thread of
    linear algebra; when a worker dies (out of memory, ``kill -9``) the jobs that were running then are
    repeated one at a time, so that the job at fault is named and the others finish. Of several jobs with one
    name none is run, because their results would replace each other.
    """
    only, part, parts = _selection.get()
    wanted = [job for job in jobs if only is None or fnmatchcase(job.name, only)]
    if only is not None and not wanted:
        names = ", ".join(job.name for job in jobs[:10])
        raise BadInput("only", f"no recording is called {only!r}", f"there are: {names}")
    jobs = wanted[part - 1 :: parts]
    count = Counter(job.name for job in jobs)
    twice = {name: n for name, n in count.items() if n > 1}
    reason = "{}: {} recordings have this name; rename one of them"
    outcomes = {name: Outcome(name, reason=reason.format(name, n)) for name, n in twice.items()}
    distinct = [job for job in jobs if count[job.name] == 1]
    with batch_progress(title, len(distinct), console) as done:
        alone = workers <= 1 or len(distinct) <= 1
        for outcome in map(_attempt, distinct) if alone else _in_pools(distinct, workers):
            outcomes[outcome.name] = outcome
            done()
    return Summary(title, tuple(outcomes[name] for name in count))


def _in_pools(jobs: Sequence[Job], workers: int) -> Iterator[Outcome]:
    waiting = deque(jobs)
    while waiting:
        suspects = yield from _pooled(waiting, workers)
        for job in suspects:
            if (yield from _pooled(deque([job]), 1)):
                yield Outcome(job.name, reason="its worker process was killed (out of memory?)")


def _pooled(waiting: deque[Job], workers: int) -> Generator[Outcome, None, list[Job]]:
    """Run waiting jobs in one pool until none is left or a worker dies; return what ran when it died."""
    size = min(workers, len(waiting))
    running: dict[Future[Outcome], Job] = {}
    with process_pool(size) as pool:
        while waiting or running:
            # No more jobs in the pool than workers: what is in it when a worker dies was running.
            while waiting and len(running) < size:
                job = waiting.popleft()
                try:
                    with _main_not_imported(job):
                        running[pool.submit(_attempt, job)] = job
                except BrokenProcessPool:
                    return [job, *running.values()]
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    return list(running.values())
                except Exception as error:  # neither the job nor its value may refuse to travel
                    outcome = Outcome(running[future].name, reason=f"{type(error).__name__}: {error}")
                del running[future]
                yield outcome
    return []


@contextmanager
def _main_not_imported(job: Job) -> Iterator[None]:
    """Let a worker that is spawned in the block start without the user's script, unless the job is defined in it.

    A spawned process imports the script that started its parent. One without ``if __name__ == "__main__":`` would
    run again in every worker; and a job that lives in a module of its own does not need it.
    """
    main = sys.modules["__main__"]
    if job.call.__module__ == "__main__":
        yield
        return
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _attempt(job: Job) -> Outcome:
    clock = time.monotonic()
    try:
        value, reason, detail = job.call(*job.args), None, ""
    except BadInput as error:
        value, reason, detail = None, str(error), ""
    except (Exception, SystemExit) as error:
        value, reason, detail = None, f"{type(error).__name__}: {error}", traceback.format_exc()
    return Outcome(job.name, value, reason, detail, time.monotonic() - clock)
