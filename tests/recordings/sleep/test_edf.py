"""EDF files read right, and every way in which one can be wrong answered with one line."""

import re
import subprocess
import sys
import warnings
from datetime import date, datetime, time

import edfio
import numpy as np
import pytest

from src.recordings.sleep.edf import read_annotations, read_header
from src.signals import BadInput
from tests.nights import read_recording

RNG = np.random.default_rng(0)


def signal(label="EEG Fpz-Cz", fs_hz=100, seconds=60, units="uV", scale=50.0, low=-500.0, high=500.0):
    data = np.clip(RNG.normal(0, scale, int(fs_hz * seconds)), low, high)
    return edfio.EdfSignal(data, fs_hz, label=label, physical_dimension=units, physical_range=(low, high))


def write(path, *signals, record_s=1.0, **more):
    given: dict = {"recording": edfio.Recording(startdate=date(2003, 11, 17)), "starttime": time(23, 27, 5)} | more
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
    assert read_recording(path, ["Fpz-Cz", "EOG horizontal"], fs_hz=100.0).samples.shape == (2, 6000)


@pytest.mark.parametrize("record_s", [1.0, 2.0, 30.0, 60.0])
def test_data_records_of_any_length(tmp_path, record_s):
    one = signal()
    path = write(tmp_path / "n.edf", one, record_s=record_s)
    np.testing.assert_allclose(read_recording(path).samples[0], one.data, atol=1e-3)
    assert read_header(path).duration_s == 60.0


def test_annotations(tmp_path):
    marks = [edfio.EdfAnnotation(30.0, 30.0, "Sleep stage 1"), edfio.EdfAnnotation(0.0, None, "Lights off")]
    path = write(tmp_path / "n.edf", signal(), annotations=marks)
    assert read_annotations(path) == (
        [(0.0, None, "Lights off"), (30.0, 30.0, "Sleep stage 1")],
        datetime(2003, 11, 17, 23, 27, 5),
        (),
    )
    assert read_recording(path).samples.shape == (1, 6000)


def test_one_latin_1_text_does_not_hide_the_others(tmp_path):
    marks = [edfio.EdfAnnotation(0.0, 30.0, "Sleep stage W"), edfio.EdfAnnotation(30.0, 30.0, "Schlafst?rung")]
    path = write(tmp_path / "n.edf", signal(), annotations=marks)
    path.write_bytes(path.read_bytes().replace(b"st?r", b"st\xf6r"))
    found = read_annotations(path)
    assert [text for _, _, text in found.marks] == ["Sleep stage W", "Schlafst\u00f6rung"]
    assert found.notes == ("1 annotation read as Latin-1: not UTF-8",)


def moved(path, onsets):
    """The same file with records of 1 s that begin at the onsets given (two digits each)."""
    raw = path.read_bytes()
    for index, onset in enumerate(onsets):
        raw = raw.replace(b"+%d\x14\x14" % (10 + index), b"+%d\x15\x15" % onset, 1)
    path.write_bytes(re.sub(rb"(\+\d\d)\x15\x15", lambda m: m[1] + b"\x14\x14", raw).replace(b"EDF+C", b"EDF+D"))
    return path


def test_gaps_of_a_discontinuous_file_are_nan(tmp_path):
    """Records of 1 s of which the 20 last begin 10 s late."""
    path = write(tmp_path / "n.edf", signal(seconds=40), annotations=[edfio.EdfAnnotation(55.0, 1.0, "late")])
    whole = read_recording(path).samples[0]
    moved(path, [*range(10, 20), *range(30, 50)])
    recording = read_recording(path)
    row = recording.samples[0]
    assert np.isnan(row[2000:3000]).all()
    np.testing.assert_array_equal(np.r_[row[:2000], row[3000:]], whole)
    assert recording.notes == ("has 1 gap, 10.0 s in all: no samples there",)
    assert read_header(path).duration_s == recording.duration_s == 50.0
    assert read_annotations(path).marks == [(55.0, 1.0, "late")]


def test_a_discontinuous_file_without_a_gap_is_read_as_it_is(tmp_path):
    path = write(tmp_path / "n.edf", signal(seconds=40), annotations=[])
    whole = read_recording(path)
    recording = read_recording(moved(path, range(10, 40)))
    np.testing.assert_array_equal(recording.samples, whole.samples)
    assert recording.notes == ()


@pytest.mark.parametrize(("onsets", "problem"), [([10, 11, 11], "overlap in time"), ([10, 11, 99], "overlap in time")])
def test_records_that_go_back_in_time_are_refused(tmp_path, onsets, problem):
    path = moved(write(tmp_path / "n.edf", signal(seconds=20), annotations=[]), onsets)
    with pytest.raises(BadInput, match=problem):
        read_recording(path)


def test_a_start_between_two_seconds_moves_start_and_onsets(tmp_path):
    path = write(tmp_path / "n.edf", signal(seconds=5), annotations=[edfio.EdfAnnotation(2.0, 1.0, "x")],
                 starttime=time(23, 27, 5, 250_000))  # fmt: skip
    found = read_annotations(path)
    assert found == ([(2.0, 1.0, "x")], datetime(2003, 11, 17, 23, 27, 5, 250_000), ())


def test_24_bit_files_are_read(tmp_path):
    data = RNG.normal(0, 30, 6000)
    one = edfio.BdfSignal(data, 100, label="Cz", physical_dimension="uV", physical_range=(-2000, 2000))
    edfio.Bdf([one], annotations=[edfio.EdfAnnotation(3.0, 30.0, "Sleep stage R")]).write(tmp_path / "n.bdf")
    recording = read_recording(tmp_path / "n.bdf")
    np.testing.assert_allclose(recording.samples[0], data, atol=1e-3)
    assert read_annotations(tmp_path / "n.bdf").marks == [(3.0, 30.0, "Sleep stage R")]


@pytest.mark.parametrize("n_channels", [2, 48])
def test_records_are_read_in_blocks_and_in_part(tmp_path, n_channels):
    signals = [signal(f"C{i}", seconds=4) for i in range(n_channels)]
    path = write(tmp_path / "n.edf", *signals)
    rows = read_recording(path, ["C1", "C0"]).samples
    np.testing.assert_allclose(rows, [signals[1].data, signals[0].data], atol=1e-2)


def test_an_inverted_range_turns_the_signal_over(tmp_path):
    path = write(tmp_path / "n.edf", signal(low=-500.0, high=500.0))
    upright = read_recording(path).samples
    patched(path, 256 + 104, "500     ")
    patched(path, 256 + 112, "-500    ")
    np.testing.assert_allclose(read_recording(path).samples, -upright, atol=0.02)


@pytest.mark.slow
def test_one_channel_of_a_long_file_needs_no_more_memory_than_the_channel(tmp_path):
    """Six hours of 64 channels, 553 MB: one channel is 9 MB."""
    path, n = tmp_path / "n.edf", 6 * 3600
    head = write(path, *[signal(f"C{i}", seconds=1) for i in range(64)]).read_bytes()[: 65 * 256]
    with path.open("wb") as handle:
        handle.write(head[:236] + f"{n}".ljust(8).encode() + head[244:])
        handle.truncate(65 * 256 + n * 64 * 200)
    code = (
        "import resource, sys; from src.recordings.sleep.edf import read_channels as read;"
        "import scipy.signal; before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "read(sys.argv[1], ['C7']); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    grown = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(grown.stdout) < 120_000  # KiB on Linux


def test_an_unknown_number_of_records_is_counted(night):
    patched(night, 236, "-1".ljust(8))
    assert read_header(night).duration_s == 60.0


def test_a_decimal_comma_is_understood(tmp_path):
    path = write(tmp_path / "n.edf", signal(low=-204.5, high=204.5))
    expected = read_recording(path).samples
    patched(path, 256 + 16 + 80 + 8, "-204,5  204,5".ljust(16))
    np.testing.assert_array_equal(read_recording(path).samples, expected)


def problem_of(path, channels=None):
    with pytest.raises(BadInput) as caught:
        read_recording(path, channels)
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


def test_files_of_many_programs_hold_what_edfio_finds(shared_data):
    paths = sorted((shared_data / "field_formats" / "edf_bdf").iterdir())
    for path in paths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = (edfio.read_bdf if path.suffix == ".bdf" else edfio.read_edf)(path)
            expected = [(signal.physical_dimension, signal.data) for signal in other.signals]
            annotations = len(other.annotations)
        assert len(read_annotations(path).marks) == annotations
        for label, (unit, data) in zip((s.label for s in read_header(path).signals), expected, strict=True):
            data = data * {"mV": 1e3, "V": 1e6}.get(unit, 1.0)
            np.testing.assert_allclose(
                read_recording(path, [label]).samples[0], data, rtol=1e-6, atol=1e-6 * np.ptp(data)
            )
    assert len(paths) == 8
