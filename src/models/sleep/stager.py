"""The LightningModule that trains a network to name the stage of single epochs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional

from src.models.bundle import build_network
from src.models.confusion import ConfusionByRecording
from src.models.metrics import scores
from src.models.parallel import global_mean
from src.models.trained_module import ADAMW, WARMUP_COSINE, TrainedModule, recordings_of
from src.signals import HUMAN_KAPPA, UNSCORED, BadInput, is_human_scoring

Batch = Sequence[Tensor]
"""Levels in dB, stages, and the number of the recording of each epoch."""


class SleepStager(TrainedModule):
    """Context-free sleep staging with class-weighted cross-entropy.

    Parameters
    ----------
    signal, classes
        The datamodule's :class:`~src.signals.SignalSpec` as a dict and its stage names.
    kind, network_args
        One of ``kinds`` (``None``: the first) and the arguments that the signal does not determine.
    optimizer, scheduler
        ``_target_`` blocks as in ``conf/``; ``scheduler=None`` keeps the learning rate. Norms and biases do not decay.
    class_weight_power
        Weight of a class ∝ (training count)^−power: 0 none, 1 full inverse frequency.
    label_smoothing
        Share of the target spread over all stages; scorers disagree, so 0 would be overconfident.
    """

    network: Any
    task = "sleep_staging"
    kinds: tuple[str, ...] = ("sleep_epoch_cnn", "sleep_deep_cnn", "sleep_linear", "sleep_simple_cnn")
    monitor = ("val/macro_f1", "max")
    class_weights: Tensor

    def __init__(
        self,
        signal: dict[str, Any],
        classes: list[str],
        kind: str | None = None,
        network_args: dict[str, Any] | None = None,
        optimizer: dict[str, Any] = ADAMW,
        scheduler: dict[str, Any] | None = WARMUP_COSINE,
        class_weight_power: float = 0.5,
        label_smoothing: float = 0.05,
    ) -> None:
        super().__init__()
        kind = kind or self.kinds[0]
        self.save_hyperparameters()
        *window, n_channels, n_freqs, n_frames = signal["shape"]
        self.network_args = {
            "n_channels": n_channels,
            "n_freqs": n_freqs,
            "n_frames": n_frames,
            "n_classes": len(classes),
            **({"window_epochs": window[0]} if window else {}),
            **(network_args or {}),
        }
        self.network = build_network(kind, self.network_args)
        self.register_buffer("class_weights", torch.ones(len(classes)))
        self.confusion: ConfusionByRecording
        self.test_recordings: list[str] = []
        self.tested_on_people = True
        self.test_example: list[tuple[Tensor, Tensor]] = []

    def set_normalization(self, statistics: Mapping[str, np.ndarray]) -> None:
        """Take over what was fitted on the training subjects.

        ``mean_db`` and ``std_db`` are ``(channel, freq)``, ``class_counts`` is ``(class,)``.
        """
        mean, std = (torch.as_tensor(statistics[k], dtype=torch.float32) for k in ("mean_db", "std_db"))
        self.network.standardize.adopt(mean, std)
        counts = torch.as_tensor(statistics["class_counts"], dtype=torch.float32)
        weights = counts.clamp_min(1.0) ** -self.hparams["class_weight_power"] * (counts > 0)
        self.class_weights.copy_(weights / (weights * counts).sum() * counts.sum())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        own = self.hparams["class_weight_power"]
        trained_with = checkpoint.get("hyper_parameters", {}).get("class_weight_power", own)
        if trained_with != own:  # its class weights would be taken all the same
            problem = f"has class_weight_power={trained_with}, not {own}"
            raise BadInput("checkpoint", problem, "load it without class_weight_power, or train anew")

    def forward(self, decibels: Tensor) -> Tensor:
        """``(epoch, channel, freq, time)`` in dB → ``(epoch, class)`` logits."""
        logits: Tensor = self.network(decibels)
        return logits

    def augmented(self, decibels: Tensor) -> Tensor:
        """A training batch, varied as the datamodule says."""
        if self.augment is None:
            return decibels
        standardize = self.network.standardize
        varied: Tensor = self.augment(decibels, standardize.mean[..., 0], standardize.std[..., 0])
        return varied

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        decibels, stages, _ = batch
        total = functional.cross_entropy(
            self(self.augmented(decibels)),
            stages,
            self.class_weights,
            label_smoothing=self.hparams["label_smoothing"],
            reduction="sum",
        )
        loss = global_mean(total, self.class_weights[stages].sum())
        # Every process counts alike, because its loss is already a share of the whole batch's.
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
        return loss

    def log_probabilities(self, decibels: Tensor) -> Tensor:
        """``(epoch, class)`` of a batch of an evaluation loader."""
        return self(decibels).float().log_softmax(1)

    def on_validation_epoch_start(self) -> None:
        self._count_from_zero(recordings_of(self.trainer.val_dataloaders))

    def _count_from_zero(self, recordings: list[str]) -> None:
        self.confusion = ConfusionByRecording(len(recordings), len(self.hparams["classes"])).to(self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        decibels, stages, recording = batch
        log_probabilities, scored = self.log_probabilities(decibels), stages != UNSCORED
        count = int(scored.sum())  # a night nobody scored counts for nothing
        loss = functional.nll_loss(log_probabilities[scored], stages[scored], reduction="sum") / max(1, count)
        self.log("val/loss", loss, sync_dist=True, batch_size=count)
        self.confusion.update(log_probabilities.argmax(1), stages, recording)

    def on_validation_epoch_end(self) -> None:
        pooled = scores(self.confusion.compute().sum(0).cpu().numpy(), self.hparams["classes"])
        for name in ("macro_f1", "kappa", "accuracy"):
            value = pooled[name]
            self.log(
                f"val/{name}", 0.0 if math.isnan(value) else value, prog_bar=name == "macro_f1", rank_zero_only=False
            )

    def on_test_epoch_start(self) -> None:
        self.test_recordings = recordings_of(self.trainer.test_dataloaders)
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        self.tested_on_people = not hasattr(datamodule, "origin") or datamodule.origin().recorded
        self._count_from_zero(self.test_recordings)
        self.test_example = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        decibels, stages, recording = batch
        log_probabilities = self.log_probabilities(decibels)
        self.confusion.update(log_probabilities.argmax(1), stages, recording)
        first = recording == 0  # the first recording is kept for the figures
        self.test_example.append((log_probabilities[first].exp().cpu(), stages[first].cpu()))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """``(epoch, class)`` probabilities of every epoch of the batch, scored or not."""
        return self.log_probabilities(batch[0]).exp()

    def on_test_epoch_end(self) -> None:
        self.test_counts = self.confusion.compute().cpu().numpy()
        super().on_test_epoch_end()

    def test_metrics(self) -> dict[str, float]:
        """Scores pooled over the test epochs, ``test/…``."""
        pooled = scores(self.test_counts.sum(0), self.hparams["classes"])
        return {f"test/{name}": value for name, value in pooled.items() if not math.isnan(value)}

    def media(self) -> dict[str, dict[str, Any]]:
        """What ``reports/media.py`` is to draw after a test: the confusion of all epochs, and the first night."""
        classes = self.hparams["classes"]
        probabilities, reference = (torch.cat(parts).numpy() for parts in zip(*self.test_example, strict=True))
        return {
            "confusion": {"tables": {"held-out epochs": self.test_counts.sum(0)}, "classes": classes},
            "staging": {
                "title": f"{self.test_recordings[0]} (held out)",
                "probabilities": probabilities,
                "reference": reference,
                "classes": classes,
                "epoch_s": self.hparams["signal"]["window_s"],
            },
        }

    def results(self) -> list[dict[str, Any]]:
        """One row per test recording, their mean and spread, the pooled scores, majority class, human κ.

        Columns: epochs, accuracy, macro-F1, Cohen's κ, and the F1 of every stage under its name.
        """
        classes = self.hparams["classes"]
        rows = [
            {"recording": name, "epochs": int(counts.sum()), **_row(counts, classes), "confusion": counts.tolist()}
            for name, counts in zip(self.test_recordings, self.test_counts, strict=True)
            if counts.sum()
        ]
        columns = list(rows[0])[2:-1]
        values = np.array([[row[c] for c in columns] for row in rows], dtype=float)  # None becomes NaN
        counts = self.test_counts.sum(0)
        majority = np.zeros_like(counts)
        majority[:, counts.sum(1).argmax()] = counts.sum(1)
        human = self.tested_on_people and is_human_scoring(classes, self.hparams["signal"]["window_s"])
        blank = dict.fromkeys(columns)
        mean, spread = (dict(zip(columns, summarise(values), strict=True)) for summarise in (_mean, _spread))
        return [
            *rows,
            {"recording": "mean", "epochs": None, **mean},
            {"recording": "sd", "epochs": None, **spread},
            {"recording": "pooled", "epochs": int(counts.sum()), **_row(counts, classes)},
            {"recording": "majority stage", "epochs": int(counts.sum()), **_row(majority, classes)},
            *([{"recording": "human scorers", "epochs": None, **blank, "κ": HUMAN_KAPPA}] if human else []),
        ]

    @torch.no_grad()
    def tune(self, datamodule: pl.LightningDataModule) -> dict[str, Any]:
        """Temperature of the least log loss on validation subjects (Guo et al. 2017); transitions of training."""
        self.eval()
        pairs = []
        for decibels, stages, _ in datamodule.val_dataloader():
            scored = stages != UNSCORED
            pairs.append((self.log_probabilities(decibels.to(self.device)).cpu()[scored], stages[scored]))
        logits, stages = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        grid = torch.logspace(-1, 1, 201)
        losses = torch.stack([functional.cross_entropy(logits / t, stages) for t in grid])
        known = getattr(datamodule, "transitions", None)
        return {"temperature": float(grid[losses.argmin()])} | ({"transitions": known()} if known else {})

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights, which decay, and norms and biases, which do not."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim > 1]},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]


def _row(counts: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """All :func:`scores` under the headings of the table, ``None`` where they are not defined."""
    short = {"accuracy": "acc", "macro_f1": "MF1", "kappa": "κ"}
    found = {short.get(k, k.removeprefix("f1_")): value for k, value in scores(counts, classes).items() if k != "n"}
    return {name: None if math.isnan(value) else value for name, value in found.items()}


def _mean(values: np.ndarray) -> list[float | None]:
    return [float(np.nanmean(column)) if np.isfinite(column).any() else None for column in values.T]


def _spread(values: np.ndarray) -> list[float | None]:
    return [float(np.nanstd(column, ddof=1)) if np.isfinite(column).sum() > 1 else None for column in values.T]
