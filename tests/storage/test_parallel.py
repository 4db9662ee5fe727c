import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest

from src.storage.parallel import available_cores, in_order, process_pool


def slow_for_the_first(number: int) -> int:
    time.sleep(0.002 * (7 - number))
    return number


@pytest.mark.parametrize("threads", [0, 3])
def test_results_come_in_the_order_of_the_work_and_errors_too(threads):
    with ThreadPoolExecutor(threads) if threads else nullcontext() as pool:
        assert list(in_order(slow_for_the_first, range(7), pool, 3)) == [*range(7)]
        with pytest.raises(ZeroDivisionError):
            list(in_order(lambda number: 1 / (number - 3), range(7), pool, 3))


def test_no_more_than_asked_for_is_under_way():
    taken = []

    def numbers():
        for number in range(10):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        results = in_order(lambda number: number, numbers(), pool, 3)
        assert next(results) == 0
        assert len(taken) == 3
        assert list(results) == [*range(1, 10)]


def test_processes_are_others():
    with process_pool(1) as pool:
        assert pool.submit(os.getpid).result() != os.getpid()


def test_cores_are_counted_where_the_system_knows_no_affinity(monkeypatch):
    assert available_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert available_cores() == os.cpu_count()
