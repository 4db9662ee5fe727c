import numpy as np
import pytest

from src.predict.contents import bundle_rows, channel_rows, misfit
from src.signals import BadInput
from src.simulate.sleep import write_night
from tests.recordings.calcium.test_suite2p import write_plane


class Described:
    """As much of a bundle as the comparison reads."""

    def __init__(self, task, channels=("EEG Fpz-Cz",), fs_hz=100.0):
        self.task, self.signal = task, type("Signal", (), {"channels": channels, "fs_hz": fs_hz})


def test_an_edf_file_is_listed_channel_by_channel(tmp_path):
    write_night(tmp_path, 0, 1, seed=1, hours=0.1)
    (night,) = tmp_path.glob("*PSG.edf")
    rows = channel_rows(night)
    assert {"channel": "EEG Fpz-Cz", "units": "uV", "fs_hz": 100.0}.items() <= rows[0].items()
    assert rows[0]["seconds"] == pytest.approx(360)
    assert misfit(Described("sleep_staging"), rows) == ""
    assert misfit(Described("sleep_staging", ("C3",)), rows).startswith("lacks C3")
    assert misfit(Described("spike_detection", fs_hz=25_000.0), rows) == "expects 25000 Hz"


def test_an_extracellular_recording_is_listed(tmp_path):
    np.savez(tmp_path / "sh0.npz", traces=np.zeros((100, 2), np.float32), sampling_rate_hz=500.0)
    assert [row["fs_hz"] for row in channel_rows(tmp_path / "sh0.npz")] == [500.0, 500.0]


def test_a_file_that_is_no_recording_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("a")
    with pytest.raises(BadInput, match=r"notes\.txt"):
        channel_rows(tmp_path / "notes.txt")


def test_a_damaged_bundle_is_listed_as_such(tmp_path):
    (tmp_path / "bundle.json").write_text("{")
    assert bundle_rows([], [tmp_path])[0]["fits"] == "is damaged"


def test_a_calcium_recording_is_one_row_that_says_how_to_go_on(tmp_path):
    write_plane(tmp_path / "mouse1" / "suite2p" / "plane0", rois=4, frames=15, plane=0)
    (row,) = channel_rows(tmp_path / "mouse1")
    assert (row["channel"], row["units"], row["fs_hz"], row["seconds"]) == ("2 cells", "fluorescence", 7.5, 2.0)
    assert "preprocess=cascade_spikes" in row["note"]
