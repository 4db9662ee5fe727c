import numpy as np
import pytest

from src.preprocess.spikes.bank import SpikeBank, Whitening
from src.preprocess.spikes.filters import Spectrum, background_spectrum
from tests.preprocess.spikes.bumps import bump

FS_HZ = 25_000.0


def spectrum(loudness=1.0):
    f = np.linspace(0, FS_HZ / 2, 513)
    return Spectrum(loudness * (1 + 300 / np.maximum(f, 50)) / FS_HZ, FS_HZ)


@pytest.fixture(scope="module")
def bank():
    templates = np.stack([bump(25, 4, 8), bump(30, 8, 5), np.zeros(100)])[:, None]
    modes = np.zeros((3, 1, 1, 100))
    modes[:2, 0] = 0.1 * templates[:2]
    return SpikeBank(templates, modes, 10, Whitening.of([spectrum()]))


def test_whitened_noise_is_white_with_unit_variance():
    noise = spectrum(3.0)
    trace = noise.synthesise(200_000, np.random.default_rng(0))
    white = Whitening.of([noise]).apply(trace[None])[0]
    assert white.std() == pytest.approx(1, abs=0.02)
    found = background_spectrum(white, FS_HZ).power[5:-5]
    np.testing.assert_allclose(found / found.mean(), 1, atol=0.35)


def test_channels_are_mixed_before_they_are_filtered():
    rng = np.random.default_rng(1)
    shared = rng.standard_normal(100_000)
    traces = np.stack((shared + rng.standard_normal(100_000), shared + rng.standard_normal(100_000)))
    spatial = np.linalg.inv(np.linalg.cholesky(np.cov(traces)))
    flat = Spectrum(np.full(513, 2 / FS_HZ), FS_HZ)
    white = Whitening.of([flat, flat], spatial).apply(traces)
    np.testing.assert_allclose(np.cov(white), np.eye(2), atol=0.05)


def test_evidence_is_the_likelihood_ratio_of_the_two_gaussians(bank):
    rng = np.random.default_rng(2)
    parts = bank.parts.reshape(3, 2, -1).astype(float)
    window = parts[0, 0] + 0.7 * parts[0, 1] + rng.standard_normal(bank.length)
    correlations = bank.correlate(window[None, None].astype(np.float32))[0, 0]
    # w ~ N(t, I + mᵀm) against N(0, I), written out.
    covariance = np.eye(bank.length) + np.outer(parts[0, 1], parts[0, 1])
    away = window - parts[0, 0]
    expected = 0.5 * window @ window - 0.5 * away @ np.linalg.solve(covariance, away)
    expected -= 0.5 * np.linalg.slogdet(covariance)[1]
    evidence = bank.evidence(correlations)
    assert evidence[0] == pytest.approx(expected, rel=1e-3)
    assert evidence[2] == -np.inf  # a unit without spikes is never found
    assert bank.weights(correlations[None], np.array([0]))[0, 0] == pytest.approx(0.7, abs=0.4)


def test_template_ratios_peak_at_the_onset(bank):
    white = np.zeros((1, 2_000), np.float32)
    wave = bank.waves(np.array([1]), np.zeros((1, 1)))[0]
    white[:, 700 - bank.onset : 700 - bank.onset + bank.length] += wave
    ratio = bank.template_ratios(white)
    assert np.unravel_index(ratio.argmax(), ratio.shape) == (1, 700)
    assert ratio.max() == pytest.approx(bank.energy[1] / 2, rel=1e-3)


def test_cross_correlations_are_those_of_the_parts(bank):
    one, two = bank.parts[0].astype(float), bank.parts[2].astype(float)
    lag = 7
    direct = (one[lag:] * two[:-lag]).sum()
    assert bank.cross[0, 0, 1, 0, lag + bank.length - 1] == pytest.approx(direct, rel=1e-3)
