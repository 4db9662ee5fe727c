import importlib.util

import numpy as np
import pytest

from src.preprocess.spikes.prepare import load_trace
from src.recordings.extracellular.spike_trains import read_trace
from src.recordings.extracellular.spikeinterface_input import is_spikeinterface
from src.signals import BadInput

INSTALLED = importlib.util.find_spec("spikeinterface") is not None


def test_what_spikeinterface_reads_is_known_by_its_marks(tmp_path):
    (tmp_path / "binary.json").write_text("{}")
    assert is_spikeinterface(tmp_path)
    assert is_spikeinterface(tmp_path / "x.nwb")
    for other in ("x.mat", "x.npy", "folder"):
        assert not is_spikeinterface(tmp_path / other)


@pytest.mark.skipif(INSTALLED, reason="SpikeInterface is installed")
def test_without_the_package_the_cure_is_named(tmp_path):
    (tmp_path / "x.nwb").write_bytes(b"")
    with pytest.raises(BadInput, match="pip install spikeinterface"):
        read_trace(tmp_path / "x.nwb", fs_hz=25_000.0)


@pytest.mark.skipif(not INSTALLED, reason="SpikeInterface is not installed")
def test_a_saved_recording_is_read_and_its_rate_checked(tmp_path):
    import spikeinterface.core as si

    samples = np.random.default_rng(0).standard_normal((5_000, 2)).astype(np.float32)
    si.NumpyRecording([samples], 25_000.0).save(folder=tmp_path / "saved", verbose=False)
    trace = load_trace(tmp_path / "saved", fs_hz=25_000.0, channel=1)
    np.testing.assert_allclose(trace.centred, samples[:, 1] - np.median(samples[:, 1]), atol=1e-6)
    with pytest.raises(BadInput, match="2 channels"):
        load_trace(tmp_path / "saved", fs_hz=25_000.0)
    with pytest.raises(BadInput, match=r"states 25000 Hz"):
        load_trace(tmp_path / "saved", fs_hz=24_000.0)


@pytest.mark.skipif(not INSTALLED, reason="SpikeInterface is not installed")
def test_a_broken_recording_is_said_in_a_line(tmp_path):
    (tmp_path / "binary.json").write_text("{}")
    with pytest.raises(BadInput, match="SpikeInterface cannot read it"):
        read_trace(tmp_path, fs_hz=25_000.0)
