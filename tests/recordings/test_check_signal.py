import numpy as np
import pytest

from src.recordings.check_signal import check_channel

FS_HZ = 200.0


def eeg(minutes=5.0):
    rng = np.random.default_rng(0)
    white = rng.standard_normal(round(minutes * 60 * FS_HZ))
    return (20 * np.convolve(white, np.hanning(16) / np.linalg.norm(np.hanning(16)), "same")).astype(np.float32)


def report(row, units="uV", name="EEG C3-M2"):
    return check_channel(row, FS_HZ, name, units)


def test_an_ordinary_signal_is_left_alone():
    found = report(eeg())
    assert found.findings == ()
    assert found.amplitude == pytest.approx(20, rel=0.1)
    assert found.flat_share == found.missing_share == 0


def test_a_stretch_without_change_is_flat_and_not_clipped():
    row = eeg()
    row[10_000:20_000] = row.max()
    found = report(row)
    assert found.flat_share == pytest.approx(10_000 / 60_000, abs=0.01)
    assert found.clipped_share < 0.01
    assert "does not move" in found.findings[0]


def test_a_signal_beyond_its_range_is_clipped():
    found = report(np.clip(3 * eeg(), -40, 40))
    assert found.clipped_share > 0.1
    assert any("clipped" in text for text in found.findings)


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
def test_hum_is_heard(mains_hz):
    row = eeg()
    t = np.arange(len(row)) / FS_HZ
    found = report(row + 10 * np.sin(2 * np.pi * mains_hz * t).astype(np.float32))
    assert found.hum_db > 10
    assert any("hum" in text for text in found.findings)


@pytest.mark.parametrize(("factor", "scale"), [(1e-6, 1e6), (1e-3, 1e3), (1e3, 1e-3), (1e6, 1e-6)])
def test_a_wrong_unit_is_named_with_its_hint(factor, scale):
    (finding,) = report(eeg() * np.float32(factor)).findings
    assert "is the unit right?" in finding
    assert f"options.scale={scale:g}" in finding


def test_units_that_are_no_volts_are_mentioned():
    assert "a.u." in report(eeg(), units="a.u.").findings[0]


def test_gaps_are_counted():
    row = eeg()
    row[:6000] = np.nan
    found = report(row)
    assert found.missing_share == pytest.approx(0.1)
    assert "10.0% of the samples are missing" in found.findings[0]


def test_a_low_rate_says_nothing_of_hum():
    assert check_channel(eeg()[::2], 100.0, "EEG", "uV").hum_db is None


def test_arrays_of_other_domains_have_no_usual_amplitude():
    for row, units in ((eeg(), "uV"), (1e4 * eeg(), "raw")):
        assert check_channel(row, FS_HZ, "0", units, usual_uv=None).findings == ()
