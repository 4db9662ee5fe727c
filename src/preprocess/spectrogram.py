"""The one spectrogram of the house: sliding-window power spectra in float32, fast enough to be bound by the disk.

A frame of ``nperseg`` samples starts every ``nperseg - noverlap`` samples; each is detrended, tapered, zero-padded to
``nfft`` and transformed, block by block, so that the intermediates stay in the processor's cache. Frames never look at
one another: whatever stretch of the signal they are computed from, they come out the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce

import numpy as np
import scipy.fft
import scipy.signal
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from src.signals import BadInput

Window = str | Sequence[str | float] | NDArray[np.floating]

_LONGEST = 1 << 22  # samples in a window: more than two hours at 500 Hz
DETRENDS = ("constant", "none")
SCALINGS = ("density", "spectrum")
_BLOCK_VALUES = 1 << 17  # samples of one block of frames: 512 KiB of float32, with what is made of it about a cache


@dataclass(frozen=True, eq=False)
class SpectrogramPlan:
    """Everything about a spectrogram but the signal; one plan serves any number of stretches of it.

    :meth:`power` equals ``scipy.signal.spectrogram(samples.astype(float64), …, mode="psd")`` to single precision.
    """

    fs_hz: float
    # a name or (name, parameter, …) for scipy.signal.get_window; an array of nperseg weights; or ("multitaper", NW, K)
    # for the average over the first K Slepian tapers of time-half-bandwidth NW (Thomson 1982, Proc. IEEE 70:1055)
    window: Window
    nperseg: int  # samples in a frame
    noverlap: int  # samples two neighbours share
    nfft: int  # length of the zero-padded transform
    detrend: str = "constant"  # subtracts each frame's mean; "none" does not
    scaling: str = "density"  # units²/Hz, or "spectrum": units², one window only
    fmax_hz: float | None = None  # bins above it are left out; None keeps all
    tapers: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.fs_hz) and self.fs_hz > 0):
            raise BadInput("fs_hz", f"a sampling rate of {self.fs_hz} Hz", "give a positive rate")
        if not 1 <= self.nperseg <= _LONGEST:
            raise BadInput("nperseg", f"a window of {self.nperseg} samples", f"give 1 to {_LONGEST}")
        if not 0 <= self.noverlap < self.nperseg:
            raise BadInput("noverlap", f"{self.noverlap} of {self.nperseg} samples", "give 0 <= noverlap < nperseg")
        if self.nfft < self.nperseg:
            raise BadInput("nfft", f"{self.nfft} is shorter than the window of {self.nperseg}", "give nfft >= nperseg")
        for name, value, known in (("detrend", self.detrend, DETRENDS), ("scaling", self.scaling, SCALINGS)):
            if value not in known:
                raise BadInput(name, f"{value!r} is not known", f"choose one of {', '.join(known)}")
        object.__setattr__(self, "tapers", _tapers(self.window, self.nperseg))
        if self.scaling == "spectrum" and len(self.tapers) > 1:
            raise BadInput("scaling", "'spectrum' has no meaning for several tapers", "choose density")
        if self.fmax_hz is not None and not self.fmax_hz >= 0:
            raise BadInput("fmax_hz", f"{self.fmax_hz} Hz", "give a frequency of 0 or more, or null for all")

    @property
    def hop(self) -> int:
        """Samples from one frame's start to the next one's."""
        return self.nperseg - self.noverlap

    @cached_property
    def freqs(self) -> NDArray[np.float64]:
        """Centre of every kept bin in Hz."""
        freqs = np.arange(self.nfft // 2 + 1, dtype=np.float64) * (self.fs_hz / self.nfft)
        return freqs if self.fmax_hz is None else freqs[freqs <= self.fmax_hz * (1 + 1e-12)]

    @property
    def n_freqs(self) -> int:
        return len(self.freqs)

    def n_frames(self, n_samples: int) -> int:
        """Whole frames in ``n_samples``; a tail shorter than a frame is dropped."""
        if n_samples < self.nperseg:
            problem = f"{n_samples} samples, shorter than one window of {self.nperseg}"
            raise BadInput("samples", problem, "give a longer recording or a shorter window")
        return (n_samples - self.noverlap) // self.hop

    def times(self, n_frames: int) -> NDArray[np.float64]:
        """Centres of the first ``n_frames`` frames, in seconds from the first sample."""
        return (np.arange(n_frames, dtype=np.float64) * self.hop + self.nperseg / 2) / self.fs_hz

    def stretch(self, first: int, last: int) -> slice:
        """The samples that frames ``first`` up to but not including ``last`` are made of."""
        return slice(first * self.hop, (last - 1) * self.hop + self.nperseg)

    @property
    def spacing_hz(self) -> float:
        """Distance between bins: what zero-padding makes finer without adding information."""
        return self.fs_hz / self.nfft

    @cached_property
    def resolution_hz(self) -> float:
        """Full width of the window's main lobe at half power: closer rhythms are seen as one."""
        spectrum, step = self._spectral_window
        return 2 * step * float(np.flatnonzero(spectrum >= spectrum.max() / 2)[-1])

    @cached_property
    def noise_bandwidth_hz(self) -> float:
        """Equivalent noise bandwidth of the window (Harris 1978, Proc. IEEE 66:51)."""
        spectrum, _ = self._spectral_window
        return float(self.fs_hz * (self.tapers**2).sum(axis=1).mean() / spectrum.max())

    @cached_property
    def _spectral_window(self) -> tuple[NDArray[np.float64], float]:
        fine = scipy.fft.next_fast_len(64 * self.nperseg, real=True)
        return (np.abs(scipy.fft.rfft(self.tapers, fine)) ** 2).mean(axis=0), self.fs_hz / fine

    def power(
        self, samples: NDArray, *, bins: slice = slice(None), out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Power ``(frequency, time)`` float32 of every whole frame of a ``(time,)`` stretch of any real type.

        It is in units²/Hz (``density``) or units² (``spectrum``), NaN where a frame has a sample that is not finite.
        The stretch is read block by block, never converted as a whole. ``bins`` are those of the kept frequencies to
        return (step 1), ``out`` is an array to write into.
        """
        if np.iscomplexobj(samples):
            raise BadInput("samples", "complex numbers", "give a real signal")
        n_frames = self.n_frames(len(samples))
        first, last, _ = bins.indices(self.n_freqs)
        if out is None:
            out = np.empty((last - first, n_frames), dtype=np.float32)
        block = int(np.clip(_BLOCK_VALUES // self.nfft, 16, 1024))
        for start in range(0, n_frames, block):
            stop = min(start + block, n_frames)
            spectra = self._transforms(samples[self.stretch(start, stop)])
            with np.errstate(over="ignore"):
                out[:, start:stop] = reduce(np.add, (np.abs(spectrum[:, first:last]) ** 2 for spectrum in spectra)).T
        # A one-sided spectrum has the power of both signs of a frequency, but 0 Hz and half the rate have one sign.
        if first == 0:
            out[0] *= 0.5
        if self.nfft % 2 == 0 and last == self.nfft // 2 + 1:
            out[-1] *= 0.5
        return out

    def spectra(self, samples: NDArray) -> NDArray[np.complex64]:
        """``(taper, frequency, time)`` complex64 Fourier coefficients; summed over tapers their squares are the power.

        At 0 Hz and at half the sampling rate their squares are twice the power. For short stretches:
        the whole result is held.
        """
        whole = samples[self.stretch(0, self.n_frames(len(samples)))]
        return np.stack([spectrum[:, : self.n_freqs].T for spectrum in self._transforms(whole)])

    @cached_property
    def _weights(self) -> NDArray[np.float32]:
        """Tapers with the scaling, the average over tapers and the doubling of a one-sided spectrum in them."""
        energy = (self.tapers**2).sum(axis=1)
        scale = 1 / (self.fs_hz * energy) if self.scaling == "density" else 1 / self.tapers.sum(axis=1) ** 2
        return (self.tapers * np.sqrt(2 * scale / len(self.tapers))[:, None]).astype(np.float32)

    def _transforms(self, stretch: NDArray) -> Iterator[NDArray[np.complex64]]:
        """``(frame, bin)`` Fourier coefficients of all frames of a stretch, one taper after the other.

        A frame with a sample that is not finite is NaN.
        """
        frames = sliding_window_view(stretch, self.nperseg)[:: self.hop]
        wide = np.result_type(stretch.dtype, np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            means = frames.mean(axis=1, dtype=np.float64, keepdims=True)
            level = np.where(np.isfinite(means), means if self.detrend == "constant" else 0.0, np.nan)
            # Single precision cannot hold the mean on an amplifier's offset: what is left of it goes separately.
            flat = (frames - level.astype(wide)).astype(np.float32, copy=False)
            flat -= (level - level.astype(wide)).astype(np.float32)
            if wide == np.float64:  # the mean of a channel that does not move is rounded, too
                flat[np.abs(flat) <= 1e-14 * np.abs(level)] = 0
        for weights in self._weights:
            yield scipy.fft.rfft(flat * weights, self.nfft, axis=1)


def _tapers(window: Window, nperseg: int) -> NDArray[np.float64]:
    """``(taper, sample)`` weights."""
    if isinstance(window, np.ndarray):
        tapers = np.asarray(window, dtype=np.float64)[None]
        if tapers.shape != (1, nperseg) or not np.isfinite(tapers).all() or not tapers.any():
            raise BadInput("window", f"weights of shape {window.shape}", f"give {nperseg} finite weights, not all 0")
        return tapers
    name, *parameters = (window,) if isinstance(window, str) else tuple(window)
    try:
        if name == "multitaper":
            half_bandwidth, count = parameters
            tapers = scipy.signal.windows.dpss(nperseg, float(half_bandwidth), int(count))
        else:
            tapers = scipy.signal.get_window((name, *parameters) if parameters else name, nperseg)[None]
    except (ValueError, TypeError) as error:
        hint = "name a window of scipy.signal.get_window, or [multitaper, NW, K]"
        raise BadInput("window", f"{[name, *parameters]} ({error})", hint) from error
    return np.asarray(tapers, dtype=np.float64)
