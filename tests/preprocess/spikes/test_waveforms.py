from dataclasses import replace

import numpy as np
import pytest

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import slow_baseline
from src.preprocess.spikes.waveforms import (
    cut_windows,
    fit_templates,
    fit_waveforms,
    labelled_recording,
    load_labelled,
    median_waveforms,
    subtracted,
)
from src.recordings.extracellular.spike_trains import SpikeTrain, write_mat
from src.signals import BadInput
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
    # 5 % amplitude jitter on a peak of 8.1; where the waveform is silent nothing varies.
    deviation = np.sqrt((model.modes[1] ** 2).sum(axis=0))
    assert deviation[10 + 11] == pytest.approx(0.05 * 8.1, rel=0.4)
    assert deviation[:8].max() < 0.1


def test_a_neuron_that_never_fires_is_empty(clean_recording):
    trace, train = clean_recording
    some = train.unit != 4
    model = fit_waveforms(trace, SpikeTrain(train.index[some], train.unit[some]), 5)
    assert model.counts[3] == 0
    assert not model.modes[3].any()
    assert not model.templates[3].any()


def test_spikes_can_be_taken_off_again():
    rng = np.random.default_rng(0)
    train = firing(60, 30_000, 5, rng)
    clean = place(train, 30_000, NEURONS, rng, amplitude_sd=0, width_sd=0)
    model = fit_waveforms(clean, train, 5)
    rest = subtracted(clean, train.index - model.onset, model.templates[train.unit - 1])
    assert np.mean(rest**2) < 0.05 * np.mean(clean**2)
    np.testing.assert_array_equal(subtracted(clean, train.index[:0], model.templates[:0]), clean)
    np.testing.assert_array_equal(subtracted(np.zeros(3), np.array([-1, 2]), np.array([[1, 2], [3, 4]])), [-2, 0, -3])


def test_scaling_the_recording_scales_the_model(clean_recording):
    trace, train = clean_recording
    model, louder = fit_waveforms(trace, train, 5), fit_waveforms(3 * trace, train, 5)
    np.testing.assert_allclose(louder.templates, 3 * model.templates, atol=1e-3)
    np.testing.assert_allclose(np.abs(louder.modes), 3 * np.abs(model.modes), atol=1e-2)


TEMPLATES = np.stack([neuron.at(np.arange(-10, 90) - 0.5) for neuron in NEURONS])


def trace_of(train, n, templates=TEMPLATES, onset=10):
    return subtracted(np.zeros(n), train.index - onset, -templates[train.unit - 1])


def test_templates_are_recovered_exactly_although_spikes_overlap():
    rng = np.random.default_rng(0)
    train = SpikeTrain.sorted(np.sort(rng.choice(19_000, 400, replace=False)) + 20, rng.integers(1, 6, 400))
    fitted = fit_templates(trace_of(train, 20_000), train, 5)
    np.testing.assert_allclose(fitted, TEMPLATES, atol=1e-3)
    plain = np.stack(
        [
            np.mean([trace_of(train, 20_000)[i - 10 : i + 90] for i in train.index[train.unit == u]], axis=0)
            for u in range(1, 6)
        ]
    )
    assert np.abs(plain - TEMPLATES).max() > 0.5  # what an average of overlapping spikes would have given


def test_median_waveforms_are_cut_around_the_spikes():
    traces = np.zeros((2, 3_000))
    for at in (500, 1_500):
        traces[1, at - 5 : at + 5] = 7
    means = median_waveforms(traces, SpikeTrain(np.array([500, 1_500]), np.array([2, 2])), 2, 25, 50)
    assert means.shape == (2, 2, 75)
    assert not means[0].any()
    assert means[1, 1, 25] == 7


def test_windows_beyond_the_ends_are_zero():
    ramp = np.arange(1.0, 6.0)
    np.testing.assert_array_equal(cut_windows(ramp, np.array([0, 4]), 2, 3), [[0, 0, 1, 2, 3], [3, 4, 5, 0, 0]])
    assert cut_windows(np.stack([ramp, -ramp]), np.array([2]), 1, 1).tolist() == [[[2, 3], [-2, -3]]]
    assert cut_windows(ramp, np.zeros(0, int), 2, 3).shape == (0, 5)


CHAIN = Conditioning()


def test_waveforms_of_a_stretch_are_those_of_its_neurons(spike_folder):
    labelled = load_labelled(spike_folder / "D1.mat", CHAIN)
    model = labelled.waveforms(range(200_000))
    peaks = model.templates.max(axis=1)
    np.testing.assert_allclose(peaks, [n.peak for n in NEURONS], rtol=0.1)
    assert model.counts.sum() == len(labelled.train.between(0, 200_000))
    assert len(labelled.detrended) == len(labelled.bandpassed) == len(labelled.trace.centred)


def test_any_number_of_neurons_is_allowed_unless_it_is_limited(tmp_path):
    rng = np.random.default_rng(0)
    train = SpikeTrain.sorted(np.arange(200, 9_000, 100), rng.integers(1, 10, 88))
    trace = rng.standard_normal(10_000)
    trace[train.index[:, None] + np.arange(10)] += 8
    write_mat(tmp_path / "D1.mat", train, trace)
    assert load_labelled(tmp_path / "D1.mat", CHAIN).waveforms(range(10_000)).n_units == 9
    with pytest.raises(BadInput, match="outside 1…5"):
        load_labelled(tmp_path / "D1.mat", CHAIN, n_units=5)


@pytest.mark.parametrize("wrong", ["ms", "another recording's"])
def test_labels_that_do_not_lie_on_spikes_are_refused(spike_folder, tmp_path, wrong):
    labelled = load_labelled(spike_folder / "D1.mat", CHAIN)
    trace, train = labelled.detrended, labelled.train
    other = np.sort(np.random.default_rng(0).integers(0, len(trace), len(train)))
    index = train.index // 25 if wrong == "ms" else other
    write_mat(tmp_path / "D1.mat", SpikeTrain.sorted(index, train.unit), trace)
    with pytest.raises(BadInput, match="labels that do not lie on spikes"):
        load_labelled(tmp_path / "D1.mat", CHAIN)


def test_pulses_in_a_labelled_recording_leave_its_waveforms_alone(spike_folder):
    labelled = load_labelled(spike_folder / "D1.mat", CHAIN)
    samples = labelled.trace.centred.copy()
    samples[np.arange(1_000, len(samples) - 100, 2_500)[:, None] + np.arange(15)] += 500
    pulsed = labelled_recording(replace(labelled.trace, centred=samples), labelled.train, CHAIN)
    assert "artefacts up to" in pulsed.notes[0]
    found, true = (one.waveforms(range(len(samples))).templates.max(axis=1) for one in (pulsed, labelled))
    np.testing.assert_allclose(found, true, rtol=0.05)
    beside = SpikeTrain.sorted(np.append(labelled.train.index, 3_395), np.append(labelled.train.unit, 6))
    with pytest.raises(BadInput, match="every spike of neuron 6 lies beside an artefact"):
        labelled_recording(replace(labelled.trace, centred=samples), beside, CHAIN)


def test_a_recording_without_spikes_is_refused(tmp_path):
    write_mat(tmp_path / "D1.mat", SpikeTrain.empty(), np.random.default_rng(0).standard_normal(5_000))
    with pytest.raises(BadInput, match="holds no labelled spike"):
        load_labelled(tmp_path / "D1.mat", CHAIN)
