"""One line instead of a traceback for what the user has to fix."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf.errors import MissingMandatoryValue
from rich.console import Console

from src.signals import BadInput
from src.storage.progress import say


@contextmanager
def user_errors(console: Console) -> Iterator[None]:
    """Print a :class:`BadInput` raised in the block as one line and :func:`exit_with` with status 2.

    Found also where Hydra hides it, inside the error of a constructor it was calling. A key that was
    not given is a bad input too.
    """
    try:
        yield
    except (BadInput, InstantiationException, MissingMandatoryValue) as error:
        bad = bad_input(error)
        if bad is None:
            raise
        say(console, str(bad), label="error", style="red")
        exit_with(2, because=bad)


class JobFailed(RuntimeError):
    """A job of a multirun that ended badly; the reason is already on the screen."""


def exit_with(status: int, because: Exception | None = None) -> None:
    """End the process with this status; in a multirun, whose other jobs have to go on, fail this job alone."""
    if not (HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN):
        sys.exit(status)
    if status:
        raise JobFailed(because or "see above") from because


def bad_input(error: BaseException | None) -> BadInput | None:
    """What the user has to fix, if anything in the chain of causes says so."""
    while error is not None:
        if isinstance(error, BadInput):
            return error
        if isinstance(error, MissingMandatoryValue):
            return BadInput("command line", f"{error.full_key} is not given", f"add {error.full_key}=…")
        error = error.__cause__
    return None
