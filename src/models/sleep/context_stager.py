"""The LightningModule that trains a network to stage whole stretches of a night."""

from typing import Any

from torch import Tensor
from torch.nn import functional

from src.models.sleep.stager import Batch, SleepStager
from src.signals import UNSCORED, BadInput


class SleepContextStager(SleepStager):
    """Sleep staging in context: the loss counts every scored epoch of a window, scores count whole nights.

    Parameters are those of :class:`SleepStager`. ``conf/model/sleep_sequence.yaml`` averages the weights over the
    last steps (``callbacks.average``): what is validated, tested and exported is the average.
    """

    kinds = ("sleep_sequence",)

    def take_over(self, data: Any) -> None:
        views = list(getattr(data, "views", ["absolute"]))
        if self.network.causal and views != ["absolute"]:
            hint = "give datamodule.views=[absolute]"
            raise BadInput("model.network_args.causal", f"the views {', '.join(views)} know the whole night", hint)
        super().take_over(data)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        levels, stages, _ = batch
        logits = self.network(self.augmented(levels)).flatten(0, 1)
        loss = functional.cross_entropy(
            logits,
            stages.flatten(),
            self.class_weights,
            ignore_index=UNSCORED,
            label_smoothing=self.hparams["label_smoothing"],
        )
        if not (stages != UNSCORED).any():  # the mean of nothing
            loss = 0.0 * logits.sum()
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(stages))
        return loss

    def log_probabilities(self, decibels: Tensor) -> Tensor:
        """``(epoch, class)`` of a whole night, in context."""
        found: Tensor = self.network.score_night(decibels).float()
        return found
