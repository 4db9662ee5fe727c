"""``list=true``: names, cells, rates, units and models, without any work."""

from typing import Any

import numpy as np
import pytest

from tests.preprocess.calcium.conftest import parameters
from tests.preprocess.cascade.cascade_packages import write_package
from tests.recordings.calcium.test_recording import positions, write_fish
from tests.recordings.calcium.test_segmentation import write_caiman
from tests.tables import printed


def test_every_recording_is_listed_with_its_model_and_nothing_is_written(tmp_path):
    for name, fs_hz in (("subject_1", 2.0), ("subject_2", 2.56), ("subject_3", 30.0)):
        write_fish(tmp_path / "raw" / name, xyz=positions(6), response=np.ones((50, 6)), fs=fs_hz)
    (tmp_path / "raw" / "subject_4").mkdir()
    write_package(tmp_path / "models")
    params = parameters(tmp_path / "raw", tmp_path / "out", list=True, models_dir=str(tmp_path / "models"))
    params.engine, params.cascade_model = "dense", "Tiny_2Hz"
    summary: Any = params.run()
    assert summary.exit_code == 0
    models = [row["model"] for row in summary.rows]
    assert models[:3] == [
        "Tiny_2Hz", "Tiny_2Hz (2 Hz, the recording is resampled)",
        "Tiny_2Hz (2 Hz, refused: more than a factor of two away)",
    ]  # fmt: skip
    assert "has no TimeSeries.h5" in models[3]
    assert [row["cells"] for row in summary.rows] == [6, 6, 6, None]
    assert not (tmp_path / "out").exists()
    shown = printed(summary.table(), 80)
    for whole in ("subject_4", "2.56", "fluorescence"):
        assert whole in shown


@pytest.mark.parametrize(
    ("model", "stated"),
    [("Global_EXC_2Hz_smoothing500ms", "fetched from CASCADE, or else Recorded"), ("auto", "_EXC_")],
)
def test_a_file_of_dff_and_a_model_that_is_not_here(tmp_path, model, stated):
    write_caiman(tmp_path / "session.hdf5")
    params = parameters(tmp_path / "session.hdf5", tmp_path / "out", list=True, models_dir=str(tmp_path / "models"))
    params.engine, params.cascade_model = "dense", model
    summary: Any = params.run()
    (row,) = summary.rows
    assert (row["recording"], row["fs_hz"], row["signal"]) == ("session", 10.0, "ΔF/F")
    assert stated in row["model"]
