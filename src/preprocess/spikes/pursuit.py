"""Find spikes with a :class:`SpikeBank`: the clearest first, each subtracted, then all named jointly.

1. Take every spike that has the largest log-likelihood ratio within half a waveform, subtract it with its
   most probable deviation, and look at what is left, until nothing reaches the floor.
2. Explain each pair of overlapping spikes together: both onsets and both names at once.
3. Judge each spike again with all the others subtracted: another onset, another name, or none.
"""

from dataclasses import dataclass

import numpy as np

from src.preprocess.spikes.bank import SpikeBank

FLOOR = 3.0
"""Log-likelihood ratio below which nothing is looked at."""

SLACK = 1.0
"""By how much a spike's ratio may rise when its deviations are taken into account."""

SHIFT, PAIR_SHIFT = 4, 5
"""Samples on either side at which an onset is tried again, for one spike and for each of a pair."""

CLOSE = 30
"""Samples within which two spikes are explained together."""

PAIR_VALUES = 1 << 24
"""Largest number of hypotheses about pairs that are held in memory."""

SHORTLIST = 6
PASSES = 15
ROUNDS = 2
LEAST_GAIN = 0.01
WORST = -50.0


@dataclass
class Found:
    """Spikes in ascending order: onset, unit (from 0), weights of the modes ``(spike, mode)``, log-likelihood ratio."""

    index: np.ndarray
    unit: np.ndarray
    weights: np.ndarray
    ratio: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def at(self, rows: np.ndarray) -> "Found":
        """The spikes of some rows."""
        return Found(self.index[rows], self.unit[rows], self.weights[rows], self.ratio[rows])

    def put(self, rows: np.ndarray, other: "Found") -> None:
        """Replace the spikes of some rows."""
        for name in ("index", "unit", "weights", "ratio"):
            getattr(self, name)[rows] = getattr(other, name)

    def ordered(self) -> "Found":
        return self.at(np.lexsort((self.unit, self.index)))


class Pursuit:
    """The search in one recording.

    Parameters
    ----------
    bank
        Made for this recording's noise.
    traces
        ``(channel, time)`` band-passed.
    refractory
        Samples within which one unit does not fire twice.

    Attributes
    ----------
    residual
        ``(channel, time)`` whitened traces without the spikes found, with ``pad`` samples more at either end.
    """

    def __init__(self, bank: SpikeBank, traces: np.ndarray, refractory: int) -> None:
        self.bank, self.refractory = bank, refractory
        self.close = min(CLOSE, bank.length - 1 - 2 * PAIR_SHIFT)  # further apart, waveforms do not overlap
        self.pad = bank.length + 2 * CLOSE + 10 * PAIR_SHIFT
        white = bank.whitening.apply(traces.astype(np.float32))
        self.residual = np.pad(white, ((0, 0), (self.pad, self.pad)))
        self.found = Found(np.zeros(0, int), np.zeros(0, int), np.zeros((0, bank.n_parts - 1)), np.zeros(0))

    def run(self, *, floor: float = FLOOR, rounds: int = ROUNDS) -> Found:
        """All three steps; onsets count from the first sample of the traces."""
        self.take_clearest(floor)
        for _ in range(rounds):
            self.explain_pairs()
            self.judge_again(floor)
        return Found(self.found.index - self.pad, self.found.unit, self.found.weights, self.found.ratio)

    def marginal(self, reach: int = 6) -> np.ndarray:
        """``(spike, unit)`` log-likelihood ratios, summed over onsets within ``reach`` samples, given all others."""
        found = self.found
        ratio = self.bank.evidence(self._own_correlations(found, reach))
        return np.asarray(np.logaddexp.reduce(ratio, axis=1))

    def _own_correlations(self, found: Found, reach: int) -> np.ndarray:
        """Correlations at shifts ``-reach…reach`` of the residual with each spike's own waveform added back."""
        windows = self.bank.windows(self.residual, found.index, reach, reach)
        windows[..., reach : reach + self.bank.length] += self.bank.waves(found.unit, found.weights)
        return self.bank.correlate(windows)

    def _add(self, found: Found, sign: int) -> None:
        bank = self.bank
        for onset, wave in zip(found.index.tolist(), bank.waves(found.unit, found.weights), strict=True):
            self.residual[:, onset - bank.onset : onset - bank.onset + bank.length] += sign * wave

    def take_clearest(self, floor: float) -> None:
        """Greedy matching pursuit (step 1)."""
        bank = self.bank
        ratio = bank.template_ratios(self.residual)
        ratio[:, : self.pad] = ratio[:, -self.pad :] = -np.inf
        best = ratio.max(axis=0)
        taken: list[Found] = []
        for _ in range(PASSES):
            peaks = local_peaks(best, floor - SLACK, bank.length // 2)
            if len(peaks) == 0:
                break
            correlations = bank.correlate(bank.windows(self.residual, peaks, SHIFT, SHIFT))
            evidence = bank.evidence(correlations)
            blocked = np.isneginf(ratio[:, peaks[:, None] + np.arange(-SHIFT, SHIFT + 1)])
            evidence[blocked.transpose(1, 2, 0)] = -np.inf
            shift, unit, value = _best(evidence)
            clear = value >= floor
            ratio[:, peaks[~clear]] = best[peaks[~clear]] = -np.inf
            weights = bank.weights(correlations[clear, shift[clear]], unit[clear])
            new = Found((peaks + shift - SHIFT)[clear], unit[clear], weights, value[clear])
            self._add(new, -1)
            self._take_off(ratio, best, new)
            taken.append(new)
        columns = zip(*((f.index, f.unit, f.weights, f.ratio) for f in [self.found, *taken]), strict=True)
        self.found = Found(*(np.concatenate(column) for column in columns)).ordered()

    def _take_off(self, ratio: np.ndarray, best: np.ndarray, new: Found) -> None:
        """Correct the ratios for subtracted spikes: correlation is linear, so what the spikes added is known."""
        bank, reach = self.bank, self.bank.length - 1
        factors = np.concatenate((np.ones((len(new), 1)), new.weights), axis=1).astype(np.float32)
        answers = bank.cross[:, :, :, 0].reshape(bank.n_units, bank.n_parts, -1)  # of every unit to a part
        for onset, unit, factor in zip(new.index.tolist(), new.unit.tolist(), factors, strict=True):
            answer = (factor @ answers[unit]).reshape(bank.n_units, -1)
            span = slice(onset - reach, onset + reach + 1)
            ratio[:, span] -= answer
            ratio[unit, onset - self.refractory : onset + self.refractory + 1] = -np.inf
            best[span] = ratio[:, span].max(axis=0)

    def judge_again(self, floor: float) -> None:
        """Another onset or name for each spike, or none, given all the others (step 3)."""
        found, here = self.found, np.arange(len(self.found))
        if len(found) == 0:
            return
        correlations = self._own_correlations(found, SHIFT)
        evidence = self.bank.evidence(correlations)
        self._forbid_refractory(evidence, found, here, here, SHIFT)
        present = evidence[here, SHIFT, found.unit]
        shift, unit, value = _best(evidence)
        gain = np.maximum(value, floor) - np.maximum(present, WORST)
        change = independent(found.index, gain, LEAST_GAIN, self.bank.length)
        weights = self.bank.weights(correlations[here, shift], unit)
        moved = Found(found.index + shift - SHIFT, unit, weights, value)
        self._add(found.at(change), +1)
        self._add(moved.at(change & (value >= floor)), -1)
        found.ratio = present
        found.put(change, moved.at(change))
        self.found = found.at(~change | (value >= floor)).ordered()

    def _forbid_refractory(
        self, evidence: np.ndarray, found: Found, rows: np.ndarray, partners: np.ndarray, reach: int
    ) -> None:
        """Rule out, for spikes ``rows``, onsets ``-reach…reach`` too near to a spike of that unit, partners aside."""
        onsets = found.index[rows, None] + np.arange(-reach, reach + 1)
        for unit in range(self.bank.n_units):
            others = np.flatnonzero(found.unit == unit)
            if len(others) == 0:
                continue
            times = found.index[others]
            first = np.searchsorted(times, onsets - self.refractory)
            for step in range(3):  # the spike itself and its partner may be among them
                place = np.minimum(first + step, len(times) - 1)
                near = np.abs(times[place] - onsets) <= self.refractory
                foreign = (others[place] != rows[:, None]) & (others[place] != partners[:, None])
                evidence[..., unit][near & foreign] = -np.inf

    def explain_pairs(self) -> None:
        """Both onsets and names of spikes that overlap (step 2): pairs that share no spike, then the others."""
        for parity in (0, 1):
            gap = np.diff(self.found.index)
            run = np.cumsum(np.concatenate(([0], gap > self.close)))
            rank = np.arange(len(self.found)) - np.searchsorted(run, run)
            first = np.flatnonzero(gap <= self.close)
            first = first[rank[first] % 2 == parity]
            pairs = max(PAIR_VALUES // (self.bank.n_units * (2 * PAIR_SHIFT + 1)) ** 2, 1)
            for start in range(0, len(first), pairs):
                self._explain(first[start : start + pairs])
            self.found = self.found.ordered()

    def _explain(self, first: np.ndarray) -> None:
        bank, found, shifts = self.bank, self.found, 2 * PAIR_SHIFT + 1
        rows, second = np.arange(len(first)), first + 1
        one, two = found.at(first), found.at(second)
        lag = two.index - one.index
        windows = bank.windows(self.residual, one.index, PAIR_SHIFT, PAIR_SHIFT + CLOSE)
        start = PAIR_SHIFT + np.arange(bank.length)
        windows[..., start] += bank.waves(one.unit, one.weights)
        columns = lag[:, None] + start
        windows[rows[:, None], :, columns] += np.moveaxis(bank.waves(two.unit, two.weights), 1, 2)
        late = lag[:, None] + np.arange(bank.length + shifts - 1)
        pieces = windows[..., : bank.length + shifts - 1], np.moveaxis(windows[rows[:, None], :, late], 2, 1)
        correlations = bank.correlate(pieces[0]), bank.correlate(pieces[1])
        plain = [c[..., 0] - bank.energy.astype(np.float32) / 2 for c in correlations]
        for ratio, members, partners in zip(plain, (first, second), (second, first), strict=True):
            ratio[..., bank.absent] = -np.inf
            self._forbid_refractory(ratio, found, members, partners, PAIR_SHIFT)
        choices = self._shortlist(plain[0], plain[1], lag)
        middle = np.full((len(first), 1), PAIR_SHIFT)
        present = (one.unit[:, None], two.unit[:, None], middle, middle)
        unit1, unit2, shift1, shift2 = (np.hstack(pair) for pair in zip(present, choices[:4], strict=True))
        value, weights = self._joint(correlations, (unit1, unit2), (shift1, shift2), lag)
        value[:, 1:][~choices[4]] = -np.inf
        chosen = value.argmax(axis=1)
        better = value[rows, chosen] > value[:, 0] + LEAST_GAIN
        pick, kept, moved = (rows[better], chosen[better]), bank.n_parts - 1, []
        for old, units, moves, columns in (
            (one, unit1, shift1, slice(0, kept)),
            (two, unit2, shift2, slice(kept, None)),
        ):
            index = old.index[better] + moves[pick] - PAIR_SHIFT
            moved.append(Found(index, units[pick], weights[pick][:, columns], old.ratio[better]))
        for old, new, members in ((one, moved[0], first), (two, moved[1], second)):
            self._add(old.at(better), +1)
            self._add(new, -1)
            found.put(members[better], new)

    def _shortlist(self, one: np.ndarray, two: np.ndarray, lag: np.ndarray) -> tuple[np.ndarray, ...]:
        """The best pairs of units by mean waveforms: units, shifts, and whether they are possible.

        The ratio of two spikes is the sum of theirs less the product of their waveforms where they overlap.
        """
        units, shifts = self.bank.n_units, one.shape[1]
        step = np.arange(shifts)
        lags = lag[:, None, None] + step[None, None, :] - step[None, :, None]
        product = self.bank.cross[:, 0, :, 0][:, :, lags + self.bank.length - 1]  # (unit, unit, pair, shift, shift)
        total = (
            one.transpose(0, 2, 1)[:, :, None, :, None]
            + two.transpose(0, 2, 1)[:, None, :, None, :]
            - product.transpose(2, 0, 1, 3, 4)
        )
        same = np.arange(units)
        resting = np.abs(lags) <= self.refractory
        total[:, same, same] = np.where(resting[:, None], -np.inf, total[:, same, same])
        total = total.reshape(len(lag), units**2, shifts**2)
        shift = total.argmax(axis=2)
        value = np.take_along_axis(total, shift[..., None], axis=2)[..., 0]
        top = np.argsort(-value, axis=1)[:, :SHORTLIST]
        shift1, shift2 = np.divmod(np.take_along_axis(shift, top, axis=1), shifts)
        return *np.divmod(top, units), shift1, shift2, np.isfinite(np.take_along_axis(value, top, axis=1))

    def _joint(
        self,
        correlations: tuple[np.ndarray, np.ndarray],
        units: tuple[np.ndarray, np.ndarray],
        shifts: tuple[np.ndarray, np.ndarray],
        lag: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihood ratio ``(pair, choice)`` of two spikes together, and the weights of the modes of both.

        As for one spike, with the modes of both stacked: the two Gram matrices on the diagonal, the modes'
        products at the spikes' lag beside it.
        """
        bank, modes = self.bank, self.bank.n_parts - 1
        rows = np.arange(len(lag))[:, None]
        own = [c[rows, s, u] for c, s, u in zip(correlations, shifts, units, strict=True)]
        product = bank.cross[units[0], :, units[1], :, lag[:, None] + shifts[1] - shifts[0] + bank.length - 1]
        information = np.empty((*units[0].shape, 2 * modes, 2 * modes))
        information[..., :modes, :modes] = bank.information[units[0]][..., None] * np.eye(modes)
        information[..., modes:, modes:] = bank.information[units[1]][..., None] * np.eye(modes)
        information[..., :modes, modes:] = product[..., 1:, 1:]
        information[..., modes:, :modes] = np.swapaxes(product[..., 1:, 1:], -1, -2)
        b = np.concatenate(
            (
                own[0][..., 1:] - bank.overlap[units[0]] - product[..., 1:, 0],
                own[1][..., 1:] - bank.overlap[units[1]] - product[..., 0, 1:],
            ),
            axis=-1,
        )
        weights = np.linalg.solve(information, b[..., None])[..., 0]
        energy = bank.energy[units[0]] + bank.energy[units[1]]
        means = own[0][..., 0] + own[1][..., 0] - energy / 2 - product[..., 0, 0]
        return means + ((b * weights).sum(axis=-1) - np.linalg.slogdet(information)[1]) / 2, weights


def _best(evidence: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shift, unit and value of the largest of ``(spike, shift, unit)``."""
    flat = evidence.reshape(len(evidence), -1)
    best = flat.argmax(axis=1)
    shift, unit = np.divmod(best, evidence.shape[-1])
    return shift, unit, flat[np.arange(len(flat)), best]


def independent(index: np.ndarray, gain: np.ndarray, least: float, reach: int) -> np.ndarray:
    """Mask of the entries with more than ``least`` gain and the most of all such entries within ``reach`` samples."""
    chosen = np.zeros(len(index), bool)
    rows = np.flatnonzero(gain > least)
    keep, times, value = np.ones(len(rows), bool), index[rows], gain[rows]
    for step in range(1, len(rows)):
        near = times[step:] - times[:-step] <= reach
        if not near.any():
            break
        keep[step:][near & (value[:-step] >= value[step:])] = False
        keep[:-step][near & (value[step:] > value[:-step])] = False
    chosen[rows[keep]] = True
    return chosen


def local_peaks(values: np.ndarray, threshold: float, reach: int) -> np.ndarray:
    """Positions of maxima at or above ``threshold`` that no larger one is within ``reach`` samples of."""
    above = np.flatnonzero(values[1:-1] >= threshold) + 1
    height = values[above]
    peaks = above[(height >= values[above - 1]) & (height > values[above + 1])]
    return peaks[independent(peaks, values[peaks], -np.inf, reach)]
