import numpy as np
import pytest

from src.preprocess.spikes.noise import background_spectrum, grow, quiet_mask, robust_sigma
from src.simulate.spikes import FS_HZ, NEURONS, background, firing, mean_peak, place


def test_sigma_is_that_of_the_noise_whatever_spikes_there_are():
    rng = np.random.default_rng(0)
    noise = 2.5 * rng.standard_normal(200_000)
    spiky = noise.copy()
    spiky[::200] += 100
    assert robust_sigma(noise) == pytest.approx(2.5, rel=0.01)
    assert robust_sigma(spiky) == pytest.approx(2.5, rel=0.02)
    assert robust_sigma(np.array([np.nan, 1.0, 1.0])) == 0


def test_the_background_is_measured_between_the_spikes():
    rng = np.random.default_rng(3)
    n = 400_000
    truth = background(8.0, 0.0, mean_peak())
    noise = truth.synthesise(n, rng)
    spikes = place(firing(800, n, 5, rng), n, NEURONS, rng)
    alone = background_spectrum(noise, FS_HZ)
    beside = background_spectrum(noise + spikes, FS_HZ)
    for low, high in ((200, 600), (600, 2000), (2000, 8000)):
        assert alone.sigma(low, high) == pytest.approx(truth.sigma(low, high), rel=0.04)
        assert beside.sigma(low, high) == pytest.approx(alone.sigma(low, high), rel=0.06)


def test_a_trace_without_quiet_stretches_still_has_a_spectrum():
    rng = np.random.default_rng(4)
    trace = rng.standard_normal(5_000)
    spectrum = background_spectrum(trace, FS_HZ, np.zeros(5_000, bool))
    assert spectrum.sigma() == pytest.approx(1, rel=0.4)
    short = background_spectrum(rng.standard_normal(100), FS_HZ)
    assert len(short.power) == 51


def test_the_quiet_mask_leaves_room_around_what_sticks_out():
    trace = np.random.default_rng(5).uniform(-1, 1, 2_000)
    trace[1_000] = 50
    trace[1_500] = np.nan
    quiet = quiet_mask(trace, before=40, after=100)
    assert np.flatnonzero(~quiet).tolist() == [*range(960, 1101), *range(1460, 1601)]


def test_growing_a_mask_stops_at_the_ends():
    mask = np.array([True, False, False, False, True])
    assert grow(mask, 1, 1).tolist() == [True, True, False, True, True]
    assert grow(mask, 0, 9).tolist() == [True] * 5
    assert grow(mask, 0, 0).tolist() == mask.tolist()
