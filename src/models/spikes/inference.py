"""A whole trace through the networks: one pass, block by block, with the same result for every block size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.models.spikes.decision import Decision
from src.models.spikes.events import EventStream, merge
from src.models.spikes.networks import TEMPLATE_ONSET, ClassifierNetwork, DetectorNetwork
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.waveforms import CROWDED
from src.preprocess.spikes.windows import spike_windows
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.storage.parallel import in_turn

BLOCK = 1 << 18
"""Samples conditioned at a time."""

ROUNDS = 2
"""Times the classifier names the spikes once all are found."""

PIECE = 1 << 15
"""Samples per call of a network: what fits into the processor's cache."""

Piece = tuple[int, int, np.ndarray]


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
    threads: int = 1,
) -> tuple[SpikeTrain, np.ndarray]:
    """Onsets, the detector's own guess of the neuron, and strengths, from a centred trace free of NaN."""
    stream = _stream(network, decision.threshold, decision.refractory)
    margin = network.receptive_field // 2 + network.label_offset

    def probability(piece: Piece) -> np.ndarray:
        start, stop, trace = piece
        first = max(start - margin, 0)
        return onset_probability(network, trace, expert)[:, start - first : stop - first]

    for curves in in_turn(probability, conditioning.blocks(centred, block, margin), threads):
        stream.push(curves)
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
    threads: int = 1,
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

    def probability(piece: Piece) -> np.ndarray:
        start, stop, trace = piece
        begin = max(start - margin, 0)
        near = (train.index >= begin) & (train.index < begin + len(trace))
        residual = remover.remove(trace, SpikeTrain(train.index[near] - begin, train.unit[near]))
        enhanced = conditioning.enhance(residual.astype(np.float32), sigmas, len(centred))
        return onset_probability(network, enhanced, expert)[:, start - begin : stop - begin]

    for curves in in_turn(probability, conditioning.linear_only().blocks(centred, block, margin), threads):
        stream.push(curves)
    return merge(first, stream.finish(), decision.refractory)


def _stream(network: DetectorNetwork, threshold: float, refractory: int) -> EventStream:
    return EventStream(threshold=threshold, refractory=refractory, width=2 * network.label_half_width + 1)


def neuron_probability(
    network: ClassifierNetwork,
    conditioning: Conditioning,
    centred: np.ndarray,
    train: SpikeTrain,
    expert: int,
    *,
    block: int = BLOCK,
    threads: int = 1,
    known: tuple[SpikeTrain, np.ndarray] | None = None,
) -> np.ndarray:
    """``(spike, neuron + 1)`` probabilities of found spikes; the last column is "no spike at all".

    Each is judged on its own 64 samples of the band-passed trace, with the waveforms of its neighbours
    (as ``train`` names them) subtracted. Denoising and matched filter are left out: they change shapes.

    Parameters
    ----------
    known
        Spikes that were judged before, and their probabilities: a spike with the same name and the same
        neighbours keeps what it has.
    """
    linear = conditioning.linear_only()
    templates = network.templates.numpy().astype(np.float64)
    reach = templates.shape[1] + network.window
    out, asked = _kept(train, known, reach)
    if known is None:
        out = np.zeros((len(train), len(templates) + 1), np.float32)

    def judged(piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        start, stop, trace = piece
        first = max(start - reach, 0)
        near = np.flatnonzero((train.index >= first) & (train.index < stop + reach))
        own = (train.index[near] >= start) & (train.index[near] < stop) & asked[near]
        local = SpikeTrain(train.index[near] - first, train.unit[near])
        windows = spike_windows(
            trace, local, templates, TEMPLATE_ONSET, before=network.onset, after=network.window - network.onset
        )
        return near[own], window_probability(network, windows[own], expert)

    for rows, probability in in_turn(judged, linear.blocks(centred, block, reach), threads):
        out[rows] = probability
    return out


def _kept(train: SpikeTrain, known: tuple[SpikeTrain, np.ndarray] | None, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that spikes have from before, and the mask of those that have to be judged anew."""
    if known is None or not len(known[0]):
        return np.zeros((len(train), 0), np.float32), np.ones(len(train), bool)
    before, probability = known
    size = 1 + max(int(train.unit.max(initial=0)), int(before.unit.max()))
    now, then = train.index * size + train.unit, before.index * size + before.unit
    changed = np.sort(np.setxor1d(now, then) // size)
    crowd = np.searchsorted(changed, train.index + reach, "right") - np.searchsorted(changed, train.index - reach)
    order = np.argsort(then, kind="stable")
    row = order[np.clip(np.searchsorted(then[order], now), 0, len(then) - 1)]
    return probability[row], crowd > 0


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
    threads: int = 1,
) -> Sorted:
    """Detect, name, subtract and detect again, name again.

    Names found in one round decide what is subtracted from a spike's neighbours in the next.

    Parameters
    ----------
    classifier
        ``None`` keeps the detector's own names.
    reject
        Spikes that the classifier holds for noise with more than this probability are dropped.
    threads
        Blocks worked on at a time.
    """
    how: dict[str, Any] = {"block": block, "threads": threads}
    known: tuple[SpikeTrain, np.ndarray] | None = None
    found = detect(detector, conditioning, centred, expert, decision, **how)
    if classifier is not None and len(found[0]):
        known = found[0], neuron_probability(classifier, conditioning, centred, found[0], expert, **how)
        found = _named(found[0], known[1])[0], found[1]
    found = detect_again(detector, conditioning, centred, found, expert, decision, **how)
    confidence = found[1]
    if classifier is not None and len(found[0]):
        for _ in range(ROUNDS):
            probability = neuron_probability(classifier, conditioning, centred, found[0], expert, **how, known=known)
            known = found[0], probability
            train, confidence, kept = _named(found[0], probability, reject)
            found = train, found[1][kept]
    order = np.lexsort((found[0].unit, found[0].index))
    train = SpikeTrain(found[0].index[order], found[0].unit[order])
    return Sorted(train, found[1][order], confidence[order])


def _named(
    train: SpikeTrain, probability: np.ndarray, reject: float = 1.0
) -> tuple[SpikeTrain, np.ndarray, np.ndarray]:
    """Spikes with the classifier's names, the probability of each name, and the mask of spikes that stay."""
    kept = probability[:, -1] <= reject
    names = probability[kept, :-1]
    named = SpikeTrain(train.index[kept], names.argmax(axis=1).astype(np.int64) + 1)
    return named, names.max(axis=1, initial=0) / np.maximum(names.sum(axis=1), 1e-9), kept
