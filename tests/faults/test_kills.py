"""Verbs killed at random moments and started again end like verbs that were left alone.

``FAULT_KILLS`` is how many moments there are, ``FAULT_SEED`` draws them; ``make test-faults`` gives 50.
"""

import os
import random

import pytest

from tests.faults.scenarios import SCENARIOS, assert_whole
from tests.faults.verbs import Server

SEED = int(os.environ.get("FAULT_SEED", "0"))
KILLS = int(os.environ.get("FAULT_KILLS", "50"))


@pytest.fixture(scope="module")
def server():
    with Server() as started:
        yield started


@pytest.fixture(scope="module")
def unbroken(server, tmp_path_factory):
    """Each scenario's inputs, how long it takes, how many file operations it has, and what comes out."""
    known = {}

    def of(name):
        if name not in known:
            scenario, inputs = SCENARIOS[name], tmp_path_factory.mktemp("inputs")
            folder = tmp_path_factory.mktemp(name) / "x"
            scenario.prepare(inputs)
            ended = server.run(folder, *scenario.line(inputs, folder))
            assert ended.status == 0, ended.printed
            known[name] = inputs, ended, scenario.results(folder)
        return known[name]

    return of


def kill_and_repeat(server, unbroken, folder, name, draw):
    inputs, alone, expected = unbroken(name)
    assert expected
    line = SCENARIOS[name].line(inputs, folder)
    by_clock = draw.random() < 0.5
    moment = {"after_s": draw.uniform(0.05, alone.seconds)} if by_clock else {"at": draw.randrange(alone.operations)}
    killed = server.run(folder, *line, **moment)
    assert killed.status == -9 or (by_clock and killed.status == 0), killed.printed
    assert_whole(folder)
    resumed = server.run(folder, *line)
    assert resumed.status == 0, resumed.printed
    found = SCENARIOS[name].results(folder)
    assert sorted(found) == sorted(expected), moment
    assert [n for n in found if found[n] != expected[n]] == [], moment
    assert not list(folder.rglob("*.kept-*")), "a kill made a file of ours look like somebody else's"


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_any_moment_and_started_again(server, unbroken, tmp_path, number):
    name = list(SCENARIOS)[number % len(SCENARIOS)]
    kill_and_repeat(server, unbroken, tmp_path / name, name, random.Random(f"{SEED} kill {number}"))
