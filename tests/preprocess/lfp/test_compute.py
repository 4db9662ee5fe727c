"""Whoever computes, in however much memory: the same bytes, and SciPy's values."""

import zipfile

import h5py
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from src.preprocess.lfp import compute as lfp_compute
from src.preprocess.lfp import npz_writer
from src.preprocess.lfp.compute import frames_per_chunk, frames_per_task
from src.preprocess.lfp.parameters import resolve
from src.preprocess.lfp.shank import run
from src.preprocess.sleep.spectrogram import SpectrogramPlan
from src.recordings.extracellular import channels as lfp_channels
from tests.preprocess.lfp.lfp_files import BANDS, random_traces, write_shank


def compute(folder, traces, preset="scipy_compat", threads=2, memory_mb=256.0, **overrides):
    folder.mkdir(parents=True, exist_ok=True)
    params = resolve(preset, overrides, BANDS) | {"label": "a_sh0", "sampling_rate_hz": None, "shank": 0}
    facts = run({"traces": traces}, params, folder, None, threads=threads, memory_mb=memory_mb)
    return facts, {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


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
    compute(folder / "out", path, **change)
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
    _, reference = compute(tmp_path / "reference", path, **params)
    # A slab of a few rows, tasks of a few frames: what a week-long recording would meet.
    for threads, memory_mb in ((1, 0.02), (3, 0.1)):
        folder = tmp_path / f"{threads}"
        assert compute(folder, path, threads=threads, memory_mb=memory_mb, **params)[1] == reference
    monkeypatch.setattr(lfp_compute, "frames_per_task", lambda plan: 16)
    _, small = compute(tmp_path / "small", path, **params)
    if "npz" in "".join(small):
        name = "a_sh0_spectrograms.npz"
        assert small.get(name) == reference.get(name)


def test_pieces_of_many_rows(tmp_path, monkeypatch):
    path = write_shank(tmp_path, "a", 0, random_traces(9000, 2))
    values = []
    for size in (1, 5000, 1 << 19):
        monkeypatch.setattr(npz_writer, "_PIECE_BYTES", size)
        compute(tmp_path / str(size), path, memory_mb=0.01)
        with np.load(tmp_path / str(size) / "a_sh0_spectrograms.npz") as arrays:
            values.append(arrays["spectrograms"])
    np.testing.assert_array_equal(values[0], values[1])
    np.testing.assert_array_equal(values[0], values[2])


def test_hdf5_holds_what_npz_holds(tmp_path):
    path = write_shank(tmp_path, "a", 0, random_traces(60_000, 3), channel_ids=np.array(["x", "y", "µ"]))
    compute(tmp_path / "npz", path, preset="sleep", format="npz")
    compute(tmp_path / "h5", path, preset="sleep")
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


@pytest.mark.parametrize("through", ["scratch file", "columns"])
def test_how_the_traces_pass_by_does_not_show(tmp_path, monkeypatch, through):
    """In time, turned round in a scratch file because they are too wide, or stored channel by channel."""
    samples = random_traces(40_000, 3)
    samples[777, 1] = np.nan
    monkeypatch.setattr(lfp_compute, "frames_per_chunk", lambda plan, n_channels: 32)
    _, reference = compute(tmp_path / "reference", write_shank(tmp_path, "a", 0, samples), preset="sleep")
    if through == "scratch file":
        monkeypatch.setattr(lfp_channels, "_WINDOW_BYTES", 0)
    else:
        samples = np.asfortranarray(samples)
    path = write_shank(tmp_path / through, "a", 0, samples)
    assert compute(tmp_path / "other", path, preset="sleep")[1] == reference


def test_chunks_are_bounded():
    plan = SpectrogramPlan(500.0, "hann", 1000, 750, 1000)
    assert [frames_per_chunk(plan, n) for n in (1, 16, 64, 384)] == [2048, 2048, 512, 128]
    assert frames_per_chunk(SpectrogramPlan(500.0, "hann", 15_000, 0, 15_000), 384) == 32


def test_tasks_are_bounded():
    for nperseg, noverlap, nfft in ((1024, 768, 2048), (15_000, 0, 15_000), (16, 15, 16), (1 << 20, 0, 1 << 20)):
        frames = frames_per_task(SpectrogramPlan(500.0, "hann", nperseg, noverlap, nfft))
        assert 16 <= frames <= 2048
        assert frames & (frames - 1) == 0
