"""From a folder of recordings (or the simulator) to the cached epoch spectrograms that training reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.preprocess.batch import Job, Summary, run_batch
from src.preprocess.sleep.epochs import SLEEP_EPOCHS
from src.preprocess.sleep.nights import Night, discover
from src.preprocess.sleep.simulate import SIMULATE_NIGHTS
from src.preprocess.stage import Artifact, ensure
from src.signals import BadInput, SignalSpec


@dataclass(frozen=True)
class EpochArtifact:
    """The epoch spectrograms of one night on disk, and what is in them."""

    recording_id: str
    subject_id: str
    path: Path
    signal: SignalSpec
    stage: dict[str, Any]
