"""From probability curves to spikes: how many a bump stands for, where they start, whose they are."""

from __future__ import annotations

import numpy as np

from src.preprocess.spikes.recording import SpikeTrain

FLOOR = 0.02
"""Total probability up to which a sample belongs to no bump."""

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Positions, units (from 1) and strengths (expected number, at most 1) of spikes."""


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
        if not self._found:
            return SpikeTrain.empty(), np.zeros(0)
        index, unit, strength = (np.concatenate(column) for column in zip(*self._found, strict=True))
        order = np.lexsort((unit, index))
        index, unit, strength = index[order], unit[order], strength[order]
        keep = outside_refractory(index, unit, strength, self.refractory)
        return SpikeTrain(index[keep], unit[keep]), strength[keep]

    def _read(self, probability: np.ndarray) -> None:
        total = probability.sum(axis=0)
        edges = np.flatnonzero(np.diff(np.concatenate(([0], (total > FLOOR).view(np.int8), [0]))))
        starts, stops = edges[::2], edges[1::2]
        if len(starts) == 0:
            return
        expected = np.add.reduceat(total, edges[: 2 * len(starts)] if stops[-1] < len(total) else edges[:-1])[::2]
        expected = expected / self.width
        worth = expected >= self.threshold
        spikes: list[tuple[int, int, float]] = []
        for start, stop, number in zip(starts[worth], stops[worth], expected[worth], strict=True):
            spikes += self._spikes_of_bump(probability[:, start:stop], int(start), float(number))
        if spikes:
            index, unit, strength = zip(*spikes, strict=True)
            self._found.append((np.array(index) + self._start, np.array(unit), np.array(strength)))

    def _spikes_of_bump(self, bump: np.ndarray, start: int, expected: float) -> list[tuple[int, int, float]]:
        half = self.width // 2
        sums = np.cumsum(np.pad(bump, ((0, 0), (half + 1, half)), mode="constant"), axis=1)
        level = sums[:, self.width :] - sums[:, : -self.width]
        taken: list[tuple[int, int, float]] = []
        for nth in range(int(expected - self.threshold) + 1):
            unit, at = divmod(int(level.argmax()), level.shape[1])
            if level[unit, at] <= 0:
                break
            taken.append((start + at, unit + 1, min(expected - nth, 1.0)))
            level[unit, max(at - self.refractory, 0) : at + self.refractory + 1] = 0
        return taken


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
        crowded = np.flatnonzero(np.diff(index[rows]) <= refractory)
        if len(crowded) == 0:
            continue
        # Strongest first; ties go to the earlier spike.
        near = np.unique(np.concatenate((crowded, crowded + 1)))
        accepted: list[int] = []
        for row in rows[near[np.lexsort((index[rows[near]], -strength[rows[near]]))]]:
            if all(abs(int(index[row]) - other) > refractory for other in accepted):
                accepted.append(int(index[row]))
            else:
                keep[row] = False
    return keep
