"""What every test runs under: one thread, no tracker, no display; and where the shared recordings are."""

from __future__ import annotations

import os
from pathlib import Path

# Set before anything imports torch, tensorflow or matplotlib, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "disabled"
os.environ["MPLBACKEND"] = "Agg"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"
ABSENT = "the shared recordings (../shared/data) are absent"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the repository; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(ABSENT)
    return SHARED_DATA


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for the recordings carries their marker; what needs a GPU is skipped without one."""
    for item in items:
        if "shared_data" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.real_data)
        if item.get_closest_marker("gpu") is not None and not _cuda():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line: how much of the suite ran, and how much of it wanted recordings that are not here."""
    stats = terminalreporter.stats
    counts = {name: len(stats.get(name, ())) for name in ("passed", "failed", "error", "skipped", "xfailed")}
    absent = sum(ABSENT in str(report.longrepr) for report in stats.get("skipped", ()))
    totals = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    recordings = f"{absent} skipped because {ABSENT}" if absent else "none skipped for want of the shared recordings"
    terminalreporter.write_line(f"totals: {totals or 'nothing ran'}; {recordings}")


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()
