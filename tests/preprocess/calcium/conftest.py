"""Small simulated subjects, made once, and the stand-in engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from src.preprocess.calcium import subject_grids
from src.simulate.calcium import SimulatedBrain, simulate_subject
from tests.preprocess.calcium import standin


@pytest.fixture(scope="session")
def raw(tmp_path_factory) -> Path:
    """Two subjects of different length, to be read only."""
    folder = tmp_path_factory.mktemp("raw")
    simulate_subject(folder / "subject_1", SimulatedBrain(cells=90, frames=700, planes=3, invalid_share=0.05), seed=1)
    simulate_subject(folder / "subject_2", SimulatedBrain(cells=60, frames=340, planes=2, unplaced_share=0.05), seed=2)
    return folder


@pytest.fixture
def engine() -> Iterator[None]:
    """The stand-in engine in place of the real ones."""
    standin.install()
    yield
    standin.remove()


@pytest.fixture
def no_figures(monkeypatch) -> None:
    """Figures cost most of a small subject's time; the tests that are about something else do without."""
    monkeypatch.setattr(subject_grids, "_draw", lambda *arguments: None)
