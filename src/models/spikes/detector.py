"""Training of the spike detector: per-sample, per-neuron onset probabilities on traces as noisy as the target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from src.models.bundle import build_network
from src.models.schedule import warmup_cosine
from src.models.spike_scoring import score
from src.models.spikes.decision import Decision, tune_detection
from src.models.spikes.events import extract_events
from src.models.spikes.inference import onset_probability
from src.preprocess.spikes.matched_filter import FilterBank
from src.preprocess.spikes.noise import Spectrum


class SpikeDetection(pl.LightningModule):
    """Binary cross-entropy on widened onset labels; the network is one of the bundle table's detectors.

    Parameters
    ----------
    signal, classes
        The datamodule's signal contract (plain) and neuron names.
    kind, network_args
        Entry of the bundle table and the network's arguments without ``experts`` and ``units``.
    targets
        Names of the backgrounds, one expert each; filled in by :meth:`adopt_statistics`.
    lr, weight_decay, warmup
        AdamW with a linear rise and a half cosine.
    """

    monitor = ("val/f1", "max")

    def __init__(
        self,
        signal: dict[str, Any],
        classes: list[str],
        kind: str,
        network_args: dict[str, Any],
        lr: float,
        weight_decay: float,
        warmup: float,
        one_curve: bool = False,
    ) -> None:
        super().__init__()
