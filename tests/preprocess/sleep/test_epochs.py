"""A night becomes labelled epochs: which ones, with what label, and the same way for training and inference."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from src.preprocess.sleep.epochs import EpochSettings, epochs_of, read_epochs
from src.preprocess.sleep.features import FeatureSettings
from src.preprocess.sleep.prepare import SLEEP_EPOCHS
from src.recordings.sleep.hypnogram import Hypnogram
from src.recordings.sleep.nights import discover
from src.signals import UNSCORED, BadInput, Recording
from src.simulate.sleep import write_night
from src.storage.step import ensure
from tests.nights import load

SETTINGS = EpochSettings(features=FeatureSettings(epoch_s=4.0, window_s=1.0, hop_s=0.5), margin_s=None)
STAGES = np.array([0, 1, 2, 3, 4, 0], np.int8)


def recording(n_epochs=6, tail=0, seed=0):
    samples = np.random.default_rng(seed).normal(0, 10, (1, n_epochs * 400 + tail)).astype(np.float32)
    return Recording(samples, 100.0, ("EEG Fpz-Cz",), ("uV",), "night", "someone")


def test_every_scored_epoch_keeps_its_label_and_onset():
    epochs = epochs_of(recording(), Hypnogram(STAGES, 4.0), SETTINGS)
    assert epochs.features.shape == (6, 1, *SETTINGS.features.shape)
    np.testing.assert_array_equal(epochs.stages, STAGES)
    np.testing.assert_array_equal(epochs.onset_s, np.arange(6) * 4.0)


def test_wake_is_trimmed_and_the_rest_counted():
    stages = np.r_[np.zeros(10, np.int8), [2, 2, 4], np.zeros(10, np.int8)].astype(np.int8)
    epochs = epochs_of(recording(23), Hypnogram(stages, 4.0), replace(SETTINGS, margin_s=8.0))
    np.testing.assert_array_equal(epochs.stages, [0, 0, 2, 2, 4, 0, 0])
    assert epochs.onset_s[0] == 32.0
    assert epochs.facts["trimmed"] == {"before": 8, "after": 8}
    assert epochs.facts["counts"] == {"W": 4, "N1": 0, "N2": 2, "N3": 0, "REM": 1, "unscored": 0}


def test_trimmed_epochs_have_the_images_of_the_untrimmed_ones():
    stages = np.r_[np.zeros(5, np.int8), [2, 2, 4], np.zeros(5, np.int8)].astype(np.int8)
    every = epochs_of(recording(13), Hypnogram(stages, 4.0), SETTINGS)
    some = epochs_of(recording(13), Hypnogram(stages, 4.0), replace(SETTINGS, margin_s=8.0))
    np.testing.assert_array_equal(some.features, every.features[3:10])


def test_inference_sees_the_images_of_training():
    labelled = epochs_of(recording(), Hypnogram(STAGES, 4.0), SETTINGS)
    unlabelled = epochs_of(recording(tail=150), None, replace(SETTINGS, margin_s=4.0))
    np.testing.assert_array_equal(unlabelled.features, labelled.features)
    assert (unlabelled.stages == UNSCORED).all()
    assert unlabelled.facts["tail_s"] == 1.5


def test_missing_samples_and_flat_stretches_are_nobodys_epoch():
    night = recording()
    night.samples[0, 450] = np.nan
    night.samples[0, 1200:1600] = 3.0
    epochs = epochs_of(night, Hypnogram(STAGES, 4.0), SETTINGS)
    np.testing.assert_array_equal(epochs.usable, [True, False, True, False, True, True])
    np.testing.assert_array_equal(epochs.stages, [0, UNSCORED, 2, UNSCORED, 4, 0])
    assert (epochs.facts["missing_samples"], epochs.facts["flat"], epochs.facts["scored_but_unusable"]) == (1, 1, 2)
    assert np.isfinite(epochs.features[[0, 2, 4, 5]]).all()


def test_scoring_follows_the_clock():
    night = replace(recording(), start=datetime(2024, 1, 1, 23, 0, 0))
    late = Hypnogram(STAGES[:5], 4.0, start=datetime(2024, 1, 1, 23, 0, 4))
    np.testing.assert_array_equal(epochs_of(night, late, SETTINGS).stages, [UNSCORED, *STAGES[:5]])


def test_a_scoring_that_teaches_nothing_is_refused():
    with pytest.raises(BadInput, match=r"h\.csv: has one class only \(N2\)"):
        epochs_of(recording(), Hypnogram(np.full(6, 2, np.int8), 4.0, source="h.csv"), SETTINGS)


def test_a_recording_shorter_than_an_epoch_is_refused():
    with pytest.raises(BadInput, match="less than one epoch"):
        epochs_of(recording(0, tail=300), None, SETTINGS)


def test_stage_writes_what_epochs_of_returns(tmp_path):
    write_night(tmp_path / "nights", 1, 1, seed=2, hours=1.0)
    (night,) = discover("sleep_edf", tmp_path / "nights")
    settings = EpochSettings(channels=("Fpz-Cz", "EEG Pz-Oz"), margin_s=600.0)
    params = settings.to_params("sleep_edf")
    assert EpochSettings.from_params(params) == settings
    artifact = ensure(SLEEP_EPOCHS, night.inputs(), params, label=night.recording_id, cache=tmp_path / "cache")
    stored = read_epochs(artifact.path)
    recording, hypnogram = load(night, settings.channels, 100.0)
    direct = epochs_of(recording, hypnogram, settings)
    np.testing.assert_allclose(stored.features, direct.features, atol=0.04)
    np.testing.assert_array_equal(stored.stages, direct.stages)
    np.testing.assert_array_equal(stored.onset_s, direct.onset_s)
    facts = artifact.manifest["facts"]
    assert facts["axes"] == ["epoch", "channel", "frequency", "time"]
    assert facts["units"] == "dB re 1 uV^2/Hz"
    assert facts["counts"] == direct.facts["counts"]
