"""A bank of matched filters behind a whitening filter, and the evidence it gives for spikes.

The background is Gaussian noise with a measured spectrum. After whitening it is white with unit variance,
and every question about a spike is a dot product. A spike of unit ``u`` is its mean waveform ``t`` plus
deviations along a few measured directions (the rows of ``M``) whose weights are standard normal. With the
weights integrated out, the log-likelihood ratio of "a spike of unit ``u`` starts here" against noise alone is

    <t, w> - |t|²/2 + bᵀ (I + G)⁻¹ b / 2 - log|I + G| / 2,    b = M (w - t),   G = M Mᵀ

for a whitened window ``w`` (Franke et al. 2015, here with waveforms that vary). It is the quadratic
discriminant of the two hypotheses.
"""

from dataclasses import dataclass

import numpy as np
import scipy.signal

from src.preprocess.spikes.filters import Spectrum

SPECTRUM_FLOOR = 0.03
"""Smallest power, relative to the mean, that whitening divides by: a gap in the spectrum is not amplified."""

KERNEL_TAPS = 1025
CUT_SHARE, CUT_ENERGY = 0.002, 5.0
"""Whitened energy of all templates that the window cuts off: at most this share and, in variances of the noise, this
much, because a large unit's cut-off tail would look like a small unit."""


@dataclass(frozen=True)
class Whitening:
    """Makes the noise of ``(…, channel, time)`` white, with unit variance on every channel.

    Attributes
    ----------
    spatial
        ``(channel, channel)`` mixes the channels first.
    kernels
        ``(channel, taps)`` symmetric filters, applied afterwards.
    """

    spatial: np.ndarray
    kernels: np.ndarray

    @classmethod
    def of(cls, spectra: list[Spectrum], spatial: np.ndarray | None = None) -> "Whitening":
        """From the noise spectrum of each (mixed) channel."""
        mixing = np.eye(len(spectra)) if spatial is None else spatial
        return cls(mixing, np.stack([_inverse_root(s) for s in spectra]))

    def apply(self, traces: np.ndarray) -> np.ndarray:
        """Whitened traces of the same shape and type."""
        mixed = traces if len(self.spatial) == 1 else self.spatial.astype(traces.dtype) @ traces
        kernels = self.kernels.astype(traces.dtype)[(None,) * (traces.ndim - 2)]
        reach = self.kernels.shape[1] // 2
        return np.asarray(scipy.signal.oaconvolve(mixed, kernels, axes=-1)[..., reach : reach + traces.shape[-1]])


def _inverse_root(noise: Spectrum) -> np.ndarray:
    """Symmetric filter whose response is one over the root of the spectrum, per sample."""
    size, reach = 8 * KERNEL_TAPS, KERNEL_TAPS // 2
    frequencies = np.fft.rfftfreq(size, 1 / noise.fs_hz)
    power = np.interp(frequencies, noise.frequencies, noise.power) * noise.fs_hz / 2
    power = np.maximum(power, max(SPECTRUM_FLOOR * power.mean(), 1e-30))
    kernel = np.roll(np.fft.irfft(1 / np.sqrt(power), size), reach)[:KERNEL_TAPS]
    return np.asarray(kernel * scipy.signal.windows.tukey(KERNEL_TAPS, 0.2))


class SpikeBank:
    """Whitened waveforms of all units, their correlations with each other, and the evidence for spikes.

    A *part* is a template or a mode; the parts of unit ``u`` are the template first, then its modes.

    Parameters
    ----------
    templates
        ``(unit, channel, time)`` mean waveforms; a unit whose template is zero is never found.
    modes
        ``(unit, mode, channel, time)`` directions of variation, scaled by their standard deviations.
    onset
        Column at which a spike starts.
    whitening
        Of the recordings that are to be sorted.

    Attributes
    ----------
    length, onset
        Samples of a whitened window, and those ahead of the onset.
    parts
        ``(unit · part, channel · time)`` float32.
    cross
        ``(unit, part, unit, part, lag)``: ``sum_t part_i[t + lag] part_j[t]`` at index ``lag + length - 1``.
    """

    def __init__(self, templates: np.ndarray, modes: np.ndarray, onset: int, whitening: Whitening) -> None:
        self.whitening = whitening
        shapes = np.concatenate((templates[:, None], modes), axis=1)
        reach = templates.shape[-1] // 2
        white = whitening.apply(np.pad(shapes, ((0, 0),) * 3 + ((reach, reach),)))
        first, last = _core((white[:, 0] ** 2).sum(axis=(0, 1)), onset + reach)
        white = white[..., first:last]
        # Any rotation of the modes is the same model; with this one I + G is diagonal.
        flat = white[:, 1:].reshape(len(white), white.shape[1] - 1, -1)
        turn = np.linalg.eigh(flat @ flat.swapaxes(1, 2))[1]
        white[:, 1:] = (turn.swapaxes(1, 2) @ flat).reshape(white[:, 1:].shape)
        self.onset, self.length = onset + reach - first, last - first
        self.n_units, self.n_parts, self.n_channels = white.shape[:3]
        self.parts = np.ascontiguousarray(white.reshape(-1, self.n_channels * self.length), np.float32)
        self.cross = _cross_correlations(white)
        inner = self.cross[..., self.length - 1].astype(np.float64)
        own = inner[np.arange(self.n_units), :, np.arange(self.n_units)]
        self.energy, self.overlap = own[:, 0, 0], own[:, 0, 1:]
        self.information = 1 + np.diagonal(own[:, 1:, 1:], axis1=1, axis2=2)  # of I + G
        self._half = (0.5 / self.information).astype(np.float32)
        self._constant = (self.energy + np.log(self.information).sum(axis=1)).astype(np.float32) / 2
        self.absent = self.energy < 1e-9

    def windows(self, white: np.ndarray, at: np.ndarray, before: int = 0, after: int = 0) -> np.ndarray:
        """``(spike, channel, before + length + after)`` pieces of a whitened trace around onsets."""
        columns = at[:, None] - self.onset + np.arange(-before, self.length + after)
        return np.moveaxis(white[:, columns], 0, 1)

    def correlate(self, windows: np.ndarray) -> np.ndarray:
        """``(spike, shift, unit, part)`` dot products of windows ``(spike, channel, length + shifts - 1)``."""
        shifts = windows.shape[-1] - self.length + 1
        out = np.empty((len(windows), shifts, len(self.parts)), np.float32)
        for shift in range(shifts):
            piece = np.ascontiguousarray(windows[..., shift : shift + self.length])
            out[:, shift] = piece.reshape(len(windows), self.parts.shape[1]) @ self.parts.T
        return out.reshape(len(windows), shifts, self.n_units, self.n_parts)

    def evidence(self, correlations: np.ndarray) -> np.ndarray:
        """Log-likelihood ratios ``(…, unit)`` of the correlations ``(…, unit, part)``; see the module docstring."""
        b = correlations[..., 1:] - self.overlap.astype(np.float32)
        ratio = correlations[..., 0] - self._constant + np.einsum("...uk,...uk,uk->...u", b, b, self._half)
        ratio[..., self.absent] = -np.inf
        return np.asarray(ratio)

    def weights(self, correlations: np.ndarray, units: np.ndarray) -> np.ndarray:
        """``(spike, mode)`` most probable deviations of spikes, given their correlations ``(spike, unit, part)``."""
        b = correlations[np.arange(len(units)), units, 1:] - self.overlap[units]
        return np.asarray(b / self.information[units])

    def waves(self, units: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """``(spike, channel, length)`` whitened waveforms of spikes with given deviations."""
        factors = np.concatenate((np.ones((len(units), 1)), weights), axis=1).astype(np.float32)
        parts = self.parts.reshape(self.n_units, self.n_parts, -1)[units]
        return np.asarray(np.einsum("nc,nct->nt", factors, parts).reshape(len(units), self.n_channels, self.length))

    def template_ratios(self, white: np.ndarray) -> np.ndarray:
        """``(unit, time)`` log-likelihood ratios of the mean waveforms alone at every onset."""
        templates = self.parts.reshape(self.n_units, self.n_parts, self.n_channels, self.length)[:, 0]
        total = np.zeros((self.n_units, white.shape[1] + self.length - 1), np.float32)
        for channel in range(self.n_channels):
            total += scipy.signal.oaconvolve(white[channel][None], templates[:, channel, ::-1], axes=-1)
        start = self.length - 1 - self.onset
        ratio = np.pad(total, ((0, 0), (0, self.onset + 1)))[:, start : start + white.shape[1]]
        ratio -= (self.energy[:, None] / 2).astype(np.float32)
        ratio[self.absent] = -np.inf
        return np.asarray(ratio)


def _core(power: np.ndarray, onset: int) -> tuple[int, int]:
    """Where all but a little of the energy is, the onset included."""
    total = max(power.sum(), 1e-30)
    cut = min(CUT_SHARE, CUT_ENERGY / total)
    first, last = np.searchsorted(np.cumsum(power) / total, (cut / 2, 1 - cut / 2))
    return min(int(first), onset), min(max(int(last), onset) + 1, len(power))


def _cross_correlations(white: np.ndarray) -> np.ndarray:
    """Of parts ``(unit, part, channel, time)``, summed over channels; see :class:`SpikeBank`."""
    units, parts, channels, length = white.shape
    spectra = np.fft.rfft(white.reshape(-1, channels, length), 2 * length, axis=-1)
    lags = np.fft.irfft(np.einsum("icf,jcf->ijf", spectra, spectra.conj()), 2 * length, axis=-1)
    ordered = np.concatenate((lags[..., -(length - 1) :], lags[..., :length]), axis=-1)
    return ordered.astype(np.float32).reshape(units, parts, units, parts, -1)
