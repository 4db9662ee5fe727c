"""States without labels: waking with theta, quiet waking, dead and noisy channels, artefacts."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score as kappa

from src.preprocess.lfp.epochs import lfp_epochs
from src.preprocess.lfp.parameters import LfpEpochsParams
from src.preprocess.lfp.states import (
    NREM,
    REM,
    WAKE,
    Features,
    epoch_features,
    score,
    summary_of,
    two_modes,
    write_states,
)
from src.signals import RODENT_STAGES, UNSCORED, SourceOptions
from src.simulate.lfp import simulate_session

NONE = np.zeros(0, bool)


def features(slow, theta, muscle=None):
    return Features(slow, theta, np.column_stack([slow, theta, -slow]), muscle)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rat")
    made = simulate_session(folder, minutes=16, shanks=(0,), n_channels=4, fs_hz=1250.0, seed=0)
    (folder / "rat1_hypnogram.csv").unlink()
    path = made.folder / "low_freq/rat1_sh0_lfp_traces.npz"
    with np.load(path) as arrays:
        return made.stages, dict(arrays)


def scored(folder, arrays, traces):
    place = folder / "rat1.rec" / "low_freq"
    place.mkdir(parents=True)
    np.savez(place / "rat1_sh0_lfp_traces.npz", **arrays | {"traces": traces})
    out = folder.with_name(f"{folder.name}_out")
    summary = lfp_epochs(LfpEpochsParams(input_dir=str(folder), output_dir=str(out), workers=1))
    assert not summary.failures, summary.failures
    rows = (out / "rat1_sh0/hypnogram.csv").read_text().splitlines()
    assert rows[0] == "onset,duration,stage,confidence"
    assert (out / "rat1_sh0/states.png").stat().st_size > 5000
    names = ["Wake", "NREM", "REM"]
    warnings = summary.values["rat1_sh0"].manifest["facts"]["warnings"]
    return np.array([names.index(row.split(",")[2]) for row in rows[1:]]), warnings


def test_a_session_is_scored_and_survives_a_dead_channel_and_artefacts(tmp_path, session):
    truth, arrays = session
    clean, _ = scored(tmp_path / "clean", arrays, arrays["traces"])
    assert kappa(truth, clean) > 0.93
    spoiled = arrays["traces"].copy()
    for start in range(5, 950, 20):
        spoiled[start * 1250 : start * 1250 + 625] += 30_000
    spoiled[:, 2] = 0
    found, warnings = scored(tmp_path / "spoiled", arrays, spoiled)
    assert kappa(clean, found) > 0.95
    assert any("masked because they are flat" in warning for warning in warnings)
    assert any("have artefacts" in warning for warning in warnings)


def test_waking_with_theta_is_told_from_rem_by_the_whole_spectrum(tmp_path):
    made = simulate_session(tmp_path / "in", minutes=30, shanks=(0,), n_channels=2, fs_hz=250.0, seed=0)
    params = LfpEpochsParams(input_dir=str(tmp_path / "in"), output_dir=str(tmp_path / "out"))
    (artifact,) = lfp_epochs(params, labelled=False).values.values()
    rows = (artifact.path / "hypnogram.csv").read_text().splitlines()[1:]
    found = np.array([RODENT_STAGES.index(row.split(",")[2]) for row in rows])
    assert kappa(made.stages[: len(found)], found) > 0.9


def test_rem_needs_nrem_before_it_where_muscles_are_not_known():
    slow = np.r_[np.full(50, -2.0), np.full(50, 2.0), np.full(50, -2.0)]
    theta = np.r_[np.full(25, 0.9), np.full(25, 0.3), np.full(50, 0.3), np.full(25, 0.9), np.full(25, 0.3)]
    noise = np.random.default_rng(0).normal(0, 0.05, (2, 150))
    found = score(features(slow + noise[0], theta + noise[1]), 4.0)
    assert set(found.stages[:25]) == {WAKE}
    assert set(found.stages[52:98]) == {NREM}
    assert set(found.stages[102:122]) == {REM}
    assert "no muscle activity is known" in found.warnings[0]
    muscle = np.r_[np.full(50, 0.8), np.full(100, 0.1)] + noise[0]
    active = score(features(slow + noise[0], theta + noise[1], muscle), 4.0)
    assert set(active.stages[:48]) == {WAKE}
    assert set(active.stages[102:122]) == {REM}
    assert ["rodents have 5 to 20 %" in said for said in active.warnings] == [True]


def test_states_that_cannot_be_believed_are_said(shared_data, tmp_path):
    short = shared_data / "lfp_rat_hippocampus/sample_data_2.npy"
    params = LfpEpochsParams(input_dir=str(short), output_dir=str(tmp_path), source=SourceOptions(fs_hz=1000.0))
    warnings = lfp_epochs(params).values["sample_data_2_sh0"].manifest["facts"]["warnings"]
    assert any("too short to find thresholds" in warning for warning in warnings)
    slow = np.r_[np.full(100, -2.0), np.full(100, 2.0)] + np.random.default_rng(0).normal(0, 0.1, 200)
    assert any("more theta than slow waves" in said for said in score(features(slow, np.full(200, 0.8)), 4.0).warnings)


def test_a_handful_of_scored_epochs_sets_the_thresholds():
    rng = np.random.default_rng(1)
    slow = np.r_[rng.normal(-1, 0.3, 100), rng.normal(0.2, 0.3, 100), rng.normal(4, 0.3, 15)]
    labels = np.full(215, -1, np.int8)
    labels[[3, 5, 7]], labels[[110, 120, 130]] = WAKE, NREM
    found = score(features(slow, np.full(215, 0.3)), 4.0, labels)
    assert (found.stages[:98] == WAKE).mean() > 0.95
    assert (found.stages[102:198] == NREM).mean() > 0.8


def test_two_modes_and_one():
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(0, 1, 300), rng.normal(8, 1, 100)]
    values[7] = np.nan
    high, separated = two_modes(values, NONE, NONE)
    assert separated
    assert high[:300].mean() < 0.02 < 0.98 < high[300:].mean()
    assert high[7] == 0.5
    assert two_modes(np.full(20, 3.0), NONE, NONE)[1] is False
    for seed in range(5):
        assert two_modes(np.random.default_rng(seed).normal(size=400), NONE, NONE)[1] is False


def test_onsets_of_long_recordings_are_written_whole(tmp_path):
    stages, confidence = np.array([WAKE, UNSCORED]), np.array([0.75, np.nan])
    write_states(tmp_path, [123_456.5, 1_234_567.5], 2.5, stages, confidence)
    lines = ["onset,duration,stage,confidence", "123456.5,2.5,Wake,0.750", "1234567.5,2.5,unscored,"]
    assert (tmp_path / "hypnogram.csv").read_text().splitlines() == lines


def test_epochs_that_are_missing_or_stuck_behind_a_filter_are_unscored():
    decibel = np.random.default_rng(0).normal(0, 1, (60, 2, 120, 5)).astype(np.float16)
    decibel[10], decibel[11] = np.nan, decibel[11] - 70
    features, _ = epoch_features(decibel, np.arange(0.5, 60.5, 0.5))
    assert np.isnan(features.slow[10:12]).all()
    found = score(features, 4.0)
    np.testing.assert_array_equal(np.flatnonzero(found.stages == UNSCORED), [10, 11])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found.confidence)), [10, 11])
    assert any(line.startswith("2 epochs unscored") for line in found.warnings)
    facts = summary_of(found.stages, found.confidence)
    assert facts["unscored"] == 2
    assert sum(facts["share"].values()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_recording_shorter_than_the_smoothing_is_scored_with_a_warning(epochs):
    rng = np.random.default_rng(epochs)
    found = score(Features(rng.normal(size=epochs), rng.random(epochs), rng.normal(size=(epochs, 5)), None), 4.0)
    assert len(found.stages) == len(found.confidence) == epochs
    assert any("too short" in line for line in found.warnings)
