"""Recordings of acquisition systems become LFP traces: rate, µV, shanks, gaps, reference, provenance."""

import numpy as np
import pytest

from src.preprocess.lfp.extraction import Decimation, HighFrequencyCorrelation, extract
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


def test_shanks_of_a_recording_are_jobs_of_their_own(tmp_path):
    time = np.arange(1250 * 12) / 1250
    samples = (1000 * np.sin(2 * np.pi * 7 * time)[:, None] + np.zeros(4)).astype("<i2")
    write_neuroscope(tmp_path / "in" / "rat1", samples, ".lfp", [[0, 1], [2, 3]])
    summary = SpectrogramParams(str(tmp_path / "in"), str(tmp_path / "out"), preset="sleep", shanks=[1, 5]).run()
    assert [(o.name, o.ok) for o in summary.outcomes] == [("rat1/sh1", True), ("rat1/sh5", False)]
    assert "no traces for shank 5; there are shanks 0, 1" in summary.failures[0].reason
    facts = summary.values["rat1/sh1"].manifest["facts"]
    assert (facts["units"], facts["sampling_rate_hz"]) == ("dB re 1 uV^2/Hz", 500.0)
    assert "NeuroScope" in facts["upstream"]


@pytest.mark.parametrize("n_samples", [4 * 32_768, 1500])
def test_a_recording_at_the_lfps_rate_is_copied(tmp_path, n_samples):
    samples = np.random.default_rng(0).standard_normal((n_samples, 8)).astype(np.float32)
    np.savez(tmp_path / "a.npz", traces=samples, fs=500.0, shanks=np.arange(8) // 4)
    folder = extract(tmp_path / "a.npz", "a", tmp_path / "out", LfpParams().extraction())
    copied = [np.load(folder / f"a_sh{k}_lfp_traces.npz")["traces"] for k in range(2)]
    np.testing.assert_array_equal(np.concatenate(copied, axis=1), samples)


def decimated(signal, fs_hz, wanted_hz, seed=0):
    decimation, rng = Decimation(fs_hz, wanted_hz), np.random.default_rng(seed)
    cuts = np.cumsum(rng.integers(1, 4000, len(signal)))
    blocks = np.split(signal, cuts[cuts < len(signal)])
    values = np.concatenate(list(decimation.apply(blocks, len(signal))))
    assert len(values) == decimation.n_outputs(len(signal))
    return values, np.arange(len(values)) / decimation.fs_hz


@pytest.mark.parametrize("fs_hz", [30_000.0, 24_414.0625, 20_000.0, 2500.0, 1250.0, 1000.0, 512.0])
def test_below_stays_above_goes_and_time_is_kept(fs_hz):
    time = np.arange(int(3 * fs_hz)) / fs_hz
    signal = np.stack([np.sin(2 * np.pi * 37 * time), np.cos(2 * np.pi * 180 * time), np.ones_like(time)], axis=1)
    signal = np.concatenate([signal, np.sin(2 * np.pi * 310 * time)[:, None] if fs_hz > 620 else signal[:, :1] * 0], 1)
    values, when = decimated(signal, fs_hz, 500.0)
    assert when[1] == pytest.approx(1 / 500, rel=1e-3)
    inner = slice(60, -60)
    np.testing.assert_allclose(values[inner, 0], np.sin(2 * np.pi * 37 * when[inner]), atol=2e-4)
    np.testing.assert_allclose(values[inner, 1], np.cos(2 * np.pi * 180 * when[inner]), atol=1e-3)
    np.testing.assert_allclose(values[:, 2], 1, atol=1e-5)
    assert np.abs(values[inner, 3]).max() < 2e-4


def test_blocks_do_not_show_and_short_signals_are_kept():
    signal = np.random.default_rng(0).integers(-3000, 3000, (40_000, 3)).astype(np.int16)
    one, other = (decimated(signal, 30_000.0, 500.0, seed)[0] for seed in (0, 1))
    np.testing.assert_array_equal(one, other)
    assert len(decimated(signal[:7], 30_000.0, 500.0)[0]) == 1
    np.testing.assert_allclose(decimated(signal[:500] * 0 + 5, 500.0, 500.0)[0], 5)


def test_missing_samples_spread_no_further_than_the_filter():
    signal = np.zeros((30_000, 2), np.float32)
    signal[15_000:18_000, 1] = np.nan
    values, _ = decimated(signal, 30_000.0, 500.0)
    assert np.isfinite(values[:, 0]).all()
    missing = np.flatnonzero(np.isnan(values[:, 1]))
    assert missing[0] >= 250 - 64
    assert missing[-1] <= 300 + 64
    assert {*range(250, 300)} <= set(missing.tolist())


def recording(path, fs_hz, n_channels=4, seconds=20, gap=False):
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((int(seconds * fs_hz), n_channels)).astype(np.float32)
    muscle = 3 * rng.standard_normal((len(signal), 1))
    muscle[: len(signal) // 2] = 0
    signal += muscle.astype(np.float32)
    if gap:
        signal[: int(fs_hz), 0] = np.nan
    np.savez(path, traces=signal, fs=fs_hz)
    return open_recording(path)


@pytest.mark.parametrize("fs_hz", [1000.0, 1250.0, 20_000.0])
def test_it_rises_with_what_all_channels_share(tmp_path, fs_hz):
    source = recording(tmp_path / "a.npz", fs_hz, gap=True)
    muscle = HighFrequencyCorrelation.of(source)
    assert muscle is not None
    assert sum(map(len, muscle.listen(source.blocks(777, scaled=False)))) == source.n_samples
    muscle.save(tmp_path / "emg.npz")
    found = np.load(tmp_path / "emg.npz")
    quiet, active = found["emg"][1:9], found["emg"][11:]
    assert np.abs(quiet.mean()) < 0.1
    assert active.min() > 0.7
    np.testing.assert_allclose(found["times"], np.arange(20) + 0.25, rtol=0.01)


def test_where_it_cannot_be_seen(tmp_path):
    assert HighFrequencyCorrelation.of(recording(tmp_path / "a.npz", 500.0)) is None
    assert HighFrequencyCorrelation.of(recording(tmp_path / "b.npz", 2000.0, n_channels=1)) is None
