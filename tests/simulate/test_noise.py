import numpy as np
import pytest

from src.simulate.noise import Spectrum

FS_HZ = 25_000.0


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
