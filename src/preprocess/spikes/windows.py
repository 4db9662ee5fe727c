"""Fixed-length pieces of a trace: around spikes, around what only looks like one, and labelled stretches."""

from __future__ import annotations

import numpy as np

from src.preprocess.spikes.matched_filter import FilterBank, local_peaks
from src.preprocess.spikes.waveforms import cut, remove_spikes
from src.recordings.extracellular.spike_trains import SpikeTrain


def spike_windows(
    trace: np.ndarray, train: SpikeTrain, templates: np.ndarray, onset: int, *, before: int = 20, after: int = 44
) -> np.ndarray:
    """The waveform of every spike without its neighbours: ``(spike, before + after)`` float32.

    All spikes' mean waveforms are taken off the trace, then each window is given its own back. Which
    unit a spike itself was held for makes no difference to its window; only its neighbours' units do.
    """
    residual = remove_spikes(trace, train, templates, onset)
    windows = cut(residual, train.index - before, before + after)
    length = templates.shape[1]
    columns = np.arange(-before, after) + onset
    own = np.where(
        (columns >= 0) & (columns < length), templates[train.unit - 1][:, np.clip(columns, 0, length - 1)], 0
    )
    return (windows + own).astype(np.float32)


def hard_negatives(
    trace: np.ndarray, train: SpikeTrain, bank: FilterBank, count: int, *, guard: int = 12
) -> np.ndarray:
    """Samples that a matched filter takes for onsets although no spike is within ``guard`` samples, worst first."""
    best = bank.outputs(trace).max(axis=0)
    peaks = local_peaks(best, float(np.median(best)), guard)
    nearest = np.full(len(peaks), np.inf)
    if len(train):
        right = np.searchsorted(train.index, peaks)
        left = np.clip(right - 1, 0, len(train) - 1)
        nearest = np.abs(peaks - train.index[left]).astype(float)
        nearest = np.minimum(nearest, np.abs(train.index[np.clip(right, 0, len(train) - 1)] - peaks))
    false = peaks[nearest > guard]
    return false[np.argsort(best[false])[::-1][:count]]


def detector_windows(
    trace: np.ndarray, labels: np.ndarray, *, window: int, context: int
) -> tuple[np.ndarray, np.ndarray]:
    """Consecutive windows of a trace with ``context`` real samples on both sides, and their labels without it.

    Returns
    -------
    numpy.ndarray, numpy.ndarray
        ``(window, window + 2 · context)`` and ``(window, unit, window)``.
    """
    count = (len(trace) - 2 * context) // window
    starts = np.arange(count) * window
    pieces = cut(trace, starts, window + 2 * context)
    inner = labels[:, context : context + count * window].reshape(labels.shape[0], count, window)
    return pieces, np.ascontiguousarray(inner.transpose(1, 0, 2))
