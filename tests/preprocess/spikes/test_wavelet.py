import numpy as np
import pytest

from src.preprocess.spikes.wavelet import Denoising, denoise
from src.signals import BadInput
from src.simulate.spikes import NEURONS, SPIKE_SAMPLES


@pytest.mark.parametrize("length", [2, 31, 32, 1000, 4097])
@pytest.mark.parametrize("wavelet", ["sym4", "db4"])
def test_without_a_threshold_the_trace_comes_back_whatever_its_length(length, wavelet):
    trace = np.random.default_rng(length).standard_normal(length)
    settings = Denoising(wavelet, scale=0)
    np.testing.assert_allclose(denoise(trace, settings), trace, atol=1e-10)


def test_noise_falls_and_spikes_keep_their_height():
    rng = np.random.default_rng(0)
    clean = np.zeros(20_000)
    shape = NEURONS[3].at(np.arange(SPIKE_SAMPLES))
    for start in range(100, 19_000, 500):
        clean[start : start + SPIKE_SAMPLES] += shape
    noisy = clean + 0.3 * rng.standard_normal(len(clean))
    denoised = denoise(noisy, Denoising("sym4", 5, 3, 0.7))
    assert np.std(denoised - clean) < 0.6 * np.std(noisy - clean)
    for start in range(100, 19_000, 500):
        assert denoised[start : start + 40].max() == pytest.approx(3.9, abs=0.6)


@pytest.mark.parametrize("rule", ["soft", "hard"])
def test_a_factor_multiplies_the_result_whatever_the_colour_of_the_noise(rule):
    white = np.random.default_rng(1).standard_normal(50_000)
    settings = Denoising("db4", 4, 4, 1.0, rule)
    assert np.abs(denoise(white, settings)).mean() < 0.5 * np.abs(white).mean()
    for trace in (white, np.cumsum(white)):
        np.testing.assert_allclose(denoise(4 * trace, settings), 4 * denoise(trace, settings), atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"wavelet": "nope"}, {"rule": "firm"}, {"finest": 6}, {"finest": 0}, {"scale": -1.0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BadInput):
        Denoising(**wrong)


def test_a_single_sample_cannot_be_transformed():
    with pytest.raises(BadInput, match="longer recording"):
        denoise(np.ones(1), Denoising())
