"""SpikeGadgets ``.rec``: groups, the clock, parts of a session, damage."""

import numpy as np
import pytest

from src.recordings.extracellular.binary import parts_of
from src.recordings.extracellular.reader import open_recording
from src.signals import BadInput
from tests.recordings.extracellular.vendor_files import counts, write_rec

SAMPLES = counts(3000)


def test_tetrodes_are_shanks_and_samples_are_microvolts(tmp_path):
    recording = open_recording(write_rec(tmp_path / "a.rec", SAMPLES, [[3, 1], [2, 0]]))
    assert recording.channel_ids.tolist() == ["1", "3", "0", "2"]
    assert recording.shanks.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(recording.samples(), SAMPLES[:, [1, 3, 0, 2]].T * 0.195, rtol=1e-5)
    np.testing.assert_allclose(recording.shank(1).samples(), SAMPLES[:, [0, 2]].T * 0.195, rtol=1e-5)


def test_chips_are_interleaved(tmp_path):
    recording = open_recording(write_rec(tmp_path / "a.rec", SAMPLES, [[0, 1, 2, 3]], chip=2))
    assert recording.channel_ids.tolist() == ["0", "2", "1", "3"]
    np.testing.assert_allclose(recording.samples(), SAMPLES.T * 0.195, rtol=1e-5)


def test_without_a_scale_the_unit_is_unknown(tmp_path):
    recording = open_recording(write_rec(tmp_path / "a.rec", SAMPLES, [[0, 1, 2, 3]], gain=None))
    assert (recording.units, recording.block_dtype) == ("unknown", np.dtype(np.float32))  # damaged samples are NaN
    np.testing.assert_array_equal(recording.samples(), SAMPLES.T)


@pytest.mark.parametrize("start", [0, 2**32 - 1000])
def test_lost_packets_are_nan_though_the_clock_may_wrap(tmp_path, start):
    clock = np.arange(3000) + start + 500 * (np.arange(3000) >= 2000)
    recording = open_recording(write_rec(tmp_path / "a.rec", SAMPLES, [[0, 1, 2, 3]], clock))
    assert (recording.n_samples, recording.gaps) == (3500, [(2000, 2500)])
    assert "packets are missing for 0.017 s from 0.067 s on" in recording.warnings[0]
    np.testing.assert_allclose(recording.samples()[:, 2500:], SAMPLES[2000:].T * 0.195, rtol=1e-5)


def test_parts_of_a_session_are_joined_in_order(tmp_path):
    for number, part in ((1, ""), (2, ".part2"), (10, ".part10")):
        first = (number - 1) * 100
        clock = np.arange(100) + first + 50 * (number > 1)
        write_rec(tmp_path / f"rat{part}.rec", SAMPLES[first : first + 100], [[0, 1, 2, 3]], clock)
    write_rec(tmp_path / "rat2.rec", SAMPLES, [[0, 1, 2, 3]])
    assert [p.name for p in parts_of(tmp_path / "rat.part2.rec")] == ["rat.rec", "rat.part2.rec", "rat.part10.rec"]
    recording = open_recording(tmp_path / "rat.rec")
    assert recording.gaps == [(100, 150), (250, 950)]
    assert "3 parts are joined" in recording.warnings[0]
    write_rec(tmp_path / "rat.part3.rec", SAMPLES, [[0, 1], [2, 3]])
    write_rec(tmp_path / "cat.rec", SAMPLES, [[0, 1, 2, 3]])
    write_rec(tmp_path / "cat.part2.rec", SAMPLES[:, :2], [[0, 1]], chip=2)
    with pytest.raises(BadInput, match="other channels than"):
        open_recording(tmp_path / "cat.rec")


def test_a_file_that_ends_within_a_packet(tmp_path):
    path = write_rec(tmp_path / "a.rec", SAMPLES, [[0, 1, 2, 3]])
    path.write_bytes(path.read_bytes()[:-5])
    recording = open_recording(path)
    assert recording.n_samples == 2999
    assert "ends within a packet" in recording.warnings[0]
    (tmp_path / "b.rec").write_bytes(b"<Configuration>")
    with pytest.raises(BadInput, match="cannot be read as SpikeGadgets"):
        open_recording(tmp_path / "b.rec")


DAMAGE = {
    "zeroed": lambda packets, bad: packets.__setitem__(bad, 0),
    "no sync byte": lambda packets, bad: packets.__setitem__((bad, 0), 0x54),
    "time stamp": lambda packets, bad: packets.__setitem__((bad, 3), packets[bad, 3] ^ 0x40),
}


@pytest.mark.parametrize("gain", [0.195, None])
@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize(("first", "last"), [(1000, 1400), (1500, 1501), (0, 7), (2990, 3000)])
@pytest.mark.parametrize("lost", [0, 500])
def test_damaged_packets_are_missing_samples_and_counted(tmp_path, how, first, last, lost, gain):
    if how == "time stamp" and last - first > 1:
        last = first + 1
    clock = np.arange(3000) + 10_000 + lost * (np.arange(3000) >= 2000)
    path = write_rec(tmp_path / "a.rec", SAMPLES, [[0, 1, 2, 3]], clock, gain=gain)
    raw = np.fromfile(path, np.uint8)
    packets = raw[-3000 * 14 :].reshape(3000, 14)  # sync, one byte of a device, clock, four channels
    DAMAGE[how](packets, slice(first, last))
    raw.tofile(path)
    recording = open_recording(path)
    assert recording.gaps == ([(2000, 2500)] if lost else [])
    for _ in range(2):  # what is read twice counts once
        found = recording.samples()
    expected = SAMPLES.T * np.float32(1 if gain is None else gain)
    expected[:, first:last] = np.nan
    np.testing.assert_allclose(np.delete(found, np.s_[2000 : 2000 + lost], 1), expected, rtol=1e-5)
    assert f"a.rec: {last - first} packets are damaged" in recording.notes[-1]


def test_a_real_header_of_two_probes(shared_data, tmp_path):
    header = (shared_data / "field_formats/extracellular/two_neuropixels_header_only.rec").read_bytes()
    packets = np.zeros((50, 152 + 2 * 768), "u1")
    packets[:, 0] = 0x55
    packets[:, 148:152] = np.arange(50, dtype="<u4").view("u1").reshape(-1, 4)
    (tmp_path / "np.rec").write_bytes(header + packets.tobytes())
    recording = open_recording(tmp_path / "np.rec")
    assert np.bincount(recording.shanks).tolist() == [384, 384]
    assert (np.diff(recording.shank(1).coordinates["channel_locations"][:, 1]) >= 0).all()
