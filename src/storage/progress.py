"""What a user reads while a command runs: messages, and a line of progress for the steps of the current job."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_bars: list[Progress] = []


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


@contextmanager
def shown_on(bar: Progress) -> Iterator[None]:
    """Let the jobs of this process show their steps on a batch's bar."""
    _bars.append(bar)
    try:
        yield
    finally:
        _bars.pop()


@contextmanager
def steps(description: str, total: int, *, step_bytes: int = 0) -> Iterator[Callable[..., None]]:
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
    line = bar.add_task(f"  {description}", total=total)

    def advance(amount: float = 1.0) -> None:
        nonlocal done
        done += amount
        speed = done * step_bytes / 1e6 / max(time.monotonic() - clock, 1e-9)
        shown = f"  {description}" + (f" · {speed:.0f} MB/s" if step_bytes else "")
        bar.update(line, completed=round(done, 6), description=shown)

    try:
        yield advance
    finally:
        bar.remove_task(line)
