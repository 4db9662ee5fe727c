import numpy as np
import pytest

from src.models.spike_scoring import detection
from src.preprocess.spikes.matched_filter import (
    FilterBank,
    fit_templates,
    local_peaks,
    matched_filter,
    mean_template,
    subtract,
)
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.simulate.spikes import FS_HZ, NEURONS, background, mean_peak, simulate

TEMPLATES = np.stack([neuron.at(np.arange(-10, 90) - 0.5) for neuron in NEURONS])


def trace_of(train, n, templates=TEMPLATES, onset=10):
    trace = np.zeros(n)
    for index, unit in zip(train.index, train.unit, strict=True):
        subtract(trace, -templates[unit - 1], index - onset)
    return trace


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


def test_a_unit_without_spikes_has_an_empty_template():
    train = SpikeTrain(np.arange(100, 5_000, 200), np.ones(25, np.int64))
    fitted = fit_templates(trace_of(train, 6_000), train, 3)
    np.testing.assert_allclose(fitted[0], TEMPLATES[0], atol=1e-3)
    assert not fitted[1:].any()


def test_the_matched_filter_peaks_at_the_onset():
    trace = np.zeros(1_000, np.float32)
    subtract(trace, -TEMPLATES[4], 400 - 10)
    template = TEMPLATES[4] / np.linalg.norm(TEMPLATES[4])
    output = matched_filter(trace, template, 10)
    assert len(output) == 1_000
    assert output.argmax() == 400
    assert output.max() == pytest.approx(np.linalg.norm(TEMPLATES[4]), rel=1e-5)


def test_the_mean_template_has_no_offset_and_unit_energy():
    template = mean_template(TEMPLATES)
    assert template.mean() == pytest.approx(0, abs=1e-12)
    assert np.linalg.norm(template) == pytest.approx(1)
    assert not mean_template(np.zeros((2, 9))).any()


def test_the_bank_gives_log_likelihood_ratios():
    noise = background(4.0, 0.0, mean_peak())
    bank = FilterBank(TEMPLATES, 10, noise, length=512)
    n, at = 4_000, 2_000
    trace = np.zeros(n)
    subtract(trace, -TEMPLATES[1], at - 10)
    ratio = bank.outputs(trace)
    # Of the true template at the true place: half its energy in units of the noise; nowhere and for no other more.
    assert ratio[1, at] == pytest.approx(bank.energy[1] / 2, rel=0.02)
    assert np.unravel_index(ratio.argmax(), ratio.shape) == (1, at)
    # On noise alone the filter's output has the energy as its variance.
    outputs = bank.outputs(noise.synthesise(200_000, np.random.default_rng(0))) + bank.energy[:, None] / 2
    np.testing.assert_allclose(outputs.var(axis=1), bank.energy, rtol=0.1)


def test_subtraction_finds_spikes_on_top_of_each_other():
    train = SpikeTrain(np.array([500, 540, 1_500, 1_530, 2_500]), np.array([5, 1, 1, 5, 3]))
    noise = background(200.0, 0.0, mean_peak())
    trace = trace_of(train, 3_000) + 0.01 * np.random.default_rng(0).standard_normal(3_000)
    found, value = FilterBank(TEMPLATES, 10, noise, length=512).detect(trace, 50.0)
    np.testing.assert_allclose(found.index, train.index, atol=1)
    np.testing.assert_array_equal(found.unit, train.unit)
    assert len(value) == 5


def test_the_bank_is_a_strong_sorter_and_silence_gives_nothing():
    trace, train = simulate(700, 8.0, 1, duration_s=10)
    bank = FilterBank(TEMPLATES, 10, background(8.0, 1.0, mean_peak()), length=2048)
    found, _ = bank.detect(trace, 6.0)
    assert detection(train.index, found.index, 50).f1 > 0.93
    nothing, value = bank.detect(np.zeros(5_000), 6.0)
    assert len(nothing) == len(value) == 0


def test_peaks_keep_their_distance_and_subtraction_stops_at_the_ends():
    values = np.zeros(100)
    values[[10, 14, 60]] = [1, 2, 3]
    assert local_peaks(values, 0.5, 10).tolist() == [14, 60]
    trace = np.zeros(5)
    subtract(trace, np.ones(4), -2)
    subtract(trace, np.ones(4), 3)
    subtract(trace, np.ones(4), 50)
    assert trace.tolist() == [-1, -1, 0, -1, -1]
    assert FS_HZ == 25_000
