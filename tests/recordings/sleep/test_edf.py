"""EDF files read right, and every way in which one can be wrong answered with one line."""

from datetime import date, datetime, time

import edfio
import numpy as np
import pytest

from src.recordings.sleep.edf import read_annotations, read_header, read_recording
from src.signals import BadInput

RNG = np.random.default_rng(0)


def signal(label="EEG Fpz-Cz", fs_hz=100, seconds=60, units="uV", scale=50.0, low=-500.0, high=500.0):
    data = np.clip(RNG.normal(0, scale, int(fs_hz * seconds)), low, high)
    return edfio.EdfSignal(data, fs_hz, label=label, physical_dimension=units, physical_range=(low, high))


def write(path, *signals, record_s=1.0, **more):
    given = {"recording": edfio.Recording(startdate=date(2003, 11, 17)), "starttime": time(23, 27, 5)} | more
    edfio.Edf(list(signals), data_record_duration=record_s, **given).write(path)
    return path


@pytest.fixture
def night(tmp_path):
    return write(tmp_path / "night.edf", signal(), signal("EEG Pz-Oz"), signal("EMG submental", fs_hz=1))


def patched(path, offset, text):
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(text)] = text.encode("latin-1")
    path.write_bytes(raw)
    return path


def test_channels_in_the_order_asked_for_in_microvolts(night):
    recording = read_recording(night, ["Pz-Oz", "EEG Fpz-Cz"])
    expected = edfio.read_edf(night)
    assert recording.channels == ("Pz-Oz", "EEG Fpz-Cz")
    assert (recording.fs_hz, recording.units) == (100.0, ("uV", "uV"))
    assert recording.start == datetime(2003, 11, 17, 23, 27, 5)
    assert (recording.recording_id, recording.subject_id, recording.source) == ("night", "night", str(night))
    np.testing.assert_allclose(recording.samples[0], expected.get_signal("EEG Pz-Oz").data, atol=1e-3)
    np.testing.assert_allclose(recording.samples[1], expected.get_signal("EEG Fpz-Cz").data, atol=1e-3)


def test_without_a_choice_the_fastest_channels_come(night):
    assert read_recording(night).channels == ("EEG Fpz-Cz", "EEG Pz-Oz")


@pytest.mark.parametrize(("units", "factor"), [("uV", 1), ("UV", 1), ("mV", 1e3), ("V", 1e6), ("nV", 1e-3)])
def test_volts_of_any_size_become_microvolts(tmp_path, units, factor):
    path = write(tmp_path / "n.edf", signal(units=units, scale=2.0, low=-10.0, high=10.0))
    recording = read_recording(path, ["Fpz-Cz"])
    assert recording.units == ("uV",)
    np.testing.assert_allclose(recording.samples[0], edfio.read_edf(path).signals[0].data * factor, atol=1e-3 * factor)


def test_a_micro_sign_is_understood_and_other_units_are_kept(tmp_path):
    path = write(tmp_path / "n.edf", signal(), signal("SaO2", units="%"), signal("Pos", units=""))
    units_at = 256 + 3 * (16 + 80)
    patched(path, units_at, "µV")
    assert read_recording(path).units == ("uV", "%", "a.u.")


def test_a_difference_of_two_channels(tmp_path):
    path = write(tmp_path / "n.edf", signal("C3"), signal("A1"))
    rows = read_recording(path).samples
    np.testing.assert_allclose(read_recording(path, ["C3-A1"]).samples[0], rows[0] - rows[1], atol=1e-4)


def test_a_difference_of_different_rates_is_refused(tmp_path):
    path = write(tmp_path / "n.edf", signal("C3"), signal("A1", fs_hz=50))
    with pytest.raises(BadInput, match=r"C3-A1 would be C3 \(100 Hz, uV\) minus A1 \(50 Hz, uV\)"):
        read_recording(path, ["C3-A1"])


def test_rates_are_brought_together_when_asked(tmp_path):
    path = write(tmp_path / "n.edf", signal(), signal("EOG horizontal", fs_hz=256))
    with pytest.raises(BadInput, match=r"different rates \(Fpz-Cz 100 Hz, EOG horizontal 256 Hz\)"):
        read_recording(path, ["Fpz-Cz", "EOG horizontal"])
    assert read_recording(path, ["Fpz-Cz", "EOG horizontal"], fs_hz=100.0).samples.shape == (2, 6000)


def test_a_rate_too_low_for_the_analysis_is_refused(night):
    with pytest.raises(BadInput, match="channel 'EMG': sampling rate 1 Hz is too low, up to 40 Hz is analysed"):
        read_recording(night, ["EMG"], fs_hz=100.0, max_hz=40.0, aliases={"EMG": ["EMG submental"]})


@pytest.mark.parametrize("record_s", [1.0, 2.0, 30.0, 60.0])
def test_data_records_of_any_length(tmp_path, record_s):
    one = signal()
    path = write(tmp_path / "n.edf", one, record_s=record_s)
    np.testing.assert_allclose(read_recording(path).samples[0], one.data, atol=1e-3)
    assert read_header(path).duration_s == 60.0


def test_header_without_samples(night):
    header = read_header(night)
    assert header.labels == ("EEG Fpz-Cz", "EEG Pz-Oz", "EMG submental")
    assert [s.fs_hz for s in header.signals] == [100.0, 100.0, 1.0]


def test_annotations(tmp_path):
    marks = [edfio.EdfAnnotation(30.0, 30.0, "Sleep stage 1"), edfio.EdfAnnotation(0.0, None, "Lights off")]
    path = write(tmp_path / "n.edf", signal(), annotations=marks)
    assert read_annotations(path) == (
        [(0.0, None, "Lights off"), (30.0, 30.0, "Sleep stage 1")],
        datetime(2003, 11, 17, 23, 27, 5),
    )
    assert read_recording(path).samples.shape == (1, 6000)


def test_an_anonymised_date_keeps_the_clock(night):
    patched(night, 88, "Startdate X X X X".ljust(80))
    patched(night, 168, "17.11.03")
    assert read_recording(night).start == datetime(2003, 11, 17, 23, 27, 5)
    patched(night, 168, "xx.xx.xx")
    assert read_recording(night).start is None


def test_an_unknown_number_of_records_is_counted(night):
    patched(night, 236, "-1".ljust(8))
    assert read_header(night).duration_s == 60.0


def test_a_decimal_comma_is_understood(tmp_path):
    path = write(tmp_path / "n.edf", signal(low=-204.5, high=204.5))
    expected = read_recording(path).samples
    patched(path, 256 + 16 + 80 + 8, "-204,5  204,5".ljust(16))
    np.testing.assert_array_equal(read_recording(path).samples, expected)


def problem_of(path):
    with pytest.raises(BadInput) as caught:
        read_recording(path)
    assert caught.value.source == str(path)
    assert "\n" not in str(caught.value)
    return f"{caught.value.problem}; {caught.value.hint}"


def test_a_hypnogram_file_has_no_signal(tmp_path):
    path = tmp_path / "h.edf"
    edfio.Edf([], annotations=[edfio.EdfAnnotation(0.0, 30.0, "Sleep stage W")]).write(path)
    assert problem_of(path) == "holds annotations but no signal; give the PSG file that belongs to it"


def test_dreams_excerpt_agrees_with_its_text_export(shared_data):
    folder = shared_data / "sleep_dreams_spindles"
    recording = read_recording(folder / "excerpt3.edf", ["EEG C3-A1"])
    text = np.array((folder / "excerpt3.txt").read_text().split()[1:], np.float64)
    np.testing.assert_allclose(recording.samples[0], text, atol=1e-3)
    assert recording.start == datetime(2003, 11, 17, 3, 27)
    assert len(read_header(folder / "excerpt3.edf").signals) == 20
