"""A whole trace through the networks: one pass, block by block, with the same result for every block size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from src.models.spikes.decision import Decision
from src.models.spikes.events import EventStream, merge
from src.models.spikes.networks import TEMPLATE_ONSET, ClassifierNetwork, DetectorNetwork
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.recording import SpikeTrain
from src.preprocess.spikes.waveforms import CROWDED
from src.preprocess.spikes.windows import spike_windows

BLOCK = 1 << 18
"""Samples conditioned at a time."""

ROUNDS = 2
"""Times the classifier names the spikes once all are found."""

PIECE = 1 << 14
"""Samples per call of a network: what fits into the processor's cache."""


@torch.no_grad()
def onset_probability(network: DetectorNetwork, trace: np.ndarray, expert: int, *, piece: int = PIECE) -> np.ndarray:
    """Probability ``(curve, time)`` that a spike starts at each sample of a conditioned trace.

    The network is applied to pieces that overlap by its receptive field, of which only the middle is
    kept: the result is that of one call on the whole trace. Past the end there is silence.
    """
    offset, half = network.label_offset, network.receptive_field // 2
    n = len(trace)
    out = np.empty((network.curves, n), np.float32)
    for start in range(0, n, piece):
        stop = min(start + piece, n)
        # The label of onset t is read at sample t + offset.
        first, last = max(start + offset - half, 0), stop + offset + half
        part = trace[first : min(last, n)]
        silence = max(min(last, n + offset) - max(n, first), 0)
        samples = torch.from_numpy(np.pad(part, (0, silence)) if silence else np.ascontiguousarray(part))
        probability = torch.sigmoid(network(samples[None, None], expert))[0]
        lead = start + offset - first
        out[:, start:stop] = probability[:, lead : lead + stop - start].numpy()
    return out


@dataclass(frozen=True)
class Sorted:
    """Spikes of a recording and what is known of each.

    Attributes
    ----------
    train
        Onsets and neurons.
    strength
        ``(spike,)`` expected number of spikes behind each, at most 1.
    confidence
        ``(spike,)`` probability of the chosen neuron.
    """

    train: SpikeTrain
    strength: np.ndarray
    confidence: np.ndarray


def detect(
    network: DetectorNetwork,
    conditioning: Conditioning,
    centred: np.ndarray,
    expert: int,
    decision: Decision,
    *,
    block: int = BLOCK,
) -> tuple[SpikeTrain, np.ndarray]:
    """Onsets, the detector's own guess of the neuron, and strengths, from a centred trace free of NaN."""
    stream = _stream(network, decision.threshold, decision.refractory)
    margin = network.receptive_field // 2 + network.label_offset
    for start, stop, piece in conditioning.blocks(centred, block, margin):
        first = max(start - margin, 0)
        probability = onset_probability(network, piece, expert)
        stream.push(probability[:, start - first : stop - first])
    return stream.finish()


def detect_again(
    network: DetectorNetwork,
    conditioning: Conditioning,
    centred: np.ndarray,
    first: tuple[SpikeTrain, np.ndarray],
    expert: int,
    decision: Decision,
    *,
    block: int = BLOCK,
) -> tuple[SpikeTrain, np.ndarray]:
    """The spikes of ``first`` and those that come to light when they are subtracted; strengths of all.

    A detector that does not tell neurons apart cannot subtract them and leaves ``first`` as it is.
    """
    if decision.second is None or network.curves == 1 or len(first[0]) == 0:
        return first
    remover = network.remover(expert, conditioning.fs_hz)
    stream = _stream(network, decision.second, decision.refractory)
    sigmas, train = conditioning.calibrate(centred), first[0]
    # A residual sample depends on spikes one waveform away, and they on others: three waveforms are enough.
    margin = network.receptive_field // 2 + network.label_offset + conditioning.enhance_reach
    margin += 3 * remover.model.templates.shape[1] + CROWDED
    for start, stop, piece in conditioning.linear_only().blocks(centred, block, margin):
        begin = max(start - margin, 0)
        near = (train.index >= begin) & (train.index < begin + len(piece))
        residual = remover.remove(piece, SpikeTrain(train.index[near] - begin, train.unit[near]))
        enhanced = conditioning.enhance(residual.astype(np.float32), sigmas, len(centred))
        probability = onset_probability(network, enhanced, expert)
        stream.push(probability[:, start - begin : stop - begin])
    return merge(first, stream.finish(), decision.refractory)


def _stream(network: DetectorNetwork, threshold: float, refractory: int) -> EventStream:
    return EventStream(threshold=threshold, refractory=refractory, width=2 * network.label_half_width + 1)


@torch.no_grad()
def neuron_probability(
    network: ClassifierNetwork,
    conditioning: Conditioning,
    centred: np.ndarray,
    train: SpikeTrain,
    expert: int,
    *,
    block: int = BLOCK,
) -> np.ndarray:
    """``(spike, neuron + 1)`` probabilities of found spikes; the last column is "no spike at all".

    Each is judged on its own 64 samples of the band-passed trace, with the waveforms of its neighbours
    (as ``train`` names them) subtracted. Denoising and matched filter are left out: they change shapes.
    """
    linear = conditioning.linear_only()
    templates = network.templates.numpy().astype(np.float64)
    reach = templates.shape[1] + network.window
    out = np.zeros((len(train), len(templates) + 1), np.float32)
    for start, stop, piece in linear.blocks(centred, block, reach):
        first = max(start - reach, 0)
        near = np.flatnonzero((train.index >= first) & (train.index < stop + reach))
        own = (train.index[near] >= start) & (train.index[near] < stop)
        if not own.any():
            continue
        local = SpikeTrain(train.index[near] - first, train.unit[near])
        windows = spike_windows(
            piece, local, templates, TEMPLATE_ONSET, before=network.onset, after=network.window - network.onset
        )
        out[near[own]] = window_probability(network, windows[own], expert)
    return out


@torch.no_grad()
def window_probability(network: ClassifierNetwork, windows: np.ndarray, expert: int) -> np.ndarray:
    """Class probabilities ``(window, neuron + 1)`` of cut waveforms ``(window, time)``."""
    if len(windows) == 0:
        return np.zeros((0, network.templates.shape[0] + 1), np.float32)
    batches = torch.from_numpy(np.ascontiguousarray(windows, np.float32))[:, None].split(1024)
    probability: Tensor = torch.cat([torch.softmax(network(batch, expert), dim=1) for batch in batches])
    return probability.numpy()


def sort_trace(
    detector: DetectorNetwork,
    classifier: ClassifierNetwork | None,
    conditioning: Conditioning,
    centred: np.ndarray,
    expert: int,
    decision: Decision,
    *,
    reject: float = 1.0,
    block: int = BLOCK,
) -> Sorted:
    """Detect, name, subtract and detect again, name again.

    Names found in one round decide what is subtracted from a spike's neighbours in the next.

    Parameters
    ----------
    classifier
        ``None`` keeps the detector's own names.
    reject
        Spikes that the classifier holds for noise with more than this probability are dropped.
    """
    found = detect(detector, conditioning, centred, expert, decision, block=block)
    if classifier is not None:
        found = _named(classifier, conditioning, centred, found, expert, block)[0], found[1]
    found = detect_again(detector, conditioning, centred, found, expert, decision, block=block)
    confidence = found[1]
    if classifier is not None and len(found[0]):
        for _ in range(ROUNDS):
            train, confidence, kept = _named(classifier, conditioning, centred, found, expert, block, reject)
            found = train, found[1][kept]
    order = np.lexsort((found[0].unit, found[0].index))
    train = SpikeTrain(found[0].index[order], found[0].unit[order])
    return Sorted(train, found[1][order], confidence[order])


def _named(
    classifier: ClassifierNetwork,
    conditioning: Conditioning,
    centred: np.ndarray,
    found: tuple[SpikeTrain, np.ndarray],
    expert: int,
    block: int,
    reject: float = 1.0,
) -> tuple[SpikeTrain, np.ndarray, np.ndarray]:
    """Spikes with the classifier's names, the probability of each name, and the mask of spikes that stay."""
    probability = neuron_probability(classifier, conditioning, centred, found[0], expert, block=block)
    kept = probability[:, -1] <= reject
    names = probability[kept, :-1]
    train = SpikeTrain(found[0].index[kept], names.argmax(axis=1).astype(np.int64) + 1)
    return train, names.max(axis=1, initial=0) / np.maximum(names.sum(axis=1), 1e-9), kept
