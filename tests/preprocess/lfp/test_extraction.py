"""Recordings of acquisition systems become LFP traces: rate, µV, shanks, gaps, reference, provenance."""

import json
import subprocess
import sys

import numpy as np
import pytest

from src.preprocess.lfp.extraction import extract
from src.preprocess.lfp.parameters import LfpParams, SpectrogramParams
from src.recordings.extracellular.reader import open_recording
from src.signals import BadInput
from tests.recordings.extracellular.vendor_files import FS, write_neuroscope, write_rec


def theta(seconds, n_channels, hz=8.0):
    time = np.arange(int(seconds * FS)) / FS
    noise = np.random.default_rng(0).standard_normal((len(time), n_channels)) * 50
    return (2000 * np.sin(2 * np.pi * hz * time)[:, None] + noise).astype("<i2")


def test_lost_packets_keep_later_events_in_their_place(tmp_path):
    early, late = theta(3, 4), theta(2, 4, hz=20.0)
    clock = np.r_[np.arange(len(early)), np.arange(len(late)) + 4 * FS]
    path = write_rec(tmp_path / "drop.rec", np.r_[early, late], [[0, 1], [2, 3]], clock)
    folder = extract(path, "drop", tmp_path / "out", LfpParams().extraction())
    assert sorted(f.name for f in folder.glob("*.npz")) == [
        "drop_emg_from_lfp.npz",
        "drop_sh0_lfp_traces.npz",
        "drop_sh1_lfp_traces.npz",
    ]
    recording = open_recording(folder / "drop_sh1_lfp_traces.npz")
    assert (recording.fs_hz, recording.n_samples, recording.units) == (500.0, 3000, "uV")
    assert recording.channel_ids.tolist() == ["2", "3"]
    assert "SpikeGadgets" in recording.upstream
    assert "packets are missing for 1.000 s" in recording.upstream
    values = recording.samples()
    assert np.isnan(values[:, 1510:1990]).all()
    assert np.isfinite(values[:, [*range(1436), *range(2064, 3000)]]).all()
    spectrum = np.abs(np.fft.rfft(values[0, 2100:2900]))
    assert np.argmax(spectrum) * 500 / 800 == pytest.approx(20.0)
    assert np.abs(values[0, 200:1400]).max() == pytest.approx(2000 * 0.195, rel=0.1)


def test_reference_and_bad_channels(tmp_path):
    samples = theta(2, 4)
    samples[:, 3] = 9000
    path = write_rec(tmp_path / "a.rec", samples, [[0, 1, 2, 3]])
    params = LfpParams(reference="average", bad_channels=[3], sampling_rate_hz=250.0)
    recording = open_recording(extract(path, "a", tmp_path / "out", params.extraction()) / "a_sh0_lfp_traces.npz")
    assert (recording.channel_ids.tolist(), recording.fs_hz) == (["0", "1", "2"], 250.0)
    assert np.abs(recording.samples()).max() < 20
    assert "average of the shank subtracted" in recording.upstream
    with pytest.raises(BadInput, match="x not in the recording"):
        extract(path, "a", tmp_path / "o2", LfpParams(bad_channels=["x"]).extraction())
    with pytest.raises(BadInput, match="below the 40000 Hz asked for"):
        extract(path, "a", tmp_path / "o3", LfpParams(sampling_rate_hz=40_000.0).extraction())


def test_a_neuroscope_session_by_command(tmp_path, repository):
    time = np.arange(1250 * 12) / 1250
    samples = (1000 * np.sin(2 * np.pi * 7 * time)[:, None] + np.zeros(4)).astype("<i2")
    write_neuroscope(tmp_path / "in" / "rat1", samples, ".lfp", [[0, 1], [2, 3]])
    command = ["preprocess.py", "preprocess=spectrogram", "preset=sleep", f"input_dir={tmp_path / 'in'}"]
    command += [f"output_dir={tmp_path / 'out'}", "workers=1"]
    subprocess.run([sys.executable, *command], cwd=repository, check=True, capture_output=True)
    facts = json.loads((tmp_path / "out/rat1/sh1_sleep/manifest.json").read_text())["facts"]
    assert (facts["units"], facts["sampling_rate_hz"]) == ("dB re 1 uV^2/Hz", 500.0)
    assert "NeuroScope" in facts["upstream"]


def test_shanks_of_a_recording_are_jobs_of_their_own(tmp_path):
    write_rec(tmp_path / "in" / "a.rec", theta(3, 4), [[0, 1], [2, 3]])
    params = SpectrogramParams(input_dir=str(tmp_path / "in"), output_dir=str(tmp_path / "out"), shanks=[1, 5])
    summary = params.run()
    assert [(o.name, o.ok) for o in summary.outcomes] == [("a/sh1", True), ("a/sh5", False)]
    assert "no traces for shank 5; there are shanks 0, 1" in summary.failures[0].reason


@pytest.mark.parametrize("n_samples", [4 * 32_768, 1500])
def test_a_recording_at_the_lfps_rate_is_copied(tmp_path, n_samples):
    samples = np.random.default_rng(0).standard_normal((n_samples, 8)).astype(np.float32)
    np.savez(tmp_path / "a.npz", traces=samples, fs=500.0, shanks=np.arange(8) // 4)
    folder = extract(tmp_path / "a.npz", "a", tmp_path / "out", LfpParams().extraction())
    copied = [np.load(folder / f"a_sh{k}_lfp_traces.npz")["traces"] for k in range(2)]
    np.testing.assert_array_equal(np.concatenate(copied, axis=1), samples)
