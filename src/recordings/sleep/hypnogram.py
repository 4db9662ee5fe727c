"""Sleep scorings: one label per epoch, whatever file they come from.

Files are read by :mod:`src.recordings.sleep.scoring_files`. Here a scoring is laid on the epochs of a recording,
its wake is trimmed, and what cannot be used is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.signals import HUMAN_STAGES, UNSCORED, BadInput, counted
from src.storage.atomic import atomic_file

WAKE = 0
"""The wake label of :data:`HUMAN_STAGES` and of :data:`RODENT_STAGES`."""
LINES = "one stage a line"
"""How a text without times was read; its first lines may be a heading."""
TABLE_WITHOUT_TIMES = f"{LINES}, in a table without times that are understood"
_USUAL_LENGTHS_S = (30.0, 20.0, 10.0, 5.0, 4.0, 2.5, 2.0, 1.0, 60.0, 15.0, 8.0, 6.0)
_SLACK_EPOCHS = 1.5
"""A scoring may have an epoch less or more than the signal has room for."""
_SLACK_S = 1.0
_GIVE_SECONDS = "give onsets in seconds from the start of the recording, or name their column 'elapsed'"
_FIRST_YEAR = 1990
"""Earlier dates stand for none, such as 1985-01-01 in EDF files without a patient's data."""
_SOON_S = 600.0
""" Clock times that begin so soon after midnight may be times from the start of the recording."""
_LEAST_EPOCH_S = 2.0
_SHORT = 0.2
"""Nobody scores people in shorter epochs over a smaller share of a recording."""
_SPARSE = 0.5
_FEW = 0.1
"""Share by which a scoring may be longer than the signal, or a text without times longer or shorter."""


@dataclass(frozen=True)
class Hypnogram:
    """A contiguous scoring."""

    stages: np.ndarray  # (epoch,) int8, indices into stage_names; UNSCORED where nobody scored
    epoch_s: float  # length of an epoch
    onset_s: float = 0.0  # start of the first epoch, from the start of the scoring's own clock
    start: datetime | None = None  # wall-clock time of that clock's zero
    source: str = ""  # the file
    stage_names: tuple[str, ...] = HUMAN_STAGES  # what the indices mean
    warnings: tuple[str, ...] = ()  # what the reader had to decide, for the manifest
    how: str = ""  # how the file was read, for people
    dated: bool = True  # whether start has a date; a time of day alone is less
    or_day: date | None = None  # the other date that start may have: 01/03/2020 is two
    length_by: str = "file"  # who states epoch_s: file, user, or nobody: then the recording's length decides
    no_stages: tuple[tuple[int, str], ...] = ()  # lines of a text that are no stages: no epochs if the signal says so
    scored_epoch_s: float | None = None  # the usual length of the file's own epochs, which epoch_s divides

    @property
    def duration_s(self) -> float:
        return len(self.stages) * self.epoch_s

    @property
    def scored_s(self) -> float:
        """Seconds that carry a stage."""
        return float(np.sum(self.stages != UNSCORED)) * self.epoch_s

    @property
    def usual_s(self) -> float:
        """Length of the epochs that were scored."""
        return self.scored_epoch_s or self.epoch_s

    def segments(self) -> list[tuple[float, float, int]]:
        """``(onset_s, duration_s, stage)`` of every run of equal epochs, unscored ones included."""
        if not len(self.stages):
            return []
        edges = np.flatnonzero(np.diff(self.stages)) + 1
        first, last = np.r_[0, edges], np.r_[edges, len(self.stages)]
        return [
            (self.onset_s + float(a * self.epoch_s), float((b - a) * self.epoch_s), int(self.stages[a]))
            for a, b in zip(first, last, strict=True)
        ]

    def annotations(self) -> list[tuple[float, float, str]]:
        """The segments with texts as Sleep-EDF has them: ``Sleep stage W``, ``1``, ``2``, ``3``, ``R`` or ``?``."""
        names = ("W", "1", "2", "3", "R") if self.stage_names == HUMAN_STAGES else self.stage_names
        return [
            (onset, duration, f"Sleep stage {'?' if stage == UNSCORED else names[stage]}")
            for onset, duration, stage in self.segments()
        ]


def write_annotations(annotations: Sequence[tuple[float, float, str]], start: datetime | None, path: Path) -> None:
    """Write ``(onset_s, duration_s, text)`` as an EDF+ file without signals."""
    import edfio

    start = start or datetime(1985, 1, 1)
    edf = edfio.Edf(
        [],
        recording=edfio.Recording(startdate=start.date()),
        starttime=start.time(),
        annotations=[edfio.EdfAnnotation(*annotation) for annotation in annotations],
    )
    with atomic_file(path) as part:
        edf.write(part)


def transition_counts(stages: NDArray[np.integer], n_classes: int) -> NDArray[np.int64]:
    """``(from, to)`` counts of neighbouring scored epochs, the diagonal included."""
    counts = np.zeros((n_classes, n_classes), np.int64)
    before, after = stages[:-1], stages[1:]
    known = (before != UNSCORED) & (after != UNSCORED)
    np.add.at(counts, (before[known], after[known]), 1)
    return counts


def stage_counts(stages: np.ndarray, stage_names: Sequence[str] = HUMAN_STAGES) -> dict[str, int]:
    """How many epochs carry each stage name, and ``unscored``."""
    counts = {name: int(np.sum(stages == code)) for code, name in enumerate(stage_names)}
    return counts | {"unscored": int(np.sum(stages == UNSCORED))}


def rasterise(
    segments: Sequence[tuple[float, float, int]], epoch_s: float, n_epochs: int, *, onset_s: float = 0.0
) -> np.ndarray:
    """Lay segments on a grid, ``(epoch,)`` int8: an epoch gets the stage that covers most of it.

    Time that no segment covers counts as unscored. A tie between the two longest is nobody's
    majority: the epoch is ``UNSCORED``. Segments ``(onset_s, duration_s, stage)`` do not overlap.
    """
    n_stages = max((stage for _, _, stage in segments if stage != UNSCORED), default=0) + 1
    covered = np.zeros((n_epochs, n_stages + 1))
    for start, duration, stage in segments:
        first, last = (start - onset_s) / epoch_s, (start + duration - onset_s) / epoch_s
        a, b = max(first, 0.0), min(last, float(n_epochs))
        if b <= a or stage == UNSCORED:
            continue
        low, high = int(a), int(np.ceil(b))
        share = np.ones(high - low)
        share[0] -= a - low
        share[-1] -= high - b
        covered[low:high, stage] += share
    # The last column is nobody's: whatever the stages leave of the epoch.
    covered[:, -1] = 1.0 - covered[:, :-1].sum(axis=1)
    ranked = np.sort(covered, axis=1)
    winner = np.argmax(covered, axis=1)
    tie = ranked[:, -1] - ranked[:, -2] < 1e-6
    return np.where(tie | (winner == n_stages), UNSCORED, winner).astype(np.int8)


def align(
    hypnogram: Hypnogram, duration_s: float, epoch_s: float, *, start: datetime | None = None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Lay a scoring on the whole epochs of a recording, if the two belong together.

    Parameters
    ----------
    hypnogram
        The scoring; epochs longer than ``epoch_s`` are split, shorter ones vote.
    duration_s, start
        Of the recording. Where both clocks are stated, their difference counts, unless it is not to be believed
        (see the warnings).
    epoch_s
        Length of the epochs wanted.

    Returns
    -------
    stages
        ``(floor(duration_s / epoch_s),)`` int8.
    facts
        ``offset_s``, ``beyond_signal`` (scored epochs after its end or before its start), ``without_score`` (epochs
        of the signal that the scoring does not reach), ``share_scored``, ``scoring`` (how it was read), ``warnings``
        and ``doubts`` (what speaks against the scoring being of this recording: another clock, another length).

    Raises
    ------
    BadInput
        If scoring and signal share no time, or their lengths say that the epochs are of another length.
    """
    hypnogram, notes = _with_epoch_length(hypnogram, duration_s)
    offset_s, clocks = _clock_offset(hypnogram, duration_s, start)
    notes += clocks
    n_epochs = int(np.floor(duration_s / epoch_s + 1e-6))
    first, end_s = hypnogram.onset_s + offset_s, n_epochs * epoch_s
    last = first + hypnogram.duration_s
    if last <= 0 or first >= end_s:
        problem = f"scores {first:.0f}..{last:.0f} s, the signal lasts 0..{duration_s:.0f} s: they share no time"
        raise BadInput(hypnogram.source, problem, "pair the hypnogram with the recording it was made for")
    stages = rasterise([(a + offset_s, d, stage) for a, d, stage in hypnogram.segments()], epoch_s, n_epochs)
    beyond = _outside(hypnogram, offset_s, duration_s)
    missing = max(0.0, min(first, end_s)) + max(0.0, end_s - max(last, 0.0))
    _require_length(hypnogram, duration_s, beyond if abs(offset_s) < 2 * epoch_s else 0.0)
    notes += _coverage_notes(hypnogram, epoch_s, first, beyond, missing)
    name = Path(hypnogram.source).name
    facts = {
        "offset_s": offset_s,
        "beyond_signal": round(beyond / epoch_s, 3),
        "without_score": round(missing / epoch_s, 3),
        "share_scored": round(float(np.mean(stages != UNSCORED)), 4) if n_epochs else 0.0,
        "scoring": f"{name}{': ' if name else ''}{hypnogram.how or 'stages'}, epochs of {hypnogram.usual_s:g} s",
        "warnings": [*hypnogram.warnings, *notes],
        "doubts": _doubts(hypnogram, clocks, duration_s, beyond, first),
    }
    return stages, facts


def _coverage_notes(
    hypnogram: Hypnogram, epoch_s: float, first_s: float, beyond_s: float, missing_s: float
) -> list[str]:
    """What is to be said of a scoring that does not cover the epochs of its recording one by one."""
    notes = []
    if min(late_s := first_s % epoch_s, epoch_s - late_s) > _SLACK_S:
        notes.append(
            f"its epochs begin {late_s:g} s after those of the recording, which get the stage of their larger part"
        )
    if beyond_s >= epoch_s:
        notes.append(f"hypnogram exceeds the signal by {beyond_s:.0f} s of scored time, left out")
    if missing_s >= epoch_s:
        notes.append(f"hypnogram leaves {missing_s:.0f} s of the signal unscored")
    if (share := hypnogram.scored_s / max(hypnogram.duration_s, 1e-9)) < _SPARSE:
        notes.append(f"its stages last {share:.0%} of the time from its first to its last: the rest is unscored")
    return notes


def _doubts(hypnogram: Hypnogram, clocks: list[str], duration_s: float, beyond_s: float, first_s: float) -> list[str]:
    """What speaks against a scoring being of this recording: another clock (midnight is none), another length or place.

    A recording within the scoring, which begins at ``first_s``, is an excerpt.
    """
    within = first_s < 0 and first_s + hypnogram.duration_s > duration_s
    found = list(clocks) if hypnogram.start and hypnogram.start.time() != time(0) else []
    if abs(hypnogram.duration_s - duration_s) > _FEW * duration_s and not within:
        found.append(f"it lasts {hypnogram.duration_s / 3600:.2g} h, the recording {duration_s / 3600:.2g} h")
    elif beyond_s > _FEW * hypnogram.duration_s and not within:
        found.append(f"{beyond_s / 60:.0f} min of it lie outside the recording")
    elif abs(hypnogram.duration_s - duration_s) < hypnogram.usual_s - _SLACK_S < first_s:
        found.append(f"it is as long as the recording and begins {first_s:g} s later: are its times ends of epochs?")
    return found


def _with_epoch_length(hypnogram: Hypnogram, duration_s: float) -> tuple[Hypnogram, list[str]]:
    """The scoring with the length of epoch that makes it as long as the signal, where none was stated."""
    if hypnogram.no_stages:
        return _without_headings(hypnogram, duration_s)
    n = len(hypnogram.stages)
    if hypnogram.length_by != "nobody" or abs(n * hypnogram.epoch_s - duration_s) < _SLACK_EPOCHS * hypnogram.epoch_s:
        return hypnogram, []
    fitting = [length for length in _USUAL_LENGTHS_S if abs(n * length - duration_s) < _SLACK_EPOCHS * length]
    fitting.sort(key=lambda length: abs(n * length - duration_s))
    if not fitting and hypnogram.how.startswith(TABLE_WITHOUT_TIMES):
        problem = f"has {n} rows without times that are understood, and the signal lasts {duration_s:.0f} s"
        hint = "name the column of times 'onset' or 'time', or state the length of a row: source.text_epoch_s=..."
        raise BadInput(hypnogram.source, problem, hint)
    likely = [length for length in (30.0, 20.0) if -_FEW * duration_s <= n * length - duration_s < length]
    length_s = (*fitting, *likely, hypnogram.epoch_s)[0]
    if length_s != hypnogram.epoch_s:
        note = f"{n} epochs over {duration_s:.0f} s of signal: taken as epochs of {length_s:g} s"
        return replace(hypnogram, epoch_s=length_s), [note]
    if abs(n * hypnogram.epoch_s - duration_s) > _FEW * duration_s:
        problem = f"has {n} epochs, {n * hypnogram.epoch_s:.0f} s if of {hypnogram.epoch_s:g} s, "
        hint = f"state the length of an epoch: source.text_epoch_s=... ({duration_s / max(n, 1):.4g} fills the signal)"
        raise BadInput(hypnogram.source, problem + f"and the signal lasts {duration_s:.0f} s", hint)
    taken = f"{hypnogram.epoch_s:g} s (source.text_epoch_s states another length)"
    return hypnogram, [f"{n} epochs do not fill {duration_s:.0f} s of signal: taken as epochs of {taken}"]


def _without_headings(hypnogram: Hypnogram, duration_s: float) -> tuple[Hypnogram, list[str]]:
    """The scoring without the lines that are no stages, where the others fill the signal; else they are epochs."""
    n, (places, texts) = len(hypnogram.stages), zip(*hypnogram.no_stages, strict=True)
    lines, are_first = len(places), places == tuple(range(len(places)))
    listed = ", ".join(repr(text[:40]) for text in sorted(set(texts))[:8])
    lengths = (hypnogram.epoch_s,) if hypnogram.length_by != "nobody" else _USUAL_LENGTHS_S
    whole = {int(duration_s / length + 1e-6) for length in lengths}
    # One line more may be an epoch that the signal has a part of.
    if n not in whole and (n - lines in whole or n - lines - 1 in whole) and (are_first or lines > 1):
        rest = replace(hypnogram, stages=np.delete(hypnogram.stages, places), no_stages=())
        found, notes = _with_epoch_length(rest, duration_s)
        return found, [f"{counted(lines, 'line')} without a stage left out ({listed})", *notes]
    if n not in whole and places[0] == 0:
        problem = (
            f"starts with lines that are no stages ({listed}), and its length does not say whether they are epochs"
        )
        hint = "delete them if they are a heading, write ? for epochs that nobody scored"
        raise BadInput(hypnogram.source, problem, hint)
    found, notes = _with_epoch_length(replace(hypnogram, no_stages=()), duration_s)
    return found, [f"{counted(lines, 'epoch')} with an unknown name ({listed}): unscored", *notes]


def _require_length(hypnogram: Hypnogram, duration_s: float, beyond_s: float) -> None:
    """Refuse a scoring that is of another recording, or whose epochs cannot be as long as it says."""
    length_s, extent_s = hypnogram.usual_s, hypnogram.duration_s
    problem = f"scores {extent_s:.0f} s in epochs of {length_s:g} s, the signal lasts {duration_s:.0f} s"
    short = length_s < _LEAST_EPOCH_S and extent_s < _SHORT * duration_s and len(set(hypnogram.stages) - {UNSCORED}) > 1
    if short and hypnogram.stage_names == HUMAN_STAGES and hypnogram.length_by != "user":
        hint = f"name the column 'epoch' or 'time (min)'; if it holds seconds, say source.text_epoch_s={length_s:g}"
        raise BadInput(hypnogram.source, f"{problem}: minutes or numbers of epochs are taken for seconds so", hint)
    if beyond_s > max(_FEW * hypnogram.scored_s, 2 * length_s):
        raise BadInput(hypnogram.source, problem, "pair it with its recording, or correct its onsets and durations")
    # 20-s epochs under 30-s signals are two thirds as long from the first second on; few true scorings are.
    two_thirds = abs(extent_s * 1.5 - duration_s) < length_s and abs(hypnogram.onset_s) < length_s
    if two_thirds and hypnogram.length_by != "user" and duration_s > 10 * length_s:
        hint = f"correct its onsets and durations; if they are right, say source.text_epoch_s={length_s:g}"
        raise BadInput(hypnogram.source, problem + ": 20-s epochs are mistaken for 30-s epochs so", hint)


def _clock_offset(hypnogram: Hypnogram, duration_s: float, start: datetime | None) -> tuple[float, list[str]]:
    """Seconds from the start of the signal to the zero of the scoring's onsets, by the clocks if they make sense."""
    if start is None or hypnogram.start is None:
        return 0.0, []
    days = [hypnogram.start.date(), *([hypnogram.or_day] if hypnogram.or_day else [])]
    possible = [(datetime.combine(day, hypnogram.start.time()) - start).total_seconds() for day in days]
    apart_s = min(possible, key=abs)
    dated = hypnogram.dated and min(start.year, hypnogram.start.year) >= _FIRST_YEAR
    of_day = (apart_s + 43_200) % 86_400 - 43_200
    epoch_s, scored_s = hypnogram.usual_s, hypnogram.scored_s
    elapsed_s = (hypnogram.start - datetime.combine(hypnogram.start, time(0))).total_seconds()
    outside = {offset: _outside(hypnogram, offset, duration_s) for offset in (apart_s, of_day, elapsed_s, 0.0)}
    by_clock = apart_s if dated and (abs(apart_s) < 86_400 or outside[apart_s] < scored_s) else of_day
    if outside[by_clock] >= scored_s > outside[of_day]:
        by_clock = of_day
    by_days = dated and by_clock != apart_s
    if by_clock == 0 and not by_days:
        return 0.0, []
    stated = hypnogram.start if hypnogram.dated else hypnogram.start.time()
    clocks = f"clocks of signal ({start}) and hypnogram ({stated}) differ"
    at_midnight = elapsed_s == 0
    fits_from_start = outside[0.0] < epoch_s
    undated, lies_outside = not hypnogram.dated, outside[by_clock] >= epoch_s
    off_grid = min(by_clock % epoch_s, -by_clock % epoch_s) > _SLACK_S
    same_length = abs(hypnogram.duration_s - duration_s) < _SLACK_EPOCHS * epoch_s
    if at_midnight and fits_from_start and (lies_outside or (by_clock != apart_s and (off_grid or not undated))):
        return 0.0, [f"{clocks}, and 00:00:00 stands for no clock: onsets taken from the start of the signal"]
    ends_otherwise = abs(hypnogram.onset_s + hypnogram.duration_s + by_clock - duration_s) >= epoch_s
    fits_both_ways = undated and outside[elapsed_s] < epoch_s and elapsed_s % epoch_s == 0
    if (at_midnight and fits_from_start and undated and ends_otherwise) or (
        fits_both_ways and not at_midnight and (outside[by_clock] > _FEW * scored_s or elapsed_s < _SOON_S)
    ):
        problem = f"has clock times from {hypnogram.start.time()} on, which may be times of day or"
        raise BadInput(hypnogram.source, f"{problem} times from the start of the recording", _GIVE_SECONDS)
    if start.time() == time(0) and undated and lies_outside and not same_length:
        problem = f"has clock times from {stated} on, and the recording states 00:00:00, which stands for no clock"
        raise BadInput(hypnogram.source, problem, _GIVE_SECONDS)
    other_zone = same_length and by_clock % 1800 == 0
    other_clock = outside[by_clock] >= scored_s and (same_length or not undated)
    if fits_from_start and lies_outside and (other_zone or other_clock):
        return 0.0, [f"{clocks}, but the lengths fit: onsets taken from the start of the signal"]
    if not by_days:
        return by_clock, []
    if start.time() == time(0) or outside[by_clock] > outside[0.0] + epoch_s:
        return 0.0, [f"{clocks} by days: onsets taken from the start of the signal"]
    return by_clock, [f"{clocks} by days: times of day taken, dates ignored"]


def _outside(hypnogram: Hypnogram, offset_s: float, duration_s: float) -> float:
    """Seconds of scored time that would lie outside the signal."""
    return sum(
        d - max(0.0, min(a + offset_s + d, duration_s) - max(a + offset_s, 0.0))
        for a, d, stage in hypnogram.segments()
        if stage != UNSCORED
    )


def trim_wake(stages: np.ndarray, margin_s: float = 1800.0, epoch_s: float = 30.0) -> slice:
    """The stretch from ``margin_s`` before the first sleep epoch to ``margin_s`` after the last one ends.

    Anything but wake and ``UNSCORED`` is sleep; a part of an epoch counts whole. Without sleep: ``ValueError``.
    """
    asleep = np.flatnonzero((stages != WAKE) & (stages != UNSCORED))
    if not len(asleep):
        raise ValueError("no sleep to trim around")
    margin = int(np.ceil(margin_s / epoch_s - 1e-9))
    return slice(max(0, int(asleep[0]) - margin), min(len(stages), int(asleep[-1]) + 1 + margin))


def require_sleep(stages: np.ndarray, source: str, stage_names: Sequence[str] = HUMAN_STAGES) -> None:
    """Refuse a scoring nothing can be learned from: no epoch is scored, none is sleep, or all carry one label."""
    present = np.unique(stages[stages != UNSCORED])
    hint = "leave this night out, or give the right hypnogram"
    if not len(present):
        raise BadInput(source, "has no scored epoch", hint)
    if list(present) == [WAKE]:
        raise BadInput(source, f"has no sleep at all (every one of its epochs is {stage_names[WAKE]})", hint)
    if len(present) == 1:
        raise BadInput(source, f"has one class only ({stage_names[present[0]]})", hint)
