"""Whole simulated nights on disk, as EDF+ pairs in Sleep-EDF's layout and names.

``python -m src.simulate.sleep nights/ --subjects 2`` writes a few; the step ``simulate_nights`` is the embedded default
data set of training. The same seed, subject and night give the same files anywhere. Hypnograms come from a semi-Markov
chain (how long a stage lasts, what comes next) that two clocks change as they change sleep: the third of the night (N3
early, REM late) and the time since REM was last seen (no REM for a while after REM, then ever more).
"""

import argparse
import itertools
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import edfio
import numpy as np
from numpy.typing import NDArray

from src.recordings.sleep.hypnogram import WAKE, stage_counts, write_annotations
from src.recordings.sleep.scoring_files import read_hypnogram
from src.signals import HUMAN_STAGES, BadInput
from src.simulate import sleep_statistics as measured
from src.simulate.sleep_eeg import FS_HZ, Sleeper, simulate_eeg
from src.simulate.sleep_statistics import CHANNELS
from src.storage.atomic import atomic_file
from src.storage.output import OutputFolder
from src.storage.step import CachedStep

EPOCH_S = 30.0
_N1, _REM = HUMAN_STAGES.index("N1"), HUMAN_STAGES.index("REM")
_LONGEST_MARGIN_S, _SHORTEST_MARGIN_S = 2700.0, 1200.0
_SINCE_REM_S = (900.0, 2700.0)
_EPOCH = datetime(2024, 1, 1, 22, 30)
_RANGE_UV = (-500.0, 500.0)
_MOST_SUBJECTS = 100
_SHORTEST_H, _LONGEST_H = 0.1, 24.0
_STAGE_4, _MOVEMENTS, _UNSCORED_S = 0.45, 0.001, 900.0


def write_night(folder: str | Path, subject: int, night: int, *, seed: int, hours: float = 8.0) -> tuple[Path, Path]:
    """Simulate one night and write its PSG (``SC4ssNE0-PSG.edf``) and its hypnogram (``SC4ssNEC-Hypnogram.edf``).

    Parameters
    ----------
    subject, night
        0-99 and 1-9. Nights of a subject share what is the subject's: gain, alpha and spindle
        frequency, spectral slope.
    seed
        Of the whole cohort.
    hours
        Length of the recording, wake at both ends included.
    """
    if not 0 <= subject < _MOST_SUBJECTS or not 1 <= night <= 9:
        raise BadInput("subject", f"subject {subject}, night {night} cannot be named", "use subjects 0-99, nights 1-9")
    if not _SHORTEST_H <= hours <= _LONGEST_H:
        raise BadInput("hours", f"a night of {hours:g} h", f"ask for {_SHORTEST_H:g} to {_LONGEST_H:g} h")
    sleeper = Sleeper.draw(np.random.default_rng([seed, subject]))
    rng = np.random.default_rng([seed, subject, night])
    stages = simulate_hypnogram(rng, hours, sleeper.lengthening)
    samples = simulate_eeg(rng, stages, sleeper)
    start = _EPOCH + timedelta(days=int(rng.integers(0, 700)), minutes=int(rng.integers(-60, 60)))
    name = f"SC4{subject:02d}{night}"
    psg, scoring = Path(folder) / f"{name}E0-PSG.edf", Path(folder) / f"{name}EC-Hypnogram.edf"
    _write_psg(psg, samples, start, subject)
    write_annotations(_annotations(rng, stages), start, scoring)
    return psg, scoring


def _annotations(rng: np.random.Generator, stages: np.ndarray) -> list[tuple[float, float, str]]:
    """Stages as Sleep-EDF's scorers wrote them: N3 as stage 3 or 4, a few movements, a rest beyond the signal."""
    deepest = np.repeat(rng.random(len(stages) // 4 + 1) < _STAGE_4, 4)[: len(stages)]
    codes = np.where((stages == HUMAN_STAGES.index("N3")) & deepest, len(HUMAN_STAGES), stages)
    names = np.array([f"Sleep stage {text}" for text in ("W", "1", "2", "3", "R", "4")], dtype=object)[codes]
    names[(stages != WAKE) & (rng.random(len(stages)) < _MOVEMENTS)] = "Movement time"
    edges = np.r_[0, np.flatnonzero(names[1:] != names[:-1]) + 1, len(names)]
    runs = [(a * EPOCH_S, (b - a) * EPOCH_S, str(names[a])) for a, b in itertools.pairwise(edges.tolist())]
    return [*runs, (len(stages) * EPOCH_S, _UNSCORED_S, "Sleep stage ?")]


def _write_psg(path: Path, samples: np.ndarray, start: datetime, subject: int) -> None:
    low, high = _RANGE_UV
    signals = [
        edfio.EdfSignal(
            np.clip(row, low, high).astype(np.float64),
            FS_HZ,
            label=label,
            physical_dimension="uV",
            physical_range=_RANGE_UV,
            digital_range=(-2048, 2047),
        )
        for label, row in zip(CHANNELS, samples, strict=True)
    ]
    edf = edfio.Edf(
        signals,
        patient=edfio.Patient(code=f"simulated-{subject:02d}"),
        recording=edfio.Recording(startdate=start.date()),
        starttime=start.time(),
        data_record_duration=EPOCH_S,
    )
    with atomic_file(path) as part:
        edf.write(part)


def _run(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    """Step function: ``subjects`` (list of numbers), ``nights`` (of each) and ``hours``."""
    totals: dict[str, int] = {}
    for subject in params["subjects"]:
        for night in range(1, params["nights"] + 1):
            _, scoring = write_night(out_dir, subject, night, seed=seed or 0, hours=params["hours"])
            for name, count in stage_counts(read_hypnogram(scoring).stages).items():
                totals[name] = totals.get(name, 0) + count
    return {"channels": list(CHANNELS), "units": "uV", "fs_hz": FS_HZ, "epoch_s": EPOCH_S, "counts": totals}


SIMULATE_NIGHTS = CachedStep("simulate_nights", 4, _run)
"""Parameters ``subjects``, ``nights``, ``hours``; the output folder is of kind ``sleep_edf``."""


def simulate_hypnogram(
    rng: np.random.Generator, hours: float = 8.0, lengthening: NDArray[np.float64] | None = None
) -> NDArray[np.int8]:
    """One night, ``(epoch,)`` int8 stages of 30 s: wake, sleep through its cycles, wake.

    20 to 45 minutes at either end are wake, less in a short one. ``lengthening (stage,)`` are the sleeper's own factors
    on the durations of bouts.
    """
    n_epochs = round(hours * 3600 / EPOCH_S)
    shortest, longest = (min(int(s / EPOCH_S), n_epochs // 8) for s in (_SHORTEST_MARGIN_S, _LONGEST_MARGIN_S))
    before, after = rng.integers(shortest, longest + 1, size=2)
    stages = np.zeros(n_epochs, np.int8)
    asleep = _sleep_period(rng, n_epochs - before - after, np.ones(5) if lengthening is None else lengthening)
    stages[before : n_epochs - after] = asleep
    return stages


def jump_probabilities(third: int, cycle: int) -> NDArray[np.float64]:
    """``(from, to)`` with both clocks at work: the two tables multiply, over what they have in common."""
    odds = measured.JUMPS_BY_THIRD[third] * measured.JUMPS_BY_CYCLE[cycle]
    odds = odds / np.where(measured.JUMPS > 0, measured.JUMPS, 1.0)
    totals = odds.sum(axis=1, keepdims=True)
    return np.where(totals > 0, odds / np.where(totals > 0, totals, 1.0), measured.JUMPS)


def _sleep_period(rng: np.random.Generator, n_epochs: int, lengthening: NDArray[np.float64]) -> NDArray[np.int8]:
    ladders = np.array([[np.cumsum(jump_probabilities(t, c), axis=1) for c in range(3)] for t in range(3)])
    stages = np.empty(n_epochs, np.int8)
    stage, done, seen_rem, last_rem = _N1, 0, False, 0
    while done < n_epochs:
        third = 3 * done // n_epochs
        drawn = np.interp(rng.random(), measured.DURATION_QUANTILES, measured.DURATIONS[third, stage])
        stop = min(n_epochs, done + max(1, round(float(drawn * lengthening[stage]))))
        stages[done:stop] = stage
        done = stop
        if stage == _REM:
            seen_rem, last_rem = True, done
        cycle = int(np.searchsorted(_SINCE_REM_S, (done - last_rem) * EPOCH_S, side="right"))
        third = min(2, 3 * done // n_epochs)
        ladder = ladders[third, cycle if seen_rem else max(cycle, 1), stage]
        stage = min(int(np.searchsorted(ladder, rng.random() * ladder[-1], side="right")), len(HUMAN_STAGES) - 1)
    return stages


def main(arguments: list[str] | None = None) -> int:
    """Write nights from the command line."""
    parser = argparse.ArgumentParser(prog="python -m src.simulate.sleep", description="Write simulated nights.")
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--subjects", type=int, default=1, help="how many")
    parser.add_argument("--first-subject", type=int, default=0, help="number of the first one")
    parser.add_argument("--nights", type=int, default=1, help="of each subject")
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=42)
    given = parser.parse_args(arguments)
    try:
        for subject in range(given.first_subject, given.first_subject + given.subjects):
            for night in range(1, given.nights + 1):
                with OutputFolder(given.output_dir).files() as part:
                    written, _ = write_night(part, subject, night, seed=given.seed, hours=given.hours)
                print(given.output_dir / written.name)
    except BadInput as error:
        print(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
