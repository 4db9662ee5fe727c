"""Finished files open the same way, npz or HDF5, and give up their values tile by tile."""

import numpy as np
import pytest

from src.preprocess.lfp import spectrogram_file as lfp_file
from src.preprocess.lfp.spectrogram_file import open_spectrograms, spectrogram_file
from src.signals import BadInput
from tests.preprocess.lfp.lfp_files import compute, random_traces, write_shank


@pytest.fixture(params=["npz", "hdf5"])
def folder(request, tmp_path):
    traces = write_shank(tmp_path, "a", 0, random_traces(9000, 4), channel_ids=np.array(["a", "b", "c", "d"]))
    compute(tmp_path / "out", traces, "sleep", format=request.param)
    return tmp_path / "out"


def assembled(source, places):
    values = np.full((len(source.channel_ids), len(source.freqs), len(source.times)), np.nan, np.float32)
    for tile in source.tiles(places):
        values[tile.channel, tile.rows, tile.times] = tile.values
    return values


def test_tiles_make_up_the_whole(folder, monkeypatch):
    source = open_spectrograms(folder)
    whole = assembled(source, range(4))
    assert np.isfinite(whole).all()
    assert source.decibel
    monkeypatch.setattr(lfp_file, "_BLOCK_BYTES", 700)
    np.testing.assert_array_equal(assembled(source, range(4)), whole)
    some = assembled(open_spectrograms(spectrogram_file(folder)), source.places(["d", "b"]))
    np.testing.assert_array_equal(some[[1, 3]], whole[[1, 3]])
    assert np.isnan(some[[0, 2]]).all()
    np.testing.assert_array_equal(source.to_decibel(whole), whole)


def test_what_it_says_of_itself(folder):
    source = open_spectrograms(folder)
    assert source.channel_ids == ("a", "b", "c", "d")
    assert (source.freqs[-1], source.times[0], source.start_s) == (64.0, 1.0, 0.0)
    assert source.params["resolution_hz"] == pytest.approx(0.72, abs=0.01)
    assert source.places(None) == [0, 1, 2, 3]
    with pytest.raises(BadInput, match="has no channel z"):
        source.places(["a", "z"])


def test_power_becomes_decibels(tmp_path):
    traces = write_shank(tmp_path, "a", 0, random_traces(3000, 1))
    compute(tmp_path / "out", traces)
    source = open_spectrograms(tmp_path / "out")
    values = assembled(source, [0])
    assert not source.decibel
    np.testing.assert_allclose(source.to_decibel(values), 10 * np.log10(values), rtol=1e-5)


def test_what_is_not_a_spectrogram_file(tmp_path):
    with pytest.raises(BadInput, match="holds no spectrograms"):
        open_spectrograms(tmp_path)
    (tmp_path / "x_spectrograms.h5").write_bytes(b"no")
    np.savez(tmp_path / "y_spectrograms.npz", x=1)
    for name in ("x_spectrograms.h5", "y_spectrograms.npz"):
        with pytest.raises(BadInput):
            open_spectrograms(tmp_path / name)
