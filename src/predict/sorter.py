"""A detector and a classifier that belong together, ready to sort a recording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from src.models.bundle import Bundle
from src.models.spikes.decision import Decision
from src.models.spikes.inference import BLOCK, Sorted, sort_trace
from src.models.spikes.networks import ClassifierNetwork, DetectorNetwork
from src.preprocess.spikes import sorting
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.noise import grow
from src.preprocess.spikes.prepare import CONDITIONING, Trace
from src.preprocess.spikes.signature import UNLIKE, Choice, choose_expert, signature
from src.recordings.extracellular.spike_trains import SpikeTrain
from src.signals import BadInput

EDGE_SAMPLES = 64
"""Samples around what was not recorded in which no spike is reported."""


@dataclass(frozen=True)
class Sorter:
    """A detector, and a classifier where there is one, with all they need to sort a recording."""

    detector: DetectorNetwork
    classifier: ClassifierNetwork | None
    conditioning: Conditioning
    targets: list[str]
    decisions: dict[str, Decision]
    n_units: int

    @classmethod
    def from_bundles(cls, detection: Bundle, classification: Bundle | None) -> Sorter:
        """Load both networks and check that they were made for each other.

        Raises
        ------
        BadInput
            Bundles for other tasks, of another version's preprocessing, or trained with other rates, chains,
            neurons or targets.
        """
        detection.require_task("spike_detection")
        conditioning = _conditioning(detection)
        decisions = {name: Decision(**plain) for name, plain in detection.decision["targets"].items()}
        if classification is not None:
            classification.require_task("spike_classification")
            _require_match(detection, classification, conditioning)
        detector, classifier = detection.network(), classification.network() if classification else None
        assert isinstance(detector, DetectorNetwork)
        assert classifier is None or isinstance(classifier, ClassifierNetwork)
        return cls(detector, classifier, conditioning, list(decisions), decisions, len(detection.classes))

    def choose(self, trace: Trace, gain: float | None) -> Choice:
        """Which of the trained backgrounds a recording's own is most like, and the factor to its scale."""
        found = signature(self.conditioning.linear(trace.centred), trace.fs_hz, trace.usable)
        return choose_expert(found, self.detector.signature.numpy(), gain)

    def sort(self, trace: Trace, choice: Choice, *, reject: float = 1.0, block: int = BLOCK) -> Sorted:
        """Spikes of one recording, none of them beside samples that carry no signal."""
        scaled = trace.centred if choice.gain == 1 else trace.centred * np.float32(choice.gain)
        decision = self.decisions[self.targets[choice.expert]]
        with one_thread() as threads:
            found = sort_trace(
                self.detector,
                self.classifier,
                self.conditioning,
                scaled,
                choice.expert,
                decision,
                reject=reject,
                block=block,
                threads=threads,
            )
        if trace.usable.all():
            return found
        keep = ~grow(~trace.usable, EDGE_SAMPLES, EDGE_SAMPLES)[found.train.index]
        return Sorted(
            SpikeTrain(found.train.index[keep], found.train.unit[keep]), found.strength[keep], found.confidence[keep]
        )


@contextmanager
def one_thread() -> Iterator[int]:
    """One thread for torch, the number it had for blocks: a second thread gains nothing inside so small a piece."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _conditioning(bundle: Bundle) -> Conditioning:
    """The chain that a bundle's recordings went through, if it is this version's."""
    bundle.require_steps({CONDITIONING.name: CONDITIONING.version})
    try:
        return Conditioning.from_dict(bundle.steps[0]["params"])
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        where, hint = bundle.folder or "bundle", "use the neurolit that wrote it, or train again"
        raise BadInput(where, "does not say how recordings are conditioned", hint) from error


def _require_match(detection: Bundle, classification: Bundle, conditioning: Conditioning) -> None:
    other = _conditioning(classification)
    where = classification.folder or "classifier"
    if detection.signal.fs_hz != classification.signal.fs_hz:
        rates = f"{classification.signal.fs_hz:g} Hz, the detector at {detection.signal.fs_hz:g} Hz"
        raise BadInput(where, f"was trained at {rates}", "train both from the same recording")
    if other.linear_only() != conditioning.linear_only():
        raise BadInput(where, "was trained behind another band-pass than the detector", "train both alike")
    if detection.classes != classification.classes:
        raise BadInput(where, "names other neurons than the detector", "train both from the same recording")
    targets = list(detection.decision["targets"])
    if targets != list(classification.decision["targets"]):
        raise BadInput(where, "was trained for other targets than the detector", f"train both for {', '.join(targets)}")


@dataclass(frozen=True)
class NetworkSorter:
    """A :class:`Sorter` with the options of one run."""

    networks: Sorter
    gain: float | None
    reject: float

    @property
    def conditioning(self) -> Conditioning:
        return self.networks.conditioning

    @property
    def n_units(self) -> int:
        return self.networks.n_units

    def sort(self, trace: Trace) -> sorting.Sorted:
        """Spikes by the network whose target the recording is most like."""
        choice = self.networks.choose(trace, self.gain)
        found = self.networks.sort(trace, choice, reject=self.reject)
        target = self.networks.targets[choice.expert]
        facts = {"target": target, "gain": choice.gain, "distance": choice.distance}
        facts["decision"] = self.networks.decisions[target].to_dict()
        notes = [f"network for {target}" + (f", scaled by {choice.gain:.4g}" if choice.gain != 1 else "")]
        if choice.distance > UNLIKE:
            notes.append(
                f"its background is unlike all that the networks know ({choice.distance:.1f} from the nearest, "
                f"{UNLIKE:g} is far): do not trust this sorting. Is it in the labelled recording's unit "
                "(options.gain)? Else train with it among datamodule.targets"
            )
        return sorting.Sorted(found.train, found.strength, found.confidence, facts, tuple(notes))
