"""Training of the spike detector: per-sample onset probabilities on traces as noisy as the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.models.spike_scoring import score
from src.models.spikes.baselines import Labelled, baselines
from src.models.spikes.decision import Decision, Trial, tune_detection, tune_second
from src.models.spikes.events import extract_events
from src.models.spikes.inference import detect_again, onset_probability
from src.models.spikes.networks import TEMPLATE_ONSET, SpikeDetector
from src.models.spikes.targeted import TargetedModule
from src.models.trained_module import ADAMW, WARMUP_COSINE
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.matched_filter import FilterBank
from src.recordings.extracellular.spike_trains import SpikeTrain

SHOWN = ("f1_loose", "f1_strict", "precision", "recall", "class_accuracy", "recall_close", "chance_random")

LARGEST_ANSWER = 4.0
"""What a first filter makes of its own neuron's spike at most, before training."""


class SpikeDetection(TargetedModule):
    """Binary cross-entropy on widened onset labels; see :class:`TargetedModule` for the parameters."""

    kinds = ("spike_detector", "spike_detector_original")
    monitor = ("val/merit", "max")

    def __init__(
        self,
        signal: dict[str, Any],
        classes: list[str],
        kind: str,
        network_args: dict[str, Any],
        targets: list[str],
        optimizer: dict[str, Any] = ADAMW,
        scheduler: dict[str, Any] | None = WARMUP_COSINE,
    ) -> None:
        super().__init__(signal, classes, kind, network_args, targets, optimizer, scheduler)
        self.decisions: dict[str, Decision] = {}
        self.conditioning: Conditioning | None = None
        self._trials: dict[str, list[Trial]] = {}
        self._tested: dict[str, list[dict[str, Any]]] = {}

    @property
    def width(self) -> int:
        """Samples that a label covers."""
        return 2 * int(self.network.label_half_width) + 1

    def set_normalization(self, statistics: Mapping[str, np.ndarray]) -> None:
        """Fill the references and start the first layer from templates whitened by each target's noise."""
        super().set_normalization(statistics)
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
            # The noise gives half a unit, and no spike more than a few: the fifteen of a clean recording
            # would take the other layers hundreds of steps to tame.
            answer = np.minimum(np.sqrt(bank.energy) / 2, LARGEST_ANSWER)
            scaled = filters * float(self.network.scale[expert]) * (answer / bank.energy)[:, None]
            self.network.start_from_filters(expert, torch.from_numpy(scaled.astype(np.float32)))

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor, int], batch_idx: int) -> Tensor:
        samples, labels, weights, expert = batch
        logits = self.network(samples, expert)
        context = (samples.shape[-1] - labels.shape[-1]) // 2
        inner = logits[..., context : context + labels.shape[-1]]
        loss = F.binary_cross_entropy_with_logits(inner, labels, weight=weights)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(samples))
        return loss

    def on_fit_start(self) -> None:
        self.conditioning = self.trainer.datamodule.conditioning  # type: ignore[attr-defined]

    def on_validation_epoch_start(self) -> None:
        self._trials = {}

    def validation_step(self, recording: Any, batch_idx: int) -> None:
        self._trials.setdefault(recording.name, []).append(self._trial(recording, recording.linear, recording.alone))

    def on_validation_epoch_end(self) -> None:
        decisions = {n: tune_detection(t, width=self.width, fs_hz=self.fs_hz) for n, t in self._trials.items()}
        for name, decision in decisions.items():
            self.log(f"val/merit_{name}", decision.merit or 0.0)
        self.log("val/merit", float(np.mean([d.merit or 0.0 for d in decisions.values()])), prog_bar=True)

    def on_test_epoch_start(self) -> None:
        self.on_fit_start()
        # The best checkpoint's thresholds, not those of the last epoch, and before any test score is seen.
        self._tune_on(self.trainer.datamodule)  # type: ignore[attr-defined]
        self._tested = {}

    def test_step(self, recording: Any, batch_idx: int) -> None:
        decision = self.decisions[recording.name]
        curves = self._trial(recording, recording.linear, None).curves
        conditioning: Conditioning = self._chain()
        first = self._events(curves, decision)
        found, _ = detect_again(self.network, conditioning, recording.linear, first, recording.expert, decision)
        truth = (recording.train.index, recording.train.unit)
        result = score(truth, (found.index, found.unit), len(recording.linear), n_units=len(self.classes)).row()
        if recording.alone is not None:  # what is found beside the labelled spikes may be right
            result |= dict.fromkeys(("f1_loose", "f1_strict", "precision"), float("nan"))
        if self.network.curves == 1:
            result["class_accuracy"] = float("nan")
        self._tested.setdefault(recording.name, []).append(result)

    def on_test_epoch_end(self) -> None:
        self.rows = [
            {"target": name, "spikes": int(sum(r["spikes"] for r in results))}
            | {key: float(np.mean([r[key] for r in results])) for key in SHOWN}
            for name, results in self._tested.items()
        ]

    def results(self) -> list[dict[str, Any]]:
        """Rows of the last test, one per target; ``None`` where a score does not exist."""
        return [{k: None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()} for row in self.rows]

    def test_metrics(self) -> dict[str, float]:
        """Mean scores over targets."""
        names = ("f1_loose", "f1_strict", "precision", "recall")
        known = {name: [row[name] for row in self.rows if not np.isnan(row[name])] for name in names}
        return {f"test/{name}": float(np.mean(values)) for name, values in known.items() if values}

    def tune(self, datamodule: Any) -> dict[str, Any]:
        """Threshold and refractory period of every target, and the baselines' thresholds, from the validation block."""
        if not self.decisions:
            self.conditioning = datamodule.conditioning
            self._tune_on(datamodule)
        targets = {name: decision.to_dict() for name, decision in self.decisions.items()}
        return {"targets": targets, "baselines": self._tuned_baselines(datamodule)}

    def _tuned_baselines(self, datamodule: Any) -> dict[str, dict[str, float]]:
        """Thresholds of the baselines, found on the recordings that the network's were found on."""
        recordings: dict[str, list[Labelled]] = {}
        for recording in datamodule.held_out("val"):
            labelled = Labelled(recording.linear, recording.train, recording.alone)
            recordings.setdefault(recording.name, []).append(labelled)
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
        self.decisions = {name: self._tuned(recordings) for name, recordings in by_target.items()}

    def _tuned(self, recordings: list[Any]) -> Decision:
        trials = [self._trial(r, r.linear, r.alone) for r in recordings]
        decision = tune_detection(trials, width=self.width, fs_hz=self.fs_hz)
        if self.network.curves == 1:
            return decision
        first = [
            (self._events(t.curves, decision), None if t.alone is None else self._events(t.alone, decision))
            for t in trials
        ]
        again = []
        for recording, (found, alone) in zip(recordings, first, strict=True):
            remover = self.network.remover(recording.expert, self.fs_hz)
            rest = None if alone is None else remover.remove(recording.alone, alone[0])
            again.append(self._trial(recording, remover.remove(recording.linear, found[0]), rest))
        return tune_second(first, again, decision, width=self.width)

    def _trial(self, recording: Any, linear: np.ndarray, alone: np.ndarray | None) -> Trial:
        """Probabilities of a held-out recording and of its background alone, given their band-passed traces."""
        chain = self._chain()

        def curves(trace: np.ndarray) -> np.ndarray:
            return onset_probability(self.network, chain.apply(trace.astype(np.float32)), recording.expert)

        return Trial(curves(linear), recording.train, None if alone is None else curves(alone))

    def _chain(self) -> Conditioning:
        """What follows the band-pass, which held-out traces have behind them."""
        assert self.conditioning is not None
        return replace(self.conditioning, low_hz=None, high_hz=None)

    def _events(self, probability: np.ndarray, decision: Decision) -> tuple[SpikeTrain, np.ndarray]:
        return extract_events(
            probability, threshold=decision.threshold, refractory=decision.refractory, width=self.width
        )

    def bundle_fields(self) -> dict[str, Any]:
        """What the bundle says of this model."""
        return {"task": "spike_detection", "kind": self.kind, "network_args": self.network_args}
