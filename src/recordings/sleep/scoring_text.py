"""Text files that hold a scoring: a table with or without a heading, or one stage a line.

Only the form of the file is dealt with here; what its words mean is judged in
:mod:`src.recordings.sleep.scoring_files`, by the same rules for every format.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from src.recordings.sleep.stage_names import integer_of, says_stage, stage_code
from src.signals import UNSCORED, BadInput
from src.storage.foreign_files import explained

Row = tuple[float | None, float | None, str]
"""``(onset_s, duration_s, text)``; ``None`` where the file does not say."""

_COLUMNS: dict[str, tuple[str, ...]] = {
    "onset": ("onset_s", "onset", "recording_onset", "start_s", "start", "start_time", "begin", "time_s", "time"),
    "stop": ("stop_s", "stop", "end_s", "end", "end_time"),
    "duration": ("duration_s", "duration", "length_s", "length"),
    "index": ("epoch", "epochs", "epoch_number", "epoch_no", "epoch_index", "index", "nr"),
}
_STAGE_COLUMNS = (
    *("stage", "stages", "sleep_stage", "sleep_stages", "sleepstage", "hypnogram", "label", "scoring", "state"),
    *("trial_type", "description", "annotation", "event", "class", "instance", "value", "name"),
)
_ABSENT = ("", "n/a", "na", "nan", ".", "...", "-")
_LUNA_DATE = r"\d{1,2}[-/]\w{1,3}[-/]\d{2,4}-"
_CLOCK = re.compile(
    rf"(?:^|[T\s]|^{_LUNA_DATE})(\d{{1,2}})([:.])(\d{{2}})(?:\2(\d{{2}}(?:[.,]\d+)?))?\s*([ap]m)?Z?$", re.IGNORECASE
)
_ELAPSED = re.compile(r"0\+(\d+):(\d{2})(?::(\d{2}(?:[.,]\d+)?))?")
_LUNA_EPOCH = re.compile(r"e:(?:(\d+(?:\.\d+)?):)?(\d+)")
_LUNA_EPOCH_S = 30.0
_LARGEST_BYTES = 1 << 26
_LONGEST_PREAMBLE = 100
_NO_DATE = datetime(1985, 1, 1)


@dataclass(frozen=True)
class Scoring:
    """What a file says, before its words are judged."""

    rows: Sequence[Row]  # in the order of the file
    how: str  # how it was read, for people
    epoch_s: float | None = None  # length of an epoch where the file states it
    start: datetime | None = None  # zero of the onsets on the wall clock
    dated: bool = True  # false where only the time of day is known
    coding: str | None = None  # what integers mean where the format says so
    notes: tuple[str, ...] = ()  # what had to be decided


StageOf = Callable[[str], int | None]
"""The label of a word that names a stage, ``None`` of any other; see :func:`~stage_names.stage_code`."""
_UNIT = re.compile(r"[\s_(\[]+(ms|msec|min|mins|minutes|h|hr|hrs|hours|samples?)[)\]]?$", re.IGNORECASE)
_UNIT_S = {"ms": 1e-3, "mi": 60.0, "h": 3600.0, "hr": 3600.0, "ho": 3600.0}
"""Seconds of a unit in a heading, by its first letters."""


def read_text(path: Path) -> str:
    """A text file of a size that a scoring can have."""
    with explained(path, hint="give a hypnogram file"):
        if path.stat().st_size > _LARGEST_BYTES:
            raise BadInput(path, f"is too large for a scoring ({path.stat().st_size} bytes)", "give the hypnogram")
        raw = path.read_bytes()
    for encoding in ("utf-16",) if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", "latin-1"):
        with suppress(UnicodeDecodeError):
            if "\0" not in (text := raw.decode(encoding)):
                return text
    raise BadInput(path, "is not a text file", "give an EDF+, XML, CSV or text hypnogram")


def parse_text(path: Path, text: str, stage_of: StageOf = stage_code) -> Scoring:
    """Rows of a text: a table with a heading, a table without, or one stage a line.

    ``stage_of`` says what a word stands for. Onsets and durations that are no numbers raise :class:`BadInput`.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if lines and lines[0].strip().lower() == "[hypnogram]":
        return Scoring([(None, None, line.strip()) for line in lines[1:]], "DREAMS text", 5.0, coding="dreams")
    table = [_without_luna_times(row) for row in _cells(lines)]
    heading = next((i for i, row in enumerate(table[:_LONGEST_PREAMBLE]) if _is_heading(row, i)), None)
    rows = table if heading is None else table[heading + 1 :]
    if not rows:
        raise BadInput(path, "holds no stage", "give a hypnogram with at least one epoch")
    width = len(table[heading]) if heading is not None else max(len(row) for row in rows[:_LONGEST_PREAMBLE])
    if width == 1:
        return Scoring([(None, None, row[0]) for row in rows], "one stage a line")
    likeness = [_likeness([row[column] for row in rows if len(row) > column], stage_of) for column in range(width)]
    columns = _by_content(path, rows, likeness) if heading is None else _by_heading(table[heading], rows, likeness)
    needed = max(columns.values())
    short = [i for i, row in enumerate(rows, 1) if len(row) <= needed]
    if len(short) > 0.1 * len(rows):
        raise BadInput(path, f"row {short[0]} of its stages has too few columns", "give onset_s,duration_s,stage")
    rows = [row for row in rows if len(row) > needed]
    notes = [f"{len(short)} rows with too few columns left out"] if short else []
    notes += _second_scorer(rows, columns["stage"], stage_of)
    if heading is not None:
        rows = _in_seconds(path, table[heading], rows, columns)
    if heading is not None and any(re.fullmatch(r"p_\w+|confidence", name) for name in _names(table[heading])):
        notes.append("was scored by a program, not by a person (it holds probabilities)")
    return _timed(path, rows, columns, tuple(notes))


def _second_scorer(rows: Sequence[Sequence[str]], stage: int, stage_of: StageOf) -> list[str]:
    """A note on another column that is full of stages, and other ones."""
    for column in range(min(map(len, rows))):
        pairs = [(stage_of(row[stage]), stage_of(row[column])) for row in rows if integer_of(row[column]) is None]
        known = [(a, b) for a, b in pairs if a not in (None, UNSCORED) and b not in (None, UNSCORED)]
        if column != stage and len(known) > 0.5 * len(rows) and any(a != b for a, b in known):
            return [f"columns {stage + 1} and {column + 1} hold different stages: column {stage + 1} was read"]
    return []


def _in_seconds(
    path: Path, heading: Sequence[str], rows: Sequence[Sequence[str]], columns: Mapping[str, int]
) -> list[list[str]]:
    """The rows with times in seconds, where the heading states another unit."""
    found = [list(row) for row in rows]
    for column in (columns[what] for what in ("onset", "stop", "duration") if what in columns):
        unit = _UNIT.search(heading[column].strip(" #:\"'"))
        if unit and unit[1].lower().startswith("sample"):
            raise BadInput(path, f"counts its column {heading[column]!r} in samples", "give seconds from the start")
        for row in found:
            if unit and (value := number(row[column])) is not None:
                row[column] = f"{value * _UNIT_S[unit[1].lower()[:2]]:.6f}"
    return found


def _cells(lines: Sequence[str]) -> list[list[str]]:
    delimiter = next((mark for mark in "\t;," if 2 * sum(mark in line for line in lines) > len(lines)), None)
    if delimiter:
        table = csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)
        return [[cell.strip() for cell in row] for row in table]
    words = [line.split() for line in lines]
    if min(map(len, words), default=0) == max(map(len, words), default=0) > 3:
        timed = [
            all(_seconds(cell) is not None for cell in _without_luna_times(column))
            for column in zip(*words, strict=True)
        ]
        if sum(timed) > 1:  # Luna's columns may stand between blanks
            return words
    # Blanks separate columns only where a number leads; "Sleep stage W" is one cell.
    if sum(len(row) > 1 and _seconds(row[0]) is not None for row in words) > 0.5 * len(words):
        leads = [2 if len(row) > 2 and _seconds(row[1]) is not None else 1 for row in words]
        return [[*row[:n], " ".join(row[n:])] for row, n in zip(words, leads, strict=True)]
    return [[line.strip()] for line in lines]


def _without_luna_times(row: Sequence[str]) -> list[str]:
    """Cells with seconds for Luna's elapsed times (``0+00:02:00``) and numbers of epochs (``e:5`` or ``e:20:5``)."""
    cells, epochs = list(row), 0
    for column, cell in enumerate(row):
        if elapsed := _ELAPSED.fullmatch(cell):
            hours, minutes, seconds = (float((part or "0").replace(",", ".")) for part in elapsed.groups())
            cells[column] = f"{3600 * hours + 60 * minutes + seconds:.6f}"
        elif epoch := _LUNA_EPOCH.fullmatch(cell):
            # The second is the last epoch of the stage, which ends where the next one begins.
            cells[column] = f"{(int(epoch[2]) - 1 + epochs) * float(epoch[1] or _LUNA_EPOCH_S):.6f}"
            epochs = 1
    return cells


def _names(row: Sequence[str]) -> list[str]:
    plain = (re.sub(r"[\[(].*?[\])]", "", cell.lower()).strip(" #:\"'") for cell in row)
    return [_UNIT.sub("", re.sub(r"[\s_-]+", "_", cell)) for cell in plain]


def _is_heading(row: Sequence[str], index: int) -> bool:
    names = _names(row)
    timed = any(name in names for usual in _COLUMNS.values() for name in usual)
    usual = any(name in names for name in _STAGE_COLUMNS)
    return (usual and index == 0) or (timed and (usual or any(name.startswith("stage_") for name in names)))


def _by_heading(
    heading: Sequence[str], rows: Sequence[Sequence[str]], likeness: Sequence[tuple[int, int]]
) -> dict[str, int]:
    names = _names(heading)
    found = {what: next((names.index(n) for n in usual if n in names), -1) for what, usual in _COLUMNS.items()}
    more = [name for name in names if name.startswith("stage_")]
    candidates = [names.index(name) for name in (*_STAGE_COLUMNS, *more) if name in names]
    stage = max(candidates, key=lambda column: (*likeness[column], -candidates.index(column)))
    if found["onset"] < 0:  # a column of clock times is one of onsets, whatever its heading
        whole = [row for row in rows if len(row) == len(names)]
        clocks = (c for c in range(len(names)) if whole and all(_clock(row[c]) is not None for row in whole))
        found["onset"] = next(clocks, -1)
    return {what: column for what, column in found.items() if column >= 0 and column != stage} | {"stage": stage}


def _by_content(path: Path, rows: Sequence[Sequence[str]], likeness: Sequence[tuple[int, int]]) -> dict[str, int]:
    """Columns of a table without a heading: the stage is the one of stage names, numbers before it are times."""
    width = len(likeness)
    best = max(range(width), key=lambda column: likeness[column])
    stage = best if any(likeness[best]) else min(2, width - 1)
    rows = [row for row in rows if len(row) > stage]  # lines before the table are shorter
    others = [[(c, row[c]) for c in range(min(width, len(row))) if c != stage] for row in rows]
    untimed = {column for row in others for column, cell in row if _seconds(cell) is None}
    timed = [column for column in range(width) if column != stage and column not in untimed]
    if not timed:
        return {"stage": stage}
    firsts = [_seconds(row[timed[0]]) for row in rows if len(row) > timed[0]]
    counted = all(a is not None and b is not None and b - a == 1 for a, b in itertools.pairwise(firsts))
    clocks = [column for column in timed if all(number(row[column]) is None for row in rows)]
    if len(timed) == 1 and counted:
        return {"index": timed[0], "stage": stage}
    if clocks and clocks[0] > timed[0] and firsts == sorted({first or 0.0 for first in firsts}):
        timed = clocks  # numbers of epochs, then their clock times
    pairs = [(row[timed[1]], after[timed[0]]) for row, after in itertools.pairwise(rows)] if len(timed) > 1 else []
    touching = len(pairs) > 2 and sum(end == onset for end, onset in pairs) >= 0.9 * len(pairs)
    more = {"stop" if touching or path.suffix.lower() == ".annot" else "duration": timed[1]} if len(timed) > 1 else {}
    return {"onset": timed[0], "stage": stage, **more}


def _likeness(cells: Sequence[str], stage_of: StageOf) -> tuple[int, int]:
    """How many cells call themselves a stage, and how many are the name of one."""
    words = (cell for cell in cells if integer_of(cell) is None and cell.lower() not in _ABSENT)
    named = [word for word in words if stage_of(word) is not None]
    return sum(says_stage(cell) for cell in named), len(named)


def _timed(path: Path, rows: Sequence[Sequence[str]], columns: dict[str, int], notes: tuple[str, ...]) -> Scoring:
    texts = [row[columns["stage"]] for row in rows]
    if "onset" not in columns:
        if "index" in columns:
            return _indexed(path, [row[columns["index"]] for row in rows], texts, notes)
        lengths = [number(row[columns["duration"]]) for row in rows] if "duration" in columns else [None]
        if None in lengths:
            return Scoring([(None, None, text) for text in texts], "one stage a line", notes=notes)
        ends = itertools.accumulate(length or 0.0 for length in lengths)
        runs = [(end - (length or 0.0), length, text) for end, length, text in zip(ends, lengths, texts, strict=True)]
        return Scoring(runs, "table of durations", notes=notes)
    onsets, start = _onsets(path, [row[columns["onset"]] for row in rows])
    durations: list[float | None] = [None] * len(rows)
    if "duration" in columns:
        durations = [_duration(path, i, row[columns["duration"]]) for i, row in enumerate(rows, 1)]
    elif "stop" in columns:
        stops = [row[columns["stop"]] for row in rows]
        durations = [_until(path, i, *pair, start) for i, pair in enumerate(zip(onsets, stops, strict=True), 1)]
    how = "table of clock times" if start else "table of onsets"
    return Scoring(list(zip(onsets, durations, texts, strict=True)), how, None, start, start is None, notes=notes)


def _indexed(path: Path, cells: Sequence[str], texts: Sequence[str], notes: tuple[str, ...]) -> Scoring:
    """Numbered epochs, from 0 or from 1; numbers that are left out are epochs that nobody scored."""
    places = [integer_of(cell) for cell in cells]
    known = [place for place in places if place is not None]
    if len(known) < len(places) or known != sorted(set(known)) or known[0] < 0 or known[-1] > 10 * len(known) + 1000:
        raise BadInput(path, "has epoch numbers that are not ascending integers", "give onset_s,duration_s,stage")
    by_place = dict(zip(known, texts, strict=True))
    every = [(None, None, by_place.get(place, "?")) for place in range(min(known[0], 1), known[-1] + 1)]
    return Scoring(every, "table of numbered epochs", notes=notes)


def _onsets(path: Path, cells: Sequence[str]) -> tuple[list[float], datetime | None]:
    """Seconds from the first sample, or seconds from the first row and its time of day."""
    if number(cells[0]) is None and _clock(cells[0]) is not None:
        clocks: list[float] = []
        for line, cell in enumerate(cells, 1):
            if (seconds := _clock(cell)) is None:
                raise BadInput(path, f"row {line}: onset {cell!r} is no clock time", "give hh:mm:ss throughout")
            # Rows go forward in time: a clock that falls back by hours has passed midnight.
            day = 86_400 * math.floor(clocks[-1] / 86_400) if clocks else 0
            clocks.append(seconds + day + (86_400 if clocks and clocks[-1] - seconds - day > 43_200 else 0))
        if all(len(re.findall(r"[:.]", cell)) == 1 for cell in cells):
            clocks = _within_minutes(clocks)
        return [clock - clocks[0] for clock in clocks], _NO_DATE + timedelta(seconds=clocks[0])
    onsets = [number(cell) for cell in cells]
    for line, (onset, cell) in enumerate(zip(onsets, cells, strict=True), 1):
        if onset is None:
            raise BadInput(path, f"row {line}: onset {cell!r} is not a number", "give seconds from the start")
    return [onset for onset in onsets if onset is not None], None


def _within_minutes(clocks: Sequence[float]) -> list[float]:
    """Clock times without seconds: where every minute has the same number of rows, they lie side by side."""
    count = Counter(clocks)
    most, (first, *others) = max(count.values()), count
    if any(count[clock] < most for clock in others[:-1]):
        return list(clocks)
    # The first minute may begin before the recording: its rows stand at its end.
    places = {clock: most - count[clock] if clock == first and others else 0 for clock in count}
    out = []
    for clock in clocks:
        out.append(clock + 60 / most * places[clock])
        places[clock] += 1
    return out


def _duration(path: Path, line: int, cell: str) -> float | None:
    """Seconds; ``None`` for absent and for zero, which both mean: until the next stage."""
    if cell.lower() in _ABSENT:
        return None
    seconds = number(cell)
    seconds = _clock(cell) if seconds is None else seconds
    if seconds is None:
        raise BadInput(path, f"row {line}: duration {cell!r} is not a number", "give seconds")
    if seconds < 0:
        raise BadInput(path, f"row {line}: duration is not positive", "give seconds")
    return seconds or None


def _until(path: Path, line: int, onset: float, cell: str, start: datetime | None) -> float | None:
    if cell.startswith("+") or cell.lower() in _ABSENT:
        return _duration(path, line, cell.removeprefix("+"))
    if start is None:
        seconds = number(cell)
    elif (clock := _clock(cell)) is not None:
        seconds = onset + (clock - (start - _NO_DATE).total_seconds() - onset) % 86_400
    else:
        seconds = None
    if seconds is None or seconds < onset:
        raise BadInput(path, f"row {line}: end {cell!r} is not a time after {onset:g} s", "give seconds from the start")
    return seconds - onset or None


def _seconds(cell: str) -> float | None:
    return _clock(cell) if (value := number(cell)) is None else value


def number(cell: str) -> float | None:
    """A finite number, with a decimal point or a decimal comma."""
    try:
        value = float(cell.replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _clock(cell: str) -> float | None:
    """Seconds since midnight of ``23:00:30``, ``23.00.30``, ``11:00:30 PM`` or a date and such a time."""
    match = _CLOCK.search(cell.strip())
    if not match or (match[2] == "." and match[4] is None):
        return None
    hours, minutes, seconds = int(match[1]), int(match[3]), float((match[4] or "0").replace(",", "."))
    if match[5]:
        hours = hours % 12 + (12 if match[5].lower() == "pm" else 0)
    return hours * 3600 + minutes * 60 + seconds if hours < 24 and minutes < 60 and seconds < 61 else None
