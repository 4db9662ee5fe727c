import numpy as np
import pytest
import scipy.signal

from src.preprocess.sleep.bandpower import SLEEP_BANDS_HZ, BandPowerSettings, welch
from src.signals import BadInput

SETTINGS = BandPowerSettings()


def tone(hz, seconds=150.0, noise=0.1, fs_hz=100.0):
    rng = np.random.default_rng(0)
    t = np.arange(round(seconds * fs_hz)) / fs_hz
    return (np.sin(2 * np.pi * hz * t) + noise * rng.standard_normal(len(t))).astype(np.float32)


@pytest.mark.parametrize(("band", "hz"), list(enumerate((2.0, 6.0, 10.0, 14.0, 22.0))))
def test_a_tone_is_found_in_its_band_with_its_variance(band, hz):
    levels = SETTINGS.images(tone(hz)[None])[:, 0, :, 0]
    assert (levels.argmax(1) == band).all()
    # The tone carries nearly all of the variance, which is scaled to one: 0 dB. The median over windows is
    # corrected for the skew of noise, which a tone lacks: 1.3 dB too much.
    np.testing.assert_allclose(levels[:, band], 1.3, atol=0.3)


def test_gain_and_offset_do_not_matter():
    signal = tone(3.0, noise=1.0)
    levels = SETTINGS.images(np.stack([signal, 1e-3 * signal + 7]))
    np.testing.assert_allclose(levels[:, 0], levels[:, 1], atol=1e-3)


def test_the_rate_hardly_matters():
    from src.recordings.sleep.channels import resample

    signal = tone(5.0, noise=1.0)[None]
    again = resample(resample(signal, 100.0, 128.0), 128.0, 100.0)
    first, second = SETTINGS.images(signal), SETTINGS.images(again)
    np.testing.assert_allclose(first, second, atol=0.1)


@pytest.mark.parametrize("window", [400, 401, 250])
def test_welch_is_that_of_scipy(window):
    epochs = np.random.default_rng(1).standard_normal((3, 3000))
    freqs_hz, density = welch(epochs, 100.0, window)
    expected_hz, expected = scipy.signal.welch(epochs, 100.0, "hamming", window, average="median")
    np.testing.assert_allclose(freqs_hz, expected_hz)
    np.testing.assert_allclose(density[:, 1:-1], expected[:, 1:-1])


def test_levels_are_those_of_scipys_filter():
    hour = np.random.default_rng(1).standard_normal(360_000).cumsum()
    hour += 1e-2 * tone(10.0, 3600.0)  # a walk with an offset and slow drifts
    sections = scipy.signal.butter(4, (0.5, 30.0), "bandpass", fs=100.0, output="sos")
    epochs = scipy.signal.sosfiltfilt(sections, hour).reshape(-1, 3000)
    freqs_hz, density = scipy.signal.welch(epochs / epochs.std(), 100.0, "hamming", 400, average="median")
    for band, (low, high) in enumerate(SLEEP_BANDS_HZ):
        inside = (freqs_hz >= low) & (freqs_hz <= high)
        expected = 10 * np.log10(np.trapezoid(density[:, inside], freqs_hz[inside], axis=1))
        np.testing.assert_allclose(SETTINGS.images(hour[None])[1:-1, 0, band, 0], expected[1:-1], atol=2e-3)


def test_missing_samples_spoil_their_epoch_only():
    signal = tone(5.0, noise=1.0)
    broken = signal.copy()
    broken[3100:3200] = np.nan
    levels = SETTINGS.images(broken[None])
    assert np.isnan(levels[1]).all()
    assert np.isfinite(levels[[0, 2, 3, 4]]).all()


def test_above_15_hz_the_eye_channel_holds_muscle():
    signal = tone(22.0, noise=0.5)
    eye, brain = (SETTINGS.images(signal[None], [name])[0, 0, 4, 0] for name in ("EOG horizontal", "EEG Cz"))
    assert eye < brain - 10


@pytest.mark.parametrize("wrong", [{"window_s": 40.0}, {"bands_hz": [[0.5, 60.0]]}, {"bands_hz": [[4.0, 2.0]]}])
def test_numbers_that_do_not_fit_are_refused(wrong):
    with pytest.raises(BadInput):
        BandPowerSettings(**wrong)
