"""DREAMS and UCDDB: synthetic files in their formats, and the real ones where they are."""

import numpy as np
import pytest
import scipy.io

from src.recordings.sleep.databases import dreams_signal, ucddb_signal
from src.recordings.sleep.hypnogram import stage_counts
from src.recordings.sleep.nights import Night, discover, load_channels
from src.signals import BadInput
from tests.nights import load

ALIASES = {"EEG Fpz-Cz": ["C3-A1", "CZ-A1", "EEG"]}


def excerpt(path, samples, channel="C3-A1"):
    path.write_text(f"[{channel}]\n" + "\n".join(f"{x:.4f}" for x in samples) + "\n")
    return path


def test_an_excerpt_has_the_documented_rate_and_no_tail(tmp_path):
    samples = np.random.default_rng(0).normal(0, 20, 90_000 + 140)
    path = excerpt(tmp_path / "excerpt3.txt", samples)
    recording = dreams_signal(path)
    assert (recording.fs_hz, recording.channels, recording.units) == (50.0, ("C3-A1",), ("uV",))
    np.testing.assert_allclose(recording.samples[0], samples[:90_000], atol=1e-4)
    (asked,) = load_channels(Night("e", "e", (path,), None, "dreams"), ["EEG Fpz-Cz"], ALIASES)
    assert asked.channels == ("EEG Fpz-Cz",)
    with pytest.raises(BadInput, match="has no channel 'O1-A1'; choose from: C3-A1"):
        load_channels(Night("e", "e", (path,), None, "dreams"), ["O1-A1"])


def test_bad_excerpts(tmp_path):
    with pytest.raises(BadInput, match="is truncated: 10 of 360000 samples; copy or download it again"):
        dreams_signal(excerpt(tmp_path / "excerpt4.txt", np.zeros(10)))
    (tmp_path / "excerpt5.txt").write_text("[C3-A1]\nnot a number\n")
    with pytest.raises(BadInput, match="is not a column of numbers"):
        dreams_signal(tmp_path / "excerpt5.txt")
    with pytest.raises(BadInput, match="does not exist"):
        dreams_signal(tmp_path / "excerpt9.txt")
    with pytest.raises(BadInput, match="is not named like a DREAMS excerpt"):
        dreams_signal(excerpt(tmp_path / "night.txt", [1.0]))


@pytest.fixture
def patient(tmp_path):
    """Six epochs of which the i-th is filled with i + 1; those of stages 1-3 are in no file."""
    codes = [0, 2, 4, 0, 5, 1]
    (tmp_path / "ucddb042_stage.txt").write_text("\n".join(map(str, codes)) + "\n")
    for name, mine in (("ucd042_stagewake", (0,)), ("ucd042_stagedeep", (4, 5))):
        rows = [np.full(3840, i + 1.0) for i, code in enumerate(codes) if code in mine]
        scipy.io.savemat(tmp_path / f"{name}.mat", {name: np.array(rows)})
    return tmp_path


def test_epochs_go_back_to_their_places(patient):
    (night,) = discover("ucddb", patient)
    recording, hypnogram = load(night, None)
    assert (recording.fs_hz, recording.units, recording.channels) == (128.0, ("a.u.",), ("EEG",))
    np.testing.assert_array_equal(recording.samples[0, ::3840], [1, np.nan, 3, 4, 5, np.nan])
    assert hypnogram is not None
    np.testing.assert_array_equal(hypnogram.stages, [0, 1, 3, 0, 3, 4])


def test_missing_epochs_stay_missing_when_resampled(patient):
    (night,) = discover("ucddb", patient)
    recording, _ = load(night, ["EEG"], 100.0)
    missing = np.isnan(recording.samples.reshape(6, 3000))
    np.testing.assert_array_equal(missing.all(axis=1), [False, True, False, False, False, True])
    np.testing.assert_array_equal(missing.any(axis=1), [False, True, False, False, False, True])


def test_files_that_do_not_belong_together(patient):
    stages = patient / "ucddb042_stage.txt"
    wake = patient / "ucd042_stagewake.mat"
    scipy.io.savemat(wake, {"ucd042_stagewake": np.zeros((5, 3840))})
    with pytest.raises(BadInput, match=r"has rows \(5, 3840\), the stage file calls for \(2, 3840\)"):
        ucddb_signal([wake], stages)
    wake.write_bytes(b"no matrix")
    with pytest.raises(BadInput, match="cannot be read as MATLAB v5"):
        ucddb_signal([wake], stages)
    stages.write_text("0\n11\n")
    with pytest.raises(BadInput, match=r"has unknown stages: \[11\]"):
        ucddb_signal([wake], stages)
    stages.write_text("zero\n")
    with pytest.raises(BadInput, match="is not a list of integers"):
        ucddb_signal([wake], stages)


def test_the_real_whole_night_has_no_gap(shared_data):
    night = next(n for n in discover("ucddb", shared_data / "sleep_ucddb_epochs") if n.recording_id == "ucd018")
    recording, hypnogram = load(night, ["EEG"])
    assert recording.samples.shape == (1, 822 * 3840)
    assert np.isfinite(recording.samples).all()
    assert hypnogram is not None
    assert tuple(stage_counts(hypnogram.stages).values()) == (328, 58, 280, 137, 19, 0)
    steps = np.abs(np.diff(recording.samples[0]))
    assert np.median(steps[3839::3840]) < 1.5 * np.median(steps)


def test_the_real_excerpts_load(shared_data):
    found = discover("dreams", shared_data / "sleep_dreams_spindles")
    assert [n.recording_id for n in found] == [f"excerpt{i}" for i in (1, 2, 3, 6, 7)]
    for night in found:
        recording, hypnogram = load(night, ["EEG Fpz-Cz"], 50.0, aliases=ALIASES)
        assert recording.duration_s == 1800.0
        assert 15 < recording.samples.std() < 35
        assert hypnogram is not None
        assert hypnogram.duration_s == 1800.0
