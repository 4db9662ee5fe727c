"""Arrays, raw binary and WAV: which way time runs, which rate, which gaps; what is refused."""

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.io.wavfile

from src.recordings.extracellular.reader import open_recording
from src.signals import BadInput, SourceOptions
from tests.recordings.extracellular.vendor_files import counts

SAMPLES = counts(1280)


def npz(path, **fields):
    np.savez(path, traces=SAMPLES, **fields)
    return path


@pytest.mark.parametrize(
    ("name", "value", "fs_hz"),
    [
        *((name, 1000.0, 1000) for name in ("fs", "Fs_Hz", "sr", "srate", "SampleRate", "sampling_frequency")),
        *((name, 498.75, 498.75) for name in ("sampling_rate", "samplingRate", "fs_hz", "fsample")),
        ("dt", 0.001, 1000),
        ("dt", 0.04, 25_000),
        ("samplingInterval", 1 / 24, 24_000),
        ("dt_us", 40.0, None),
    ],
)
def test_the_rate_has_many_names(tmp_path, name, value, fs_hz):
    path = npz(tmp_path / "a.npz", **{name: value})
    if fs_hz is None:
        with pytest.raises(BadInput, match=r"states no sampling rate; give source.fs_hz"):
            open_recording(path)
        assert open_recording(path, SourceOptions(fs_hz=500)).fs_hz == 500
    else:
        assert open_recording(path).fs_hz == pytest.approx(fs_hz)


def test_two_rates_are_refused_with_both(tmp_path):
    with pytest.raises(BadInput, match="fs states 500 Hz and srate 1000 Hz"):
        open_recording(npz(tmp_path / "a.npz", fs=500, srate=1000))
    with pytest.raises(BadInput, match="states a sampling rate of 30000 Hz, 25000 Hz was given"):
        open_recording(npz(tmp_path / "b.npz", sampling_frequency=30_000), SourceOptions(fs_hz=25_000))


def test_time_stamps_and_time_ranges_are_obeyed(tmp_path):
    stamps = 5 + (np.arange(1280) + 300 * (np.arange(1280) >= 640)) / 1000
    gap = open_recording(npz(tmp_path / "a.npz", fs=1000.0, timestamps=stamps))
    assert (gap.gaps, gap.start_s) == ([(640, 940)], 5.0)
    longer = open_recording(npz(tmp_path / "b.npz", fs=1000.0, time_range=[3.0, 5.0]))
    assert (longer.gaps, longer.start_s, longer.n_samples) == ([(1280, 2000)], 3.0, 2000)
    assert "the last 0.720 s are NaN" in longer.warnings[0]
    shorter = open_recording(npz(tmp_path / "c.npz", fs=1000.0, time_range=[0.0, 1.0]))
    assert (shorter.gaps, shorter.n_samples) == ([], 1280)
    assert "time_range spans 1.000 s" in shorter.warnings[0]
    with pytest.raises(BadInput, match="NaN or infinite"):
        open_recording(npz(tmp_path / "d.npz", fs=1000.0, timestamps=np.full(1280, np.nan)))


STAMPS = np.arange(1280) / 1000


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"timestamps": STAMPS, "fs": 500.0}, "1000 Hz if they are seconds; the rate is 500 Hz"),
        ({"timestamps": STAMPS * 1000, "fs": 1000.0}, "1 Hz if they are seconds; the rate is 1000 Hz"),
        ({"timestamps": STAMPS * 0, "fs": 1000.0}, "does not rise"),
        ({"shanks": [0, 1], "fs": 1000.0}, "shanks has 2 entries for 4 channels"),
    ],
)
def test_time_stamps_and_groups_that_contradict_the_file_are_refused(tmp_path, fields, says):
    with pytest.raises(BadInput, match=says):
        open_recording(npz(tmp_path / "a.npz", **fields))


def test_time_stamps_of_other_kinds(tmp_path):
    gap = STAMPS + 0.3 * (np.arange(1280) >= 640)
    alone = open_recording(npz(tmp_path / "a.npz", timestamps=gap))
    assert (alone.fs_hz, alone.gaps) == (1000.0, [(640, 940)])
    ticks = open_recording(npz(tmp_path / "b.npz", timestamps=(gap * 30_000).round().astype(int), fs=1000.0))
    assert ticks.gaps == [(640, 940)]
    coarse = open_recording(npz(tmp_path / "c.npz", timestamps=(gap + 5000).astype("f4"), fs=1000.0))
    assert coarse.gaps == [(640, 940)]
    back = open_recording(npz(tmp_path / "d.npz", timestamps=STAMPS - 0.5 * (np.arange(1280) >= 640), fs=1000.0))
    assert "the clock goes back at 0.640 s" in back.warnings[0]
    other = open_recording(npz(tmp_path / "e.npz", timestamps=STAMPS[:9], fs=1000.0))
    assert "timestamps has 9 values for 1280 samples: they are not used" in other.warnings


def test_groups_may_have_names(tmp_path):
    recording = open_recording(npz(tmp_path / "a.npz", fs=1000.0, channel_groups=["CA1", "PFC", "CA1", "PFC"]))
    assert recording.shanks.tolist() == [0, 1, 0, 1]


def test_provenance_is_the_originals_only_for_the_originals_files(tmp_path):
    other = open_recording(npz(tmp_path / "a.npz", fs=500.0))
    assert "1-200" not in other.upstream
    original = open_recording(npz(tmp_path / "b.npz", sampling_rate=500.0, original_fs=30000.0, original_duration=9.0))
    assert "band-passed 1-200 Hz" in original.upstream


def test_structs_and_cells_by_a_dotted_name(tmp_path):
    session = {"lfp": SAMPLES.astype(float), "sampling_frequency": 1250.0}
    trial = {"data": SAMPLES, "srate": 1000.0}
    scipy.io.savemat(tmp_path / "a.mat", {"session": session, "trials": np.array([trial, trial], dtype=object)})
    recording = open_recording(tmp_path / "a.mat", SourceOptions(key="session.lfp"))
    assert (recording.fs_hz, recording.n_channels) == (1250, 4)
    np.testing.assert_array_equal(recording.samples(), SAMPLES.T)
    assert open_recording(tmp_path / "a.mat", SourceOptions(key="trials.1.data")).fs_hz == 1000
    for key in ("session.x", None):
        with pytest.raises(BadInput, match=r"no variable '.*' \(it holds session.lfp, session.samp"):
            open_recording(tmp_path / "a.mat", SourceOptions(key=key))
    with h5py.File(tmp_path / "b.mat", "w", userblock_size=512) as file:  # MATLAB 7.3 has its axes the other way round
        group = file.create_group("session")
        group["lfp"], group["SampleRate"] = SAMPLES.T, [[1250.0]]
        cells = file.create_dataset("trials", (2, 1), h5py.ref_dtype)
        cells[0, 0] = cells[1, 0] = group["lfp"].ref
    recording = open_recording(tmp_path / "b.mat", SourceOptions(key="session.lfp"))
    assert (recording.fs_hz, recording.n_samples) == (1250, 1280)
    np.testing.assert_array_equal(recording.samples(), SAMPLES.T)
    assert open_recording(tmp_path / "b.mat", SourceOptions(key="trials.1", fs_hz=900)).n_channels == 4


def test_wav(tmp_path):
    scipy.io.wavfile.write(tmp_path / "a.wav", 20_000, SAMPLES[:, 0])
    recording = open_recording(tmp_path / "a.wav")
    assert (recording.fs_hz, recording.n_channels) == (20_000, 1)
    np.testing.assert_array_equal(recording.samples()[0], SAMPLES[:, 0])
    raw = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(raw[: len(raw) // 2])
    cut = open_recording(tmp_path / "cut.wav")
    assert cut.n_samples < len(SAMPLES)
    assert "cut.wav is cut short" in cut.warnings[0]
    (tmp_path / "b.wav").write_bytes(b"RIFFxxxx")
    with pytest.raises(BadInput, match="damaged"):
        open_recording(tmp_path / "b.wav")


def test_real_single_wire_recordings(shared_data):
    files = sorted((shared_data / "field_formats/starling_wav").glob("*.wav"))
    assert files
    for file in files:
        recording = open_recording(file, purpose="spikes")
        assert (recording.fs_hz, recording.n_channels) == (20_000, 1)
        assert recording.samples().std() > 0
    with pytest.raises(BadInput, match="does not exist"):
        open_recording(files[0].with_name("x.wav"))
