from functools import partial

import numpy as np
import pytest

from src.preprocess.spikes.filters import robust_sigma
from src.preprocess.spikes.trace import load_trace
from src.recordings.extracellular.spike_trains import SpikeTrain, read_spikes
from src.signals import BadInput
from src.simulate.spike_hybrids import (
    BACKGROUND,
    BEFORE,
    WAVEFORMS,
    WaveformLibrary,
    draw_hybrid,
    hybrid,
    read_background,
    read_library,
)
from src.simulate.spikes import NEURONS, write_set


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The two folders of shared recordings that a hybrid is made from, with invented content."""
    folder = tmp_path_factory.mktemp("shared")
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(5), 40)
    shapes = np.stack([neuron.at(np.arange(-BEFORE, 44)) for neuron in NEURONS])
    windows = shapes[units] * (np.where(np.arange(200) % 2, 0.98, 1.02) + 1e-6 * np.arange(200))[:, None] + 3.0
    windows[7, 40:] += 9.0  # a neighbour inside the window
    (folder / WAVEFORMS).mkdir(parents=True)
    np.save(folder / WAVEFORMS / "X_classifier.npy", windows[..., None])
    np.save(folder / WAVEFORMS / "y_classifier_raw.npy", units)
    (folder / BACKGROUND).parent.mkdir(parents=True)
    rng.normal(0, 300, (30_000, 4)).astype(np.int16).tofile(folder / BACKGROUND)
    return folder


def test_windows_lose_their_offset_and_crowded_ones_are_left_out(shared):
    library = read_library(shared)
    assert library.n_units == 5
    assert len(library.units) == 199
    assert (library.units == 1).sum() == 39
    np.testing.assert_allclose(library.windows[:, [0, -1]], 0, atol=0.02)
    peaks = [np.median(library.windows[library.units == u + 1].max(axis=1)) for u in range(5)]
    np.testing.assert_allclose(peaks, [n.peak for n in NEURONS], rtol=0.05)


def test_training_and_test_have_no_spike_in_common(shared):
    library = read_library(shared)
    first, second = library.half(False), library.half(True)
    assert len(first.units) + len(second.units) == len(library.units)
    assert not {w.tobytes() for w in first.windows} & {w.tobytes() for w in second.windows}


def test_a_background_has_unit_noise_and_goes_on_beyond_its_end(shared):
    short, long = (read_background(shared, 1, n) for n in (20_000, 80_000))
    assert len(long) == 80_000
    np.testing.assert_array_equal(long[:20_000], short)
    np.testing.assert_array_equal(long[50_000:50_100], long[49_998:49_898:-1])  # the mirror image of two seconds
    assert 1.0 < robust_sigma(short) < 3.0  # one in the band of spikes, white noise has more beyond it


def test_spikes_are_where_the_truth_says_and_as_large_as_asked():
    shapes = np.zeros((2, 100))
    shapes[:, BEFORE : BEFORE + 30] = np.array([[4.0], [2.0]])
    library = WaveformLibrary(shapes, np.array([1, 2]))
    trace, train = hybrid(library, np.zeros(50_000), 60, 10.0, 0)
    clean = np.zeros(50_100)
    for index, unit in zip(train.index, train.unit, strict=True):
        clean[index : index + 30] += shapes[unit - 1, BEFORE]
    np.testing.assert_allclose(trace, clean[:50_000])
    noise = np.random.default_rng(0).standard_normal(50_000)
    noisy, _ = hybrid(library, noise, 60, 10.0, 0)
    assert np.std(noisy - trace) == pytest.approx(3.0 / 10, rel=0.02)  # mean peak over the ratio


def test_the_set_is_written_with_its_truth_apart(shared, tmp_path):
    write_set(tmp_path, partial(draw_hybrid, shared=shared, seed=0, duration_s=1.0), tmp_path / "truth")
    assert isinstance(read_spikes(tmp_path / "D1.mat"), SpikeTrain)
    with pytest.raises(BadInput, match="no variable 'Index'"):
        read_spikes(tmp_path / "D4.mat")
    for name in ("D2", "D6"):
        n_samples = len(load_trace(tmp_path / f"{name}.mat", fs_hz=25_000.0).centred)
        assert n_samples == 25_000
        assert len(read_spikes(tmp_path / "truth" / f"{name}.mat", n_samples=n_samples)) > 40


def test_what_is_missing_is_named(shared, tmp_path):
    for read in (lambda: read_library(tmp_path), lambda: read_background(tmp_path, 0, 10)):
        with pytest.raises(BadInput, match=r"give a folder that holds .*locust_trial_01\.raw"):
            read()
    with pytest.raises(BadInput, match="has no channel 4"):
        read_background(shared, 4, 10)


def test_the_real_waveforms_are_those_of_the_coursework(shared_data):
    library = read_library(shared_data)
    assert len(library.units) > 1500
    assert np.bincount(library.units)[1:].min() > 200
    medians = [np.median(library.windows[library.units == u], axis=0) for u in range(1, 6)]
    first, third = medians[0], medians[2]
    assert np.corrcoef(first, third)[0, 1] > 0.97  # two neurons that differ in amplitude alone
    assert first.max() > 3 * third.max()
