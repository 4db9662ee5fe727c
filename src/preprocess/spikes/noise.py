"""Background noise of a recording: how much, of what colour, and more of the same kind.

The spectrum is measured where no spike is, so that noise added to clean spikes is as loud and as
coloured as the target's own background.
"""

from __future__ import annotations

import numpy as np
import scipy.signal

from src.simulate.spikes import Spectrum

MAD_TO_SIGMA = 1 / 0.6744897501960817


def robust_sigma(trace: np.ndarray) -> float:
    """Standard deviation of Gaussian noise from the median absolute deviation; spikes hardly move it."""
    return centre_and_sigma(trace)[1]


def centre_and_sigma(trace: np.ndarray) -> tuple[float, float]:
    """Median of what is finite, and :func:`robust_sigma`."""
    finite = trace[np.isfinite(trace)]
    if not finite.size:
        return 0.0, 0.0
    centre = np.median(finite)
    return float(centre), float(np.median(np.abs(finite - centre)) * MAD_TO_SIGMA)


def quiet_mask(
    trace: np.ndarray,
    *,
    sigmas: float = 4.0,
    before: int = 40,
    after: int = 100,
    spread: tuple[float, float] | None = None,
) -> np.ndarray:
    """Mask ``(time,)`` of samples away from anything that sticks out of the noise.

    A sample beyond ``sigmas`` robust standard deviations takes ``before`` samples ahead of it and
    ``after`` samples behind it out of the background. ``spread`` is the trace's :func:`centre_and_sigma`,
    where that is known.
    """
    centre, sigma = centre_and_sigma(trace) if spread is None else spread
    loud = ~(np.abs(trace - centre) <= sigmas * sigma)  # NaN counts as loud
    return ~grow(loud, before, after)


def grow(mask: np.ndarray, before: int, after: int) -> np.ndarray:
    """The mask with ``before`` samples ahead of and ``after`` samples behind each marked one added."""
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
    return Spectrum(np.median(power, axis=0) / _median_bias(len(chosen)), fs_hz)


def _median_bias(count: int) -> float:
    # Expected median of `count` unit exponentials; ln 2 for many (Allen et al. 2012, appendix B).
    terms = np.arange(1, 2 * ((count - 1) // 2) + 2)
    return float(np.sum((-1.0) ** (terms + 1) / terms))
