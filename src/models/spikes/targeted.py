"""What training a detector and training a classifier have in common: references, optimiser, held-out tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from src.models.bundle import build_network
from src.models.spikes.networks import TargetedNetwork
from src.models.trained_module import TrainedModule


class TargetedModule(TrainedModule):
    """A network of the bundle table with one expert per target, trained on batches that name their expert.

    Parameters
    ----------
    signal, classes
        The datamodule's signal contract (plain) and the neurons' names.
    kind, network_args
        Entry of the bundle table, and the network's arguments without ``experts`` and ``neurons``.
    targets
        Names of the backgrounds, in the datamodule's order.
    optimizer, scheduler
        ``_target_`` blocks as in ``conf/``.
    """

    network: Any

    def __init__(
        self,
        signal: dict[str, Any],
        classes: list[str],
        kind: str,
        network_args: dict[str, Any],
        targets: list[str],
        optimizer: dict[str, Any],
        scheduler: dict[str, Any] | None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.kind, self.targets, self.classes, self.fs_hz = kind, list(targets), list(classes), float(signal["fs_hz"])
        self.network_args = {**network_args, "experts": len(self.targets), "neurons": len(self.classes)}
        self.network = build_network(kind, self.network_args)
        self.rows: list[dict[str, Any]] = []

    def set_normalization(self, statistics: Mapping[str, np.ndarray]) -> None:
        """Fill the network's references: templates, noise spectra, signatures, scales."""
        network: TargetedNetwork = self.network
        for name in ("templates", "modes", "signature", "scale"):
            getattr(network, name).copy_(torch.from_numpy(np.asarray(statistics[name], np.float32)))
        bins = network.noise_power.shape[1]
        for expert, power in enumerate(statistics["noise_power"]):
            fine = np.interp(np.linspace(0, 1, bins), np.linspace(0, 1, len(power)), power)
            network.noise_power[expert] = torch.from_numpy(fine.astype(np.float32))

    def results(self) -> list[dict[str, Any]]:
        """Rows of the last test, one per target."""
        return self.rows
