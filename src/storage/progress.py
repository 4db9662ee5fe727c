"""What a user reads while a command runs: messages, and a line of progress for the steps of the current job."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_ANY_WIDTH = 100_000
EVERY_S = 30.0
"""Least time between two lines of progress where there is no terminal."""
_bars: list[Progress | Callable[[int, str], None]] = []


def printable(text: str) -> str:
    """``text`` with bytes that are not UTF-8 and control characters shown as ``\\xNN``; line breaks stay."""
    shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", shown)


def say(console: Console, text: str, *, label: str = "", style: str = "") -> None:
    """Print a message exactly as it is: brackets in names are no markup, and long paths are not broken.

    Parameters
    ----------
    label, style
        A word printed before the text, such as ``error``, and its style, such as ``red``; without a label the style
        is that of the text.
    """
    head = Text(printable(f"{label} "), style=style) if label else Text()
    shown = head + Text(printable(text), style="" if label else style)
    console.print(shown, soft_wrap=True)


def show(console: Console, table: RenderableType) -> None:
    """Print a table; where there is no terminal in lines of any length, so that no path is broken."""
    if not console.is_terminal:
        console = Console(file=console.file, width=_ANY_WIDTH, quiet=console.quiet)
    console.print(table)


@contextmanager
def batch_progress(title: str, total: int, console: Console | None = None) -> Iterator[Callable[[], None]]:
    """Show how many of ``total`` jobs are done: a bar in a terminal, elsewhere a line at most every 30 s.

    Yields
    ------
    What to call after every job.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        done, said = 0, time.monotonic()

        def log(advance: int = 1, step: str = "") -> None:
            """Print a line, for log files, where the last one is 30 s old."""
            nonlocal done, said
            done += advance
            if time.monotonic() - said >= EVERY_S:
                said = time.monotonic()
                say(console, f"{title}: {done} of {total} done{step}")

        _bars.append(log)
        try:
            yield log
        finally:
            _bars.pop()
        return
    name, count = TextColumn("{task.description}", markup=False), MofNCompleteColumn()
    with Progress(name, BarColumn(), count, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        _bars.append(bar)
        task = bar.add_task(printable(title), total=total)
        try:
            yield lambda: bar.advance(task)
        finally:
            _bars.pop()


@contextmanager
def job_progress(description: str, total: int, *, step_bytes: int = 0) -> Iterator[Callable[..., None]]:
    """Show a job's progress for as long as the block runs; without a batch's bar, show nothing.

    Parameters
    ----------
    description
        What is being worked on.
    total
        Number of steps.
    step_bytes
        Input that a step takes in; the line then states the throughput.

    Yields
    ------
    What to call after every step, or with the part of one that has been done.
    """
    if not _bars:
        yield lambda amount=1.0: None
        return
    bar, clock, done = _bars[-1], time.monotonic(), 0.0
    line = bar.add_task(f"  {printable(description)}", total=total) if isinstance(bar, Progress) else None

    def advance(amount: float = 1.0) -> None:
        nonlocal done
        done += amount
        speed = done * step_bytes / 1e6 / max(time.monotonic() - clock, 1e-9)
        shown = f"{printable(description)}" + (f" · {speed:.0f} MB/s" if step_bytes else "")
        if not isinstance(bar, Progress):
            bar(0, f"; {shown}, {done:.0f} of {total}")
        elif line is not None:
            bar.update(line, completed=round(done, 6), description=f"  {shown}")

    try:
        yield advance
    finally:
        if isinstance(bar, Progress) and line is not None:
            bar.remove_task(line)
