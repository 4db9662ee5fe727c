"""A simulated session: reproducible, in the original's file format, with states one can see in it."""

import numpy as np
import pytest

from src.recordings.extracellular.reader import open_recording
from src.simulate.lfp import simulate_session
from tests.preprocess.test_spectrogram import power_spectrogram


def test_session_on_disk(tmp_path):
    made = simulate_session(tmp_path, name="rat7", minutes=2, shanks=(0, 4), n_channels=3, fs_hz=498.75, seed=3)
    again = simulate_session(
        tmp_path / "again", name="rat7", minutes=2, shanks=(4,), n_channels=3, fs_hz=498.75, seed=3
    )
    assert made.folder == tmp_path / "rat7.rec"
    traces = open_recording(made.folder / "low_freq/rat7_sh4_lfp_traces.npz")
    assert (traces.n_samples, traces.n_channels, traces.fs_hz, traces.units) == (59850, 3, 498.75, "uV")
    assert traces.channel_ids.tolist() == [4000, 4001, 4002]
    files = [m.folder / "low_freq/rat7_sh4_lfp_traces.npz" for m in (made, again)]
    with np.load(files[0]) as one, np.load(files[1]) as other:
        np.testing.assert_array_equal(one["traces"], other["traces"])
        assert 50 < one["traces"].std() < 400
    assert (tmp_path / "rat7_hypnogram.csv").read_text().startswith("onset,duration,stage\n0,4,Wake\n")
    assert len(made.stages) == 30


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """The states of a session, and its power ``(frequency, epoch)``."""
    made = simulate_session(tmp_path_factory.mktemp("rat"), minutes=25, shanks=(0,), n_channels=2, fs_hz=250.0)
    with np.load(made.folder / "low_freq/rat1_sh0_lfp_traces.npz") as arrays:
        freqs, _, power = power_spectrogram(arrays["traces"][:, 1], 250.0, window="hann", nperseg=1000, noverlap=0)
    return made.stages, freqs, power


def test_states_differ_where_they_should(analysed):
    stages, freqs, power = analysed
    mean = {state: power[:, stages == state].mean(axis=1) for state in range(3)}
    delta, theta = (freqs > 1) & (freqs < 4), (freqs > 6) & (freqs < 9)
    assert mean[1][delta].mean() > 3 * max(mean[0][delta].mean(), mean[2][delta].mean())
    assert mean[2][theta].mean() > 1.5 * mean[0][theta].mean() > 3 * mean[1][theta].mean()
    assert np.polyfit(np.log(freqs[100:300]), np.log(mean[1][100:300]), 1)[0] == pytest.approx(-0.8, abs=0.4)


def test_waking_is_told_apart_by_no_amplitude_alone(analysed):
    stages, freqs, power = analysed
    wake, sleep, rem = (power[:, stages == state] for state in range(3))
    delta, theta = (freqs > 1) & (freqs < 4), (freqs > 6) & (freqs < 9)
    assert np.quantile(wake[theta].mean(axis=0), 0.9) > np.quantile(rem[theta].mean(axis=0), 0.25)
    assert np.quantile(wake[delta].mean(axis=0), 0.9) > 1.5 * np.quantile(wake[delta].mean(axis=0), 0.3)
    assert np.quantile(wake[delta].mean(axis=0), 0.9) < np.quantile(sleep[delta].mean(axis=0), 0.5)
