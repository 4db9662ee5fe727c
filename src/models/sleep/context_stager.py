"""The LightningModule that trains a network to stage whole stretches of a night."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from src.models.sleep.stager import SleepStager
from src.signals import UNSCORED, BadInput


class SleepContextStager(SleepStager):
    """Sleep staging in context: the loss counts every scored epoch of a window, scores count whole nights.

    Parameters are those of :class:`SleepStager`, and:

    Parameters
    ----------
    average_decay
        Share of the running average of the weights that a step keeps (less at the start). The average
        is what is validated, tested and exported: ``network``; what the optimiser moves is ``learner``.
        0 keeps nothing: the two are the same.
    """

    def __init__(
        self,
        signal: dict[str, Any],
        classes: list[str],
        kind: str = "sleep_sequence",
        network_args: dict[str, Any] | None = None,
        lr: float = 4e-3,
        weight_decay: float = 1e-2,
        warmup: float = 0.1,
        class_weight_power: float = 0.25,
        label_smoothing: float = 0.05,
        average_decay: float = 0.98,
    ) -> None:
        super().__init__(
            signal, classes, kind, network_args, lr, weight_decay, warmup, class_weight_power, label_smoothing
        )
        self.average_decay = average_decay
        self.learner: Any = deepcopy(self.network)
        self.network.requires_grad_(False)

    def setup(self, stage: str) -> None:
        views = list(getattr(self.trainer.datamodule, "views", ["absolute"]))  # type: ignore[attr-defined]
        if self.network.causal and views != ["absolute"]:
            hint = "give datamodule.views=[absolute]"
            raise BadInput("model.network_args.causal", f"the views {', '.join(views)} know the whole night", hint)
        super().setup(stage)

    def set_normalization(self, statistics: Mapping[str, np.ndarray]) -> None:
        super().set_normalization(statistics)
        self.learner.load_state_dict(self.network.state_dict())

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        # Weights of the first steps should not linger: the average starts short and grows.
        kept = min(self.average_decay, (1 + self.global_step) / (10 + self.global_step))
        latest = self.learner.state_dict()
        for name, average in self.network.state_dict().items():
            if average.is_floating_point():
                average.lerp_(latest[name].to(average.dtype), 1 - kept)
            else:
                average.copy_(latest[name])

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        levels, stages, _ = batch
        logits = self.learner.member_logits(levels)
        losses = [
            functional.cross_entropy(
                member.flatten(0, 1),
                stages.flatten(),
                self.class_weights,
                ignore_index=UNSCORED,
                label_smoothing=self.hparams["label_smoothing"],
            )
            for member in logits
        ]
        loss = torch.stack(losses).mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(stages))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        levels, stages, recording = batch
        logits = self.network.score_night(levels)
        scored = stages != UNSCORED
        loss = functional.nll_loss(logits[scored], stages[scored])
        self.log("val/loss", loss, sync_dist=True, batch_size=int(scored.sum()))
        self.val_confusion.update(logits.argmax(1), stages, recording)

    def test_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        levels, stages, recording = batch
        self.count(self.network.score_night(levels), stages, recording)

    @torch.no_grad()
    def _outputs(self, loader: Any) -> tuple[Tensor, Tensor]:
        self.network.eval()
        device = next(self.network.parameters()).device
        pairs = [(self.network.score_night(levels.float().to(device)).float().cpu(), y) for levels, y, _ in loader]
        scored = [stages != UNSCORED for _, stages in pairs]
        return (
            torch.cat([logits[s] for (logits, _), s in zip(pairs, scored, strict=True)]),
            torch.cat([stages[s] for (_, stages), s in zip(pairs, scored, strict=True)]),
        )
