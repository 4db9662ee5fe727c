"""Confusion counts that add up over batches and processes."""

import torch
from torch import Tensor
from torchmetrics import Metric


class ConfusionByRecording(Metric):
    """Confusion counts of every recording, ``(recording, true class, predicted class)``.

    The counts are summed over processes, so that scores computed from them are exact under DDP.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, n_recordings: int, n_classes: int) -> None:
        super().__init__()
        self.add_state(
            "counts", torch.zeros(n_recordings, n_classes, n_classes, dtype=torch.long), dist_reduce_fx="sum"
        )

    def update(self, predicted: Tensor, true: Tensor, recording: Tensor) -> None:
        """Count ``(epoch,)`` predicted and true classes; negative true labels (unscored) are left out."""
        scored = true >= 0
        index = (recording[scored], true[scored], predicted[scored])
        self.counts.index_put_(index, torch.ones_like(true[scored], dtype=torch.long), accumulate=True)

    def compute(self) -> Tensor:
        return self.counts.clone()
