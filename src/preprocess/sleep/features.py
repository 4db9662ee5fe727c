"""Log-power images of epochs: what a sleep network sees of a signal.

Power first, its logarithm next, statistics last and elsewhere: normalisation is fitted on training subjects and lives
in the network. Frames never reach across an epoch's border, so an epoch has the same image wherever it stands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from src.preprocess.spectrogram import SpectrogramPlan
from src.signals import BadInput

FeatureKind = Literal["linear", "mel", "db"]
_KINDS = ("linear", "mel", "db")
_FLOOR = 1e-12
"""Power below which the logarithm is cut off: far under the noise of any amplifier, in µV²/Hz as in a.u.²/Hz."""
_TOP_DB = 80.0


@dataclass(frozen=True)
class FeatureSettings:
    """How an epoch becomes an image of ``1 + (epoch_s - window_s) / hop_s`` frames."""

    # linear: bins of the Fourier transform. mel: librosa's mel filter bank over them.
    # db: bins, with librosa's power_to_db and its floor 80 dB under the epoch's peak.
    kind: FeatureKind = "linear"
    fs_hz: float = 100.0  # of the signal
    epoch_s: float = 30.0
    window_s: float = 2.0  # of the Hann-windowed frames
    hop_s: float = 1.0
    min_hz: float = 0.5  # bins kept, both ends included
    max_hz: float = 45.0
    n_mels: int = 32  # filters of the mel bank; of no effect otherwise

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise BadInput("features.kind", f"{self.kind!r} is not known", f"choose from: {', '.join(_KINDS)}")
        for name in ("epoch_s", "window_s", "hop_s"):
            samples = getattr(self, name) * self.fs_hz
            if samples < 1 or abs(samples - round(samples)) > 1e-6:
                problem = f"{getattr(self, name):g} s are {samples:g} samples at {self.fs_hz:g} Hz"
                raise BadInput(f"features.{name}", problem, "give a positive whole number of samples")
        if not self.hop_s <= self.window_s <= self.epoch_s:
            problem = f"window {self.window_s:g} s, hop {self.hop_s:g} s, epoch {self.epoch_s:g} s"
            raise BadInput("features.window_s", problem, "give hop <= window <= epoch")
        if not 0 <= self.min_hz < self.max_hz <= self.fs_hz / 2:
            problem = f"{self.min_hz:g}..{self.max_hz:g} Hz"
            raise BadInput("features.max_hz", problem, f"stay within 0..{self.fs_hz / 2:g} Hz")
        spacing = self.fs_hz / self._window
        if not len(self._bins):
            problem = f"no bin between {self.min_hz:g} and {self.max_hz:g} Hz, bins are {spacing:g} Hz apart"
            raise BadInput("features.min_hz", problem, "widen the band or the window")
        if self.kind == "mel" and (self.max_hz - self.min_hz) / (self.n_mels + 1) < spacing:
            problem = f"{self.n_mels} filters between {self.min_hz:g} and {self.max_hz:g} Hz"
            raise BadInput("features.n_mels", problem, f"bins are {spacing:g} Hz apart: ask for fewer")

    @property
    def epoch_samples(self) -> int:
        return round(self.epoch_s * self.fs_hz)

    @property
    def n_bins(self) -> int:
        """Bins of the transform, before any is left out."""
        return self._window // 2 + 1

    @property
    def n_frames(self) -> int:
        """Frames in an epoch."""
        return 1 + (self.epoch_samples - self._window) // self._hop

    @property
    def times_s(self) -> NDArray[np.float64]:
        """``(time,)`` centres of the frames, from the start of the epoch."""
        return np.asarray((np.arange(self.n_frames) * self._hop + self._window / 2) / self.fs_hz, dtype=np.float64)

    @property
    def freqs_hz(self) -> NDArray[np.float64]:
        """``(frequency,)`` centres of the rows."""
        if self.kind != "mel":
            return self._bins
        import librosa

        centres = librosa.mel_frequencies(self.n_mels + 2, fmin=self.min_hz, fmax=self.max_hz)[1:-1]
        return np.asarray(centres, dtype=np.float64)

    @property
    def shape(self) -> tuple[int, int]:
        """``(frequency, time)`` of an image."""
        return (self.n_mels if self.kind == "mel" else len(self._bins)), self.n_frames

    def images(self, samples: NDArray[np.floating], channels: Sequence[str] = ()) -> NDArray[np.float32]:
        """Log power ``(epoch, channel, frequency, time)`` of the whole epochs of a signal, float32 in dB re 1 unit²/Hz.

        ``samples`` are ``(channel, time)`` in µV at ``fs_hz``; a last partial epoch is left out. Frames with a
        sample that is not finite are NaN.
        """
        n_epochs = samples.shape[-1] // self.epoch_samples
        images = np.empty((n_epochs, len(samples), *self.shape), np.float32)
        for row, channel in enumerate(samples):
            epochs = channel[: n_epochs * self.epoch_samples].reshape(n_epochs, self.epoch_samples)
            images[:, row] = decibels(_power(epochs, self), self)
        return images

    @property
    def _window(self) -> int:
        return round(self.window_s * self.fs_hz)

    @property
    def _hop(self) -> int:
        return round(self.hop_s * self.fs_hz)

    @property
    def _bins(self) -> NDArray[np.float64]:
        bins = np.arange(self._window // 2 + 1) * self.fs_hz / self._window
        return bins[(bins >= self.min_hz - 1e-9) & (bins <= self.max_hz + 1e-9)]

    @property
    def _kept(self) -> slice:
        first = round(self._bins[0] * self._window / self.fs_hz)
        return slice(first, first + len(self._bins))


def _power(epochs: NDArray[np.floating], settings: FeatureSettings) -> NDArray[np.float32]:
    """``(epoch, frequency, time)`` from ``(epoch, sample)``, every bin of the transform."""
    window = settings._window
    plan = SpectrogramPlan(settings.fs_hz, "hann", window, window - settings._hop, window)
    power = np.empty((len(epochs), settings.n_bins, settings.n_frames), np.float32)
    for epoch, out in zip(epochs, power, strict=True):
        plan.power(epoch, out=out)
    return power


def decibels(power: NDArray[np.float32], settings: FeatureSettings) -> NDArray[np.float32]:
    """Log power ``(epoch, frequency, time)`` of the rows kept, from power of every bin of the transform."""
    if settings.kind == "linear":
        return 10 * np.log10(np.maximum(power[:, settings._kept], np.float32(_FLOOR)))
    import librosa

    if settings.kind == "mel":
        return librosa.power_to_db(_mel_bank(settings) @ power, ref=1.0, amin=_FLOOR, top_db=None)
    kept = power[:, settings._kept]
    return np.stack([librosa.power_to_db(image, ref=1.0, amin=_FLOOR, top_db=_TOP_DB) for image in kept])


def _mel_bank(settings: FeatureSettings) -> NDArray[np.float32]:
    """``(mel, frequency)`` weights that sum to one: a mean of power densities is one."""
    import librosa

    band: dict[str, Any] = {"fmin": settings.min_hz, "fmax": settings.max_hz}
    bank = librosa.filters.mel(sr=settings.fs_hz, n_fft=settings._window, n_mels=settings.n_mels, norm=None, **band)
    return (bank / bank.sum(axis=1, keepdims=True)).astype(np.float32)
