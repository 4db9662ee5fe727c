"""Data and model from a configuration, ready to be fitted or tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.utils import instantiate
from omegaconf import DictConfig

from src.runs.checkpoints import read_checkpoint


def assemble(cfg: DictConfig) -> tuple[Any, Any]:
    """The datamodule, prepared and split, and a model with fresh weights that knows its training statistics."""
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    datamodule = instantiate(cfg.datamodule, _recursive_=False, _convert_="all")
    datamodule.prepare_data()
    datamodule.setup("fit")
    signal, classes = datamodule.signal.to_dict(), datamodule.classes
    model = instantiate(cfg.model, signal=signal, classes=classes, _recursive_=False, _convert_="all")
    model.set_normalization(datamodule.training_statistics())
    return datamodule, model


def adopt_checkpoint(model: pl.LightningModule, path: Path) -> None:
    """Give ``model`` the weights of a checkpoint."""
    model.load_state_dict(read_checkpoint(path)["state_dict"])
