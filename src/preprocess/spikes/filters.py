"""Filters that give the same samples however a recording is cut into blocks, and the noise of a background.

The spectrum is measured where no spike is, so that noise added to clean spikes is as loud and as coloured as the
target's own background.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
import scipy.signal

from src.signals import BadInput

MAD_TO_SIGMA = 1 / 0.6744897501960817
LOUD_SIGMAS = 4.0
LOWEST_LOW_PASS_HZ = 100.0


@dataclass(frozen=True)
class Spectrum:
    """One-sided power spectral density of a background."""

    power: np.ndarray  # (frequency,) in units² / Hz, from 0 to fs_hz / 2 in equal steps
    fs_hz: float  # sampling rate it was measured at

    @property
    def frequencies(self) -> np.ndarray:
        return np.linspace(0, self.fs_hz / 2, len(self.power))

    def sigma(self, low_hz: float = 0.0, high_hz: float | None = None) -> float:
        """Standard deviation of the part of the noise between two frequencies."""
        f = self.frequencies
        inside = (f >= low_hz) & (f <= (high_hz if high_hz is not None else self.fs_hz / 2))
        return float(np.sqrt(np.sum(self.power[inside]) * (f[1] - f[0])))

    def scaled(self, gain: float) -> "Spectrum":
        """Spectrum of the same noise multiplied by ``gain``."""
        return Spectrum(self.power * gain**2, self.fs_hz)

    def synthesise(self, n_samples: int, rng: np.random.Generator) -> np.ndarray:
        """Gaussian noise ``(n_samples,)`` with this spectrum and random phases."""
        size = scipy.fft.next_fast_len(max(n_samples, 2 * len(self.power)), real=True)
        f = np.fft.rfftfreq(size, 1 / self.fs_hz)
        amplitude = np.sqrt(np.interp(f, self.frequencies, self.power) * self.fs_hz * size / 2)
        draw = rng.standard_normal((2, len(f)), dtype=np.float32)
        shaped = amplitude * (draw[0] + 1j * draw[1]) / np.sqrt(2)
        shaped[0] = amplitude[0] * draw[0, 0]
        return scipy.fft.irfft(shaped.astype(np.complex64), size)[:n_samples].astype(np.float32)


@lru_cache(maxsize=16)
def bandpass_kernel(fs_hz: float, low_hz: float | None, high_hz: float | None, order: int = 2) -> np.ndarray:
    """Symmetric impulse response of a Butterworth filter run forwards and backwards.

    Running the recursive filter itself over a recording lets every sample depend on all others; its
    impulse response, cut where it has decayed to a millionth, does not, and can be applied in blocks.

    Parameters
    ----------
    low_hz, high_hz
        Corner frequencies; ``None`` leaves that side open. With both open the kernel is the identity.
    order
        Order of the one-way filter; the kernel attenuates twice as steeply.

    Returns
    -------
    numpy.ndarray
        Odd number of taps, float64.
    """
    if low_hz is None and high_hz is None:
        return np.ones(1)
    nyquist = fs_hz / 2
    for name, corner in (("low_hz", low_hz), ("high_hz", high_hz)):
        if corner is not None and not 0 < corner < nyquist:
            raise BadInput(name, f"{corner:g} Hz is outside 0…{nyquist:g} Hz", "choose a corner below half the rate")
    if high_hz is not None and high_hz < LOWEST_LOW_PASS_HZ:
        raise BadInput("high_hz", f"{high_hz:g} Hz leaves nothing of a spike", "give Hz, not kHz")
    if low_hz is not None and high_hz is not None:
        if low_hz >= high_hz:
            raise BadInput("low_hz", f"{low_hz:g} Hz is not below high_hz, {high_hz:g} Hz", "swap them")
        sos = scipy.signal.butter(order, (low_hz, high_hz), "bandpass", fs=fs_hz, output="sos")
    elif low_hz is not None:
        sos = scipy.signal.butter(order, low_hz, "highpass", fs=fs_hz, output="sos")
    else:
        sos = scipy.signal.butter(order, high_hz, "lowpass", fs=fs_hz, output="sos")
    reach = int(np.ceil(fs_hz / min(c for c in (low_hz, high_hz) if c is not None) * 4 * order))
    impulse = np.zeros(2 * reach + 1)
    impulse[reach] = 1
    response = scipy.signal.sosfiltfilt(sos, impulse, padtype=None)
    half = reach - int(np.argmax(np.abs(response) > 1e-6 * np.abs(response).max()))
    return response[reach - half : reach + half + 1]


def bandpass(
    trace: np.ndarray, fs_hz: float, low_hz: float | None, high_hz: float | None, order: int = 2
) -> np.ndarray:
    """Zero-phase band-pass of ``(…, time)``, taken as zero outside; same length and type.

    Raises
    ------
    BadInput
        A corner frequency outside ``0…fs_hz / 2``, or the corners in the wrong order.
    """
    kernel = bandpass_kernel(fs_hz, low_hz, high_hz, order).astype(trace.dtype)
    if len(kernel) == 1:
        return trace * kernel[0]
    half = len(kernel) // 2
    shape = (1,) * (trace.ndim - 1) + (-1,)
    filtered = scipy.signal.oaconvolve(trace, kernel.reshape(shape), axes=-1)
    return filtered[..., half : half + trace.shape[-1]]


def mean_template(templates: np.ndarray) -> np.ndarray:
    """One template for all units: their mean, zero-mean and of unit energy."""
    template = templates.mean(axis=0)
    template = template - template.mean()
    energy = np.linalg.norm(template)
    return template / energy if energy > 0 else template


def matched_filter(trace: np.ndarray, template: np.ndarray, onset: int) -> np.ndarray:
    """Correlation of the trace with a template; a spike with onset at ``t`` peaks at ``t``."""
    full = scipy.signal.oaconvolve(trace, template[::-1].astype(trace.dtype))
    start = len(template) - 1 - onset
    return np.asarray(np.pad(full, (0, onset + 1))[start : start + len(trace)])


def slow_baseline(trace: np.ndarray, *, span: int = 5000, step: int = 250) -> np.ndarray:
    """Running median over ``span`` samples, read every ``step`` samples and joined by straight lines.

    Unlike a high-pass filter it leaves no droop beside a spike, so templates keep their shape.
    """
    if len(trace) < 2 * step:
        return np.full(len(trace), np.median(trace), trace.dtype)
    whole = len(trace) // step * step
    blocks = np.median(trace[:whole].reshape(-1, step), axis=1)
    reach = max(span // step, 1) // 2
    padded = np.pad(blocks, reach, mode="edge")
    smooth = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1), axis=1)
    return np.interp(np.arange(len(trace)), np.arange(len(blocks)) * step + step / 2, smooth).astype(trace.dtype)


def robust_sigma(trace: np.ndarray) -> float:
    """Standard deviation of Gaussian noise from the median absolute deviation; spikes hardly move it."""
    return _centre_and_sigma(trace)[1]


def _centre_and_sigma(trace: np.ndarray) -> tuple[float, float]:
    finite = trace[np.isfinite(trace)]
    if not finite.size:
        return 0.0, 0.0
    centre = np.median(finite)
    return float(centre), float(np.median(np.abs(finite - centre)) * MAD_TO_SIGMA)


def quiet_mask(trace: np.ndarray, *, before: int = 40, after: int = 100) -> np.ndarray:
    """Mask ``(time,)`` of samples away from anything that sticks out of the noise.

    A sample beyond 4 robust standard deviations takes ``before`` samples ahead of it and ``after`` behind it with it.
    """
    centre, sigma = _centre_and_sigma(trace)
    loud = ~(np.abs(trace - centre) <= LOUD_SIGMAS * sigma)  # NaN counts as loud
    return ~grow(loud, before, after)


def grow(mask: np.ndarray, before: int, after: int) -> np.ndarray:
    """The mask with ``before`` samples ahead of and ``after`` samples behind each marked one added."""
    if not mask.any():
        return np.zeros(len(mask), bool)
    marked = np.concatenate(([0], np.cumsum(mask)))
    here = np.arange(len(mask))
    return marked[np.minimum(here + before + 1, len(mask))] > marked[np.maximum(here - after, 0)]


def background_spectrum(
    trace: np.ndarray, fs_hz: float, quiet: np.ndarray | None = None, *, n_fft: int = 512
) -> Spectrum:
    """Power spectrum of the quiet samples of a trace.

    Half-overlapping Hann segments, the loud samples in them set to zero and the power scaled to what
    remains, are combined by the median over segments (corrected for the bias of a median of
    exponentials), so that a few segments with a missed spike do not count. Segments that are mostly
    loud are left out, as long as a few others remain.

    Parameters
    ----------
    trace
        ``(time,)`` in physical units, free of any offset.
    quiet
        Mask of usable samples; found with :func:`quiet_mask` when not given.
    """
    quiet = quiet_mask(trace) if quiet is None else quiet
    n_fft = min(n_fft, len(trace))
    starts = np.arange(0, len(trace) - n_fft + 1, max(n_fft // 2, 1))
    counted = np.concatenate(([0], np.cumsum(quiet)))
    share = (counted[starts + n_fft] - counted[starts]) / n_fft
    enough = max(8, len(starts) // 20)
    # Whole segments if there are enough of them, else the quietest ones.
    limit = min(1.0, float(np.sort(share)[::-1][min(enough, len(share)) - 1]))
    chosen = starts[(share >= limit) & (share > 0)] if share.any() else starts
    window = scipy.signal.get_window("hann", n_fft)
    rows = chosen[:, None] + np.arange(n_fft)
    kept = quiet[rows] if share.any() else np.ones(rows.shape, bool)
    segments = np.where(kept, np.nan_to_num(trace[rows].astype(np.float64)), 0)
    power = np.abs(np.fft.rfft(segments * window, axis=1)) ** 2
    power /= fs_hz * np.maximum((kept * window**2).sum(axis=1, keepdims=True), 1e-12)
    power[:, 1 : (n_fft + 1) // 2] *= 2
    # Expected median of as many unit exponentials as segments; ln 2 for many (Allen et al. 2012, appendix B).
    terms = np.arange(1, 2 * ((len(chosen) - 1) // 2) + 2)
    return Spectrum(np.median(power, axis=0) / float(np.sum((-1.0) ** (terms + 1) / terms)), fs_hz)
