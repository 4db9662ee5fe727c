"""How good a sorted unit is: the measures that the field reports, and the label that follows from them."""

import csv
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from scipy.sparse.csgraph import connected_components

from src.preprocess.spikes.filters import grow
from src.recordings.extracellular.spike_trains import SpikeTrain

VIOLATION_MS, PARTS = 1.5, 20
GOOD = {"isi_violations": 0.01, "snr": 5.0, "presence": 0.9}
"""A unit is called ``good`` with at most this share of violations, and at least this SNR and presence."""

SMALL_SNR, NOT_REFRACTORY, FOLLOWS = 3.0, 0.03, 0.4
"""A unit that was not known before is ``noise`` with an SNR below the first and more short intervals than the second,
or if it follows larger units more than the third."""

FOLLOW_MS, LARGER = 3.0, 1.5

MEANING = (
    f"isi_violations: share of intervals below {VIOLATION_MS:g} ms. snr: peak of the mean waveform over the standard "
    f"deviation of the noise of that channel. presence: share of {PARTS} equal parts of the recording with a spike. "
    "amplitude_cutoff: estimated share of spikes that are too small to be found. follows: share of spikes within "
    f"{FOLLOW_MS:g} ms of those of larger units, beyond chance. good: violations at most {GOOD['isi_violations']:g}, "
    f"snr at least {GOOD['snr']:g}, presence at least {GOOD['presence']:g}. noise: small and without a refractory "
    "period, or remains of larger units; in no export. mua: every other unit."
)
"""What the columns of :func:`unit_rows` and its labels mean, for people."""

ALIKE, SILENT_MS, AROUND_MS, CHANCE = 0.8, (0.5, 3.0), (3.0, 9.0), 1e-3
"""Two units may be one neuron if the cosine of their waveforms is at least the first and so few of their spikes stand
at the first lags, where one neuron is silent, as chance has it less often than the last."""


class SortedGroup(NamedTuple):
    """The units of one group of channels.

    Attributes
    ----------
    train
        Its spikes; units count from 1.
    amplitude
        ``(spike,)`` the trace at the peak of each spike.
    templates
        ``(unit, channel, time)`` mean waveforms.
    noise
        ``(channel,)`` standard deviations.
    n_samples, usable
        Length of the recording, and the samples outside gaps and artefacts.
    """

    train: SpikeTrain
    amplitude: np.ndarray
    templates: np.ndarray
    noise: np.ndarray
    n_samples: int
    usable: int


def unit_rows(units: SortedGroup, fs_hz: float, group: int, first: int) -> list[dict[str, Any]]:
    """Quality of every unit of a group, see :data:`MEANING`; the first one has number ``first``."""
    rows = []
    size = (np.abs(units.templates).max(axis=2) / units.noise).max(axis=1)
    for number, template in enumerate(units.templates):
        spikes = units.train.unit == number + 1
        own = units.train.index[spikes]
        height = np.abs(template).max(axis=1) / units.noise
        channel = int(height.argmax())
        intervals = np.diff(own) / fs_hz
        row: dict[str, Any] = {
            "unit": first + number,
            "group": group,
            "channel": channel,
            "spikes": len(own),
            "rate_hz": len(own) / max(units.usable / fs_hz, 1e-9),
            "isi_violations": float(np.mean(intervals < VIOLATION_MS / 1000)) if len(intervals) else 0.0,
            "snr": float(height[channel]),
            "presence": float(np.mean(np.histogram(own, np.linspace(0, units.n_samples, PARTS + 1))[0] > 0)),
            "amplitude_cutoff": _amplitude_cutoff(np.abs(units.amplitude[spikes])),
            "follows": _follows(own, units, size > LARGER * size[number], round(FOLLOW_MS * fs_hz / 1000)),
        }
        clean = row["isi_violations"] <= GOOD["isi_violations"] and row["snr"] >= GOOD["snr"]
        row["label"] = "good" if clean and row["presence"] >= GOOD["presence"] else "mua"
        rows.append(row)
    return rows


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A CSV file of rows, numbers with four digits behind the point; the keys of the first row are the columns."""
    with path.open("w", newline="") as handle:
        table = csv.DictWriter(handle, list(rows[0]))
        table.writeheader()
        table.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def mark_noise(rows: list[dict[str, Any]]) -> None:
    """Label units as ``noise`` that are no neurons; see :data:`FOLLOWS`."""
    for row in rows:
        hash_ = row["snr"] < SMALL_SNR and row["isi_violations"] > NOT_REFRACTORY
        if hash_ or row["follows"] > FOLLOWS:
            row["label"] = "noise"


def perhaps_one(waveforms: Sequence[np.ndarray], times_s: Sequence[np.ndarray], seconds: float) -> list[list[int]]:
    """Sets of units that may be one neuron, whose spikes become smaller and broader in a burst, or with time.

    Parameters
    ----------
    waveforms
        ``(channel, time)`` of every unit of a group; their size does not matter.
    times_s
        Of every unit the times of its spikes in s, ascending.
    seconds
        Length of the recording.

    Returns
    -------
    list of list of int
        Places in ``waveforms``, ascending.
    """
    linked = np.eye(len(waveforms), dtype=bool)
    for one, two in combinations(range(len(waveforms)), 2):
        a, b = (w / np.linalg.norm(w) for w in (waveforms[one], waveforms[two]))
        cosine = max(float((np.roll(a, shift, axis=1) * b).sum()) for shift in range(-8, 9))
        near, around = (_pairs(times_s[one], times_s[two], *lags) for lags in (SILENT_MS, AROUND_MS))
        width, beside = np.ptp(SILENT_MS), np.ptp(AROUND_MS)
        chance = 2 * len(times_s[one]) * len(times_s[two]) * width / 1000 / seconds
        # Of two units that fire in the same bursts, pairs are expected as often as at the next longer lags.
        expected = max(chance, around * width / beside)
        linked[one, two] = cosine >= ALIKE and scipy.stats.poisson.cdf(near, expected) < CHANCE
    count, part = connected_components(linked, directed=False)
    return [found.tolist() for found in (np.flatnonzero(part == p) for p in range(count)) if len(found) > 1]


def _pairs(one: np.ndarray, two: np.ndarray, first_ms: float, last_ms: float) -> int:
    """How many pairs of spikes of two sorted trains are so far apart, either way."""
    edges = np.array([first_ms, last_ms, -last_ms, -first_ms]) / 1000
    counts = [int(np.searchsorted(two, one + edge).sum()) for edge in edges]
    return counts[1] - counts[0] + counts[3] - counts[2]


def _follows(own: np.ndarray, units: SortedGroup, larger: np.ndarray, reach: int) -> float:
    near = np.zeros(units.n_samples, bool)
    near[units.train.index[larger[units.train.unit - 1]]] = True
    near = grow(near, reach, reach)
    chance = float(near.mean())
    return max((float(near[own].mean()) - chance) / max(1 - chance, 1e-9), 0.0) if len(own) else 0.0


def _amplitude_cutoff(amplitude: np.ndarray) -> float:
    """Share of the histogram's missing lower side, if it were symmetric (Hill et al. 2011)."""
    if len(amplitude) < 20:
        return 0.5
    counts, _ = np.histogram(amplitude, 20)
    smooth = np.convolve(counts, np.ones(3) / 3, "same")
    peak = int(smooth.argmax())
    above = np.abs(smooth[peak:] - smooth[0]).argmin() + peak
    return float(min(smooth[above:].sum() / max(smooth.sum(), 1e-9), 0.5))
