"""Recordings and scorings of every kind, made by tests, and how they are read."""

import datetime

import edfio
import numpy as np
import pytest

from src.recordings.sleep.hypnogram import align
from src.recordings.sleep.nights import ScoringOptions, discover
from src.signals import BadInput
from tests.nights import load

STAGES = ["W"] * 10 + ["N1"] * 5 + ["N2"] * 20 + ["N3"] * 10 + ["REM"] * 10 + ["W"] * 5
TRUE = np.array([("W", "N1", "N2", "N3", "REM").index(name) for name in STAGES])
AASM = {"W": "0", "N1": "1", "N2": "2", "N3": "3", "REM": "4"}
R_AND_K = AASM | {"REM": "5"}
SLEEP_EDF = {
    "W": "Sleep stage W",
    "N1": "Sleep stage 1",
    "N2": "Sleep stage 2",
    "N3": "Sleep stage 4",
    "REM": "Sleep stage R",
}
EVENING = datetime.time(23, 0, 0)
MARK = edfio.EdfAnnotation


def recording(path, annotations=None, start=EVENING, day=1, seconds=1800):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 20 * np.random.default_rng(0).standard_normal(10 * seconds).clip(-9, 9)
    one = edfio.EdfSignal(samples, 10, label="EEG Fpz-Cz", physical_dimension="uV", physical_range=(-200, 200))
    when = {"recording": edfio.Recording(startdate=datetime.date(2020, 1, day)), "starttime": start}
    edfio.Edf([one], annotations=annotations, data_record_duration=1, **when).write(path)
    return path


def scoring(path, names, start=EVENING, day=1, more=(), epoch_s=30):
    marks = [MARK(epoch_s * i, epoch_s, name) for i, name in enumerate(names)]
    when = {"recording": edfio.Recording(startdate=datetime.date(2020, 1, day)), "starttime": start}
    edfio.Edf([], annotations=[*marks, *more], **when).write(path)


def table(path, rows, heading="onset,duration,stage"):
    path.write_text("\n".join([heading, *(",".join(map(str, row)) for row in rows)]) + "\n")


def every_30_s(names=STAGES):
    return [(30 * i, 30, name) for i, name in enumerate(names)]


def read(folder, pattern=None, grid_s=30.0, **options):
    (night,) = discover("edf_folder", folder, scoring=pattern)
    signal, hypnogram = load(night, ["Fpz-Cz"], scoring=ScoringOptions(**options))
    assert hypnogram is not None, "no scoring was found"
    return align(hypnogram, signal.duration_s, grid_s, start=signal.start)


def right(folder, **options):
    """The warnings, when every stage is right."""
    stages, facts = read(folder, **options)
    np.testing.assert_array_equal(stages, TRUE)
    return facts["warnings"]


def refused(folder, match, **options):
    with pytest.raises(BadInput, match=match):
        read(folder, **options)


def in_edf(folder, names, **more):
    recording(folder / "n.edf")
    scoring(folder / "n-Hypnogram.edf", names, **more)
