"""Sort with a trained detector and classifier that belong together."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from src.models.bundle import Bundle
from src.models.spikes.decision import Decision
from src.models.spikes.networks import SpikeClassifier, SpikeDetector
from src.preprocess.spikes.conditioning import CONDITIONING, Conditioning
from src.preprocess.spikes.filters import grow, robust_sigma
from src.preprocess.spikes.sorting import EDGE_SAMPLES, GAIN_SAMPLES, TURNED, Sorted
from src.preprocess.spikes.trace import Trace, check_clipping, check_rates, without_hum, without_pulses
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.signals import BadInput


@dataclass(frozen=True)
class NetworkSorter:
    """A detector, a classifier, and the decisions for the noise levels they were trained for.

    Attributes
    ----------
    decisions
        By the name of the target. A recording of another name gets that of the nearest noise level.
    config
        Decision for all recordings instead, from a ``detector_config.npz``.
    gain
        Factor from the recordings' unit to that of the labelled recording.
    """

    detector: SpikeDetector
    classifier: SpikeClassifier
    conditioning: Conditioning
    decisions: dict[str, Decision]
    n_units: int
    config: Decision | None = None
    gain: float = 1.0

    @classmethod
    def from_bundles(
        cls, detection: Bundle, classification: Bundle, *, config: Path | None = None, gain: float = 1.0
    ) -> "NetworkSorter":
        """Load both networks and check that they were made for each other.

        Raises
        ------
        BadInput
            Bundles for other tasks, of another version's preprocessing, or trained with other rates, band-passes
            or neurons.
        """
        chain = conditioning_of(detection, "spike_detection")
        other = conditioning_of(classification, "spike_classification")
        where = classification.folder or "classifier"
        if detection.signal.fs_hz != classification.signal.fs_hz:
            rates = f"{classification.signal.fs_hz:g} Hz, the detector at {detection.signal.fs_hz:g} Hz"
            raise BadInput(where, f"was trained at {rates}", "train both from the same recording")
        if other.bandpass_only() != chain.bandpass_only():
            raise BadInput(where, "was trained behind another band-pass than the detector", "train both alike")
        if detection.classes != classification.classes:
            raise BadInput(where, "names other neurons than the detector", "train both from the same recording")
        detector, classifier = detection.network(), classification.network()
        assert isinstance(detector, SpikeDetector)
        assert isinstance(classifier, SpikeClassifier)
        decisions = {name: Decision(**plain) for name, plain in detection.decision["targets"].items()}
        decided = Decision.read(config) if config is not None else None
        return cls(detector, classifier, chain, decisions, len(detection.classes), decided, gain)

    def decision(self, name: str, bandpassed: np.ndarray) -> Decision:
        """The decision for a recording, by name or else by the level of its noise."""
        if self.config is not None or name in self.decisions:
            return self.config or self.decisions[name]
        level = max(robust_sigma(bandpassed), 1e-12)
        return min(self.decisions.values(), key=lambda known: abs(np.log(known.level / level)))

    def sort(self, trace: Trace) -> Sorted:
        """Spikes of one recording, none of them beside samples that carry no signal."""
        chain, (trace, pulses) = self.conditioning, without_pulses(trace)
        centred, hum = without_hum(trace.centred, trace.fs_hz)
        centred, notes = centred * np.float32(self.gain), (*pulses, *hum)
        bandpassed = chain.bandpassed(centred)
        decision = self.decision(trace.name, bandpassed)
        with one_thread():
            enhanced = chain.apply(centred)
            part = enhanced[:GAIN_SAMPLES]
            straight, turned = (decision.spikes(self.detector.onset_probability(s * part))[1].sum() for s in (1, -1))
            if turned > TURNED * straight + 10:
                enhanced, bandpassed = -enhanced, -bandpassed
                notes = (*notes, "its polarity is the opposite of the labelled recording's: it was turned over")
            onsets, strength = decision.spikes(self.detector.onset_probability(enhanced))
            names = self.classifier.neuron_probability(bandpassed, onsets)
        train = SpikeTrain(onsets.astype(np.int64), names.argmax(axis=1).astype(np.int64) + 1)
        check_rates(train, trace.usable.sum() / trace.fs_hz, trace.source)
        notes = (*notes, *check_clipping(trace.cut_off, np.inf, len(train)))
        found = Sorted(train, strength, names.max(axis=1, initial=0), {"decision": decision.to_dict()}, notes)
        return found.at(~grow(~trace.usable, EDGE_SAMPLES, EDGE_SAMPLES)[onsets])


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread: a second one brings nothing for pieces of this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def conditioning_of(bundle: Bundle, task: str) -> Conditioning:
    """The chain that a bundle's recordings went through, if it is for the task and of this version."""
    bundle.require(task, {CONDITIONING.name: CONDITIONING.version})
    return bundle.settings(Conditioning.from_dict)
