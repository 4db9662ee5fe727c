"""What the three verbs leave unsaid: notices of the trainer that no user can act on."""

from __future__ import annotations

import logging
import warnings

NOISE = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"The '.*_dataloader' does not have many workers",
    r"The number of training batches .* is smaller than the logging interval",
    r"The `srun` command is available on your system but is not used",
    r"You're resuming from a checkpoint that ended before the epoch ended",  # src/runs/callbacks.py sees to it
    r"Checkpoint directory .* exists and is not empty",
)


def quiet_trainer() -> None:
    """Silence the trainer's advertisements and the warnings that concern its own insides."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
