"""The step of one shank: every key of the original, honest facts, values that only a new version may change."""

import json
import shutil
import zipfile
from collections import namedtuple
from functools import partial

import h5py
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from src.preprocess.lfp import spectrogram_step
from src.preprocess.lfp.spectrogram_step import STEP, VERSION, frames_per_task, run
from src.preprocess.spectrogram import SpectrogramPlan
from src.signals import BadInput
from src.storage.step import CachedStep, ensure
from tests.preprocess.lfp.lfp_files import compute as compute_into
from tests.preprocess.lfp.lfp_files import contents, random_traces, transform, write_shank

SPECIFIED = ["spectrograms", "freqs", "times", "channel_ids", "sampling_rate", "start_time", "spec_params"]
SPECIFIED += ["n_channels", "n_freqs", "n_times"]


def compute(tmp_path, path, preset="scipy_compat", **given):
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    return compute_into(tmp_path / "out", path, preset, label="a", **given)


def test_every_key_of_the_specification(tmp_path):
    ids = np.array([7, 3, 9])
    path = write_shank(
        tmp_path, "a", 0, random_traces(5000, 3), channel_ids=ids, time_range=[12.5, 22.5], ycoord=ids * 20.0
    )
    facts = compute(tmp_path, path)
    with np.load(tmp_path / "out/a_spectrograms.npz", allow_pickle=False) as arrays:
        assert set(SPECIFIED) <= set(arrays.files)
        assert arrays["spectrograms"].shape == (3, 1025, 16) == tuple(facts["shape"])
        assert {arrays[name].dtype for name in ("spectrograms", "freqs", "times")} == {np.dtype("f4")}
        assert arrays["channel_ids"].tolist() == [7, 3, 9]
        assert (arrays["sampling_rate"].item(), arrays["start_time"].item()) == (500, 12.5)
        assert arrays["sampling_rate"].dtype.kind == "i"
        assert [arrays[f"n_{x}"].item() for x in ("channels", "freqs", "times")] == [3, 1025, 16]
        assert arrays["ycoord"].tolist() == [140, 60, 180]
        params = json.loads(arrays["spec_params"].item())
    assert (params["nperseg"], params["noverlap"], params["nfft"], params["mode"]) == (1024, 768, 2048, "psd")
    assert params["bin_spacing_hz"] == facts["bin_spacing_hz"] == 500 / 2048
    assert params["resolution_hz"] == facts["resolution_hz"] == pytest.approx(0.488, abs=0.001)
    assert "the file does not say" in params["upstream"]


def test_sleep_states_what_it_holds(tmp_path):
    path = write_shank(tmp_path, "a", 0, random_traces(20_000, 2), sampling_rate=498.75, units="uV")
    facts = compute(tmp_path, path, "sleep")
    with h5py.File(tmp_path / "out/a_spectrograms.h5") as file:
        assert set(SPECIFIED) <= set(file)
        assert file["sampling_rate"][()] == 498.75
        assert file["spectrograms"].attrs["units"] == "dB re 1 uV^2/Hz" == facts["units"]
        assert json.loads(file["spec_params"][()])["quantity"] == "decibel"
        assert file["freqs"][-1] <= 64
    with np.load(tmp_path / "out/a_band_powers.npz", allow_pickle=False) as arrays:
        assert arrays["band_powers"].shape == (2, 2, facts["shape"][1])
        assert arrays["bands"].tolist() == facts["bands"] == ["delta", "theta"]
    assert facts["start_time_s"] is None


def test_a_gap_masks_frames_and_is_counted(tmp_path):
    samples = random_traces(20_000, 3)
    samples[9000:9100, 1] = np.nan
    samples[4000, 2] = np.inf
    facts = compute(tmp_path, write_shank(tmp_path, "a", 0, samples, channel_ids=[5, 6, 8]), band_powers=True)
    with np.load(tmp_path / "out/a_spectrograms.npz") as arrays:
        masked = np.isnan(arrays["spectrograms"]).all(axis=1)
        np.testing.assert_array_equal(masked, np.isnan(arrays["spectrograms"]).any(axis=1))
    assert facts["masked_frames"] == {"6": int(masked[1].sum()), "8": int(masked[2].sum())} == {"6": 4, "8": 4}
    assert any("of channel 6" in warning for warning in facts["warnings"])
    with np.load(tmp_path / "out/a_band_powers.npz") as arrays:
        np.testing.assert_array_equal(np.isnan(arrays["band_powers"]), np.repeat(masked[:, None], 2, axis=1))


@pytest.mark.parametrize("preset", ["scipy_compat", "sleep"])
def test_channels_without_a_single_sample_and_without_movement(tmp_path, preset):
    samples = random_traces(9000, 3)
    samples[:, 0], samples[:, 1] = np.nan, 3.0
    facts = compute(tmp_path, write_shank(tmp_path, "a", 0, samples), preset)
    assert list(facts["masked_frames"]) == ["0"]


def test_as_short_and_as_wide_as_can_be(tmp_path):
    with pytest.raises(BadInput, match="shorter than one window of 1024"):
        compute(tmp_path, write_shank(tmp_path, "a", 0, random_traces(1023, 2)))
    assert compute(tmp_path, write_shank(tmp_path, "a", 0, random_traces(1024, 1)))["shape"] == [1, 1025, 1]
    path = write_shank(tmp_path, "a", 0, random_traces(2000, 384))
    assert compute(tmp_path, path, "sleep", band_powers=False)["shape"] == [384, 5, 129]


def test_bands_the_rate_cannot_carry_are_named(tmp_path):
    path = write_shank(tmp_path, "a", 0, random_traces(2000, 1), sampling_rate=50.0)
    facts = compute(tmp_path, path, "sleep", bands={"delta": [0.5, 4.0], "gamma": [40.0, 100.0]})
    assert facts["bands"] == ["delta"]
    assert any("left out: gamma" in warning for warning in facts["warnings"])


def test_a_full_disk_is_seen_before_the_work(tmp_path, monkeypatch):
    path = write_shank(tmp_path, "a", 0, random_traces(9000, 2))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(spectrogram_step.shutil, "disk_usage", lambda folder: usage(1, 1, 1000))
    with pytest.raises(BadInput, match="are free"):
        compute(tmp_path, path)
    assert not list((tmp_path / "out").iterdir())


def test_values_move_only_with_the_version(tmp_path):
    """Change VERSION whenever these change."""
    assert VERSION == 5
    path = write_shank(tmp_path, "a", 0, random_traces(4000, 2, seed=5))
    compute(tmp_path, path)
    with np.load(tmp_path / "out/a_spectrograms.npz") as arrays:
        compat = arrays["spectrograms"][[0, 1, 0, 1], [3, 40, 500, 1024], [0, 4, 9, 11]]
    compute(tmp_path, path, "sleep")
    with h5py.File(tmp_path / "out/a_spectrograms.h5") as file:
        sleep = file["spectrograms"][()][[0, 1, 0, 1], [0, 4, 9, 12], [2, 16, 64, 128]]
    with np.load(tmp_path / "out/a_band_powers.npz") as arrays:
        bands = np.append(arrays["band_powers"][1, :, 3], arrays["theta_ratio"][1, 3])
    np.testing.assert_allclose(compat, COMPAT, rtol=1e-4)
    np.testing.assert_allclose(sleep, SLEEP, atol=0.03)
    np.testing.assert_allclose(bands, BAND_POWERS, rtol=1e-4)


COMPAT = [1.7278734, 9.4919996, 0.2982100, 0.00201102439]
SLEEP = [2.3476563, 3.2949219, 10.453125, 4.25]
BAND_POWERS = [7.8334064, 30.386444, 0.32724109]


def test_the_steps_key_ignores_how_it_runs(tmp_path):
    path = write_shank(tmp_path, "a", 0, random_traces(3000, 2))
    params = transform("sleep", label="a")
    for how, reused in ((partial(run, threads=2), False), (partial(run, threads=1, memory_mb=1), True)):
        step = CachedStep(STEP, VERSION, how)
        assert ensure(step, {"traces": path}, params, label="a", target=tmp_path / "x").reused == reused


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(0, 4000),
    st.sampled_from(["f4", "f8", "i2", ">f4"]),
    st.sampled_from([500.0, 498.75, 1250.0]),
    st.sampled_from([{}, {"nperseg": 300}, {"nperseg": 256, "noverlap": 37, "nfft": 401, "window": "hann"}]),
    st.integers(0, 99),
)
def test_equals_scipy_value_by_value(tmp_path_factory, n_channels, extra, dtype, fs_hz, change, seed):
    folder = tmp_path_factory.mktemp("compute")
    samples = random_traces(1024 + extra, n_channels, seed=seed, dtype=dtype)
    path = write_shank(folder, "a", 0, samples, sampling_rate=fs_hz)
    compute_into(folder / "out", path, **change)
    p = {"nperseg": 1024, "window": ("tukey", 0.25)} | change
    p = {"noverlap": p["nperseg"] - round(p["nperseg"] / 4), "nfft": 2 * p["nperseg"]} | p
    freqs, times, power = scipy.signal.spectrogram(samples.T.astype(np.float64), fs_hz, **p)
    with np.load(folder / "out/a_sh0_spectrograms.npz", allow_pickle=False) as arrays:
        values = arrays["spectrograms"]
        np.testing.assert_allclose(arrays["freqs"], freqs, rtol=1e-6)
        np.testing.assert_allclose(arrays["times"], times, rtol=1e-6)
    assert (values.dtype, values.shape) == (np.float32, power.shape)
    assert np.quantile(np.abs(values - power) / power, 0.999) < 1e-3
    with zipfile.ZipFile(folder / "out/a_sh0_spectrograms.npz") as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize(
    "params",
    [
        {"preset": "scipy_compat", "band_powers": True},
        {"preset": "scipy_compat", "log_bins": 50, "decibel": True},
        {"preset": "scipy_compat", "band_powers": True, "fmax_hz": 8.0},
        {"preset": "sleep"},
        {"preset": "sleep", "band_powers": False, "log_bins": 30},
        {"preset": "sleep", "format": "npz"},
    ],
)
def test_threads_memory_and_repetition_do_not_show(tmp_path, monkeypatch, params):
    path = write_shank(tmp_path, "a", 0, random_traces(30_000, 3))
    compute_into(tmp_path / "reference", path, **params)
    reference = contents(tmp_path / "reference")
    # A slab of a few rows, tasks of a few frames: what a week-long recording would meet.
    for threads, memory_mb in ((1, 0.02), (3, 0.1)):
        folder = tmp_path / f"{threads}"
        compute_into(folder, path, threads=threads, memory_mb=memory_mb, **params)
        assert contents(folder) == reference
    monkeypatch.setattr(spectrogram_step, "frames_per_task", lambda plan: 16)
    compute_into(tmp_path / "small", path, **params)
    small = contents(tmp_path / "small")
    if "npz" in "".join(small):
        name = "a_sh0_spectrograms.npz"
        assert small.get(name) == reference.get(name)


def test_hdf5_holds_what_npz_holds(tmp_path):
    path = write_shank(tmp_path, "a", 0, random_traces(60_000, 3), channel_ids=np.array(["x", "y", "µ"]))
    compute_into(tmp_path / "npz", path, preset="sleep", format="npz")
    compute_into(tmp_path / "h5", path, preset="sleep")
    with (
        np.load(tmp_path / "npz/a_sh0_spectrograms.npz") as arrays,
        h5py.File(tmp_path / "h5/a_sh0_spectrograms.h5") as h5,
    ):
        np.testing.assert_array_equal(h5["spectrograms"][()].transpose(0, 2, 1), arrays["spectrograms"])
        assert h5["spectrograms"].dtype == np.float16
        assert h5["channel_ids"].asstr()[()].tolist() == arrays["channel_ids"].tolist() == ["x", "y", "µ"]
        np.testing.assert_array_equal(h5["freqs"], arrays["freqs"])
        assert h5["spectrograms"].compression == "gzip"
        assert h5["spectrograms"].id.get_storage_size() < h5["spectrograms"].nbytes


def test_the_order_of_the_samples_in_the_file_does_not_show(tmp_path):
    samples = random_traces(40_000, 3)
    samples[777, 1] = np.nan
    for name, values in (("c", samples), ("fortran", np.asfortranarray(samples))):
        compute_into(tmp_path / name, write_shank(tmp_path / f"in_{name}", "a", 0, values), preset="sleep")
    assert contents(tmp_path / "c") == contents(tmp_path / "fortran")


def test_tasks_are_bounded():
    for nperseg, noverlap, nfft in ((1024, 768, 2048), (15_000, 0, 15_000), (16, 15, 16), (1 << 20, 0, 1 << 20)):
        frames = frames_per_task(SpectrogramPlan(500.0, "hann", nperseg, noverlap, nfft))
        assert 16 <= frames <= 2048
        assert frames & (frames - 1) == 0
