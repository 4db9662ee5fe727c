"""Every benchmark that makes its own data runs from its first line to its last; small, so it may miss its targets."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "baseline_percentile --neurons 8 --frames 300",
        "calcium_end_to_end --cells 60 --frames 300",
        "grid_building --cells 500 --frames 40",
        "grid_loading --cells 1000 --frames 400 --planes 3",
        "lfp_spectrogram --minutes 0.5 --channels 4 --repeats 1",
        "lfp_spectrogram --memory --minutes 1 --channels 2",
        "scaling --only LFP",
        "sleep_staging --hours 1 --repeats 1",
        "spike_inference",
    ],
)
def test_a_benchmark_runs_to_its_end(command):
    name, *arguments = command.split()
    line = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    done = subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr
    assert any(digit in done.stdout for digit in "0123456789")
