import numpy as np
import pytest
import scipy.signal

from src.preprocess.spikes.filters import (
    bandpass,
    bandpass_kernel,
    matched_filter,
    mean_template,
    slow_baseline,
)
from src.signals import BadInput
from src.simulate.spikes import NEURONS

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


@pytest.mark.parametrize("corners", [(0, None), (None, 12_500), (4000, 150), (-1, 100)])
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
