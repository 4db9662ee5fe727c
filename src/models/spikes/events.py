"""From probability curves to spikes: how many a bump stands for, where they start, whose they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from src.recordings.extracellular.spike_trains import SpikeTrain

FLOOR = 0.02
"""Total probability up to which a sample belongs to no bump."""

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Positions, units (from 1) and strengths (expected number, at most 1) of spikes."""


@dataclass(frozen=True)
class Bumps:
    """Stretches of a probability ``(unit, time)`` above :data:`FLOOR`, and where in each the clearest spike is.

    What does not depend on thresholds is worked out once, for all of them.

    Attributes
    ----------
    starts, expected
        ``(bump,)`` first sample, and the number of spikes to expect: the probability under the bump / ``width``.
    level
        ``(unit, sample)`` running sums over ``width`` samples of the same bump, one bump after the other.
    bounds
        ``(bump + 1,)`` columns of ``level`` at which the bumps begin.
    best
        ``(bump,)`` column of the highest running sum.
    """

    starts: np.ndarray
    expected: np.ndarray
    level: np.ndarray
    bounds: np.ndarray
    best: np.ndarray

    @classmethod
    def of(cls, probability: np.ndarray, *, width: int, least: float = 0.0) -> Bumps:
        """The bumps in which at least ``least`` spikes are to be expected."""
        total = probability.sum(axis=0)
        edges = np.flatnonzero(np.diff(np.concatenate(([0], (total > FLOOR).view(np.int8), [0]))))
        starts, stops = edges[::2], edges[1::2]
        if len(starts) == 0:
            none = np.zeros(0, np.int64)
            return cls(none, np.zeros(0), np.zeros((len(probability), 0)), np.zeros(1, np.int64), none)
        expected = np.add.reduceat(total, edges if stops[-1] < len(total) else edges[:-1])[::2] / width
        worth = expected >= least
        starts, lengths, expected = starts[worth], (stops - starts)[worth], expected[worth]
        bounds = np.concatenate(([0], np.cumsum(lengths)))
        level = _running_sums(probability, starts, lengths, width)
        height = level.max(axis=0)
        tops = (
            np.flatnonzero(height == np.repeat(np.maximum.reduceat(height, bounds[:-1]), lengths))
            if len(starts)
            else starts
        )
        return cls(starts, expected, level, bounds, tops[np.searchsorted(tops, bounds[:-1])])

    def spikes(self, threshold: float, refractory: int) -> Found:
        """What the bumps stand for: ``threshold`` expected spikes are one, and each further one is worth another."""
        worth = np.flatnonzero(self.expected >= threshold)
        column = self.best[worth]
        index = self.starts[worth] + column - self.bounds[worth]
        unit = self.level[:, column].argmax(axis=0) + 1
        strength = np.minimum(self.expected[worth], 1.0)
        more = [
            s
            for bump in worth[self.expected[worth] - threshold >= 1]
            for s in self._further(bump, threshold, refractory)
        ]
        if not more:
            return index, unit, strength
        more_index, more_unit, more_strength = zip(*more, strict=True)
        return np.append(index, more_index), np.append(unit, more_unit), np.append(strength, more_strength)

    def _further(self, bump: int, threshold: float, refractory: int) -> list[tuple[int, int, float]]:
        """The spikes of one bump beside the clearest, in the order of their running sums."""
        level, expected = self.level[:, self.bounds[bump] : self.bounds[bump + 1]], float(self.expected[bump])
        resting = level <= 0
        at = int(self.best[bump] - self.bounds[bump])
        resting[int(level[:, at].argmax()), max(at - refractory, 0) : at + refractory + 1] = True
        taken: list[tuple[int, int, float]] = []
        wanted = int(expected - threshold)
        for flat in np.argsort(-level, axis=None, kind="stable"):
            unit, at = divmod(int(flat), level.shape[1])
            if len(taken) == wanted:
                break
            if not resting[unit, at]:
                taken.append((int(self.starts[bump]) + at, unit + 1, min(expected - len(taken) - 1, 1.0)))
                resting[unit, max(at - refractory, 0) : at + refractory + 1] = True
        return taken


def _running_sums(probability: np.ndarray, starts: np.ndarray, lengths: np.ndarray, width: int) -> np.ndarray:
    """Sums over ``width`` samples around each sample of the given stretches, nothing outside a stretch counting."""
    half, count = width // 2, int(lengths.sum())
    number = np.repeat(np.arange(len(starts)), lengths)
    within = np.arange(count) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    # With gaps of zeros between the stretches, whole-array additions do it.
    apart = np.arange(count) + (number + 1) * half
    spread = np.zeros((len(probability), count + (len(starts) + 1) * half + width), probability.dtype)
    spread[:, apart] = probability[:, starts[number] + within]
    size = spread.shape[1] - width
    sums = sum((spread[:, k : k + size] for k in range(1, width)), start=spread[:, :size].copy())
    return np.asarray(sums[:, apart - half])


class EventStream:
    """Spikes of a recording whose probability curves arrive in blocks; the same whatever the blocks are.

    A label covers ``width`` samples, so the probability under a bump divided by ``width`` is the
    number of spikes to expect there. A bump yields its first spike when that number reaches
    ``threshold``, and each further one when it reaches one more. Spikes are read at the highest
    running mean inside the bump, never at a first crossing; one unit fires again only after
    ``refractory`` samples.

    Parameters
    ----------
    threshold
        Expected number of spikes that is worth a spike.
    refractory, width
        In samples.
    """

    def __init__(self, *, threshold: float, refractory: int, width: int) -> None:
        self.threshold, self.refractory, self.width = threshold, refractory, width
        self._open: np.ndarray | None = None
        self._start = 0
        self._found: list[Found] = []

    def push(self, probability: np.ndarray) -> None:
        """Take the next ``(unit, time)`` block; a bump that touches its end waits for the next one."""
        block = probability if self._open is None else np.concatenate((self._open, probability), axis=1)
        quiet = np.flatnonzero(block.sum(axis=0) <= FLOOR)
        done = int(quiet[-1]) + 1 if len(quiet) else 0
        self._read(block[:, :done])
        self._open, self._start = block[:, done:].copy(), self._start + done

    def finish(self) -> tuple[SpikeTrain, np.ndarray]:
        """The spikes in ascending order and the strength of each."""
        if self._open is not None:
            self._read(self._open)
            self._open = None
        index, unit, strength = (np.concatenate(column) for column in zip(_NONE, *self._found, strict=True))
        return in_order((index, unit, strength), self.refractory)

    def _read(self, probability: np.ndarray) -> None:
        bumps = Bumps.of(probability, width=self.width, least=self.threshold)
        index, unit, strength = bumps.spikes(self.threshold, self.refractory)
        self._found.append((index + self._start, unit, strength))


_NONE: Found = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def in_order(found: Found, refractory: int) -> tuple[SpikeTrain, np.ndarray]:
    """Spikes in ascending order and the strength of each, none of a unit's within its refractory period."""
    order = np.lexsort((found[1], found[0]))
    index, unit, strength = (column[order] for column in found)
    keep = outside_refractory(index, unit, strength, refractory)
    return SpikeTrain(index[keep], unit[keep]), strength[keep]


def extract_events(
    probability: np.ndarray, *, threshold: float, refractory: int, width: int
) -> tuple[SpikeTrain, np.ndarray]:
    """Spikes of a whole recording at once; see :class:`EventStream`."""
    stream = EventStream(threshold=threshold, refractory=refractory, width=width)
    stream.push(probability)
    return stream.finish()


def merge(
    first: tuple[SpikeTrain, np.ndarray], second: tuple[SpikeTrain, np.ndarray], refractory: int
) -> tuple[SpikeTrain, np.ndarray]:
    """Spikes and strengths of two looks; where both break a unit's refractory period, the first look's stay."""
    index = np.concatenate((first[0].index, second[0].index))
    unit = np.concatenate((first[0].unit, second[0].unit))
    strength = np.concatenate((first[1], second[1]))
    rank = np.concatenate((np.full(len(first[0]), 2.0), np.zeros(len(second[0])))) + strength
    order = np.lexsort((unit, index))
    order = order[outside_refractory(index[order], unit[order], rank[order], refractory)]
    return SpikeTrain(index[order], unit[order]), strength[order]


def outside_refractory(index: np.ndarray, unit: np.ndarray, strength: np.ndarray, refractory: int) -> np.ndarray:
    """Mask of spikes that stay when, of two spikes of one unit within ``refractory``, the weaker goes."""
    keep = np.ones(len(index), bool)
    for one in np.unique(unit):
        rows = np.flatnonzero(unit == one)
        if (np.diff(index[rows]) > refractory).all():
            continue
        # Strongest first; ties go to the earlier spike.
        first = np.searchsorted(index[rows], index[rows] - refractory, "left")
        last = np.searchsorted(index[rows], index[rows] + refractory, "right")
        resting = np.zeros(len(rows), bool)
        for row in np.lexsort((index[rows], -strength[rows])):
            keep[rows[row]] = not resting[row]
            if not resting[row]:
                resting[first[row] : last[row]] = True
    return keep
