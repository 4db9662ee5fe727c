"""How well a sorted spike train agrees with the truth: one-to-one matching, scores, chance levels."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from src.models.metrics import accuracy, macro_f1

WEIGHTS = {"D2": 0.10, "D3": 0.15, "D4": 0.20, "D5": 0.25, "D6": 0.30}
"""Share of each recording in the coursework's final score."""

IDENTIFICATION_SHARE, CLASSIFICATION_SHARE = 0.3, 0.7


@dataclass(frozen=True)
class Tolerances:
    """How far apart a true and a found onset may be, and what counts as close to another spike, in ms.

    The coursework allows ±50 samples at 25 kHz. Classes are compared on pairs within the loose tolerance.
    """

    loose_ms: float = 2.0
    strict_ms: float = 0.4
    close_ms: float = 1.0

    def samples(self, fs_hz: float) -> tuple[int, int, int]:
        """Loose, strict and close in samples."""
        loose, strict, close = (round(ms * fs_hz / 1000) for ms in (self.loose_ms, self.strict_ms, self.close_ms))
        return loose, strict, close


def match(
    truth: np.ndarray, found: np.ndarray, tolerance: int, units: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """Pair each true spike with at most one found spike no further than ``tolerance`` samples away.

    Of all pairings with as many pairs as possible, the one with the smallest total distance is
    returned (sparse linear assignment), so no order of either train matters.

    Parameters
    ----------
    truth, found
        Sample indices; any order.
    units
        Unit of every true and every found spike. Between pairings of equal total distance (coincident
        spikes of two neurons) the one with more equal units is taken.

    Returns
    -------
    numpy.ndarray
        ``(pair, 2)`` int: positions in ``truth`` and in ``found``, ascending in ``truth``.
    """
    order = np.argsort(found, kind="stable")
    row, column = _candidates(truth, found[order], tolerance)
    if len(row) == 0:
        return np.zeros((0, 2), np.int64)
    column = order[column]
    # A partner of its own for every true spike, dearer than all real ones together, makes "unmatched" possible.
    nobody = float((tolerance + 2) * (min(len(truth), len(found)) + 1))
    here = np.arange(len(truth))
    distance = np.abs(truth[row] - found[column]) + 1.0
    if units is not None:
        distance += 0.25 * (units[0][row] != units[1][column])
    cost = np.concatenate((distance, np.full(len(truth), nobody)))
    graph = coo_array(
        (cost, (np.concatenate((row, here)), np.concatenate((column, len(found) + here)))),
        shape=(len(truth), len(found) + len(truth)),
    )
    matched, partner = min_weight_full_bipartite_matching(graph.tocsr())
    real = partner < len(found)
    return np.stack((matched[real], partner[real]), axis=1)


def count_pairs(truth: np.ndarray, found: np.ndarray, tolerance: int) -> int:
    """How many pairs :func:`match` makes: on a line, taking the earliest that fit is never worse."""
    true, late = np.sort(truth).tolist(), np.sort(found).tolist()
    pairs = i = j = 0
    while i < len(true) and j < len(late):
        distance = late[j] - true[i]
        if distance > tolerance:
            i += 1
        elif distance < -tolerance:
            j += 1
        else:
            pairs, i, j = pairs + 1, i + 1, j + 1
    return pairs


def _candidates(truth: np.ndarray, found: np.ndarray, tolerance: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.searchsorted(found, truth - tolerance, "left")
    count = np.searchsorted(found, truth + tolerance, "right") - first
    row = np.repeat(np.arange(len(truth)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return row, np.repeat(first, count) + within


@dataclass(frozen=True)
class Detection:
    """Counts of a comparison and what follows from them."""

    n_truth: int
    n_found: int
    n_matched: int

    @property
    def precision(self) -> float:
        return self.n_matched / self.n_found if self.n_found else 0.0

    @property
    def recall(self) -> float:
        return self.n_matched / self.n_truth if self.n_truth else 0.0

    @property
    def f1(self) -> float:
        total = self.n_truth + self.n_found
        return 2 * self.n_matched / total if total else 0.0


def detection(truth: np.ndarray, found: np.ndarray, tolerance: int) -> Detection:
    """Precision, recall and F1 of onsets alone."""
    return Detection(len(truth), len(found), count_pairs(truth, found, tolerance))


def confusion(true_unit: np.ndarray, found_unit: np.ndarray, n_units: int) -> np.ndarray:
    """``(n_units, n_units)`` counts, true unit by row, for matched spikes; units count from 1."""
    table = np.zeros((n_units, n_units), np.int64)
    np.add.at(table, (true_unit - 1, found_unit - 1), 1)
    return table


@dataclass(frozen=True)
class Score:
    """A sorted recording against its truth."""

    loose: Detection
    strict: Detection
    confusion: np.ndarray
    close_recall: float
    chance_random: float
    chance_comb: float

    @property
    def class_accuracy(self) -> float:
        return accuracy(self.confusion) if self.confusion.any() else 0.0

    @property
    def class_f1(self) -> float:
        """Mean F1 over the neurons that occur or are found among matched spikes."""
        return macro_f1(self.confusion) if self.confusion.any() else 0.0

    @property
    def weighted(self) -> float:
        """The coursework's score of one recording: 0.3 F1 of the onsets and 0.7 F1 of the classes."""
        return IDENTIFICATION_SHARE * self.loose.f1 + CLASSIFICATION_SHARE * self.class_f1

    def row(self) -> dict[str, float | int]:
        """One table line."""
        return {
            "spikes": self.loose.n_truth,
            "found": self.loose.n_found,
            "precision": self.loose.precision,
            "recall": self.loose.recall,
            "f1_loose": self.loose.f1,
            "f1_strict": self.strict.f1,
            "class_accuracy": self.class_accuracy,
            "class_f1": self.class_f1,
            "weighted": self.weighted,
            "recall_close": self.close_recall,
            "chance_random": self.chance_random,
            "chance_comb": self.chance_comb,
        }


def score(
    truth: tuple[np.ndarray, np.ndarray],
    found: tuple[np.ndarray, np.ndarray],
    n_samples: int,
    *,
    fs_hz: float = 25_000.0,
    n_units: int = 5,
    tolerances: Tolerances | None = None,
) -> Score:
    """Compare ``(index, unit)`` of a sorted recording with the truth; the rate turns tolerances into samples."""
    loose, strict, close = (tolerances or Tolerances()).samples(fs_hz)
    pairs = match(truth[0], found[0], loose, (truth[1], found[1]))
    table = confusion(truth[1][pairs[:, 0]], found[1][pairs[:, 1]], n_units)
    matched = np.zeros(len(truth[0]), bool)
    matched[pairs[:, 0]] = True
    crowded = has_neighbour(truth[0], close)
    return Score(
        Detection(len(truth[0]), len(found[0]), len(pairs)),
        detection(truth[0], found[0], strict),
        table,
        float(matched[crowded].mean()) if crowded.any() else float("nan"),
        chance_random(truth[0], len(found[0]), n_samples, loose),
        chance_comb(truth[0], n_samples, loose),
    )


def has_neighbour(index: np.ndarray, distance: int) -> np.ndarray:
    """Mask of spikes with another spike less than ``distance`` samples away; ``index`` ascending."""
    gap = np.diff(index)
    near = gap < distance
    return np.concatenate((near, [False])) | np.concatenate(([False], near)) if len(index) else np.zeros(0, bool)


def chance_random(truth: np.ndarray, n_found: int, n_samples: int, tolerance: int, *, draws: int = 3) -> float:
    """Mean F1 of as many spikes as were found, placed at random."""
    rng = np.random.default_rng(25_000)
    scores = [detection(truth, np.sort(rng.integers(0, n_samples, n_found)), tolerance).f1 for _ in range(draws)]
    return float(np.mean(scores))


def chance_comb(truth: np.ndarray, n_samples: int, tolerance: int) -> float:
    """F1 of a regular comb that leaves no sample further than ``tolerance`` from a tooth."""
    return detection(truth, np.arange(tolerance, n_samples, 2 * tolerance + 1), tolerance).f1


def final_score(scores: dict[str, float]) -> float:
    """The coursework's weighted final score from the scores of D2 … D6; others are ignored."""
    present = {name: w for name, w in WEIGHTS.items() if name in scores}
    return sum(w * scores[name] for name, w in present.items()) / sum(present.values()) if present else float("nan")
