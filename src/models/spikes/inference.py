"""Whole recordings through the spike networks."""

from __future__ import annotations

import numpy as np
import torch

from src.models.spikes.networks import SpikeClassifier, SpikeDetector
from src.preprocess.spikes.waveforms import cut

PIECE = 1 << 15
"""Samples per call of a network: what fits into the processor's cache."""


@torch.no_grad()
def onset_probability(network: SpikeDetector, trace: np.ndarray, *, piece: int = PIECE) -> np.ndarray:
    """Probability ``(time,)`` that a spike starts at each sample of a conditioned trace.

    One pass, in pieces that overlap by the receptive field: the result is that of one call on the whole trace, and
    that of a window of 120 samples around each sample.
    """
    reach = network.receptive_field // 2
    out = np.empty(len(trace), np.float32)
    for start in range(0, len(trace), piece):
        stop = min(start + piece, len(trace))
        first = max(start - reach, 0)
        samples = torch.from_numpy(np.ascontiguousarray(trace[first : stop + reach], np.float32))
        probability = torch.sigmoid(network(samples[None, None]))[0]
        out[start:stop] = probability[start - first : stop - first].numpy()
    return out


@torch.no_grad()
def neuron_probability(network: SpikeClassifier, bandpassed: np.ndarray, onsets: np.ndarray) -> np.ndarray:
    """``(spike, neuron)`` probabilities of spikes at the given onsets of a band-passed trace."""
    if len(onsets) == 0:
        return np.zeros((0, network.neurons), np.float32)
    windows = cut(bandpassed.astype(np.float32), onsets - network.onset, network.window)
    batches = torch.from_numpy(np.ascontiguousarray(windows))[:, None].split(1024)
    return torch.cat([torch.softmax(network(batch), dim=1) for batch in batches]).numpy()
