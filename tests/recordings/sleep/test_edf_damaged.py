"""Every way in which an EDF file can be wrong is answered with one line: what, and what to do."""

from datetime import datetime

import numpy as np
import pytest

from src.recordings.sleep.edf import read_header
from tests.nights import read_recording
from tests.recordings.sleep.test_edf import patched, problem_of, signal, write


@pytest.fixture
def night(tmp_path):
    return write(tmp_path / "night.edf", signal(), signal("EEG Pz-Oz"), signal("EOG horizontal", fs_hz=1))


def test_header_without_samples(night):
    header = read_header(night)
    assert [signal.label for signal in header.signals] == ["EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal"]
    assert [signal.fs_hz for signal in header.signals] == [100.0, 100.0, 1.0]
    assert (header.duration_s, header.notes) == (60.0, ())


def test_truncated(night):
    whole = night.read_bytes()
    night.write_bytes(whole[:-5000])
    assert problem_of(night) == (
        f"is truncated: {len(whole) - 5000} of {len(whole)} bytes, 47 of 60 data records; copy or download it again"
    )
    night.write_bytes(whole[:700])
    assert problem_of(night) == "is truncated in its header (700 bytes); copy or download it again"
    night.write_bytes(whole[: 4 * 256 + 10])
    assert "data records" in problem_of(night)


def test_absent_empty_foreign(tmp_path):
    path = tmp_path / "n.edf"
    assert problem_of(path) == "does not exist; check the path"
    path.write_bytes(b"")
    assert problem_of(path) == "is empty (0 bytes); copy or download it again"
    path.write_bytes(b"onset,duration\n" * 100)
    assert problem_of(path) == "is not an EDF file; give an EDF, EDF+ or BDF file"
    path.write_bytes(b"short")
    assert problem_of(path) == "is not an EDF file; give an EDF, EDF+ or BDF file"
    assert problem_of(tmp_path) == "is a folder; give a file"


def test_records_beyond_the_stated_number_are_read(night):
    first = read_recording(night, ["Fpz-Cz"]).samples
    night.write_bytes(night.read_bytes() + bytes(402 * 5) + bytes(7))
    recording = read_recording(night, ["Fpz-Cz"])
    assert recording.notes == ("holds 65 data records, its header states 60: all were read",)
    np.testing.assert_array_equal(recording.samples[:, :6000], first)
    assert recording.duration_s == 65.0


@pytest.mark.parametrize(
    ("offset", "text", "problem"),
    [
        (256 + 3 * 104, "nonsense", "has an unreadable range ('nonsense', '500', '-32768', '32767')"),
        (256 + 3 * 104, "-5.0e+38", "has an unreadable range ('-5.0e+38', '500', '-32768', '32767')"),
        (256 + 3 * 104, "0       " * 3 + "0       " * 3, "has no calibration (physical 0..0, digital"),
        (256 + 3 * 216, "0       ", "has no samples"),
    ],
)
def test_a_channel_is_judged_when_it_is_read(night, offset, text, problem):
    patched(night, offset, text)
    assert problem_of(night, ["Fpz-Cz"]).startswith(f"channel 'EEG Fpz-Cz' {problem}")
    assert problem_of(night, ["Fpz-Cz"]).endswith("choose another channel, or export it again with physical units")


def test_an_unused_channel_without_calibration_does_not_matter(tmp_path):
    path = write(tmp_path / "n.edf", signal(), signal("EEG Pz-Oz"))
    whole = read_recording(path)
    for field in (104, 112):
        patched(path, 256 + 2 * field + 8, "0       ")
    for channels in (None, ["Fpz-Cz"]):
        recording = read_recording(path, channels)
        np.testing.assert_array_equal(recording.samples, whole.samples[:1])
        assert bool(recording.notes) == (channels is None)
    assert "has no calibration" in problem_of(path, ["Pz-Oz"])


def test_labels_that_occur_twice_are_numbered(tmp_path):
    path = write(tmp_path / "n.edf", signal(), signal("EEG Pz-Oz"))
    patched(path, 256 + 16, "EEG Fpz-Cz".ljust(16))
    assert [signal.label for signal in read_header(path).signals] == ["EEG Fpz-Cz (1)", "EEG Fpz-Cz (2)"]
    assert read_recording(path, ["EEG Fpz-Cz (2)"]).samples.shape == (1, 6000)
    assert "choose from: EEG Fpz-Cz (1), EEG Fpz-Cz (2)" in problem_of(path, ["Fpz-Cz"])


@pytest.mark.parametrize("clock", ["23.27.05", "23:27:05", "23-27-05"])
def test_clocks_in_any_usual_form(night, clock):
    patched(night, 88, "Startdate X X X X".ljust(80))
    patched(night, 168, "17.11.03" + clock)
    assert read_header(night).start == datetime(2003, 11, 17, 23, 27, 5)
    patched(night, 168, "17/11/85")
    assert read_header(night).start == datetime(1985, 11, 17, 23, 27, 5)
    patched(night, 168, "xx.xx.xx")
    assert read_header(night).start is None


@pytest.mark.parametrize(
    ("offset", "text", "problem"),
    [
        (236, "many    ", "number of data records: 'many'"),
        (236, "0       ", "holds 0 data records"),
        (184, "9999    ", "states a header of 9999 bytes for 3 signals"),
        (252, "0   ", "states 0 signals"),
        (244, "0       ", "states data records of 0 s"),
        (244, "-1      ", "states data records of -1 s"),
        (192, "EDF+D", "is discontinuous (EDF+D) and does not say when its data records begin"),
        (192, "BDF+D", "is discontinuous (EDF+D) and does not say when its data records begin"),
    ],
)
def test_a_header_that_cannot_be_is_refused(night, offset, text, problem):
    assert problem in problem_of(patched(night, offset, text))
