"""SpikeGadgets files: read through spikeinterface where it is installed, a clear word where it is not."""

import sys

import numpy as np
import pytest

from src.preprocess.lfp.spectrograms import spectrograms
from src.recordings.extracellular.traces import open_traces
from src.signals import BadInput
from tests.preprocess.lfp.lfp_files import BANDS

FS = 30_000
HEADER = """<?xml version="1.0"?>
<Configuration>
 <GlobalConfiguration/>
 <HardwareConfiguration samplingRate="{fs}" numChannels="{n}">
  <Device name="Controller_DIO" numBytes="1"/>
 </HardwareConfiguration>
 <SpikeConfiguration chanPerChip="{n}">
{trodes}
 </SpikeConfiguration>
</Configuration>
"""
TRODE = '  <SpikeNTrode id="{i}"{scale}><SpikeChannel hwChan="{i}"/></SpikeNTrode>'


def write_rec(path, samples, scale='  spikeScalingToUv="0.195"'):
    """A SpikeGadgets file: XML, then a packet per sample: 0x55, a device's byte, the clock, the channels."""
    n_samples, n = samples.shape
    trodes = "\n".join(TRODE.format(i=i, scale=scale) for i in range(n))
    packets = np.zeros(n_samples, dtype=[("sync", "u1"), ("dio", "u1"), ("clock", "<u4"), ("data", "<i2", n)])
    packets["sync"], packets["clock"], packets["data"] = 0x55, np.arange(n_samples), samples
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(HEADER.format(fs=FS, n=n, trodes=trodes).encode() + packets.tobytes())


def test_without_spikeinterface_the_cure_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spikeinterface.extractors", None)
    write_rec(tmp_path / "rat.rec", np.zeros((100, 2), np.int16))
    summary = spectrograms(input_dir=str(tmp_path), output_dir=str(tmp_path / "out"), bands=BANDS)
    assert summary.exit_code == 1
    assert "not installed; pip install" in summary.failures[0].reason


@pytest.fixture
def rec(tmp_path):
    pytest.importorskip("spikeinterface")
    pytest.importorskip("neo")
    time = np.arange(25 * FS) / FS
    sines = np.stack([1000 * np.sin(2 * np.pi * 8 * time), 500 * np.sin(2 * np.pi * 3000 * time)], axis=1)
    write_rec(tmp_path / "rat.one.rec", sines.astype(np.int16))
    return tmp_path / "rat.one.rec"


@pytest.mark.filterwarnings("ignore")
def test_the_lfp_of_a_raw_file(rec):
    traces = open_traces(rec)
    assert (traces.fs_hz, traces.n_samples, traces.units, traces.channel_ids.tolist()) == (
        500.0,
        12_500,
        "uV",
        ["0", "1"],
    )
    assert "anti-alias" in traces.upstream
    values = np.concatenate([block for *_, block in traces.blocks()])
    inside = slice(500, -500)
    expected = 195 * np.sin(2 * np.pi * 8 * np.arange(12_500) / 500)
    np.testing.assert_allclose(values[inside, 0], expected[inside], atol=2)
    assert np.abs(values[inside, 1]).max() < 2  # 3 kHz does not alias
    assert open_traces(rec, 1000.0).fs_hz == 1000.0
    with pytest.raises(BadInput, match="has no shank 1"):
        open_traces(rec, None, 1)
    with pytest.raises(BadInput, match="below the"):
        open_traces(rec, 1e6)


@pytest.mark.filterwarnings("ignore")
def test_a_raw_file_as_a_session(rec, tmp_path):
    write_rec(tmp_path / "broken.rec", np.zeros((10, 1), np.int16))
    (tmp_path / "broken.rec").write_bytes(b"no header")
    summary = spectrograms(input_dir=str(tmp_path), output_dir=str(tmp_path / "out"), preset="sleep", bands=BANDS)
    assert list(summary.values) == ["rat/sh0"]
    assert "cannot be read as a SpikeGadgets file" in summary.failures[0].reason
    with np.load(tmp_path / "out/rat/sh0_sleep/rat_sh0_band_powers.npz") as arrays:
        theta = arrays["band_powers"][0, arrays["bands"].tolist().index("theta")]
    np.testing.assert_allclose(theta[4:-4], 195**2 / 2, rtol=0.02)


@pytest.mark.filterwarnings("ignore")
def test_without_a_scale_the_unit_is_unknown(tmp_path):
    pytest.importorskip("spikeinterface")
    write_rec(tmp_path / "old.rec", np.zeros((FS, 1), np.int16), scale="")
    assert open_traces(tmp_path / "old.rec").units == "unknown"
