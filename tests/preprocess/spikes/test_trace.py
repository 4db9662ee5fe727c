from dataclasses import replace

import h5py
import numpy as np
import pytest
import scipy.io

from src.preprocess.spikes.trace import (
    Trace,
    check_rates,
    checked_labels,
    find_recording,
    load_trace,
    without_artefacts,
    without_hum,
)
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.signals import BadInput

FS_HZ = 25_000.0


def test_a_trace_is_centred_and_what_was_not_recorded_is_marked(tmp_path):
    samples = 7.0 + np.random.default_rng(0).standard_normal(1_000)
    samples[100:200] = np.nan
    samples[300:320] = samples[np.isfinite(samples)].max() + 1  # the rail
    np.save(tmp_path / "x.npy", samples)
    trace = load_trace(tmp_path / "x.npy", fs_hz=FS_HZ)
    assert abs(np.median(trace.centred[trace.usable])) < 1e-5
    assert not trace.usable[100:200].any()
    assert not trace.usable[300:320].any()
    assert (trace.centred[~trace.usable] == 0).all()
    assert trace.unusable_share == pytest.approx(0.12)


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        (np.r_[np.full(600, np.nan), np.arange(400.0)], "60% of the samples"),
        (np.full(1_000, 3.0), "NaN or saturated|same value"),
        (np.r_[np.inf, np.arange(999.0)], "1 infinite samples; mark samples that were not recorded with NaN"),
    ],
)
def test_recordings_without_signal_are_refused(tmp_path, samples, problem):
    np.save(tmp_path / "x.npy", samples)
    with pytest.raises(BadInput, match=problem):
        load_trace(tmp_path / "x.npy", fs_hz=FS_HZ)


def test_every_kind_of_file_gives_the_same_trace(tmp_path):
    d = np.linspace(-1, 1, 40)
    scipy.io.savemat(tmp_path / "row.mat", {"d": d})
    scipy.io.savemat(tmp_path / "column.mat", {"d": d[:, None]})
    np.save(tmp_path / "b.npy", d)
    for name in ("c.h5", "d.mat"):  # MATLAB's v7.3 files are HDF5
        with h5py.File(tmp_path / name, "w") as handle:
            handle["d"] = d[:, None]
    for path in tmp_path.iterdir():
        trace = load_trace(path, fs_hz=FS_HZ)
        assert (trace.name, trace.centred.dtype) == (path.stem, np.dtype(np.float32))
        np.testing.assert_array_equal(trace.centred, d.astype(np.float32))


def test_one_channel_of_several(tmp_path):
    d = np.arange(-150.0, 150).reshape(3, 100)
    scipy.io.savemat(tmp_path / "x.mat", {"d": d.T})
    np.testing.assert_array_equal(load_trace(tmp_path / "x.mat", fs_hz=FS_HZ, channel=1).centred, d[1] + 0.5)
    for channel, says in ((None, r"3 channels; choose one with options.channel=0…2"), (3, "no channel 3 among 3")):
        with pytest.raises(BadInput, match=says):
            load_trace(tmp_path / "x.mat", fs_hz=FS_HZ, channel=channel)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": np.ones(5)}, r"no variable 'd' \(it holds x\); name the trace"),
        ({"d": np.zeros((1, 0))}, "d is empty"),
        ({"d": np.array(["a"])}, "save real numbers"),
        ({"d": np.ones(5), "fs": 25.0}, "25 Hz, too low for LFP or spikes; give the rate in Hz: 25 kHz is 25000"),
        ({"d": np.ones(5), "fs": 24_000.0}, r"states a sampling rate of 24000 Hz, 25000 Hz was given"),
        ({"d": np.ones((2, 3, 4))}, "shape"),
    ],
)
def test_what_cannot_be_a_trace_is_said_in_a_line(tmp_path, content, message):
    scipy.io.savemat(tmp_path / "x.mat", content)
    with pytest.raises(BadInput, match=message):
        load_trace(tmp_path / "x.mat", fs_hz=FS_HZ)


def test_broken_missing_and_foreign_files(tmp_path):
    (tmp_path / "cut.mat").write_bytes(b"MATLAB 5.0 MAT-file, but cut short")
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    damaged = "is damaged or cut short"
    for name, says in (
        ("cut.mat", damaged),
        ("cut.npy", damaged),
        ("absent.mat", "does not exist"),
        ("", "no known format"),
    ):
        with pytest.raises(BadInput, match=says):
            load_trace(tmp_path / name, fs_hz=FS_HZ)


def test_a_recording_is_found_whatever_its_suffix(tmp_path):
    scipy.io.savemat(tmp_path / "D1.mat", {"d": np.ones(3)})
    np.save(tmp_path / "D2.npy", np.ones(3))
    assert find_recording(tmp_path, "D1").suffix == ".mat"
    assert find_recording(tmp_path, "D2").suffix == ".npy"
    with pytest.raises(BadInput, match="holds no recording 'D3'"):
        find_recording(tmp_path, "D3")


TIME = np.arange(250_000) / FS_HZ


@pytest.fixture(scope="module")
def trace():
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(len(TIME)).astype(np.float32)
    for onset in rng.integers(500, 240_000, 260):
        samples[onset : onset + 20] += 10
    return Trace("x", samples, np.ones(len(samples), bool), FS_HZ, "x.mat")


@pytest.mark.parametrize("frequency", [50.0, 49.93, 60.07])
def test_mains_hum_is_taken_off_and_the_rest_stays(trace, frequency):
    hum = 2.0 * np.sin(2 * np.pi * frequency * TIME + 0.4) + 0.7 * np.sin(2 * np.pi * 3 * frequency * TIME)
    cleaned, notes = without_hum(trace.centred + hum.astype(np.float32), FS_HZ)
    assert f"{round(frequency, -1):g}, {3 * round(frequency, -1):g} Hz" in notes[0]
    left = cleaned - trace.centred
    assert max(left[s : s + 25_000].std() for s in range(0, len(left), 25_000)) < 0.1 * hum.std()


def test_pulses_at_regular_times_are_no_hum(trace):
    hum = 2.0 * np.sin(2 * np.pi * 50 * TIME + 0.4).astype(np.float32)
    samples = trace.centred.copy()
    samples[np.arange(1_000, 245_000, 2_500)[:, None] + np.arange(15)] += 500  # 10 in a second
    assert without_hum(samples, FS_HZ) == (samples, ())
    cleaned, notes = without_hum(samples + hum, FS_HZ)
    assert notes == ("mains hum was taken off at 50 Hz",)
    assert (cleaned - samples).std() < 0.1 * hum.std()


def test_a_recording_without_hum_is_not_touched(trace):
    cleaned, notes = without_hum(trace.centred, FS_HZ)
    assert notes == ()
    assert cleaned is trace.centred
    coarse = np.round(trace.centred * 0.2)  # an amplifier that counts the noise as 0 or 1
    assert without_hum(coarse, FS_HZ) == (coarse, ())


def test_stimulation_pulses_are_blanked(trace):
    samples = trace.centred.copy()
    for at in (10_000, 100_000, 200_000):
        samples[at : at + 15] += 500
    found, notes = without_artefacts(replace(trace, centred=samples), 12.0, 20.0)
    assert notes[0].startswith("blanked: 3 artefacts up to 4")
    assert not found.usable[100_000 - 25 : 100_015 + 100].any()  # 1 ms before a pulse, 4 ms after it
    assert found.usable[100_000 - 100 : 100_000 - 75].all()
    assert found.usable.mean() > 0.99
    assert np.abs(found.centred).max() < 30
    assert without_artefacts(trace, 12.0, 20.0) == (trace, ())


def test_a_recording_whose_noise_drowns_every_spike_is_refused(trace):
    with pytest.raises(BadInput, match=r"its noise .* is louder than any known spike .*options\.gain"):
        without_artefacts(replace(trace, centred=1000 * trace.centred), 12.0, 20.0)


def test_labels_given_twice_count_once():
    train = SpikeTrain.sorted(np.repeat(np.arange(100, 90_000, 500), 2), np.ones(360))
    clean, notes = checked_labels(train, FS_HZ, 100_000, "D1.mat")
    assert len(clean) == 180
    assert notes == ("180 labels given twice: each counts once",)
    assert checked_labels(clean, FS_HZ, 100_000, "D1.mat")[1] == ()


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (np.cumsum(np.tile([8, 300], 500)), "of the intervals of neuron 1 are below 0.5 ms"),
        (np.arange(0, 100_000, 20), "neuron 1 would fire 1250 times a second"),
    ],
)
def test_labels_that_no_neuron_can_have_are_refused(index, message):
    with pytest.raises(BadInput, match=message):
        checked_labels(SpikeTrain.sorted(index, np.ones(len(index))), FS_HZ, 100_000, "D1.mat")


def test_rates_are_checked_per_neuron():
    check_rates(SpikeTrain.sorted(np.arange(0, 25_000, 100), np.ones(250)), 1.0, "x")
    with pytest.raises(BadInput, match="neuron 2 would fire 500 times"):
        check_rates(SpikeTrain.sorted(np.arange(500) * 50, np.full(500, 2)), 1.0, "x")
