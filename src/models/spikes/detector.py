"""Training of the spike detector: a probability that a spike starts at each sample."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from src.models.bundle import build_network
from src.models.spikes.decision import REFRACTORY, THRESHOLDS, Decision, tune
from src.models.spikes.scores import Tolerances, chance_random, detection
from src.models.trained_module import ADAMW, WARMUP_COSINE, TrainedModule
from src.signals import BadInput, require_range


class SpikeDetection(TrainedModule):
    """Binary cross-entropy on labels widened by a few samples.

    Parameters
    ----------
    signal, classes
        The datamodule's signal contract (plain) and the neurons' names.
    network_args
        Of :class:`~src.models.spikes.networks.SpikeDetector`.
    thresholds, refractory
        Grid for the decision: probabilities and samples.
    detector_config
        File into which the decision of all noise levels together is written, ``detector_config.npz``.
    optimizer, scheduler
        ``_target_`` blocks as in ``conf/``.
    """

    task = "spike_detection"
    kinds = ("spike_detector",)
    monitor = ("val/f1", "max")

    def __init__(
        self,
        signal: dict[str, Any],
        classes: list[str],
        network_args: dict[str, Any],
        thresholds: Sequence[float] = THRESHOLDS,
        refractory: Sequence[int] = REFRACTORY,
        detector_config: str | None = None,
        optimizer: dict[str, Any] = ADAMW,
        scheduler: dict[str, Any] | None = WARMUP_COSINE,
    ) -> None:
        super().__init__()
        for value in list(thresholds) or [-1.0]:
            require_range("model", 0, 1, thresholds=value)
        for value in list(refractory) or [0]:
            require_range("model", 1, refractory=value)
        self.save_hyperparameters()
        self.network_args, self.fs_hz = network_args, float(signal["fs_hz"])
        self.grid: dict[str, Any] = {"thresholds": list(thresholds), "refractory": list(refractory)}
        self.detector_config = detector_config
        if detector_config is not None:
            Decision.check_place(Path(detector_config))
        self.network = build_network("spike_detector", network_args)
        self.decisions: dict[str, Decision] = {}
        self.rows: list[dict[str, Any]] = []
        self._trials: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._levels: dict[str, float] = {}

    def set_normalization(self, statistics: Mapping[str, np.ndarray]) -> None:
        """One scale for all recordings, because neurons differ in amplitude."""
        self.network.scale.copy_(torch.as_tensor(statistics["scale"]))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        samples, labels = batch
        loss = F.binary_cross_entropy_with_logits(self.network(samples), labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(samples))
        return loss

    def on_validation_epoch_start(self) -> None:
        self._trials = {}

    def validation_step(self, recording: Any, batch_idx: int) -> None:
        trial = self.network.onset_probability(recording.conditioned), recording.train.index
        self._trials.setdefault(recording.name, []).append(trial)
        self._levels[recording.name] = recording.level

    def _tuned(self) -> dict[str, Decision]:
        return {
            name: tune(trials, **self.grid, fs_hz=self.fs_hz, level=self._levels[name])
            for name, trials in self._trials.items()
        }

    def on_validation_epoch_end(self) -> None:
        self.decisions = self._tuned()
        for name, decision in self.decisions.items():
            self.log(f"val/f1_{name}", decision.f1)
        self.log("val/f1", float(np.mean([d.f1 for d in self.decisions.values()])), prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["decisions"] = {name: decision.to_dict() for name, decision in self.decisions.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        # The thresholds that validation chose for these very weights, before any test score is seen.
        self.decisions = {name: Decision(**found) for name, found in checkpoint["decisions"].items()}

    def on_test_epoch_start(self) -> None:
        self.rows = []

    def _decision(self, name: str) -> Decision:
        """A target's own decision; the medians of the others where validation was cut short before it."""
        if name in self.decisions:
            return self.decisions[name]
        if not self.decisions:
            hint = "fit the detector with validation data (trainer.limit_val_batches=1.0), or load a checkpoint"
            raise BadInput(name, "has no threshold", hint)
        warnings.warn(
            f"{name} was not in the validation: it has the median threshold of {', '.join(self.decisions)}; "
            "for its own validate on all recordings: trainer.limit_val_batches=1.0, without debug=overfit",
            stacklevel=2,
        )
        found = list(self.decisions.values())
        period = round(float(np.median([decision.refractory for decision in found])))
        return Decision(float(np.median([decision.threshold for decision in found])), period)

    def predict_step(self, recording: Any, batch_idx: int) -> dict[str, Any]:
        """Onsets ``index`` found in a held-out recording, and the ``probability`` of each."""
        found = self._decision(recording.name).spikes(self.network.onset_probability(recording.conditioned))
        return {"target": recording.name, "index": found[0], "probability": found[1]}

    def test_step(self, recording: Any, batch_idx: int) -> None:
        within, strict, _ = Tolerances().samples(self.fs_hz)
        found, _ = self._decision(recording.name).spikes(self.network.onset_probability(recording.conditioned))
        truth = recording.train.index
        loose = detection(truth, found, within)
        self.rows.append(
            {
                "target": recording.name,
                "own_threshold": recording.name in self.decisions,
                "spikes": len(truth),
                "f1_loose": loose.f1,
                "f1_strict": detection(truth, found, strict).f1,
                "precision": loose.precision,
                "recall": loose.recall,
                "chance_random": chance_random(truth, len(found), len(recording.conditioned), within),
            }
        )

    def results(self) -> list[dict[str, Any]]:
        """Rows of the last test, one per held-out recording."""
        return self.rows

    def test_metrics(self) -> dict[str, float]:
        """Mean scores over targets."""
        names = ("f1_loose", "f1_strict", "precision", "recall")
        return {f"test/{name}": float(np.mean([row[name] for row in self.rows])) for name in names}

    def tune(self, datamodule: Any) -> dict[str, Any]:
        """Threshold and refractory period for the noise of each target, from the validation block."""
        if self.detector_config is not None or not self.decisions:
            self._trials = {}
            for number, recording in enumerate(datamodule.held_out("val")):
                self.validation_step(recording, number)
            self.decisions = self._tuned()
        if self.detector_config is not None:
            every = [trial for trials in self._trials.values() for trial in trials]
            tune(every, **self.grid, fs_hz=self.fs_hz).write(Path(self.detector_config))
        return {"targets": {name: decision.to_dict() for name, decision in self.decisions.items()}}
