import numpy as np
import pytest
import scipy.io

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.prepare import (
    BACKGROUND,
    CONDITIONING,
    LOOKALIKE_SET,
    find_recording,
    load_labelled,
    load_trace,
)
from src.signals import BadInput
from src.storage.step import ensure

CHAIN = Conditioning(low_hz=20.0, order=1)


def test_a_trace_is_centred_and_its_gaps_are_marked(tmp_path):
    d = np.random.default_rng(0).standard_normal(5_000) + 7
    d[100:200] = np.nan
    d[300:320] = 50.0
    scipy.io.savemat(tmp_path / "x.mat", {"d": d})
    trace = load_trace(tmp_path / "x.mat", fs_hz=25_000.0)
    assert abs(np.median(trace.centred[trace.usable])) < 1e-3
    assert not trace.centred[~trace.usable].any()
    assert trace.unusable_share == pytest.approx(120 / 5_000)


def test_a_labelled_recording_needs_spikes(tmp_path):
    scipy.io.savemat(
        tmp_path / "x.mat", {"d": np.random.default_rng(0).standard_normal(5_000), "Index": [], "Class": []}
    )
    with pytest.raises(BadInput, match="holds no labelled spike"):
        load_labelled(tmp_path / "x.mat", CHAIN, key="d", n_units=5)


def test_recordings_are_found_by_name(tmp_path):
    np.save(tmp_path / "D3.npy", np.ones(3))
    assert find_recording(tmp_path, "D3").name == "D3.npy"
    with pytest.raises(BadInput, match=r"expected D4\.mat"):
        find_recording(tmp_path, "D4")


def test_a_background_is_measured_once(spike_folder, tmp_path):
    inputs = {"labelled": spike_folder / "D1.mat", "recording": spike_folder / "D2.mat"}
    params = {"conditioning": CHAIN.to_dict(), "fit_on": [0, 200_000], "key": "d", "n_units": 5}
    first = ensure(BACKGROUND, inputs, params, label="D2", cache=tmp_path)
    again = ensure(BACKGROUND, inputs, params, label="D2", cache=tmp_path)
    assert (first.reused, again.reused) == (False, True)
    assert first.manifest["facts"]["sigma_in_band"] == pytest.approx(5.5 / 16, rel=0.1)
    with np.load(first.path / "background.npz") as found:
        assert found["power"].shape == (2049,)
        assert np.isfinite(found["signature"]).all()


def test_conditioning_is_a_stage_of_its_own(spike_folder, tmp_path):
    params = {"conditioning": CHAIN.to_dict(), "key": "d"}
    made = ensure(CONDITIONING, {"recording": spike_folder / "D2.mat"}, params, label="D2", target=tmp_path / "D2")
    conditioned = np.load(made.path / "conditioned.npy")
    trace = load_trace(spike_folder / "D2.mat", fs_hz=25_000.0)
    np.testing.assert_array_equal(conditioned, CHAIN.apply(trace.centred))
    assert np.load(made.path / "usable.npy").all()


def test_the_embedded_set_is_the_same_for_the_same_seed(tmp_path):
    made = [
        ensure(LOOKALIKE_SET, {}, {"duration_s": 1.0}, label=str(i), cache=tmp_path, seed=seed)
        for i, seed in enumerate((5, 5, 6))
    ]
    digests = [a.manifest["outputs"]["D4.mat"]["bytes"] for a in made]
    traces = [scipy.io.loadmat(a.path / "D4.mat")["d"] for a in made]
    assert digests[0] == digests[1]
    np.testing.assert_array_equal(traces[0], traces[1])
    assert np.abs(traces[0] - traces[2]).max() > 1
    assert (made[0].path / "truth" / "D4.mat").is_file()
