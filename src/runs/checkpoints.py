"""Checkpoints that are whole or absent when written, and refused in one line when they were spoiled since."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO

from src.signals import BadInput
from src.storage.atomic import atomic_file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes through a hidden neighbour: a kill while saving leaves the previous checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with atomic_file(Path(path)) as part:
            super().save_checkpoint(checkpoint, part, storage_options)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A trainer's checkpoint, on the CPU; plain types and tensors only, so no file can run code.

    Raises
    ------
    BadInput
        If the file is damaged, or holds anything else.
    """
    try:
        with path.open("rb") as handle:
            with zipfile.ZipFile(handle) as archive:  # torch does not look at the checksums
                if archive.testzip() is not None:
                    raise _damaged(path)
            handle.seek(0)
            found = torch.load(handle, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadInput(path, "does not exist", "check the path") from None
    except BadInput:
        raise
    except Exception as error:  # zip archives and the pickles in them are broken in many ways
        raise _damaged(path) from error
    if not isinstance(found, dict) or not isinstance(found.get("state_dict"), dict):
        raise _damaged(path)
    return found


def _damaged(path: Path) -> BadInput:
    return BadInput(path, "is damaged, or no checkpoint of ours", "delete it, and its run starts from the beginning")
