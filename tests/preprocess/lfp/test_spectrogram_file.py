"""Spectrogram files: ordinary archives whoever compressed them, opened channel by channel in either format."""

import shutil
import subprocess
import zipfile
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.preprocess.lfp import spectrogram_file as module
from src.preprocess.lfp.spectrogram_file import (
    FLOOR,
    BandPowers,
    Encoding,
    deflate,
    open_spectrograms,
    rows_per_piece,
    write_npz,
)
from src.preprocess.spectrogram import SpectrogramPlan
from src.signals import BadInput
from tests.preprocess.lfp.lfp_files import compute, random_traces, write_shank


def write(path, values, rows=1):
    flat = np.ascontiguousarray(values).reshape(-1, values.shape[-1])
    pieces = (deflate(flat[first : first + rows].tobytes()) for first in range(0, len(flat), rows))
    write_npz(path, {"before": np.arange(3)}, values.shape, values.dtype, pieces)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 40), st.integers(1, 50), st.integers(1, 64), st.sampled_from(["f4", "f2", "u1"])
)
def test_numpy_reads_what_was_written(tmp_path_factory, channels, freqs, times, rows, dtype):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    values = np.random.default_rng(freqs).integers(0, 250, (channels, freqs, times)).astype(dtype)
    write(path, values, rows)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays.files == ["before", "spectrograms"]
        np.testing.assert_array_equal(arrays["spectrograms"], values)
        assert (arrays["before"].tolist(), arrays["spectrograms"].dtype) == ([0, 1, 2], values.dtype)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_DEFLATED}
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_it_compresses(tmp_path):
    values = np.random.default_rng(0).standard_exponential((4, 100, 500)).astype(np.float32)
    write(tmp_path / "a.npz", values, 64)
    np.savez_compressed(tmp_path / "b.npz", values=values)
    assert (tmp_path / "a.npz").stat().st_size < 1.03 * (tmp_path / "b.npz").stat().st_size < 0.97 * values.nbytes


def test_beyond_four_gigabytes(tmp_path, monkeypatch):
    """Large members need the format's 64-bit fields."""
    path, values = tmp_path / "a.npz", np.arange(60.0).reshape(3, 4, 5)
    monkeypatch.setattr(module, "_LARGE", 10)
    write(path, values)
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["before"], np.arange(3))
        np.testing.assert_array_equal(arrays["spectrograms"], values)
    if unzip := shutil.which("unzip"):
        subprocess.run([unzip, "-tq", path], check=True, stdout=subprocess.DEVNULL)


def test_an_unfinished_array_is_refused(tmp_path):
    with pytest.raises(ValueError, match="of 168 bytes"):
        write_npz(tmp_path / "a.npz", {}, (10,), np.dtype("f4"), [])


def test_pieces_tile_groups_of_64_rows():
    for row_bytes in (4, 40, 20_000, 800_000, 40_000_000):
        rows = rows_per_piece(row_bytes)
        assert 64 % rows == 0
        assert rows == 1 or rows * row_bytes <= 1 << 19


@pytest.fixture(params=["npz", "hdf5"])
def folder(request, tmp_path):
    traces = write_shank(tmp_path, "a", 0, random_traces(9000, 4), channel_ids=np.array(["a", "b", "c", "d"]))
    compute(tmp_path / "out", traces, "sleep", format=request.param)
    return tmp_path / "out"


def test_channels_in_the_order_of_the_file(folder):
    source = open_spectrograms(folder)
    whole = dict(source.channels(range(4)))
    assert [values.shape for values in whole.values()] == [(len(source.freqs), len(source.times))] * 4
    some = dict(open_spectrograms(source.path).channels(source.places(["d", "b"])))
    assert list(some) == [1, 3]
    np.testing.assert_array_equal(some[3], whole[3])
    np.testing.assert_array_equal(source.to_decibel(whole[0]), whole[0])


def test_what_it_says_of_itself(folder):
    source = open_spectrograms(folder)
    assert (source.channel_ids, source.freqs[-1], source.times[0]) == (("a", "b", "c", "d"), 64.0, 1.0)
    assert source.decibel
    assert source.params["resolution_hz"] == pytest.approx(0.72, abs=0.01)
    assert source.places(None) == [0, 1, 2, 3]
    with pytest.raises(BadInput, match="has no channel z"):
        source.places(["a", "z"])


def test_power_becomes_decibels(tmp_path):
    compute(tmp_path / "out", write_shank(tmp_path, "a", 0, random_traces(3000, 1)))
    source = open_spectrograms(tmp_path / "out")
    ((_, values),) = source.channels([0])
    assert not source.decibel
    np.testing.assert_allclose(source.to_decibel(values), 10 * np.log10(values), rtol=1e-5)


def test_what_is_not_a_spectrogram_file(tmp_path):
    with pytest.raises(BadInput, match="holds no spectrograms"):
        open_spectrograms(tmp_path)
    (tmp_path / "x_spectrograms.h5").write_bytes(b"no")
    np.savez(tmp_path / "y_spectrograms.npz", x=1)
    np.savez(tmp_path / "z_spectrograms.npz", spectrograms=np.zeros((2, 3, 4)), channel_ids=np.arange(2))
    for name in ("x_spectrograms.h5", "y_spectrograms.npz", "z_spectrograms.npz"):
        with pytest.raises(BadInput):
            open_spectrograms(tmp_path / name)


PLAN = SpectrogramPlan(500.0, "hann", 1000, 750, 1000)
POWER = np.random.default_rng(0).standard_exponential((PLAN.n_freqs, 9)).astype(np.float32)
PLAIN = {"dtype": "float32", "decibel": False, "fmax_hz": None, "log_bins": None}


def encode(power=POWER, **params):
    encoding = Encoding(PLAN, PLAIN | params)
    return encoding, encoding.encode(power)


def test_rows_are_power_or_decibels_silence_is_finite_and_a_gap_is_not():
    np.testing.assert_array_equal(encode()[1], POWER)
    encoding, values = encode(dtype="float16", decibel=True, fmax_hz=64.0)
    assert (encoding.freqs[-1], values.dtype) == (64.0, np.dtype(np.float16))
    np.testing.assert_allclose(values, 10 * np.log10(POWER[:129]), atol=0.04)
    power = POWER.copy()
    power[:, 0], power[:, 1] = 0, np.nan
    _, values = encode(power, decibel=True)
    np.testing.assert_allclose(values[:, 0], 10 * np.log10(FLOOR), rtol=1e-6)
    assert np.isnan(values[:, 1]).all()


def test_logarithmic_bins():
    encoding, values = encode(log_bins=60)
    assert encoding.freqs[0] == PLAN.freqs[1]
    assert encoding.freqs[-1] == pytest.approx(250.0)
    np.testing.assert_allclose(np.diff(np.log(encoding.freqs)), np.log(500) / 59)
    # Wide rows are means of the bins between geometric midpoints, narrow ones are interpolated.
    low, high = np.sqrt(encoding.freqs[[57, 58]] * encoding.freqs[[58, 59]])
    inside = (PLAN.freqs >= low) & (PLAN.freqs < high)
    np.testing.assert_allclose(values[58], POWER[inside].mean(axis=0), rtol=1e-5)
    interpolated = [np.interp(encoding.freqs[1], PLAN.freqs, POWER[:, t]) for t in range(9)]
    np.testing.assert_allclose(values[1], interpolated, rtol=1e-5)
    np.testing.assert_allclose(encode(np.full_like(POWER, 3), log_bins=60)[1], 3, rtol=1e-5)


@pytest.mark.parametrize(
    "params",
    [{"fmax_hz": -1.0}, {"fmax_hz": 0.1}, {"log_bins": 0}, {"log_bins": 1}, {"log_bins": 5, "fmax_hz": 0.5}],
)
def test_what_makes_no_sense(params):
    with pytest.raises(BadInput):
        Encoding(PLAN, PLAIN | params)


def test_a_sines_power_is_in_its_band():
    time = np.arange(20_000) / 500
    power = PLAN.power(3 * np.sin(2 * np.pi * 7 * time) + 0.1 * np.sin(2 * np.pi * 12 * time))
    delta, theta, ratio = BandPowers(PLAN, {"delta": [0.5, 4], "theta": [5, 10]}).sum(power)
    np.testing.assert_allclose(theta, 4.5, rtol=1e-4)
    assert delta.max() < 1e-6
    np.testing.assert_allclose(ratio, 4.5 / 4.505, rtol=1e-4)


def test_neighbouring_bands_add_up_to_the_variance():
    samples = np.random.default_rng(0).standard_normal(200_000)
    edges = [0.5, 4, 30, 100, 250]
    bands = {str(low): [low, high] for low, high in pairwise(edges)}
    sums = BandPowers(PLAN, bands).sum(PLAN.power(samples))[:-1]
    assert sums.sum(axis=0).mean() == pytest.approx(1, rel=0.02)


def test_bands_above_half_the_rate_are_named_and_silence_has_no_ratio():
    bands = BandPowers(SpectrogramPlan(128.0, "hann", 256, 0, 256), {"delta": [1, 4], "gamma": [40, 100]})
    assert (bands.names, bands.left_out, bands.edges_hz.tolist()) == (("delta",), ("gamma",), [[1, 4]])
    power = np.zeros((501, 3), np.float32)
    power[:, 1] = np.nan
    sums = BandPowers(PLAN, {"delta": [1, 4]}).sum(power)
    assert np.isnan(sums[-1]).all()
    np.testing.assert_array_equal(sums[0], [0, np.nan, 0])


def test_bands_that_make_no_sense():
    with pytest.raises(BadInput, match="no bin between"):
        BandPowers(PLAN, {"narrow": [5.1, 5.2]})
    with pytest.raises(BadInput, match="density"):
        BandPowers(SpectrogramPlan(500.0, "hann", 1000, 0, 1000, scaling="spectrum"), {"delta": [1, 4]})
