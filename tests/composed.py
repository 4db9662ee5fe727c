"""The configuration that a command line gives."""

from typing import Any

from hydra import compose, initialize_config_dir

from src import schema
from tests.conftest import REPOSITORY


def composed(verb: str, *overrides: Any) -> Any:
    """What ``python <verb>.py <overrides>`` is configured with."""
    schema.register()
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return compose(verb, [str(override) for override in overrides])
