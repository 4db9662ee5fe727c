from functools import partial

import numpy as np
import pytest
import scipy.io
import scipy.signal

from src.preprocess.spikes.filters import quiet_mask, robust_sigma
from src.signals import BadInput
from src.simulate.spikes import (
    FS_HZ,
    LOOKALIKES,
    NEURONS,
    SPIKE_SAMPLES,
    Spectrum,
    firing,
    lookalike,
    mean_peak,
    place,
    simulate,
    write_set,
)

PUBLISHED = {  # class: peak, where, width at half maximum, end of the positive lobe (10 %)
    1: (7.3, 8, 14, 22),
    2: (8.1, 11.5, 19, 28),
    3: (2.1, 6.5, 12, 23),
    4: (4.0, 16, 29, 43),
    5: (6.2, 16, 28, 43),
}


@pytest.mark.parametrize("unit", PUBLISHED)
def test_the_waveforms_have_the_published_shape(unit):
    t = np.arange(0, SPIKE_SAMPLES, 0.1)
    shape = NEURONS[unit - 1].at(t)
    peak, at, width, end = PUBLISHED[unit]
    assert shape.max() == pytest.approx(peak, rel=0.05)
    assert t[shape.argmax()] == pytest.approx(at, abs=2.5)
    above = t[shape > shape.max() / 2]
    assert above[-1] - above[0] == pytest.approx(width, rel=0.15)
    assert t[shape > shape.max() / 10][-1] == pytest.approx(end, abs=4.0)
    assert NEURONS[unit - 1].at(np.array([-3.0, 0.0])).tolist() == [0, 0]
    assert abs(shape[-1]) < 0.01 * peak


def test_two_pairs_differ_in_amplitude_alone():
    shapes = np.stack([n.at(np.arange(64)) for n in NEURONS])
    r = np.corrcoef(shapes)
    assert r[3, 4] > 0.999
    assert r[0, 2] > 0.95
    assert r[1, 3] < 0.9


def test_counts_rates_and_overlaps_are_the_published_ones():
    trace, train = lookalike("D2", 0)
    assert len(trace) == 1_440_000
    assert len(train) == 3984
    assert np.all(np.diff(train.index) >= 0)
    assert np.mean(np.diff(train.index) < 64) == pytest.approx(0.16, abs=0.02)
    assert np.bincount(train.unit)[1:].min() > 700
    for unit in range(1, 6):
        assert np.diff(train.index[train.unit == unit]).min() >= 50


def test_levels_are_those_stated():
    level = LOOKALIKES["D4"]
    trace, train = lookalike("D4", 1, duration_s=10)
    sos = scipy.signal.butter(3, (150, 4000), "bandpass", fs=FS_HZ, output="sos")
    band = scipy.signal.sosfiltfilt(sos, trace)
    sigma = robust_sigma(band[quiet_mask(band)])
    assert mean_peak() / sigma == pytest.approx(level.ratio, rel=0.12)
    assert len(train) == round(level.n_spikes * 10 / 57.6)


def test_the_same_seed_gives_the_same_recording_and_another_another():
    first, train = simulate(100, 5.0, 7, duration_s=2)
    again, _ = simulate(100, 5.0, 7, duration_s=2)
    other, _ = simulate(100, 5.0, 8, duration_s=2)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1
    assert first.dtype == np.float32
    assert len(train) == 100


def test_spikes_start_at_their_onset_index():
    rng = np.random.default_rng(0)
    train = firing(50, 50_000, 5, rng)
    clean = place(train, 50_000, NEURONS, rng, amplitude_sd=0, width_sd=0)
    lone = [i for i in train.index if np.sum(np.abs(train.index - i) < 2 * SPIKE_SAMPLES) == 1]
    for onset in lone:
        assert np.all(clean[onset - 50 : onset] == 0)
        assert clean[onset + 2] > 0


def test_too_many_spikes_do_not_fit():
    with pytest.raises(BadInput, match="duration_s: is -1; give seconds"):
        simulate(10, 10.0, 0, duration_s=-1)
    with pytest.raises(ValueError, match="do not fit"):
        firing(1_000, 10_000, 1, np.random.default_rng(0))


def test_the_set_is_written_with_labels_for_the_first_alone(tmp_path):
    write_set(tmp_path, partial(lookalike, seed=0, duration_s=1.0), tmp_path / "truth")
    first = scipy.io.loadmat(tmp_path / "D1.mat")
    assert first["d"].shape == (1, 25_000)
    assert {"Index", "Class"} < set(first)
    for name in ("D2", "D6"):
        recording, truth = (scipy.io.loadmat(folder / f"{name}.mat") for folder in (tmp_path, tmp_path / "truth"))
        assert "Index" not in recording
        assert "d" not in truth
        assert truth["Index"].shape == truth["Class"].shape
    assert not (tmp_path / "truth" / "D1.mat").exists()


def test_the_waveforms_follow_the_real_ones(shared_data):
    folder = shared_data / "spikes_waveforms" / "ee32009_D1"
    windows, labels = np.load(folder / "X_classifier.npy")[..., 0], np.load(folder / "y_classifier_raw.npy")
    for unit, neuron in enumerate(NEURONS):
        median = np.median(windows[labels == unit], axis=0)
        median = median - median[:20].mean()
        ours = np.mean([neuron.at(np.arange(-20, 44) + shift) for shift in (-0.4, -0.2, 0, 0.2, 0.4)], axis=0)
        assert np.corrcoef(ours, median)[0, 1] > 0.995
        assert np.abs(ours - median).max() < 0.35


def test_synthesised_noise_has_the_spectrum():
    f = np.linspace(0, FS_HZ / 2, 257)
    spectrum = Spectrum((1 + 3 * (f < 1_000)) / FS_HZ, FS_HZ)
    noise = spectrum.synthesise(200_000, np.random.default_rng(0))
    assert noise.std() == pytest.approx(spectrum.sigma(), rel=0.02)
    power = np.abs(np.fft.rfft(noise)) ** 2
    bins = np.fft.rfftfreq(len(noise), 1 / FS_HZ)
    ratio = power[(bins > 100) & (bins < 900)].mean() / power[bins > 2_000].mean()
    assert ratio == pytest.approx(4, rel=0.1)
    assert spectrum.scaled(2.0).sigma() == pytest.approx(2 * spectrum.sigma())
    assert spectrum.sigma(0, 1_000) < spectrum.sigma()
