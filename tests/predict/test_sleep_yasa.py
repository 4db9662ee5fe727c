"""YASA's part in the answer: its features are the package's, units and gaps do not matter, and one rule says when."""

import numpy as np
import pytest

from src.predict import sleep_yasa
from src.predict.sleep import stage
from src.predict.sleep_statistics import beside
from src.predict.sleep_yasa import classify, log_mean, yasa_share
from src.recordings.sleep.hypnogram import align
from src.recordings.sleep.nights import ScoringOptions, discover, load_channels, load_scoring
from src.signals import HUMAN_STAGES, BadInput


@pytest.fixture(scope="module")
def signal():
    """Twenty-five minutes of noise that becomes slower and larger."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 4, 50 * 3000)
    slow = np.convolve(noise, np.ones(20) / 5, "same")
    return noise + slow * np.linspace(0, 4, len(noise))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_features_and_stages_are_those_of_the_package(signal):
    import mne
    from yasa import SleepStaging

    eog, usable = np.roll(signal, 50) + np.random.default_rng(1).normal(0, 9, len(signal)), np.ones(50, bool)
    ours = classify(signal, eog, usable)
    calm = np.quantile(sleep_yasa._in_blocks(signal, 50, True)["std"], 0.05)
    volts = np.stack([signal, eog]) * 16 / calm * 1e-6
    raw = mne.io.RawArray(volts, mne.create_info(["eeg", "eog"], 100.0, ["eeg", "eog"]), verbose="ERROR")
    theirs = SleepStaging(raw, eeg_name="eeg", eog_name="eog").predict().proba
    np.testing.assert_allclose(ours, theirs[["WAKE", "N1", "N2", "N3", "REM"]], atol=0.1)  # trees have thresholds
    assert np.mean(np.abs(ours - theirs[["WAKE", "N1", "N2", "N3", "REM"]].to_numpy()) > 1e-4) < 0.05


def test_neither_the_unit_nor_what_stands_in_a_gap_matters(signal):
    usable = np.arange(50) // 10 != 2
    rows = np.repeat(usable, 3000)
    found = classify(np.where(rows, signal, np.nan), None, usable)
    assert np.isnan(found).all(axis=1).tolist() == (~usable).tolist()
    np.testing.assert_allclose(found[usable].sum(axis=1), 1, atol=1e-5)
    scaled = classify(np.where(rows, signal * 1e-6, np.nan), None, usable)
    assert np.mean(np.abs(scaled - found)[usable] > 1e-3) < 0.05


@pytest.mark.parametrize(
    ("foreign", "readable", "scored", "fs_hz", "share"),
    [
        (False, True, 1.0, 100.0, 0.0),
        (True, True, 1.0, 100.0, 0.75),
        (True, True, 1.0, 50.0, 0.5),
        (True, True, 0.3, 50.0, 1.0),
        (True, False, 1.0, 100.0, 0.0),
    ],
)
def test_the_rule(foreign, readable, scored, fs_hz, share):
    assert yasa_share(foreign, readable, scored, fs_hz) == share


def test_log_probabilities_are_averaged():
    one, other = np.array([[0.9, 0.1]]), np.array([[0.1, 0.9]])
    np.testing.assert_allclose(log_mean(one, other, 0.5), 0.5)
    np.testing.assert_allclose(log_mean(one, other, 1.0), other)


def test_the_answer_says_who_gave_it(signal):
    both = stage(signal[None], 100.0, ["C4-M1"])
    assert both.origin.startswith("Network and YASA trained on recordings: Sleep-EDF")
    assert "National Sleep Research Resource" in both.origin
    (note,) = [note for note in both.notes if "scored by" in note]
    assert "trained on EEG Fpz-Cz, EEG Pz-Oz, EOG horizontal, not on C4-M1" in note
    half = np.where(np.arange(len(signal)) < 100_000, np.nan, signal)
    assert stage(half[None], 100.0, ["C4-M1"]).origin.startswith("YASA trained on")
    slow = stage(signal[None, ::2], 50.0, ["C4-M1"])
    assert slow.origin.startswith("Network and YASA")
    assert any("often misread at 50 Hz" in note for note in slow.notes)
    alone = stage(signal[None], 100.0, ["C4-M1"], yasa=False)
    assert alone.origin.startswith("Network trained on")
    assert not np.allclose(alone.probabilities, both.probabilities)
    dead = stage(np.stack([0 * signal, signal]), 100.0, ["C3-A2", "C4-A1"])
    assert dead.channels == ["C4-A1"]
    assert "channels chosen: C4-A1 (use names others)" in dead.notes
    assert any(note.startswith("C3-A2 left out: channel 'C3-A2' is flat") for note in dead.notes)
    own = stage(signal[None], 100.0, ["Fpz-Cz"])
    assert own.origin.startswith("Network trained on")
    assert not any("YASA" in note or "misread" in note for note in own.notes)


def test_without_the_package_the_hint_is_named(signal, monkeypatch):
    sleep_yasa._trees.cache_clear()
    monkeypatch.setattr(sleep_yasa, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install yasa"):
        stage(signal[None], 100.0, ["C4-M1"])


def test_it_stands_beside_our_stages_in_lines():
    ours, theirs, person = np.array([0, 2, 2, -1]), np.array([0, 2, 3, 3]), np.array([0, 2, 3, 3])
    first, second = beside(theirs, ours, person, HUMAN_STAGES)
    assert first.startswith("with this scoring: κ 0.50  accuracy 0.67")
    assert second.startswith("with the reference: κ 1.00")
    assert len(beside(theirs, ours, None, HUMAN_STAGES)) == 1


@pytest.mark.parametrize(
    ("kind", "folder", "name", "accuracy"),
    [
        ("dreams", "sleep_dreams_spindles", "excerpt1", 0.65),
        ("dreams", "sleep_dreams_spindles", "excerpt2", 0.85),
        ("dreams", "sleep_dreams_spindles", "excerpt3", 0.50),
        ("dreams", "sleep_dreams_spindles", "excerpt6", 0.70),
        ("ucddb", "sleep_ucddb_epochs", "ucd007", 0.85),
        pytest.param("ucddb", "sleep_ucddb_epochs", "ucd018", 0.88, marks=pytest.mark.slow),
        pytest.param("ucddb", "sleep_ucddb_epochs", "ucd019", 0.80, marks=pytest.mark.slow),
    ],
)
def test_people_of_other_laboratories_are_scored_like_a_person_at_any_gain(shared_data, kind, folder, name, accuracy):
    night = next(night for night in discover(kind, shared_data / folder) if night.recording_id == name)
    (recording,) = load_channels(night, ["EEG"], {"EEG": ("C3-A1", "CZ-A1")})
    truth, _ = align(load_scoring(night, ScoringOptions()), recording.duration_s, 30.0)
    found = stage(recording.samples, recording.fs_hz, ["C3-A1"], units="a.u.")
    names = np.array([*HUMAN_STAGES, "unscored"])[truth]
    both = (truth >= 0) & (found.stages[: len(truth)] != "unscored")
    assert np.mean(found.stages[: len(truth)][both] == names[both]) > accuracy
    if kind == "dreams":
        louder = stage(recording.samples * np.float32(5), recording.fs_hz, ["C3-A1"])
        assert np.mean(louder.stages == found.stages) > 0.98
