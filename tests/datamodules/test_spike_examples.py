from dataclasses import replace

import numpy as np
import pytest
import torch

from src.datamodules.spike_examples import Background, EpochSteps, TraceBatches, WaveformBatches
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import slow_baseline
from src.preprocess.spikes.waveforms import fit_waveforms
from src.simulate.spike_synthesis import Source
from src.simulate.spikes import background, mean_peak, simulate


@pytest.fixture(scope="module")
def source():
    trace, train = simulate(300, 30.0, 0, duration_s=8)
    waveforms = fit_waveforms(trace - slow_baseline(trace), train, 5)
    return Source(waveforms, 40.0, Conditioning(low_hz=20.0, order=1))


BACKGROUNDS = [
    Background(n, background(r, 0.0, mean_peak()), np.zeros(18), 1.0) for n, r in (("D2", 16.0), ("D5", 4.0))
]


def traces(source, **changes):
    options = {"windows": 6, "window": 120, "context": 59, "curves": 5, "half_width": 3, "offset": 14, "seed": 0}
    return TraceBatches(source, BACKGROUNDS, **(options | changes))


def test_an_example_depends_on_seed_epoch_and_step_alone(source):
    first, again, other = traces(source), traces(source), traces(source, seed=1)
    for at in ((0, 0), (3, 7)):
        for a, b in zip(first[at], again[at], strict=True):
            assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    assert not torch.equal(first[0, 0][0], first[0, 2][0])
    assert not torch.equal(first[0, 0][0], first[1, 0][0])
    assert not torch.equal(first[0, 0][0], other[0, 0][0])


def test_steps_go_round_the_targets_whose_noise_they_hold(source):
    dataset = traces(source)
    samples, labels, weights, expert = dataset[0, 1]
    assert (samples.shape, labels.shape, expert) == ((6, 1, 238), (6, 5, 120), 1)
    assert weights.shape == labels.shape
    assert weights.min() == 1
    spread = [np.median([dataset[0, s][0].abs().median() for s in range(e, 20, 2)]) for e in (0, 1)]
    assert spread[1] > 2.5 * spread[0]


def test_the_noise_is_new_in_every_epoch_and_labels_are_seven_samples_wide(source):
    labels = traces(source, windows=60)[0, 0][1]
    runs = labels.numpy().transpose(1, 0, 2).reshape(5, -1)
    lengths = [len(r) for row in runs for r in "".join(map(str, row.astype(int))).split("0") if r]
    assert np.median(lengths) == 7
    one = traces(source, curves=1, context=0)[0, 0]
    assert (one[0].shape, one[1].shape) == ((6, 1, 120), (6, 1, 120))


@pytest.fixture(scope="module")
def recorded(source):
    """A target whose background is a recording, with suspects in it."""
    trace, train = simulate(400, 8.0, 1, duration_s=8)
    linear = source.conditioning.linear(trace)
    return replace(BACKGROUNDS[1], linear=linear, suspects=train)


def test_a_recorded_background_is_used_itself_and_doubtful_places_do_not_count(source, recorded):
    dataset = TraceBatches(
        source, [recorded], windows=40, window=120, context=59, curves=5, half_width=3, offset=14, seed=0
    )
    _, labels, weights, _ = dataset[0, 0]
    assert 0.02 < (weights == 0).float().mean() < 0.4
    assert weights[labels == 1].min() == 1  # a spike that was put in is certain wherever it is
    again = dataset[0, 0]
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(again, dataset[0, 0], strict=True))


def test_waveforms_from_a_recorded_background_are_those_put_in(source, recorded):
    windows, labels, _ = WaveformBatches(source, [recorded], samples=40_000, before=20, after=44, seed=0)[0, 0]
    assert len(windows) == len(labels)
    heights = windows[labels == 1][:, 0].median(dim=0).values.max()
    assert heights == pytest.approx(8.1, rel=0.2)


def test_a_short_target_goes_round(recorded):
    short = replace(recorded, linear=np.arange(10.0))
    stretch, _ = short.stretch(25, np.random.default_rng(0))
    assert stretch.tolist() == [*range(10), *range(10), *range(5)]


def test_waveforms_come_with_neurons_and_with_noise_that_looks_like_spikes(source):
    dataset = WaveformBatches(source, BACKGROUNDS, samples=60_000, before=20, after=44, seed=0)
    windows, labels, expert = dataset[0, 0]
    assert expert == 0
    assert windows.shape[1:] == (1, 64)
    assert windows.dtype == torch.float32
    assert set(labels.tolist()) == {0, 1, 2, 3, 4, 5}
    share = (labels == 5).float().mean()
    assert 0.1 < share < 0.4
    # The waveforms of a neuron have its amplitude although neighbours were subtracted.
    for unit, peak in enumerate((7.25, 8.1, 2.1, 3.95, 6.15)):
        heights = windows[labels == unit][:, 0].median(dim=0).values.max()
        assert heights == pytest.approx(peak, rel=0.2)
    again = dataset[0, 0]
    assert torch.equal(windows, again[0])


def test_epoch_steps_are_shared_out_between_processes():
    steps = EpochSteps(3, rank=1, world_size=2)
    steps.set_epoch(4)
    assert len(steps) == 3
    assert list(steps) == [(4, 1), (4, 3), (4, 5)]
