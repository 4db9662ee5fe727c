"""Verbs on a disk that fills up or cannot be written: one line, and the same results once there is room."""

import subprocess

import pytest

from tests.faults.scenarios import SCENARIOS, assert_whole
from tests.faults.verbs import Server

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture(scope="module")
def server():
    with Server() as started:
        yield started


@pytest.fixture
def disk(tmp_path):
    """``disk(options)`` mounts a small file system, or mounts it again with others."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def mount(options):
        nonlocal mounted
        flags = f"remount,{options}" if mounted else options
        if subprocess.run(["mount", "-t", "tmpfs", "-o", flags, "tmpfs", place], capture_output=True).returncode:
            pytest.skip("this user may not mount a small file system")
        mounted = True
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize("name", ["preprocess", "train", "infer"])
@pytest.mark.parametrize("kilobytes", [8, 40, 70])
def test_a_full_disk_is_said_and_does_not_spoil_what_comes_later(server, disk, tmp_path, name, kilobytes):
    scenario, inputs = SCENARIOS[name], tmp_path / "inputs"
    inputs.mkdir()
    scenario.prepare(inputs)
    free = tmp_path / "free"
    assert server.run(free, *scenario.line(inputs, free)).status == 0
    place = disk(f"size={kilobytes}k")
    folder = place / "x"
    folder.mkdir()
    line = scenario.line(inputs, folder)
    full = server.run(folder, *line)
    assert full.status in (1, 2), full.printed
    assert "no space left" in full.printed.replace("\n", " ")
    assert "Traceback" not in full.printed
    assert_whole(folder)
    disk("size=64m")
    again = server.run(folder, *line)
    assert again.status == 0, again.printed
    assert scenario.results(folder) == scenario.results(free)


@pytest.mark.parametrize("name", ["preprocess", "train", "sweep", "infer"])
def test_a_read_only_place_is_said(server, disk, tmp_path, name):
    scenario, inputs = SCENARIOS[name], tmp_path / "inputs"
    inputs.mkdir()
    scenario.prepare(inputs)
    folder = disk("size=1m") / "x"
    folder.mkdir()
    line = scenario.line(inputs, folder)
    disk("ro")
    refused = server.run(folder, *line)
    assert refused.status in (1, 2), refused.printed
    assert "cannot be written" in refused.printed.replace("\n", " ")
    assert "Traceback" not in refused.printed
