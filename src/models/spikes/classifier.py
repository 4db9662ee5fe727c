"""Training of the spike classifier: which neuron a 64-sample waveform belongs to, or none."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.models.metrics import accuracy, macro_f1
from src.models.spike_scoring import confusion
from src.models.spikes.inference import window_probability
from src.models.spikes.networks import TEMPLATE_ONSET
from src.models.spikes.targeted import TargetedModule
from src.models.trained_module import ADAMW, WARMUP_COSINE
from src.preprocess.spikes.windows import spike_windows


class SpikeClassification(TargetedModule):
    """Cross-entropy over neurons and "noise"; see :class:`TargetedModule` for the parameters.

    Held-out scores are over waveforms at the true onsets with the neighbours' mean waveforms
    subtracted, and over neurons alone.
    """

    kinds = ("spike_classifier", "spike_classifier_original")
    monitor = ("val/macro_f1", "max")

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
        self._tables: dict[str, np.ndarray] = {}

    def training_step(self, batch: tuple[Tensor, Tensor, int], batch_idx: int) -> Tensor:
        windows, labels, expert = batch
        logits = self.network(windows, expert)
        kept = torch.isfinite(logits[:, -1]) | (labels < len(self.classes))  # a network without a noise class
        loss = F.cross_entropy(logits[kept], labels[kept])
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(windows))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._tables = {}

    def validation_step(self, recording: Any, batch_idx: int) -> None:
        size = len(self.classes)
        table = self._tables.setdefault(recording.name, np.zeros((size, size), np.int64))
        table += self._confusion(recording)

    def _confusion(self, recording: Any) -> np.ndarray:
        templates = self.network.templates.numpy().astype(np.float64)
        onset, after = self.network.onset, self.network.window - self.network.onset
        windows = spike_windows(recording.linear, recording.train, templates, TEMPLATE_ONSET, before=onset, after=after)
        probability = window_probability(self.network, windows, recording.expert)
        return confusion(recording.train.unit, probability[:, :-1].argmax(axis=1) + 1, len(self.classes))

    def on_validation_epoch_end(self) -> None:
        for name, table in self._tables.items():
            self.log(f"val/accuracy_{name}", accuracy(table))
        self.log("val/macro_f1", float(np.mean([macro_f1(t) for t in self._tables.values()])), prog_bar=True)

    def on_test_epoch_start(self) -> None:
        self._tables = {}

    def test_step(self, recording: Any, batch_idx: int) -> None:
        self.validation_step(recording, batch_idx)

    def on_test_epoch_end(self) -> None:
        self.rows = [
            {"target": name, "spikes": int(table.sum()), "accuracy": accuracy(table), "macro_f1": macro_f1(table)}
            for name, table in self._tables.items()
        ]

    def test_metrics(self) -> dict[str, float]:
        """Mean scores over targets."""
        return {f"test/{name}": float(np.mean([row[name] for row in self.rows])) for name in ("accuracy", "macro_f1")}

    def media(self) -> dict[str, dict[str, Any]]:
        """What is to be drawn after a test: the confusion of the matched spikes, see ``reports/media.py``."""
        counts = sum(self._tables.values(), np.zeros((len(self.classes), len(self.classes)), np.int64))
        return {"confusion": {"title": "held-out spikes", "counts": counts, "classes": list(map(str, self.classes))}}

    def tune(self, datamodule: Any) -> dict[str, Any]:
        """Nothing is tuned: the most probable neuron is the answer."""
        return {"targets": {name: {} for name in self.targets}}

    def bundle_fields(self) -> dict[str, Any]:
        """What the bundle says of this model."""
        return {"task": "spike_classification", "kind": self.kind, "network_args": self.network_args}
