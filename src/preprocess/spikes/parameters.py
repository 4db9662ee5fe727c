"""Parameters of the spike steps; see ``src/storage/parameters.py``."""

from __future__ import annotations

from dataclasses import dataclass

from src.storage.batch import Summary
from src.storage.parameters import PreprocessConfig


@dataclass
class SpikeLookalikesParams(PreprocessConfig):
    """``preprocess=spike_lookalikes``: simulated D1.mat … D6.mat, the truth of D2–D6 in ``truth/``."""

    input_dir: str = ""  # not used: nothing is read
    seed: int = 0  # of every random number
    duration_s: float = 57.6  # seconds; length of each recording

    def run(self) -> Summary:
        from src.preprocess.spikes.commands import lookalikes

        return lookalikes(self)
