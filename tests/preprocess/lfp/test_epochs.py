"""Epochs cut from finished spectrograms: frames of their own, labels of the hypnogram, the night's file format."""

import numpy as np
import pytest

from src.preprocess.lfp.epochs import SESSION_STATES, epochs_from_spectrogram, finished_shanks
from src.preprocess.lfp.parameters import LfpEpochsParams, SpectrogramParams
from src.preprocess.sleep.epochs import read_epochs
from src.recordings.sleep.hypnogram import Hypnogram
from src.signals import HUMAN_STAGES, RODENT_STAGES, UNSCORED, BadInput
from src.simulate.lfp import simulate_session
from tests.preprocess.lfp.lfp_files import BANDS, compute, random_traces, write_shank
from tests.preprocess.test_spectrogram import power_spectrogram


def computed(tmp_path, samples, preset="sleep", fs_hz=500.0, **overrides):
    path = write_shank(tmp_path, "a", 0, samples, sampling_rate=fs_hz)
    compute(tmp_path / "out", path, preset, **overrides)
    return tmp_path / "out"


def scoring(stages, epoch_s, names=RODENT_STAGES):
    return Hypnogram(np.array(stages, np.int8), epoch_s, stage_names=names)


@pytest.mark.parametrize(("epoch_s", "n_frames"), [(4.0, 5), (30.0, 57), (2.5, 2)])
@pytest.mark.parametrize("format", ["npz", "hdf5"])
def test_an_epochs_frames_are_its_own(tmp_path, epoch_s, n_frames, format):
    samples = random_traces(45_200, 2)
    folder = computed(tmp_path, samples, format=format)
    epochs = epochs_from_spectrogram(folder, None, epoch_s, channels=["1", "0"], max_hz=50.0)
    assert epochs.features.shape == (int(90.4 / epoch_s), 2, 100, n_frames)
    index = len(epochs.features) - 1
    own = samples[int(index * epoch_s * 500) : int((index + 1) * epoch_s * 500), 1]
    freqs, times, power = power_spectrogram(own, 500, window="hann", nperseg=1000, noverlap=750)
    rows = (freqs >= 0.5) & (freqs <= 50)
    np.testing.assert_allclose(epochs.features[index, 0], 10 * np.log10(power[rows]), atol=0.05)
    np.testing.assert_allclose(epochs.times_s, times)
    np.testing.assert_allclose(epochs.freqs_hz, freqs[rows])
    assert epochs.signal.channels == ("1", "0")


def test_windows_that_do_not_divide_an_epoch(tmp_path):
    folder = computed(tmp_path, random_traces(30_000, 1), "scipy_compat")
    epochs = epochs_from_spectrogram(folder, None, 4.0)
    assert epochs.features.shape[0] in (14, 15)
    assert epochs.features.shape[3] == 3
    assert np.isfinite(epochs.features).all()


def test_labels_gaps_and_silence(tmp_path):
    samples = random_traces(30_000, 2)
    samples[2100, 0] = np.nan
    samples[8000:10_000, 1] = 4.0
    samples[12_100:12_200] = np.nan
    folder = computed(tmp_path, samples)
    stages = [0] * 5 + [1] * 6 + [2, -1, 1, 0]
    epochs = epochs_from_spectrogram(folder, scoring(stages, 4.0), 4.0)
    want = np.array(stages, np.int8)
    want[6] = UNSCORED
    np.testing.assert_array_equal(epochs.stages, want)
    np.testing.assert_array_equal(np.flatnonzero(~epochs.usable), [6])
    missing = np.isnan(epochs.features).all(axis=(2, 3))
    np.testing.assert_array_equal(np.argwhere(missing), [[1, 0], [4, 1], [6, 0], [6, 1]])
    assert epochs.facts["scored_but_unusable"] == 1
    assert "1 scored epochs left out" in epochs.facts["warnings"][-1]
    trimmed = epochs_from_spectrogram(folder, scoring(stages, 4.0), 4.0, margin_s=8.0)
    np.testing.assert_array_equal(trimmed.onset_s, np.arange(3, 15) * 4.0)


def test_one_dead_channel_of_four_loses_no_epoch(tmp_path):
    samples = random_traces(30_000, 4)
    samples[:, 2] = 0
    epochs = epochs_from_spectrogram(computed(tmp_path, samples), None, 4.0)
    assert epochs.usable.all()
    assert np.isnan(epochs.features[:, 2]).all()
    assert np.isfinite(epochs.features[:, [0, 1, 3]]).all()
    assert epochs.facts["warnings"] == ["masked because they are flat or missing most of the time: channels 2"]


def test_five_human_stages_in_30_s(tmp_path):
    folder = computed(tmp_path, random_traces(5 * 3000, 1), fs_hz=100.0)
    epochs = epochs_from_spectrogram(folder, scoring([0, 1, 2, 3, 4], 30.0, HUMAN_STAGES), 30.0)
    assert epochs.stages.tolist() == [0, 1, 2, 3, 4]
    assert epochs.features.shape == (5, 1, 100, 57)


def test_what_is_refused(tmp_path):
    folder = computed(tmp_path, random_traces(30_000, 1))
    for epoch_s, options, says in (
        (1.0, {}, "no room for a window"),
        (100.0, {}, "shorter than an epoch"),
        (4.0, {"min_hz": 70.0}, "no row between"),
        (4.0, {"channels": ["x"]}, "has no channel x"),
    ):
        with pytest.raises(BadInput, match=says):
            epochs_from_spectrogram(folder, None, epoch_s, **options)
    for wrong, says in (
        ({"hypnograms": "/nowhere"}, "/nowhere: does not exist"),
        ({"examples": "/nowhere"}, "/nowhere: does not exist"),
        ({"species": "mouse"}, "choose one of human, rodent"),
        ({"epoch_s": 0.0}, r"epoch_s: is 0; give seconds"),
        ({"epoch_s": 4000.0}, r"epoch_s: is 4000; give seconds"),
        ({"margin_s": -5.0}, r"margin_s: is -5; give seconds"),
        ({"min_hz": 60.0, "max_hz": 5.0}, r"min_hz: is 60, max_hz is 5.0; give Hz"),
        ({"min_hz": 0.0005, "max_hz": 0.06}, r"min_hz: is 0.0005, max_hz is 0.06; give Hz"),
        ({"sampling_rate_hz": 0.5}, r"sampling_rate_hz: has a sampling rate of 0.5 Hz.*0.5 kHz is 500"),
        ({"sampling_rate_hz": -500.0}, r"sampling_rate_hz: has a sampling rate of -500 Hz"),
    ):
        with pytest.raises(BadInput, match=says):
            LfpEpochsParams(input_dir=str(tmp_path), output_dir=str(tmp_path / "none"), **wrong).run()
    assert not (tmp_path / "none").exists()
    with pytest.raises(BadInput, match="no sleep"):
        epochs_from_spectrogram(folder, scoring([0] * 15, 4.0), 4.0)


def test_finished_shanks_and_their_scorings(tmp_path):
    for session, shanks in (("ratA", (0, 2)), ("ratB", (1,))):
        simulate_session(tmp_path / "in", name=session, minutes=1, shanks=shanks, n_channels=1)
    out = tmp_path / "out"
    SpectrogramParams(input_dir=str(tmp_path / "in"), output_dir=str(out), preset="sleep", bands=BANDS).run()
    found = finished_shanks(out, tmp_path / "in")
    assert [(f.label, f.session) for f in found] == [("ratA_sh0", "ratA"), ("ratA_sh2", "ratA"), ("ratB_sh1", "ratB")]
    assert found[1].spectrograms == out / "ratA/sh2_sleep"
    assert found[1].hypnogram == tmp_path / "in/ratA_hypnogram.csv"
    assert {f.hypnogram for f in finished_shanks(out)} == {None}
    assert finished_shanks(tmp_path / "in") == []


def test_scored_sessions(tmp_path):
    made = simulate_session(tmp_path / "in", name="ratA", minutes=6, shanks=(0,), n_channels=2, seed=1)
    params = LfpEpochsParams(input_dir=str(tmp_path / "in"), output_dir=str(tmp_path / "out"), channels=["1"])
    (artifact,) = params.run().values.values()
    epochs = read_epochs(artifact.path)
    np.testing.assert_array_equal(epochs.stages, made.stages)
    delta = epochs.features[:, 0, (epochs.freqs_hz > 1) & (epochs.freqs_hz < 4)].mean(axis=(1, 2))
    assert delta[made.stages == 1].min() > np.median(delta[made.stages == 0])
    assert artifact.manifest["facts"]["stage_names"] == list(RODENT_STAGES)
    assert not (artifact.path / "hypnogram.csv").exists()


def test_a_few_scored_epochs_are_kept_and_the_others_scored_by_them(tmp_path):
    made = simulate_session(tmp_path / "in", name="ratA", minutes=12, shanks=(0,), n_channels=2, seed=3)
    (tmp_path / "in/ratA_hypnogram.csv").unlink()
    examples = np.concatenate([np.flatnonzero(made.stages == stage)[:6] for stage in range(3)])
    lines = [f"{4 * epoch},4,{RODENT_STAGES[made.stages[epoch]]}" for epoch in sorted(examples)]
    (tmp_path / "ratA_examples.csv").write_text("onset,duration,stage\n" + "\n".join(lines) + "\n")
    params = LfpEpochsParams(str(tmp_path / "in"), str(tmp_path / "out"), examples=str(tmp_path))
    (artifact,) = params.run().values.values()
    assert artifact.manifest["facts"]["scored_by"] == f"a rule from {len(examples)} epochs"
    rows = (tmp_path / "out/ratA_sh0/hypnogram.csv").read_text().splitlines()[1:]
    stages = np.array([RODENT_STAGES.index(row.split(",")[2]) for row in rows])
    np.testing.assert_array_equal(stages[examples], made.stages[examples])
    assert (stages == made.stages[: len(stages)]).mean() > 0.8
    (tmp_path / "ratA_examples.csv").write_text("onset,duration,stage\n0,4,Wake\n")
    (failed,) = params.run().failures
    assert "names no epoch of NREM" in failed.reason


def test_the_signal_check_stands_in_the_table(tmp_path, capsys):
    samples = random_traces(60_000, 3)
    time = np.arange(60_000) / 500
    samples[:, 0] += 400 * np.sin(2 * np.pi * 50 * time)
    samples[:, 1] = np.clip(samples[:, 1], -30, 30)
    samples[:, 2] = 7
    write_shank(tmp_path / "in", "a", 0, samples)
    (artifact,) = (
        LfpEpochsParams(input_dir=str(tmp_path / "in"), output_dir=str(tmp_path / "out")).run().values.values()
    )
    assert artifact.manifest["facts"]["signal"] == {"mains hum": ["0"], "clipped": ["1"], "flat": ["2"]}
    said = " ".join(capsys.readouterr().err.split())
    assert "mains hum 1, clipped 1, flat 1" in said


STATES_HEADER = "onset,duration,stage,confidence"


def voter(folder, *cells):
    folder.mkdir()
    rows = [f"{4 * epoch},4,{stage},{sure}" for epoch, (stage, sure) in enumerate(cells)]
    (folder / "hypnogram.csv").write_text("\n".join([STATES_HEADER, *rows]) + "\n")
    return folder


def test_the_state_with_most_confidence_wins(tmp_path):
    inputs = {
        "a_sh0": voter(tmp_path / "0", ("Wake", 0.9), ("NREM", 0.5), ("NREM", 0.9), ("REM", 0.9)),
        "a_sh1": voter(tmp_path / "1", ("Wake", 0.7), ("REM", 0.8), ("NREM", 0.5)),
    }
    (tmp_path / "out").mkdir()
    facts = SESSION_STATES.run(inputs, {"epoch_s": 4.0}, tmp_path / "out", None)
    rows = (tmp_path / "out" / "hypnogram.csv").read_text().splitlines()
    assert rows == [STATES_HEADER, "0,4,Wake,0.800", "4,4,REM,0.400", "8,4,NREM,0.700"]
    assert facts["shanks_agree"] == 0.6667
    assert "agree in 67% of the epochs" in facts["warnings"][0]
