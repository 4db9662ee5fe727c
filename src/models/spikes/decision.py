"""From probabilities to spikes: the threshold and the refractory period, found by grid search on held-out traces."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal

from src.models.spikes.scores import Tolerances, detection
from src.signals import BadInput, PlainRecord
from src.storage.atomic import atomic_file

THRESHOLDS = (0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
REFRACTORY = (25, 35, 45, 55, 60)  # the coursework's grid: probabilities, and samples at 25 kHz
WIDENINGS = 3


@dataclass(frozen=True)
class Decision(PlainRecord):
    """What turns probabilities into spikes.

    Attributes
    ----------
    threshold
        Smallest probability of a spike.
    refractory
        Samples within which one spike is found at most: the most probable.
    f1
        F1 within ±2 ms when it was tuned.
    level
        Standard deviation of the noise that it was tuned for.
    """

    threshold: float
    refractory: int
    f1: float = 0.0
    level: float = 1.0

    def spikes(self, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Onsets in a probability ``(time,)``, and the probability of each."""
        padded = np.pad(probability, 1)  # a peak may be the first or the last sample
        peaks, found = scipy.signal.find_peaks(padded, height=self.threshold, distance=self.refractory)
        return peaks - 1, found["peak_heights"]

    def write(self, path: Path) -> None:
        """Save as the coursework's ``detector_config.npz``."""
        self.check_place(path)
        with atomic_file(Path(path)) as part, part.open("wb") as handle:
            np.savez(
                handle,
                decision_threshold=self.threshold,
                refractory_suppression=self.refractory,
                best_f1=self.f1,
            )

    @classmethod
    def check_place(cls, path: Path) -> None:
        """Raise ``BadInput`` if another file has this place: it would be replaced."""
        if Path(path).exists():
            try:
                cls.read(path)
            except BadInput as error:
                raise BadInput(path, "is there already and is no detector_config.npz", "choose another name") from error

    @classmethod
    def read(cls, path: Path) -> "Decision":
        """Read a ``detector_config.npz``.

        Raises
        ------
        BadInput
            If the file is not one.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                values = (float(found["decision_threshold"]), int(found["refractory_suppression"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            hint = "give the detector_config.npz of a training: decision_threshold, refractory_suppression, best_f1"
            raise BadInput(path, "holds no decision of a detector", hint) from error
        if not 0 < values[0] < 1 or values[1] < 1:
            raise BadInput(
                path, f"threshold {values[0]:g}, refractory {values[1]}", "give 0 < threshold < 1, 1 or more"
            )
        return cls(*values)


def tune(
    trials: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    refractory: Sequence[int] = REFRACTORY,
    fs_hz: float = 25_000.0,
    level: float = 1.0,
) -> Decision:
    """The point of a grid with the largest F1 over ``(probability, true onsets)`` of one noise level.

    A grid whose best threshold is its smallest or largest is widened towards 0 or 1, at most three times.
    """
    (within, *_), grid = Tolerances().samples(fs_hz), sorted(thresholds)
    scores: dict[tuple[float, int], float] = {}
    for _ in range(1 + WIDENINGS):
        for threshold in grid:
            for period in refractory:
                if (threshold, period) not in scores:
                    scores[threshold, period] = _f1(trials, Decision(threshold, period), within)
        top = max(scores.values())
        best = sorted(point for point, f1 in scores.items() if f1 == top)
        low, high = best[0][0] == grid[0], best[-1][0] == grid[-1]
        if low == high and top > 0:
            break
        grid = [*grid, (1 + grid[-1]) / 2] if high and top > 0 else [grid[0] / 2, *grid]
    threshold, period = best[len(best) // 2]  # of equally good ones the one in the middle
    return Decision(threshold, period, top, level)


def _f1(trials: Sequence[tuple[np.ndarray, np.ndarray]], decision: Decision, within: int) -> float:
    counts = [detection(truth, decision.spikes(probability)[0], within) for probability, truth in trials]
    total = sum(c.n_truth + c.n_found for c in counts)
    return 2 * sum(c.n_matched for c in counts) / total if total else 0.0
