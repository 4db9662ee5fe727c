from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io

from src.models.bundle import load_bundle
from src.predict.contents import bundle_rows, channel_rows, misfit, recordings_at, require_sleep
from src.predict.lfp import lfp_input
from src.recordings.extracellular.spike_trains import write_mat
from src.signals import BadInput, SourceOptions
from src.simulate.sleep import write_night
from tests.recordings.calcium.test_suite2p import write_plane


def described(task, channels=("EEG Fpz-Cz",), fs_hz=100.0, any_channel=False):
    """As much of a bundle as the comparison reads."""
    signal = SimpleNamespace(channels=channels, fs_hz=fs_hz)
    return SimpleNamespace(task=task, signal=signal, decision={"any_channel": any_channel})


def test_an_edf_file_is_listed_channel_by_channel(tmp_path):
    write_night(tmp_path, 0, 1, seed=1, hours=0.1)
    (night,) = tmp_path.glob("*PSG.edf")
    rows = channel_rows(night)
    assert {"channel": "EEG Fpz-Cz", "units": "uV", "fs_hz": 100.0}.items() <= rows[0].items()
    assert rows[0]["seconds"] == pytest.approx(360)
    assert misfit(described("sleep_staging"), rows) == ""
    assert misfit(described("sleep_staging", ("C3",)), rows).startswith("lacks C3")
    assert misfit(described("spike_detection", fs_hz=25_000.0), rows) == "expects 25000 Hz"


@pytest.mark.parametrize(("label", "fits"), [("Fpz-Cz", True), ("eeg fpz cz-ref", True), ("C4-M1", True), ("x", False)])
def test_a_bundle_fits_the_channels_that_it_would_take(label, fits):
    rows = [{"channel": label, "units": "uV", "fs_hz": 100.0}]
    assert (misfit(described("sleep_staging", any_channel=True), rows) == "") == fits
    named = label != "x" and label != "C4-M1"
    assert (misfit(described("sleep_staging"), rows) == "") == named


def test_a_damaged_bundle_is_listed_as_such(tmp_path):
    (tmp_path / "bundle.json").write_text("{")
    assert bundle_rows([], [tmp_path])[0]["fits"] == "is damaged"


def test_a_calcium_recording_is_one_row_that_says_how_to_go_on(tmp_path):
    write_plane(tmp_path / "mouse1" / "suite2p" / "plane0", rois=4, frames=15, plane=0)
    (row,) = channel_rows(tmp_path / "mouse1")
    assert (row["channel"], row["units"], row["fs_hz"], row["seconds"]) == ("2 cells", "fluorescence", 7.5, 2.0)
    assert "preprocess=cascade_spikes" in row["note"]
    assert "takes Recorded_EXC_7.5Hz" in row["note"]
    assert misfit(described("sleep_staging"), [row]) == "reads no calcium traces"


def test_the_recordings_of_a_folder_are_found_at_any_depth(tmp_path):
    write_night(tmp_path / "sub", 0, 1, seed=1, hours=0.1)
    np.savez(tmp_path / "sh0.npz", traces=np.zeros((100, 2), np.float32), sampling_rate_hz=500.0)
    np.save(tmp_path / "bare.npy", np.zeros((100, 2), np.float32))
    (tmp_path / "notes.txt").write_text("a")
    write_plane(tmp_path / "mouse1" / "suite2p" / "plane0", rois=4, frames=15, plane=0)
    (hypnogram,) = (tmp_path / "sub").glob("*Hypnogram.edf")
    (night,) = (tmp_path / "sub").glob("*PSG.edf")
    found = recordings_at(tmp_path)
    assert set(found) == {tmp_path / "mouse1", hypnogram, night, tmp_path / "sh0.npz", tmp_path / "bare.npy"}
    assert channel_rows(hypnogram) == []
    with pytest.raises(BadInput, match=r"source\.fs_hz"):
        channel_rows(tmp_path / "bare.npy")
    assert [row["fs_hz"] for row in channel_rows(tmp_path / "bare.npy", SourceOptions(fs_hz=1250.0))] == [
        1250.0,
        1250.0,
    ]


def test_what_is_no_recording_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("a")
    assert recordings_at(tmp_path) == [tmp_path]
    with pytest.raises(BadInput, match=r"notes\.txt"):
        channel_rows(tmp_path / "notes.txt")


def test_a_calcium_recording_without_a_rate_says_so(tmp_path):
    write_plane(tmp_path / "plane0", rois=4, frames=15, plane=0)
    (tmp_path / "plane0" / "ops.npy").unlink()
    with pytest.raises(BadInput, match="frame rate"):
        channel_rows(tmp_path)
    assert channel_rows(tmp_path, SourceOptions(fs_hz=3.0))[0]["fs_hz"] == 3.0


def test_a_bundle_that_fits_one_of_two_recordings_says_how_many_it_does_not_fit(tmp_path):
    mouse = Path(__file__).parents[2] / "pretrained" / "sleep_mouse"
    wanted = [{"channel": name, "fs_hz": 100.0} for name in load_bundle(mouse).signal.channels]
    assert bundle_rows([wanted], [mouse])[0]["fits"] == "yes"
    assert bundle_rows([wanted, []], [mouse])[0]["fits"].startswith("1 of 2 recordings: lacks")


def test_calcium_and_wav_in_place_of_a_night_are_refused_with_the_command_that_reads_them(tmp_path):
    write_plane(tmp_path / "mouse1" / "plane0", rois=4, frames=15, plane=0)
    with pytest.raises(BadInput, match=r"preprocess=cascade_spikes input_dir=\S*mouse1"):
        require_sleep(tmp_path / "mouse1")
    (tmp_path / "wires").mkdir()
    (tmp_path / "wires" / "a.wav").write_bytes(b"")
    with pytest.raises(BadInput, match="method=discover"):
        require_sleep(tmp_path / "wires")
    (tmp_path / "wires" / "a.edf").write_bytes(b"")
    require_sleep(tmp_path / "wires")  # the night is scored
    with pytest.raises(BadInput, match=r"wirse: does not exist; did you mean .*wires"):
        require_sleep(tmp_path / "wirse")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "npys",
            r"npys: holds neither EDF nor BDF \(2 .npy\); LFP: .*lfp_states input=.*a.npy source.fs_hz=<Hz>; spikes",
        ),
        ("npys/a.npy", r"a.npy: is neither .* source.fs_hz=<Hz>; spikes: the same with method=discover"),
        ("locust.raw", r"raw: is neither .*source.dtype=int16 source.channels=<number> source.fs_hz=<Hz>"),
        ("rat1.lfp", "and no NeuroScope .xml lies beside it; LFP: python infer.py method=lfp_states"),
        ("papers", r"papers: holds neither EDF nor BDF \(1 .pdf\); give a folder of recordings"),
        ("empty", r"empty: holds neither EDF nor BDF \(no file\)"),
    ],
)
def test_what_is_no_night_is_answered_by_what_was_given(tmp_path, given, said):
    for folder in ("npys", "papers", "empty"):
        (tmp_path / folder).mkdir()
    for name in ("npys/a.npy", "npys/b.npy", "locust.raw", "rat1.lfp", "papers/1.pdf"):
        (tmp_path / name).write_bytes(b"\x01\x02" * 100)
    with pytest.raises(BadInput, match=said):
        require_sleep(tmp_path / given)


def test_edf_of_another_name_may_be_a_night(tmp_path):
    write_night(tmp_path, 0, 1, seed=1, hours=0.1)
    (night,) = tmp_path.glob("*PSG.edf")
    require_sleep(night.rename(tmp_path / "night.REC"))


def test_spikes_in_a_mat_file_are_not_taken_for_lfp_but_refused_with_both_commands(tmp_path):
    write_mat(tmp_path / "D2.mat", trace=np.zeros(100, np.float32))
    assert lfp_input(tmp_path / "D2.mat") is None
    for path in (tmp_path, tmp_path / "D2.mat"):
        with pytest.raises(BadInput, match=r"method=discover, or method=bank labelled="):
            require_sleep(path)
    scipy.io.savemat(tmp_path / "lfp.mat", {"traces": np.zeros((3, 100)), "fs": 1000.0})
    assert lfp_input(tmp_path / "lfp.mat") == "an array of LFP traces"
