import numpy as np
import pytest
import scipy.io

from src.preprocess.spikes.trace import find_recording, load_trace
from src.signals import BadInput

FS_HZ = 25_000.0


def test_a_trace_is_centred_and_what_was_not_recorded_is_marked(tmp_path):
    samples = 7.0 + np.random.default_rng(0).standard_normal(1_000)
    samples[100:200] = np.nan
    samples[300:320] = samples[np.isfinite(samples)].max() + 1  # the rail
    np.save(tmp_path / "x.npy", samples)
    trace = load_trace(tmp_path / "x.npy", fs_hz=FS_HZ)
    assert abs(np.median(trace.centred[trace.usable])) < 1e-5
    assert not trace.usable[100:200].any()
    assert not trace.usable[300:320].any()
    assert (trace.centred[~trace.usable] == 0).all()
    assert trace.unusable_share == pytest.approx(0.12)


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        (np.r_[np.full(600, np.nan), np.arange(400.0)], "60% of the samples"),
        (np.full(1_000, 3.0), "NaN or saturated|same value"),
    ],
)
def test_recordings_without_signal_are_refused(tmp_path, samples, problem):
    np.save(tmp_path / "x.npy", samples)
    with pytest.raises(BadInput, match=problem):
        load_trace(tmp_path / "x.npy", fs_hz=FS_HZ)


def test_a_recording_is_found_whatever_its_suffix(tmp_path):
    scipy.io.savemat(tmp_path / "D1.mat", {"d": np.ones(3)})
    np.save(tmp_path / "D2.npy", np.ones(3))
    assert find_recording(tmp_path, "D1").suffix == ".mat"
    assert find_recording(tmp_path, "D2").suffix == ".npy"
    with pytest.raises(BadInput, match="holds no recording 'D3'"):
        find_recording(tmp_path, "D3")
