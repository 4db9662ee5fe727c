"""What Sleep-EDF's scored nights look like in numbers: the tables that the night simulator carries, and their check.

    python -m benchmarks.sleep_statistics hypnograms <folder of *-Hypnogram.edf>
    python -m benchmarks.sleep_statistics powers <folder of band-power *.npz>

print the tables of ``src/simulate/sleep_hypnogram.py`` and ``stage_statistics.py``.
"""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.recordings.sleep.hypnogram import WAKE
from src.recordings.sleep.scoring_files import read_hypnogram
from src.signals import HUMAN_STAGES, UNSCORED

N_STAGES = len(HUMAN_STAGES)
QUANTILES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.0)
SINCE_REM_MIN = (15.0, 45.0)
FEWEST = 15


def sleep_period(stages: np.ndarray) -> np.ndarray:
    """From the first to the last sleep epoch, unscored epochs taken for their predecessor."""
    stages = stages.astype(int)
    for index in range(1, len(stages)):
        if stages[index] == UNSCORED:
            stages[index] = stages[index - 1]
    asleep = np.flatnonzero(stages > WAKE)
    return stages[asleep[0] : asleep[-1] + 1]


@dataclass(frozen=True)
class Bouts:
    """Runs of one stage: which, the next one's stage (-1 at the end), epochs, third of the night, part of the cycle."""

    stage: np.ndarray
    following: np.ndarray
    epochs: np.ndarray
    third: np.ndarray
    cycle: np.ndarray


def bouts_of(nights: Sequence[np.ndarray]) -> Bouts:
    """Bouts of sleep periods; ``cycle`` counts the limits of SINCE_REM_MIN that passed since REM was last seen."""
    rows = []
    for stages in nights:
        edges = np.r_[0, np.flatnonzero(np.diff(stages)) + 1, len(stages)]
        last_rem = None
        for first, stop in itertools.pairwise(edges):
            if stages[first] == HUMAN_STAGES.index("REM"):
                last_rem = stop
            # Before the first REM bout the clock runs from sleep onset, and never says "just now".
            since = (stop - (last_rem or 0)) / 2
            cycle = int(np.searchsorted(SINCE_REM_MIN, since, side="right"))
            cycle = max(cycle, 1) if last_rem is None else cycle
            following = stages[stop] if stop < len(stages) else -1
            rows.append((stages[first], following, stop - first, min(2, 3 * first // len(stages)), cycle))
    return Bouts(*np.array(rows).T)


def jumps(bouts: Bouts, context: np.ndarray, n_contexts: int) -> np.ndarray:
    """``(context, from, to)`` probabilities of the stage after a bout."""
    counts = np.zeros((n_contexts, N_STAGES, N_STAGES))
    known = bouts.following >= 0
    np.add.at(counts, (context[known], bouts.stage[known], bouts.following[known]), 1)
    return counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)


def durations(bouts: Bouts) -> np.ndarray:
    """``(third, stage, quantile)`` epochs of a bout."""
    table = np.zeros((3, N_STAGES, len(QUANTILES)))
    for third in range(3):
        for stage in range(N_STAGES):
            chosen = bouts.epochs[(bouts.third == third) & (bouts.stage == stage)]
            table[third, stage] = np.quantile(chosen, QUANTILES)
    return table


def transitions(nights: Sequence[np.ndarray]) -> np.ndarray:
    """``(from, to)`` probabilities per epoch."""
    counts = np.zeros((N_STAGES, N_STAGES))
    for stages in nights:
        np.add.at(counts, (stages[:-1], stages[1:]), 1)
    return counts / counts.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Powers:
    """Log band powers ``(epoch, channel, band)`` of many nights, labels, the recording's and the subject's number."""

    values: np.ndarray
    labels: np.ndarray
    recording: np.ndarray
    subject: np.ndarray


def read_powers(folder: Path) -> Powers:
    """The 84 nights of ``sleep_edfx_bandpower``."""
    values, labels, recording, subject = [], [], [], []
    for number, path in enumerate(sorted(folder.glob("*.npz"))):
        with np.load(path) as file:
            values.append(file["features"][:, :, :5])
            labels.append(file["labels"])
        recording.append(np.full(len(labels[-1]), number))
        subject.append(np.full(len(labels[-1]), int(path.stem[:2])))
    return Powers(*(np.concatenate(part) for part in (values, labels, recording, subject)))


@dataclass(frozen=True)
class PowerStatistics:
    """Means, spreads, memory and correlations of log band powers, ``(stage, channel, band)`` unless stated."""

    mean: np.ndarray
    epoch_sd: np.ndarray
    memory: np.ndarray
    subject_sd: np.ndarray
    night_sd: np.ndarray
    stage_sd: np.ndarray
    epoch_channels: np.ndarray
    epoch_bands: np.ndarray
    subject_channels: np.ndarray
    subject_bands: np.ndarray


def power_statistics(powers: Powers) -> PowerStatistics:
    """Split the variance into subject, night, subject-and-stage, and epoch."""
    shape = powers.values.shape[1:]
    numbers = np.unique(powers.recording)
    means = np.full((len(numbers), N_STAGES, *shape), np.nan)
    residuals: list[list[np.ndarray]] = [[] for _ in range(N_STAGES)]
    memory = np.zeros((2, N_STAGES, *shape))
    for row, number in enumerate(numbers):
        mine = powers.recording == number
        labels, values = powers.labels[mine], powers.values[mine]
        for stage in range(N_STAGES):
            if (labels == stage).sum() < FEWEST:
                continue
            means[row, stage] = values[labels == stage].mean(axis=0)
            residual = values - means[row, stage]
            residuals[stage].append(residual[labels == stage])
            both = (labels[:-1] == stage) & (labels[1:] == stage)
            memory[:, stage] += (residual[:-1] * residual[1:])[both].sum(axis=0), (residual[:-1] ** 2)[both].sum(axis=0)
    mean = np.nanmean(means, axis=0)
    deviation = means - mean
    common = np.nanmean(deviation, axis=1)
    subject_of = np.array([powers.subject[powers.recording == number][0] for number in numbers])
    pairs = [common[subject_of == s] for s in np.unique(subject_of) if (subject_of == s).sum() == 2]
    night_variance = np.mean([(a - b) ** 2 / 2 for a, b in pairs], axis=0)
    pooled = [np.concatenate(stage) for stage in residuals]
    epoch_channels, epoch_bands = _kronecker(
        np.mean([np.corrcoef(r.reshape(len(r), -1).T) for r in pooled], axis=0), shape
    )
    subject_channels, subject_bands = _kronecker(np.corrcoef(common.reshape(len(common), -1).T), shape)
    return PowerStatistics(
        mean=mean,
        epoch_sd=np.stack([r.std(axis=0) for r in pooled]),
        memory=memory[0] / memory[1],
        subject_sd=np.sqrt(np.maximum(common.var(axis=0) - night_variance, 0)),
        night_sd=np.sqrt(night_variance),
        stage_sd=np.nanstd(deviation - common[:, None], axis=(0, 1)),
        epoch_channels=epoch_channels,
        epoch_bands=epoch_bands,
        subject_channels=subject_channels,
        subject_bands=subject_bands,
    )


def _kronecker(correlation: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of channels (same band) and of bands (same channel), averaged."""
    blocks = correlation.reshape(*shape, *shape)
    return np.einsum("abcb->ac", blocks) / shape[1], np.einsum("abac->bc", blocks) / shape[0]


def main() -> None:
    """Print the tables of one kind."""
    what, folder = sys.argv[1], Path(sys.argv[2])
    np.set_printoptions(precision=3, suppress=True, linewidth=110)
    if what == "hypnograms":
        nights = [sleep_period(read_hypnogram(path).stages) for path in sorted(folder.glob("*-Hypnogram.edf"))]
        bouts = bouts_of(nights)
        shares = np.array([np.bincount(stages, minlength=N_STAGES) / len(stages) for stages in nights])
        tables = {
            "JUMPS": jumps(bouts, np.zeros_like(bouts.third), 1)[0],
            "JUMPS_BY_THIRD": jumps(bouts, bouts.third, 3),
            "JUMPS_BY_CYCLE": jumps(bouts, bouts.cycle, 1 + len(SINCE_REM_MIN)),
            "DURATIONS": durations(bouts),
            "sleep period h, mean sd": np.array([f([len(n) / 120 for n in nights]) for f in (np.mean, np.std)]),
            "share of stages, mean sd": np.stack([shares.mean(axis=0), shares.std(axis=0)]),
            "per epoch": transitions(nights),
        }
    else:
        tables = vars(power_statistics(read_powers(folder)))
    for name, table in tables.items():
        print(name, np.array2string(table, separator=", "), sep=" =\n")


if __name__ == "__main__":
    main()
