import numpy as np
import pytest

from src.preprocess.spikes.filters import slow_baseline
from src.preprocess.spikes.waveforms import fit_waveforms, remove_spikes
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.simulate.spikes import NEURONS, firing, place, simulate


@pytest.fixture(scope="module")
def clean_recording():
    trace, train = simulate(800, 40.0, 3, duration_s=20, sway=2.0, amplitude_sd=0.05)
    return trace - slow_baseline(trace), train


def test_means_and_variation_are_those_the_spikes_were_made_with(clean_recording):
    trace, train = clean_recording
    model = fit_waveforms(trace, train, 5)
    true = np.stack(
        [np.mean([n.at(np.arange(-10, 90) - f) for f in np.linspace(-0.5, 0.5, 11)], axis=0) for n in NEURONS]
    )
    assert np.abs(model.templates - true).max() < 0.2
    assert model.counts.tolist() == np.bincount(train.unit)[1:].tolist()
    rng = np.random.default_rng(0)
    drawn = model.draw(np.full(2_000, 2), rng)
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn.mean(axis=0), model.templates[1], atol=0.05)
    # 5 % amplitude jitter on a peak of 8.1; where the waveform is silent nothing varies.
    assert drawn[:, 10 + 11].std() == pytest.approx(0.05 * 8.1, rel=0.4)
    assert drawn[:, :8].std() < 0.1
    assert model.draw(np.full(5, 2), rng, variation=0.0).std(axis=0).max() < 1e-5


def test_a_neuron_that_never_fires_is_empty(clean_recording):
    trace, train = clean_recording
    some = train.unit != 4
    model = fit_waveforms(trace, SpikeTrain(train.index[some], train.unit[some]), 5)
    assert model.counts[3] == 0
    assert not model.modes[3].any()


def test_spikes_can_be_taken_off_again():
    rng = np.random.default_rng(0)
    train = firing(60, 30_000, 5, rng)
    clean = place(train, 30_000, NEURONS, rng, amplitude_sd=0, width_sd=0)
    model = fit_waveforms(clean, train, 5)
    rest = remove_spikes(clean, train, model.templates, model.onset)
    assert np.mean(rest**2) < 0.05 * np.mean(clean**2)
    np.testing.assert_array_equal(remove_spikes(clean, SpikeTrain.empty(), model.templates, 10), clean)


def test_scaling_the_recording_scales_the_model(clean_recording):
    trace, train = clean_recording
    model, louder = fit_waveforms(trace, train, 5), fit_waveforms(3 * trace, train, 5)
    np.testing.assert_allclose(louder.templates, 3 * model.templates, atol=1e-3)
    np.testing.assert_allclose(np.abs(louder.modes), np.abs(model.scaled(3).modes), atol=1e-2)
