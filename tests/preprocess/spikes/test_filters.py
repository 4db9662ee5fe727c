import numpy as np
import pytest
import scipy.signal

from src.preprocess.spikes.filters import (
    background_spectrum,
    bandpass,
    bandpass_kernel,
    grow,
    matched_filter,
    mean_template,
    quiet_mask,
    robust_sigma,
    slow_baseline,
)
from src.signals import BadInput
from src.simulate.spikes import FS_HZ, NEURONS, background, firing, mean_peak, place

FS = 25_000.0
TEMPLATES = np.stack([neuron.at(np.arange(-10, 90) - 0.5) for neuron in NEURONS])


def test_the_kernel_does_what_the_recursive_filter_does_forwards_and_backwards():
    trace = np.random.default_rng(0).standard_normal(40_000)
    sos = scipy.signal.butter(2, (150, 4000), "bandpass", fs=FS, output="sos")
    expected = scipy.signal.sosfiltfilt(sos, trace)
    ours = bandpass(trace, FS, 150, 4000, 2)
    np.testing.assert_allclose(ours[2_000:-2_000], expected[2_000:-2_000], atol=2e-5)


@pytest.mark.parametrize("corners", [(20, None), (None, 3000), (150, 4000)])
def test_the_filter_has_no_phase_and_halves_the_power_twice_at_a_corner(corners):
    kernel = bandpass_kernel(FS, *corners, 1)
    np.testing.assert_allclose(kernel, kernel[::-1], atol=1e-9)
    f, response = scipy.signal.freqz(kernel, worN=1 << 16, fs=FS)
    for corner in corners:
        if corner is not None:
            assert abs(np.interp(corner, f, np.abs(response))) == pytest.approx(0.5, abs=0.03)


def test_open_corners_leave_the_trace_alone():
    trace = np.arange(10, dtype=np.float32)
    np.testing.assert_array_equal(bandpass(trace, FS, None, None), trace)


def test_a_shifted_and_scaled_trace_gives_the_shifted_and_scaled_result():
    trace = np.random.default_rng(1).standard_normal(9_000)
    ours = bandpass(trace, FS, 100, None, 1)
    later = bandpass(np.concatenate((np.zeros(37), 3 * trace)), FS, 100, None, 1)
    np.testing.assert_allclose(later[37:], 3 * ours, atol=1e-6)


@pytest.mark.parametrize("corners", [(0, None), (None, 12_500), (4000, 150), (-1, 100), (0.3, 3.0)])
def test_impossible_corners_are_refused(corners):
    with pytest.raises(BadInput):
        bandpass_kernel(FS, *corners)


def test_the_baseline_follows_drift_and_ignores_spikes():
    t = np.arange(100_000)
    drift = 3 * np.sin(2 * np.pi * 0.4 * t / FS)
    spikes = np.zeros(len(t))
    spikes[::400] = 50
    base = slow_baseline(drift + spikes)
    assert np.abs(base - drift)[5_000:-5_000].max() < 0.3
    np.testing.assert_allclose(slow_baseline(np.full(100, 2.0)), 2)


def test_the_matched_filter_peaks_at_the_onset():
    trace = np.zeros(1_000, np.float32)
    trace[390:490] = TEMPLATES[4]
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
