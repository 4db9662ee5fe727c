"""Training of the spike detector: per-sample onset probabilities on traces as noisy as the target."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.models.spike_scoring import Score, score
from src.models.spikes.baselines import Labelled, baselines
from src.models.spikes.decision import Decision, tune_detection, tune_second
from src.models.spikes.events import extract_events
from src.models.spikes.inference import detect_again, onset_probability
from src.models.spikes.networks import TEMPLATE_ONSET, SpikeDetector
from src.models.spikes.targeted import TargetedModule
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.matched_filter import FilterBank
from src.preprocess.spikes.recording import SpikeTrain

SHOWN = ("f1_50", "f1_10", "precision", "recall", "class_accuracy", "recall_close", "chance_random")


class SpikeDetection(TargetedModule):
    """Binary cross-entropy on widened onset labels; see :class:`TargetedModule` for the parameters."""

    monitor = ("val/f1", "max")

    def __init__(
        self,
        signal: dict[str, Any],
        classes: list[str],
        kind: str,
        network_args: dict[str, Any],
        targets: list[str],
        lr: float,
        weight_decay: float,
        warmup: float,
    ) -> None:
        super().__init__(signal, classes, kind, network_args, targets, lr, weight_decay, warmup)
        self.decisions: dict[str, Decision] = {}
        self._curves: dict[str, tuple[list[np.ndarray], list[SpikeTrain]]] = {}
        self._tested: dict[str, list[Score]] = {}

    @property
    def width(self) -> int:
        """Samples that a label covers."""
        return 2 * int(self.network.label_half_width) + 1

    def adopt_statistics(self, statistics: dict[str, np.ndarray]) -> None:
        """Fill the references and start the first layer from templates whitened by each target's noise."""
        super().adopt_statistics(statistics)
        if not isinstance(self.network, SpikeDetector):
            return
        taps = self.network.stem_taps
        present = np.abs(statistics["templates"]).max(axis=1) > 0
        templates = statistics["templates"][present].astype(np.float64)
        for expert in range(len(self.targets)):
            noise = self.network.noise(expert, self.fs_hz)
            bank = FilterBank(templates, TEMPLATE_ONSET, noise, length=2 * templates.shape[1])
            read_at = bank.lead + TEMPLATE_ONSET + self.network.label_offset
            filters = bank.filters[:, read_at - taps // 2 : read_at + taps // 2 + 1]
            # Half a standard deviation of the noise per unit: spikes give outputs of a few units.
            scaled = filters * float(self.network.scale[expert]) / np.sqrt(bank.energy)[:, None] / 2
            self.network.start_from_filters(expert, torch.from_numpy(scaled.astype(np.float32)))

    def training_step(self, batch: tuple[Tensor, Tensor, int], batch_idx: int) -> Tensor:
        samples, labels, expert = batch
        logits = self.network(samples, expert)
        context = (samples.shape[-1] - labels.shape[-1]) // 2
        inner = logits[..., context : context + labels.shape[-1]]
        loss = F.binary_cross_entropy_with_logits(inner, labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(samples))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._curves = {}

    def validation_step(self, recording: Any, batch_idx: int) -> None:
        curves, truths = self._curves.setdefault(recording.name, ([], []))
        curves.append(onset_probability(self.network, recording.conditioned, recording.expert))
        truths.append(recording.train)

    def on_validation_epoch_end(self) -> None:
        self.decisions = {
            name: tune_detection(curves, truths, width=self.width, fs_hz=self.fs_hz)
            for name, (curves, truths) in self._curves.items()
        }
        for name, decision in self.decisions.items():
            self.log(f"val/f1_{name}", decision.f1 or 0.0)
        self.log("val/f1", float(np.mean([d.f1 or 0.0 for d in self.decisions.values()])), prog_bar=True)

    def on_test_epoch_start(self) -> None:
        # The best checkpoint's thresholds, not those of the last epoch, and before any test score is seen.
        self._tune_on(self.trainer.datamodule)  # type: ignore[attr-defined]
        self._tested = {}

    def test_step(self, recording: Any, batch_idx: int) -> None:
        decision = self.decisions[recording.name]
        first = self._events(onset_probability(self.network, recording.conditioned, recording.expert), decision)
        conditioning: Conditioning = self.trainer.datamodule.conditioning  # type: ignore[attr-defined]
        chain = replace(conditioning, low_hz=None, high_hz=None)  # held-out traces are band-passed already
        found, _ = detect_again(self.network, chain, recording.linear, first, recording.expert, decision)
        truth = (recording.train.index, recording.train.unit)
        result = score(truth, (found.index, found.unit), len(recording.linear), n_units=len(self.classes))
        self._tested.setdefault(recording.name, []).append(result)

    def on_test_epoch_end(self) -> None:
        self.rows = []
        for name, results in self._tested.items():
            mean = {key: float(np.mean([r.row()[key] for r in results])) for key in SHOWN}
            if self.network.curves == 1:
                mean["class_accuracy"] = float("nan")
            self.rows.append({"target": name, "spikes": sum(r.loose.n_truth for r in results), **mean})

    def test_metrics(self) -> dict[str, float]:
        """Mean scores over targets."""
        names = ("f1_50", "f1_10", "precision", "recall")
        return {f"test/{name}": float(np.mean([row[name] for row in self.rows])) for name in names}

    def tune(self, datamodule: Any) -> dict[str, Any]:
        """Threshold and refractory period of every target, and the baselines' thresholds, from the validation block."""
        if not self.decisions:
            self._tune_on(datamodule)
        targets = {name: decision.to_dict() for name, decision in self.decisions.items()}
        return {"targets": targets, "baselines": self._tuned_baselines(datamodule)}

    def _tuned_baselines(self, datamodule: Any) -> dict[str, dict[str, float]]:
        """Thresholds of the baselines, found on the recordings that the network's were found on."""
        recordings: dict[str, list[Labelled]] = {}
        for recording in datamodule.held_out("val"):
            recordings.setdefault(recording.name, []).append((recording.linear, recording.train))
        tuned: dict[str, dict[str, float]] = {}
        templates = self.network.templates.double().numpy()
        for expert, name in enumerate(self.targets):
            noise = self.network.noise(expert, self.fs_hz)
            for method, baseline in baselines(templates, TEMPLATE_ONSET, noise).items():
                baseline.tune(recordings[name])
                tuned.setdefault(name, {})[method] = float(baseline.threshold)
        return tuned

    def _tune_on(self, datamodule: Any) -> None:
        by_target: dict[str, list[Any]] = {}
        for recording in datamodule.held_out("val"):
            by_target.setdefault(recording.name, []).append(recording)
        self.decisions = {
            name: self._tuned(recordings, datamodule.conditioning) for name, recordings in by_target.items()
        }

    def _tuned(self, recordings: list[Any], conditioning: Conditioning) -> Decision:
        curves = [onset_probability(self.network, r.conditioned, r.expert) for r in recordings]
        truths = [r.train for r in recordings]
        decision = tune_detection(curves, truths, width=self.width, fs_hz=self.fs_hz)
        if self.network.curves == 1:
            return decision
        first = [self._events(curve, decision) for curve in curves]
        again = []
        for recording, (train, _) in zip(recordings, first, strict=True):
            residual = self.network.remover(recording.expert, self.fs_hz).remove(recording.linear, train)
            enhanced = conditioning.enhance(residual.astype(np.float32))
            again.append(onset_probability(self.network, enhanced, recording.expert))
        return tune_second(first, again, truths, decision, width=self.width)

    def _events(self, probability: np.ndarray, decision: Decision) -> tuple[SpikeTrain, np.ndarray]:
        return extract_events(
            probability, threshold=decision.threshold, refractory=decision.refractory, width=self.width
        )

    def bundle_fields(self) -> dict[str, Any]:
        """What the bundle says of this model."""
        return {"task": "spike_detection", "kind": self.kind, "network_args": self.network_args}
