"""Numbers of real sleep that the simulator repeats; the tables stand in ``sleep_statistics.json`` beside this file.

Powers: natural logarithms of band power relative to the variance of the recording, 84 scored nights of Sleep-EDF, 42
subjects (``python -m benchmarks.sleep_statistics powers``). Hypnograms: the sleep periods of subjects 00-09, two nights
each (``python -m benchmarks.sleep_statistics hypnograms``). Stages stand in the order of ``HUMAN_STAGES``.
"""

import json
from pathlib import Path

import numpy as np

CHANNELS = ("EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal")
BANDS_HZ = ((0.5, 4.0), (4.0, 8.0), (8.0, 12.0), (12.0, 16.0), (16.0, 30.0))

_TABLES = {name: np.array(table) for name, table in json.loads(Path(__file__).with_suffix(".json").read_text()).items()}

MEAN, EPOCH_SD, ADDED = (_TABLES[name] for name in ("mean", "epoch_sd", "added"))
"""``(stage, channel, band)`` mean over recordings; scatter from epoch to epoch; what transients, microstructure and the
estimate itself add to the background."""

SUBJECT_SD, NIGHT_SD, STAGE_SD = (_TABLES[name] for name in ("subject_sd", "night_sd", "stage_sd"))
"""``(channel, band)`` scatter between subjects; between nights of one; of what a recording adds to one stage only."""

EPOCH_CHANNELS, EPOCH_BANDS = _TABLES["epoch_channels"], _TABLES["epoch_bands"]
SUBJECT_CHANNELS, SUBJECT_BANDS = _TABLES["subject_channels"], _TABLES["subject_bands"]
"""Correlations over channels and over bands, of what varies between epochs and of what varies between recordings."""

JUMPS, JUMPS_BY_THIRD, JUMPS_BY_CYCLE = (_TABLES[name] for name in ("jumps", "jumps_by_third", "jumps_by_cycle"))
"""``(from, to)`` probability of the stage that follows a bout; in each third of the sleep period; within 15 min of REM,
within 45 min of it or of sleep onset, and later."""

DURATION_QUANTILES, DURATIONS = _TABLES["duration_quantiles"], _TABLES["durations_epochs"]
"""``(third, stage, quantile)`` epochs that a bout lasts; one wake bout of 134 min counts as an hour."""
