"""Raw files need to be told what they hold; NeuroScope's and Trodes' say it in XML or in a header of text."""

import numpy as np
import pytest

from src.recordings.extracellular.formats import vendor_format
from src.recordings.extracellular.reader import open_recording
from src.signals import BadInput, SourceOptions
from tests.recordings.extracellular.vendor_files import counts, write_neuroscope, write_trodes

SAMPLES = counts(1280)


def test_raw_binary_needs_type_channels_and_rate(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(SAMPLES.tobytes() + b"123")
    options: dict = {"dtype": "int16", "channels": 4, "fs_hz": 1000.0}
    with pytest.raises(BadInput, match=r"source\.gain_uv: is 0; give the µV"):
        open_recording(path, SourceOptions(**options, gain_uv=0.0))
    recording = open_recording(path, SourceOptions(**options, gain_uv=0.5))
    assert (recording.n_samples, recording.units) == (1280, "uV")
    assert "last 3 bytes" in recording.warnings[0]
    np.testing.assert_array_equal(recording.samples(), SAMPLES.T * 0.5)
    for missing, says in (("dtype", "no known format"), ("channels", "source.channels"), ("fs_hz", "source.fs_hz")):
        with pytest.raises(BadInput, match=says):
            open_recording(path, SourceOptions(**options | {missing: None}))
    with pytest.raises(BadInput, match="no type of number"):
        open_recording(path, SourceOptions(**options | {"dtype": "text"}))


def test_neuroscope_channels_that_are_skipped_are_left_out(tmp_path):
    path = write_neuroscope(tmp_path / "rat", SAMPLES, ".lfp", [[3, 1], [2, 0]], skip=[2])
    recording = open_recording(path)
    assert (recording.channel_ids.tolist(), recording.shanks.tolist()) == ([3, 1, 0], [0, 0, 1])
    assert "1 channel left out" in recording.warnings[0]
    with pytest.raises(BadInput, match="states no lfpSamplingRate"):
        open_recording(write_neuroscope(tmp_path / "cat", SAMPLES, ".eeg", [[0, 1, 2, 3]], lfp_hz=None))


def test_a_dat_file_is_known_by_what_is_in_and_beside_it(tmp_path):
    trodes = write_trodes(tmp_path / "a", SAMPLES)
    scope = write_neuroscope(tmp_path / "b", SAMPLES, ".dat", [[0, 1, 2, 3]])
    known = vendor_format(trodes), vendor_format(scope)
    assert [one.name for one in known if one] == ["Trodes export .dat", "NeuroScope .dat/.lfp/.eeg with .xml"]
    scope.with_suffix(".xml").write_text("<settings/>")
    assert vendor_format(scope) is None
