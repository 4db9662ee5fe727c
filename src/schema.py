"""Typed root configurations: a key that is not declared here fails when the configuration is composed."""

from __future__ import annotations

from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING


@dataclass
class PreprocessConfig:
    """What every ``preprocess.py`` run states; each stage adds its own keys in a subclass.

    The subclass is registered in the group ``preprocess`` as ``<stage>_schema`` with package
    ``_global_``, so its keys are given at the root of the command line. ``_target_`` names the
    function that gets all the other keys as arguments and returns a ``batch.Summary``.
    """

    _target_: str = MISSING
    input_dir: str = MISSING
    output_dir: str = MISSING
    workers: int = 1
    seed: int = 42
    skip: list[str] = field(default_factory=list)


def register() -> None:
    """Put the schemas where Hydra's ``defaults`` lists find them."""
    store = ConfigStore.instance()
    store.store(name="preprocess_schema", node=PreprocessConfig)
