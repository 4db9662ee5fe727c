"""YASA beside our scoring. The package is no requirement: a stand-in says what is asked of it."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from src.predict.sleep_statistics import beside
from src.predict.sleep_yasa import yasa_stages
from src.signals import HUMAN_STAGES, BadInput, Recording


def channel(name, fs_hz=100.0, units="uV", seconds=150):
    samples = np.full((1, round(seconds * fs_hz)), 20.0, np.float32)
    return Recording(samples, fs_hz, (name,), (units,), name, name)


@pytest.fixture
def asked(monkeypatch):
    """What YASA was asked, filled in when it is."""
    seen = {}
    mne, yasa = ModuleType("mne"), ModuleType("yasa")
    mne.create_info = lambda names, fs_hz, kinds: (names, fs_hz, kinds)
    mne.io = SimpleNamespace(RawArray=lambda volts, info, verbose: seen.update(volts=volts, info=info))

    class SleepStaging:
        def __init__(self, raw, eeg_name, *, eog_name):
            seen.update(eeg=eeg_name, eog=eog_name)

        def predict(self):
            return SimpleNamespace(hypno=["WAKE", "N1", "N2", "REM", "ART"])

    yasa.SleepStaging = SleepStaging
    monkeypatch.setitem(sys.modules, "mne", mne)
    monkeypatch.setitem(sys.modules, "yasa", yasa)
    return seen


def test_it_is_given_volts_and_its_names_become_ours(asked):
    stages = yasa_stages([channel("EOG horizontal"), channel("EEG Fpz-Cz"), channel("EEG Pz-Oz")], 7)
    assert stages.tolist() == [0, 1, 2, 4, -1, -1, -1]
    assert asked["eeg"] == "eeg"
    assert asked["eog"] == "eog"
    assert asked["volts"].shape == (2, 15_000)
    np.testing.assert_allclose(asked["volts"], 20e-6)


def test_it_does_without_an_eye_channel(asked):
    yasa_stages([channel("C4-M1")], 5)
    assert asked["eog"] is None
    yasa_stages([channel("C4-M1"), channel("EOG", fs_hz=50.0)], 5)
    assert asked["eog"] is None


def test_what_it_cannot_read_is_refused(asked):
    for recording in (channel("C4-M1", units="mV"), channel("C4-M1", fs_hz=64.0)):
        with pytest.raises(BadInput, match="needs microvolts at 80 Hz or more"):
            yasa_stages([recording], 5)
    with pytest.raises(BadInput, match="no EEG channel"):
        yasa_stages([channel("EOG left")], 5)


def test_without_the_package_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "yasa", None)
    monkeypatch.setitem(sys.modules, "mne", ModuleType("mne"))
    with pytest.raises(BadInput, match="pip install yasa"):
        yasa_stages([channel("C4-M1")], 5)


def test_it_stands_beside_our_stages_in_lines():
    ours, theirs, person = np.array([0, 2, 2, -1]), np.array([0, 2, 3, 3]), np.array([0, 2, 3, 3])
    first, second = beside(theirs, ours, person, HUMAN_STAGES)
    assert first.startswith("with this scoring: κ 0.50  accuracy 0.67")
    assert second.startswith("with the reference: κ 1.00")
    assert len(beside(theirs, ours, None, HUMAN_STAGES)) == 1
