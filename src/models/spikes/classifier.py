"""Training of the spike classifier: which neuron a waveform belongs to."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.models.bundle import build_network
from src.models.metrics import accuracy, macro_f1
from src.models.spikes.scores import confusion
from src.models.trained_module import ADAMW, WARMUP_COSINE, TrainedModule


class SpikeClassification(TrainedModule):
    """Cross-entropy over neurons; held-out scores are over waveforms at the true onsets.

    Parameters
    ----------
    signal, classes
        The datamodule's signal contract (plain) and the neurons' names.
    network_args
        Of :class:`~src.models.spikes.networks.SpikeClassifier`, without ``neurons``.
    optimizer, scheduler
        ``_target_`` blocks as in ``conf/``.
    """

    task = "spike_classification"
    kinds = ("spike_classifier",)
    monitor = ("val/macro_f1", "max")

    def __init__(
        self,
        signal: dict[str, Any],
        classes: list[str],
        network_args: dict[str, Any],
        optimizer: dict[str, Any] = ADAMW,
        scheduler: dict[str, Any] | None = WARMUP_COSINE,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.classes, self.network_args = list(classes), {**network_args, "neurons": len(classes)}
        self.network = build_network("spike_classifier", self.network_args)
        self._tables: dict[str, np.ndarray] = {}

    def set_normalization(self, statistics: Mapping[str, np.ndarray]) -> None:
        """One scale for all recordings, because neurons differ in amplitude."""
        self.network.scale.copy_(torch.as_tensor(statistics["scale"]))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        windows, labels = batch
        loss = F.cross_entropy(self.network(windows), labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(windows))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._tables = {}

    def validation_step(self, recording: Any, batch_idx: int) -> None:
        probability = self.network.neuron_probability(recording.bandpassed, recording.train.index)
        table = confusion(recording.train.unit, probability.argmax(axis=1) + 1, len(self.classes))
        self._tables[recording.name] = self._tables.get(recording.name, 0) + table

    def on_validation_epoch_end(self) -> None:
        for name, table in self._tables.items():
            self.log(f"val/accuracy_{name}", accuracy(table))
        self.log("val/macro_f1", float(np.mean([macro_f1(t) for t in self._tables.values()])), prog_bar=True)

    on_test_epoch_start, test_step = on_validation_epoch_start, validation_step

    def predict_step(self, recording: Any, batch_idx: int) -> np.ndarray:
        """``(spike, neuron)`` probabilities of the labelled spikes of a held-out recording."""
        return self.network.neuron_probability(recording.bandpassed, recording.train.index)

    def results(self) -> list[dict[str, Any]]:
        """Rows of the last test, one per target."""
        return [
            {"target": name, "spikes": int(table.sum()), "accuracy": accuracy(table), "macro_f1": macro_f1(table)}
            for name, table in self._tables.items()
        ]

    def test_metrics(self) -> dict[str, float]:
        """Mean scores over targets."""
        rows = self.results()
        return {f"test/{name}": float(np.mean([row[name] for row in rows])) for name in ("accuracy", "macro_f1")}

    def media(self) -> dict[str, dict[str, Any]]:
        """What is to be drawn after a test: the confusion of the matched spikes, see ``reports/media.py``."""
        counts = sum(self._tables.values(), np.zeros((len(self.classes), len(self.classes)), np.int64))
        return {"confusion": {"tables": {"held-out spikes": counts}, "classes": list(map(str, self.classes))}}

    def tune(self, datamodule: Any) -> dict[str, Any]:
        """Nothing is tuned: the most probable neuron is taken."""
        return {"targets": {}}
