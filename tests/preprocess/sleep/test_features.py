"""Images of epochs against independent references, and the rules they keep."""

import librosa
import numpy as np
import pytest
import scipy.signal

from src.preprocess.sleep.features import FeatureSettings
from src.signals import BadInput

LINEAR = FeatureSettings()
ORIGINAL = FeatureSettings(kind="db", window_s=1.0, hop_s=0.5, min_hz=0.0, max_hz=50.0)


@pytest.fixture
def samples():
    return np.random.default_rng(0).normal(0, 20, (2, 7_500)).astype(np.float32)


def test_linear_is_scipys_density_of_the_epoch_alone(samples):
    images = LINEAR.images(samples)
    assert images.shape == (2, 2, 90, 29)
    for epoch in range(2):
        piece = samples[1, epoch * 3000 : (epoch + 1) * 3000].astype(np.float64)
        freqs, times, power = scipy.signal.spectrogram(piece, 100.0, "hann", 200, 100, detrend="constant")
        np.testing.assert_allclose(images[epoch, 1], 10 * np.log10(power[1:91]), atol=0.01)
    np.testing.assert_allclose(LINEAR.freqs_hz, freqs[1:91])
    np.testing.assert_allclose(LINEAR.times_s, times)


def test_db_has_the_geometry_of_the_original_and_librosas_floor(samples):
    samples[0, 100:200] = np.linspace(-1e-9, 1e-9, 100)
    image = ORIGINAL.images(samples)[0, 0]
    assert image.shape == (51, 59)
    piece = samples[0, :3000].astype(np.float64)
    _, _, power = scipy.signal.spectrogram(piece, 100.0, "hann", 100, 50, detrend="constant")
    np.testing.assert_allclose(image, librosa.power_to_db(power, ref=1.0, amin=1e-12, top_db=80.0), atol=0.02)


def test_mel_is_librosas_bank_over_the_power(samples):
    settings = FeatureSettings(kind="mel", n_mels=20)
    image = settings.images(samples)[1, 0]
    assert image.shape == settings.shape == (20, 29)
    bank = librosa.filters.mel(sr=100.0, n_fft=200, n_mels=20, fmin=0.5, fmax=45.0, norm=None)
    _, _, power = scipy.signal.spectrogram(samples[0, 3000:6000].astype(np.float64), 100.0, "hann", 200, 100)
    expected = 10 * np.log10((bank / bank.sum(axis=1, keepdims=True)) @ power)
    np.testing.assert_allclose(image, expected, atol=0.01)


def test_a_tone_shows_at_its_frequency_in_every_kind():
    tone = 20 * np.sin(2 * np.pi * 13.0 * np.arange(3000) / 100)[None].astype(np.float32)
    for settings in (LINEAR, ORIGINAL, FeatureSettings(kind="mel")):
        peak = settings.freqs_hz[settings.images(tone)[0, 0].mean(axis=1).argmax()]
        assert abs(peak - 13.0) < 1.0


def test_silence_has_a_floor_not_minus_infinity():
    assert np.isfinite(LINEAR.images(np.zeros((1, 3000), np.float32))).all()


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"kind": "log"}, "features.kind"),
        ({"max_hz": 60.0}, "features.max_hz"),
        ({"min_hz": 45.0}, "features.max_hz"),
        ({"window_s": 40.0}, "features.window_s"),
        ({"hop_s": 0.001}, "features.hop_s"),
        ({"min_hz": 10.1, "max_hz": 10.2}, "features.min_hz"),
        ({"kind": "mel", "n_mels": 100}, "features.n_mels"),
    ],
)
def test_settings_that_do_not_fit_name_the_key(given, key):
    with pytest.raises(BadInput, match=key):
        FeatureSettings(**given)
