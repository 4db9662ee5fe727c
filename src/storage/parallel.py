"""Work shared between threads or processes: how many, how they start, and results in the order of the work."""

import multiprocessing
import multiprocessing.process
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
Piece = TypeVar("Piece")
Result = TypeVar("Result")


def available_cores() -> int:
    """Cores this process may use: those of its affinity where the system has one (macOS has none), else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], pool: Executor | None, ahead: int
) -> Iterator[Result]:
    """Results in the order of ``pieces``, at most ``ahead`` of which are under way or wait to be taken.

    Without a pool the work is done here, one piece after the other.
    """
    if pool is None:
        yield from map(work, pieces)
        return
    waiting: deque[Future[Result]] = deque()
    for piece in pieces:
        waiting.append(pool.submit(work, piece))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def call(work: Callable[[], Result]) -> Result:
    """The ``work`` of :func:`in_order` for pieces that are calls themselves."""
    return work()


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Spawned processes with one thread of linear algebra each, which end when this process ends."""
    names = [name for name in THREADS if name not in os.environ]  # what the user has set stays
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        os.environ.update(dict.fromkeys(names, "1"))
        try:
            yield pool
        finally:
            for name in names:
                os.environ.pop(name, None)


def _end_with_parent() -> None:
    """End this worker when the process that started it is killed. Otherwise it holds its locks and memory for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
