"""The LightningModule that trains a network to name the stage of single epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional

from src.models.bundle import build_network
from src.models.confusion import ConfusionByRecording
from src.models.metrics import accuracy, cohen_kappa, f1_per_class, macro_f1, scores
from src.models.parallel import global_mean
from src.models.schedule import warmup_cosine

HUMAN_KAPPA = 0.76
"""Agreement between human scorers, pooled over 11 studies (Lee et al. 2022, J Clin Sleep Med 18:193)."""


class SleepStager(pl.LightningModule):
    """Context-free sleep staging with class-weighted cross-entropy.

    Parameters
    ----------
    signal, classes
        The datamodule's :class:`~src.signals.SignalSpec` as a dict and its stage names.
    kind, network_args
        A key of ``bundle.NETWORKS`` and the arguments that the signal does not determine.
    lr, weight_decay, warmup
        AdamW with decoupled decay on weights (not on norms and biases); the learning rate rises
        linearly over the first ``warmup`` share of the steps and falls as a half cosine.
    class_weight_power
        Weight of a class ∝ (training count)^−power: 0 none, 1 full inverse frequency.
    label_smoothing
        Share of the target spread over all stages; scorers disagree, so 0 would be overconfident.
    """

    monitor = ("val/macro_f1", "max")
    class_weights: Tensor

    def __init__(
        self,
        signal: dict[str, Any],
        classes: list[str],
        kind: str = "sleep_epoch_cnn",
        network_args: dict[str, Any] | None = None,
        lr: float = 2e-3,
        weight_decay: float = 1e-2,
        warmup: float = 0.1,
        class_weight_power: float = 0.5,
        label_smoothing: float = 0.05,
    ) -> None:
        super().__init__()
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
        self.network: Any = build_network(kind, self.network_args)
        self.register_buffer("class_weights", torch.ones(len(classes)))
        self.val_confusion: ConfusionByRecording
        self.test_confusion: ConfusionByRecording
        self.test_recordings: list[str] = []
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

    def setup(self, stage: str) -> None:
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        n_classes = len(self.hparams["classes"])
        if stage == "fit":
            self.val_confusion = ConfusionByRecording(len(datamodule.recordings("val")), n_classes)
        if stage == "test":
            self.test_recordings = datamodule.recordings("test")
            self.test_confusion = ConfusionByRecording(len(self.test_recordings), n_classes)
            self.test_example = []

    def forward(self, decibels: Tensor) -> Tensor:
        logits: Tensor = self.network(decibels)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        decibels, stages, _ = batch
        total = functional.cross_entropy(
            self(decibels),
            stages,
            self.class_weights,
            label_smoothing=self.hparams["label_smoothing"],
            reduction="sum",
        )
        loss = global_mean(total, self.class_weights[stages].sum())
        # Every process counts alike, because its loss is already a share of the whole batch's.
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        decibels, stages, recording = batch
        logits = self(decibels)
        loss = functional.cross_entropy(logits, stages)
        self.log("val/loss", loss, sync_dist=True, batch_size=len(stages))
        self.val_confusion.update(logits.argmax(1), stages, recording)

    def on_validation_epoch_end(self) -> None:
        pooled = scores(self.val_confusion.compute().sum(0).cpu().numpy(), self.hparams["classes"])
        for name in ("macro_f1", "kappa", "accuracy"):
            value = pooled[name]
            self.log(
                f"val/{name}", 0.0 if math.isnan(value) else value, prog_bar=name == "macro_f1", rank_zero_only=False
            )
        self.val_confusion.reset()

    def test_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        decibels, stages, recording = batch
        self.count(self(decibels), stages, recording)

    def count(self, logits: Tensor, stages: Tensor, recording: Tensor) -> None:
        """Add test epochs to the confusion counts; the first recording is kept as an example."""
        self.test_confusion.update(logits.argmax(1), stages, recording)
        first = recording == 0
        self.test_example.append((logits[first].float().softmax(1).cpu(), stages[first].cpu()))

    def on_test_epoch_end(self) -> None:
        self.test_counts = self.test_confusion.compute().cpu().numpy()
        for name, value in self.test_metrics().items():
            self.log(name, value, rank_zero_only=False)

    def test_metrics(self) -> dict[str, float]:
        """Scores pooled over the test epochs, ``test/…``."""
        pooled = scores(self.test_counts.sum(0), self.hparams["classes"])
        return {f"test/{name}": value for name, value in pooled.items() if not math.isnan(value)}

    def media(self) -> dict[str, dict[str, Any]]:
        """What ``reports/media.py`` is to draw after a test: the confusion of all epochs, and the first night."""
        classes = self.hparams["classes"]
        probabilities, reference = (torch.cat(parts).numpy() for parts in zip(*self.test_example, strict=True))
        return {
            "confusion": {"title": "held-out epochs", "counts": self.test_counts.sum(0), "classes": classes},
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
        blank = dict.fromkeys(columns)
        mean, spread = (dict(zip(columns, summarise(values), strict=True)) for summarise in (_mean, _spread))
        return [
            *rows,
            {"recording": "mean", "epochs": None, **mean},
            {"recording": "sd", "epochs": None, **spread},
            {"recording": "pooled", "epochs": int(counts.sum()), **_row(counts, classes)},
            {"recording": "majority stage", "epochs": int(counts.sum()), **_row(majority, classes)},
            *([{"recording": "human scorers", "epochs": None, **blank, "κ": HUMAN_KAPPA}] if "N2" in classes else []),
        ]

    def tune(self, datamodule: pl.LightningDataModule) -> dict[str, Any]:
        """Temperature that minimises the log loss on the validation subjects (Guo et al. 2017)."""
        logits, stages = self._outputs(datamodule.val_dataloader())
        grid = torch.logspace(-1, 1, 201)
        losses = torch.stack([functional.cross_entropy(logits / t, stages) for t in grid])
        return {"temperature": float(grid[losses.argmin()])}

    @torch.no_grad()
    def _outputs(self, loader: Any) -> tuple[Tensor, Tensor]:
        self.network.eval()
        device = next(self.network.parameters()).device
        pairs = [(self.network(decibels.float().to(device)).float().cpu(), stages) for decibels, stages, _ in loader]
        return torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])

    def bundle_fields(self) -> dict[str, Any]:
        """What the bundle says of the network."""
        return {"task": "sleep_staging", "kind": self.hparams["kind"], "network_args": self.network_args}

    def configure_optimizers(self) -> Any:
        decayed = [p for p in self.parameters() if p.ndim > 1]
        rest = [p for p in self.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.hparams["weight_decay"]},
            {"params": rest, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.hparams["lr"])
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = warmup_cosine(optimizer, steps=steps, warmup=self.hparams["warmup"])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _row(counts: np.ndarray, classes: list[str]) -> dict[str, Any]:
    values = {
        "acc": accuracy(counts),
        "MF1": macro_f1(counts),
        "κ": cohen_kappa(counts),
        **{name: float(f1) for name, f1 in zip(classes, f1_per_class(counts), strict=True)},
    }
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _mean(values: np.ndarray) -> list[float | None]:
    return [float(np.nanmean(column)) if np.isfinite(column).any() else None for column in values.T]


def _spread(values: np.ndarray) -> list[float | None]:
    return [float(np.nanstd(column, ddof=1)) if np.isfinite(column).sum() > 1 else None for column in values.T]
