"""A Trainer for the tests."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl


def quiet_trainer(folder: Path, **arguments: Any) -> pl.Trainer:
    """One that prints nothing and writes nothing but what it is asked for, into ``folder``."""
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(accelerator="cpu", default_root_dir=str(folder), **quiet | arguments)
