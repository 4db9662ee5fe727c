"""Parameters of the steps that fetch sleep recordings; see ``src/storage/parameters.py``."""

from __future__ import annotations

from dataclasses import dataclass

from src.storage.batch import Summary
from src.storage.parameters import PreprocessConfig


@dataclass
class SleepEdfParams(PreprocessConfig):
    """``preprocess=sleep_edf``: Sleep-EDF Expanded from PhysioNet, checked and counted."""

    input_dir: str = ""  # folder that has the files already, at any depth; empty: download
    workers: int = 2  # files at a time
    cohort: str = "sc20"  # sc20: the first 20 subjects, 39 nights, 2 GB; sc78: all 153 nights, 7 GB
    base_url: str = "https://physionet.org/files/sleep-edfx/1.0.0/"  # where SHA256SUMS.txt and the files are

    def run(self) -> Summary:
        from src.recordings.sleep.sleep_edf import sleep_edf

        return sleep_edf(self)
