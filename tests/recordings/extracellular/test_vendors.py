"""Vendors' formats, each from a tiny file: samples, rate, ids, groups, µV, gaps and provenance."""

import json
import shutil
import warnings
from importlib.util import find_spec

import numpy as np
import pytest

from src.recordings.extracellular.reader import is_recording, open_recording
from src.recordings.sleep.edf import read_channels
from src.signals import BadInput, SourceOptions
from src.simulate.sleep import write_night
from tests.recordings.extracellular.vendor_files import (
    counts,
    write_blackrock,
    write_intan,
    write_intan_rhs,
    write_mcs,
    write_neuroscope,
    write_nwb,
    write_open_ephys,
    write_plexon,
    write_spikeglx,
    write_trodes,
)

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""neo leaves a Blackrock file open."""

SAMPLES = counts(1280)
GAP = np.arange(1280) + 300 * (np.arange(1280) >= 640)
"""The number of every sample where 300 were lost after 640."""


def neuroscope(suffix):
    return lambda folder, gap: write_neuroscope(folder, SAMPLES, suffix, [[0, 1], [2, 3]])


def spikeglx(band):
    return lambda folder, gap: write_spikeglx(folder, SAMPLES, band)


def with_clock(write, name=""):
    return lambda folder, gap: write(folder / name, SAMPLES, gap)


open_ephys, intan, intan_rhs = (
    with_clock(write_open_ephys),
    with_clock(write_intan, "a.rhd"),
    with_clock(write_intan_rhs, "a.rhs"),
)
blackrock, plexon = with_clock(write_blackrock, "a.ns5"), with_clock(write_plexon, "a.plx")


def mcs(folder, gap):
    return write_mcs(folder, SAMPLES)


def nwb(folder, gap):
    folder.mkdir()
    return write_nwb(folder / "a.nwb", SAMPLES, timestamps=None if gap is None else 5 + gap / 1000)


def trodes(folder, gap):
    return write_trodes(folder, SAMPLES, clock=None if gap is None else gap * 20)


def saved(folder, gap):
    import spikeinterface.core as si

    recording = si.NumpyRecording([SAMPLES], 1000.0)
    recording.set_channel_gains(0.5)
    recording.set_channel_offsets(0.0)
    recording.set_property("group", [0, 0, 1, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # arrays in memory have no provenance
        recording.save(folder=folder, verbose=False)
    return folder


@pytest.mark.parametrize(
    ("write", "name", "fs_hz", "ids", "shanks", "gain"),
    [
        (neuroscope(".dat"), "NeuroScope", 20_000, [0, 1, 2, 3], [0, 0, 1, 1], 20e6 / 2**16 / 1000),
        (neuroscope(".lfp"), "NeuroScope", 1250, [0, 1, 2, 3], [0, 0, 1, 1], 20e6 / 2**16 / 1000),
        (spikeglx("ap"), "SpikeGLX", 30_000, [f"imec0.ap#AP{c}" for c in range(4)], [0] * 4, 0.6e6 / 512 / 500),
        (spikeglx("lf"), "SpikeGLX", 2500, [f"imec0.lf#LF{c}" for c in range(4)], [0] * 4, 0.6e6 / 512 / 250),
        (open_ephys, "Open Ephys", 30_000, ["CH1", "CH2", "CH3", "CH4"], [0] * 4, 0.195),
        (intan, "Intan", 30_000, ["A-000", "A-001", "B-000", "B-001"], [0, 0, 1, 1], 0.195),
        (intan_rhs, "Intan", 30_000, ["A-000", "A-001", "B-000", "B-001"], [0, 0, 1, 1], 0.195),
        (blackrock, "Blackrock", 30_000, ["1", "2", "3", "4"], [0] * 4, 0.25),
        (plexon, "Plexon", 1000, ["FP01", "FP02", "FP03", "FP04"], [0] * 4, 10e6 / 2**16 / 1000),
        (mcs, "MC_DataTool", 25_000, ["0", "1", "2", "3"], [0] * 4, 0.25),
        (nwb, "NWB", 1000, [0, 1, 2, 3], [0, 0, 1, 1], 1.0),
        (trodes, "Trodes", 1500, ["nt1ch1", "nt1ch2", "nt2ch1", "nt2ch2"], [0, 0, 1, 1], 0.195),
        (saved, "SpikeInterface", 1000, [0, 1, 2, 3], [0, 0, 1, 1], 0.5),
    ],
)
def test_every_format_gives_microvolts_ids_and_groups(tmp_path, write, name, fs_hz, ids, shanks, gain):
    path = write(tmp_path / "rat", None)
    assert is_recording(path)
    recording = open_recording(path)
    assert name in recording.source_format
    assert (recording.fs_hz, recording.units, recording.gaps) == (fs_hz, "uV", [])
    assert recording.channel_ids.tolist() == ids
    assert recording.shanks.tolist() == shanks
    np.testing.assert_allclose(recording.samples(), SAMPLES.T * gain, rtol=1e-5, atol=1e-4)
    assert "1-200" not in recording.upstream
    with pytest.raises(BadInput, match=rf"{fs_hz:g} Hz, 777 Hz was given"):
        open_recording(path, SourceOptions(fs_hz=777))


@pytest.mark.parametrize("write", [open_ephys, intan, intan_rhs, blackrock, plexon, nwb, trodes])
def test_lost_samples_are_nan_where_they_were_lost(tmp_path, write):
    recording = open_recording(write(tmp_path / "rat", GAP))
    assert recording.gaps == [(640, 940)]
    values = recording.samples()
    assert np.isnan(values[:, 640:940]).all()
    np.testing.assert_allclose(values[:, 940:] / values[0, 940], SAMPLES[640:].T / SAMPLES[640, 0], rtol=1e-4)
    assert any("are missing for" in warning for warning in recording.warnings)


def test_nwb_states_start_filter_and_clock(tmp_path):
    recording = open_recording(write_nwb(tmp_path / "a.nwb", SAMPLES))
    assert recording.start_s == 5.0
    assert recording.started is not None
    assert recording.started.isoformat() == "2026-01-02T03:04:05+00:00"
    assert "0.1-300 Hz" in recording.upstream


def test_of_several_streams_the_one_for_the_purpose_is_read(tmp_path):
    write_spikeglx(tmp_path / "run", SAMPLES, "ap")
    write_spikeglx(tmp_path / "run", SAMPLES[:640], "lf")
    slow, fast = open_recording(tmp_path / "run"), open_recording(tmp_path / "run", purpose="spikes")
    assert (slow.fs_hz, fast.fs_hz) == (2500, 30_000)
    assert "imec0.lf is read" in slow.warnings[0]
    assert open_recording(tmp_path / "run", SourceOptions(stream="imec0.ap")).fs_hz == 30_000
    with pytest.raises(BadInput, match="no stream 'x'; its streams are"):
        open_recording(tmp_path / "run", SourceOptions(stream="x"))


def test_what_cannot_be_opened_says_which_formats_can(tmp_path):
    (tmp_path / "a.xyz").write_bytes(b"123")
    with pytest.raises(BadInput, match=r"no known format.*NeuroScope.*SpikeGLX|no known format.*SpikeGadgets"):
        open_recording(tmp_path / "a.xyz")
    (tmp_path / "b.rhd").write_bytes(b"not Intan")
    with pytest.raises(BadInput, match=r"cannot be read as Intan"):
        open_recording(tmp_path / "b.rhd")
    assert not is_recording(tmp_path / "a.xyz")


def test_real_spikeglx_headers(shared_data, tmp_path):
    for number, (name, n_saved, n_shanks) in enumerate(
        [("NP2_4_shanks.imec0.ap.meta", 385, 4), ("NP1_saved_only_subset_of_channels.meta", 152, 1)]
    ):
        meta = tmp_path / f"r{number}" / f"run{number}_g0_t0.imec0.ap.meta"
        meta.parent.mkdir()
        shutil.copy(shared_data / "field_formats/extracellular" / name, meta)
        meta.with_suffix(".bin").write_bytes(np.zeros((300, n_saved), "<i2").tobytes())
        recording = open_recording(meta.with_suffix(".bin"))
        assert (recording.n_channels, len(set(recording.shanks.tolist()))) == (n_saved - 1, n_shanks)
        assert recording.units == "uV"
        depths = recording.shank(0).coordinates["channel_locations"][:, 1]
        assert (np.diff(depths) >= 0).all()


def test_a_real_open_ephys_header(shared_data, tmp_path):
    shutil.copytree(shared_data / "field_formats/extracellular/open_ephys_np2_4shank", tmp_path / "oe")
    file = next((tmp_path / "oe").rglob("structure.oebin"))
    for stream in json.loads(file.read_text())["continuous"]:
        folder = file.parent / "continuous" / stream["folder_name"]
        folder.mkdir(parents=True)
        (folder / "continuous.dat").write_bytes(np.zeros((300, stream["num_channels"]), "<i2").tobytes())
        np.save(folder / "sample_numbers.npy", np.arange(300))
    recording = open_recording(tmp_path / "oe")
    assert (recording.fs_hz, recording.n_channels, recording.units) == (2500, 384, "uV")


def test_readers_say_nothing_of_their_own(tmp_path, capsys):
    open_recording(write_plexon(tmp_path / "a.plx", SAMPLES))
    assert capsys.readouterr() == ("", "")


def test_edf_gives_the_samples_that_the_reader_of_nights_gives(tmp_path):
    write_night(tmp_path, 0, 1, seed=1, hours=0.1)
    (night,) = tmp_path.glob("*PSG.edf")
    recording = open_recording(night)
    assert (recording.fs_hz, recording.n_channels, recording.units) == (100, 3, "uV")
    expected = np.concatenate([channel.samples for channel in read_channels(night)])
    step_uv = 1000 / 4095  # neo divides the range by 4096 and leaves the half step of offset out
    np.testing.assert_allclose(recording.between(0, 2000), expected[:, :2000], atol=step_uv)


@pytest.mark.skipif(find_spec("nixio") is not None, reason="the package is installed")
def test_a_reader_whose_package_is_missing_names_the_package(tmp_path):
    (tmp_path / "a.nix").write_bytes(b"nix")
    with pytest.raises(BadInput, match=r"a package is missing.*nixio"):
        open_recording(tmp_path / "a.nix")
