"""Processes that are forked from the tests' own, and so start at once."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable


def fork(work: Callable[[], object]) -> int:
    """Start a process that does ``work`` and ends with status 0, or 1 after an error; returns its number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child needs none of the other threads
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """The status with which a process ends: its own, or the signal that killed it, below 0."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
