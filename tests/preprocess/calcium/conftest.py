"""Small simulated subjects, made once, and the parameters of a run without networks and figures."""

from pathlib import Path
from typing import Any

import pytest

from src.preprocess.calcium.parameters import CalciumParams
from src.simulate.calcium import SimulatedBrain, simulate_subject


@pytest.fixture(scope="session")
def raw(tmp_path_factory) -> Path:
    """Two subjects of different length, to be read only."""
    folder = tmp_path_factory.mktemp("raw")
    simulate_subject(folder / "subject_1", SimulatedBrain(cells=90, frames=700, planes=3, invalid_share=0.05), seed=1)
    simulate_subject(folder / "subject_2", SimulatedBrain(cells=60, frames=340, planes=2, unplaced_share=0.05), seed=2)
    return folder


def parameters(input_dir: Path, output_dir: Path, **changes: Any) -> CalciumParams:
    """OASIS, which needs no model, and no figures: the rest is the default of ``preprocess=cascade_coo``."""
    engine: dict[str, Any] = {"engine": "oasis", "cascade_model": "tau1.25s", "grid_format": "coo", "figures": False}
    changes = engine | {"cache_dir": str(output_dir.parent / "cache")} | changes
    return CalciumParams(str(input_dir), str(output_dir), **changes)


def run(raw: Path, out: Path, **changes: Any) -> Any:
    """The summary of a run."""
    return parameters(raw, out, **changes).run()


def data_files(folder: Path) -> dict[str, bytes]:
    """Every data file below a folder; the manifests state the time of making and are left out."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".") and p.suffix in (".h5", ".pdf"))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.fixture(scope="session")
def finished(raw, tmp_path_factory) -> Path:
    """One finished sparse run over both subjects, to be read only."""
    out = tmp_path_factory.mktemp("finished") / "coo"
    assert run(raw, out, figures=True, num_neurons=1).exit_code == 0
    return out
