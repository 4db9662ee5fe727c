"""Text files that hold a scoring: a table with or without a heading, or one stage a line.

Only the form of the file is dealt with here; what its words mean is judged in
:mod:`src.recordings.sleep.scoring_files`, by the same rules for every format.
"""

import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.recordings.sleep.scoring_times import (
    ABSENT,
    duration_of,
    number,
    onsets_of,
    seconds_of,
    until_of,
    without_luna_times,
)
from src.recordings.sleep.stage_names import integer_of, says_stage, stage_code
from src.signals import UNSCORED, BadInput
from src.storage.foreign_files import explained

Row = tuple[float | None, float | None, str]
"""``(onset_s, duration_s, text)``; ``None`` where the file does not say."""

_COLUMNS: dict[str, tuple[str, ...]] = {
    "onset": ("onset_s", "onset", "recording_onset", "start_s", "start", "start_time", "begin", "time_s", "time"),
    "stop": ("stop_s", "stop", "end_s", "end", "end_time", "ende", "fin"),
    "duration": ("duration_s", "duration", "length_s", "length", "dauer", "dur\u00e9e", "duraci\u00f3n"),
    "index": ("epoch", "epochs", "epoch_number", "epoch_no", "epoch_index", "index", "nr"),
}
_STAGE_COLUMNS = (
    *(
        "consensus",
        "majority",
        "stage",
        "stages",
        "sleep_stage",
        "sleep_stages",
        "sleepstage",
        "hypnogram",
        "label",
        "scoring",
        "state",
    ),
    *("trial_type", "description", "annotation", "event", "class", "instance", "value", "name"),
)
_LARGEST_BYTES = 1 << 26
_LONGEST_PREAMBLE = 100
_LONGEST_ROW = 20


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


LINES = "one stage a line"
"""How a text without times was read; its first lines may be a heading."""
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
    """Rows of a text: a table with a heading, a table without, one stage a line, or a list in JSON.

    ``stage_of`` says what a word stands for. Onsets and durations that are no numbers, and numbers that may be times
    but do not say which, raise :class:`BadInput`.
    """
    if (listed := _json_list(path, text)) is not None:
        return Scoring([(None, None, stage) for stage in listed], "JSON list")
    every = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    lines = [line for line in every if line.strip()]
    if lines and lines[0].strip().lower() == "[hypnogram]":
        return Scoring([(None, None, line.strip()) for line in lines[1:]], "DREAMS text", 5.0, coding="dreams")
    if lines and lines[0].startswith("*Duration_sec"):
        ends = [line.rsplit(None, 1) for line in lines if not line.startswith("*")]
        lines = ["stop,stage", *(f"{end[-1]},{end[0]}" for end in ends)]
    table = [without_luna_times(row) for row in _cells(lines)]
    if len(table) == 1 and len(table[0]) > _LONGEST_ROW:
        table = [[cell] for cell in table[0]]  # all stages in one line
    heading = _heading(table, stage_of)
    rows = table[heading + 1 :]
    if heading < 0:  # lines before the first time or stage
        rows = list(itertools.dropwhile(lambda row: len(row) > 1 and _is_words(row, stage_of), rows))
    if not rows:
        raise BadInput(path, "holds no stage", "give a hypnogram with at least one epoch")
    width = len(table[heading]) if heading >= 0 else max(len(row) for row in rows[:_LONGEST_PREAMBLE])
    if width == 1:
        _require_no_blank_line(path, [line.strip() for line in every], stage_of)
        return Scoring([(None, None, row[0]) for row in rows], LINES)
    names = _names(table[heading]) if heading >= 0 else []
    columns = _columns(path, names, rows, width, stage_of)
    needed = max(columns.values())
    short = [i for i, row in enumerate(rows, 1) if len(row) <= needed]
    # Rows without times are epochs: none may be missing after the first.
    untimed = set(columns) == {"stage"} and short != [*range(1, len(short) + 1)]
    if untimed or len(short) > 0.1 * len(rows):
        raise BadInput(path, f"row {short[0]} of its stages has too few columns", "give onset_s,duration_s,stage")
    rows = [row for row in rows if len(row) > needed]
    notes = [f"{len(short)} rows with too few columns left out"] if short else []
    notes += _second_scorer(rows, columns, stage_of)
    if names:
        rows = _in_seconds(path, table[heading], rows, columns)
    if any(re.fullmatch(r"p_\w+|confidence", name) for name in names):
        notes.append("was scored by a program, not by a person (it holds probabilities)")
    return _timed(path, rows, columns, tuple(notes))


def _json_list(path: Path, text: str) -> list[str] | None:
    """The stages of a JSON file that is a list, or an object with one list; ``None`` of any other text."""
    if not text.lstrip().startswith(("[", "{")):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    lists = [found] if isinstance(found, list) else [value for value in found.values() if isinstance(value, list)]
    if len(lists) != 1 or not all(isinstance(stage, str | int | float) for stage in lists[0]):
        raise BadInput(path, "is JSON that is not one list of stages", "give one list, or onset_s,duration_s,stage")
    return [str(stage) for stage in lists[0]]


def _require_no_blank_line(path: Path, lines: Sequence[str], stage_of: StageOf) -> None:
    """Refuse a blank line between stages, which may stand for an epoch; every second one is blank by a line's end."""
    staged = [
        i for i, line in enumerate(lines) if line and (stage_of(line) is not None or integer_of(line) is not None)
    ]
    inside = lines[staged[0] : staged[-1]] if staged else []
    if "" in inside and 2 * inside.count("") < len(inside) - 1:
        problem = f"has a blank line among its stages, {inside.index('') + 1} lines after the first"
        raise BadInput(path, problem, "write ? for an epoch that nobody scored, or delete the line")


def _second_scorer(rows: Sequence[Sequence[str]], columns: Mapping[str, int], stage_of: StageOf) -> list[str]:
    """A note on another column that is full of stages, and other ones."""

    def judged(column: int) -> list[int | None]:
        cells = [row[column] for row in rows]
        meaning = integer_of if _integers(cells) else stage_of
        means = {cell: meaning(cell) for cell in set(cells)}
        return [means[cell] for cell in cells]

    stage = columns["stage"]
    read = judged(stage)
    for column in set(range(min(map(len, rows)))) - set(columns.values()):
        pairs = zip(read, judged(column), strict=True)
        known = [(a, b) for a, b in pairs if a not in (None, UNSCORED) and b not in (None, UNSCORED)]
        if len(known) > 0.5 * len(rows) and any(a != b for a, b in known):
            return [f"columns {stage + 1} and {column + 1} hold different stages: column {stage + 1} was read"]
    return []


def _integers(cells: Sequence[str]) -> bool:
    """Whether a column may hold stages as integers: small ones, several, that do not count the rows."""
    found = [integer_of(cell) for cell in cells]
    small = [number for number in found if number is not None and -3 <= number <= 9]
    return len(small) > 0.9 * len(found) and len(set(small)) > 2 and small != sorted(set(small))


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
            all(seconds_of(cell) is not None for cell in without_luna_times(column))
            for column in zip(*words[1:], strict=True)
        ]
        if sum(timed) > 1:  # Luna's columns may stand between blanks
            return words
    # Blanks separate columns only where a number leads; "Sleep stage W" is one cell.
    if sum(len(row) > 1 and seconds_of(row[0]) is not None for row in words) > 0.5 * len(words):
        leads = [2 if len(row) > 2 and seconds_of(row[1]) is not None else 1 for row in words]
        return [[*row[:n], " ".join(row[n:])] for row, n in zip(words, leads, strict=True)]
    return [[line.strip()] for line in lines]


def _names(row: Sequence[str]) -> list[str]:
    plain = (re.sub(r"[\[(].*?[\])]", "", cell.lower()).strip(" #:\"'") for cell in row)
    return [_UNIT.sub("", re.sub(r"[\s_-]+", "_", cell)) for cell in plain]


def _heading(table: Sequence[Sequence[str]], stage_of: StageOf) -> int:
    """The row that names the columns, by usual names or because words stand over numbers; -1 without one."""
    first = table[:_LONGEST_PREAMBLE]
    for place, row in enumerate(first):
        names = _names(row)
        timed = any(name in names for usual in _COLUMNS.values() for name in usual)
        usual = any(name in names for name in _STAGE_COLUMNS)
        if (usual and place == 0) or (timed and (usual or any(name.startswith("stage_") for name in names))):
            return place

    over = (
        place
        for place, (row, below) in enumerate(itertools.pairwise(first))
        if len(row) == len(below) > 1
        and _is_words(row, stage_of)
        and any(seconds_of(cell) is not None for cell in below)
    )
    return next(over, -1)


def _is_words(row: Sequence[str], stage_of: StageOf) -> bool:
    """Whether no cell is a time or a stage."""
    return all(seconds_of(cell) is None and not (cell and stage_of(cell) is not None) for cell in row)


def _columns(
    path: Path, names: Sequence[str], rows: Sequence[Sequence[str]], width: int, stage_of: StageOf
) -> dict[str, int]:
    """What the columns of a table are: by their names where these are usual, else by what they hold."""
    cells = [[row[column] for row in rows if len(row) > column] for column in range(width)]
    likeness = [_likeness(column, stage_of) for column in cells]
    named = {what: next((names.index(n) for n in usual if n in names), -1) for what, usual in _COLUMNS.items()}
    more = [name for name in names if name.startswith("stage_")]
    candidates = [names.index(name) for name in (*_STAGE_COLUMNS, *more) if name in names]
    usual = bool(candidates)
    candidates = candidates or [c for c in range(width) if c not in named.values()] or list(range(width))
    if not any(likeness[c][1] for c in candidates):
        candidates = [c for c in candidates if _integers(cells[c])] or (candidates if usual else candidates[-1:])
    stage = max(candidates, key=lambda column: (*likeness[column], -candidates.index(column)))
    found = {what: column for what, column in named.items() if column >= 0 and column != stage}
    if "onset" not in found:
        # A column of clock times is one of onsets, whatever its heading.
        whole = [row for row in rows if len(row) > max(stage, *found.values(), 0)]
        free = [c for c in range(width) if c != stage and c not in found.values()]
        found = _by_content(path, whole, stage, free, found) | found
    return found | {"stage": stage}


def _by_content(
    path: Path, rows: Sequence[Sequence[str]], stage: int, free: Sequence[int], named: Mapping[str, int]
) -> dict[str, int]:
    """Times among the ``free`` columns: rising clock times or numbers are onsets, then come ends or durations.

    Beside numbers of epochs that are ``named`` only clock times count.
    """
    found = {c: [seconds_of(row[c]) if c < len(row) else None for row in rows] for c in free}
    times = {c: [t for t in column if t is not None] for c, column in found.items() if None not in column}
    rising = [c for c, column in times.items() if _rises(column)]
    clocks = [c for c in rising if all(number(row[c]) is None for row in rows)]
    if not rising or "index" in named:
        return {"onset": clocks[0]} if clocks else {}
    steps = {c: {round(b - a, 6) for a, b in itertools.pairwise(sorted(times[c]))} for c in rising}
    onset = next((c for c in (*clocks, *rising) if steps[c] != {1}), rising[0])
    others = [c for c in times if c > onset and not named]
    pairs = list(itertools.pairwise(times[onset]))
    for c in others:
        ends = sum(end == after for end, (_, after) in zip(times[c], pairs, strict=False))
        if path.suffix.lower() == ".annot" or (len(pairs) > 2 and ends >= 0.9 * len(pairs)):
            return {"onset": onset, "stop": c}
        if steps[onset] == {1} and set(times[c]) != {1.0}:
            continue  # numbers of epochs
        side_by_side = sum(a + length <= b + 0.5 for length, (a, b) in zip(times[c], pairs, strict=False))
        if 3 * side_by_side > len(pairs) and sum(times[c]) >= 0.5 * float(_steps(times[onset]).sum()):
            return {"onset": onset, "duration": c}
    if steps[onset] == {1}:
        return {"index": onset}
    if stage < onset and onset not in clocks and times[onset][0] and not named:
        problem = f"has stages before times that may be starts or ends (the first is {times[onset][0]:g})"
        raise BadInput(path, problem, "name the columns: stage,onset or stage,stop")
    return {"onset": onset}


def _steps(times: Sequence[float]) -> NDArray[np.float64]:
    """From each time to the next; a clock may pass midnight."""
    steps = np.diff(times)
    return np.where(steps < -43_200, steps + 86_400, steps)


def _rises(times: Sequence[float]) -> bool:
    """Whether times go forward, but for some events out of order, or are even steps in another order."""
    steps = _steps(times)
    if len(steps) and float(np.mean(steps >= 0)) >= 0.98:
        return float(np.mean(steps > 0)) > 0.5
    even = Counter(np.diff(sorted(times)).round(3).tolist()).most_common(1)
    return bool(even) and even[0][0] > 0 and even[0][1] > 0.8 * len(steps)


def _likeness(cells: Sequence[str], stage_of: StageOf) -> tuple[int, int]:
    """How many cells call themselves a stage, and how many are the name of one."""
    words = {cell: n for cell, n in Counter(cells).items() if integer_of(cell) is None and cell.lower() not in ABSENT}
    named = {word: n for word, n in words.items() if stage_of(word) is not None}
    return sum(n for word, n in named.items() if says_stage(word)), sum(named.values())


def _timed(path: Path, rows: Sequence[Sequence[str]], columns: dict[str, int], notes: tuple[str, ...]) -> Scoring:
    texts = [row[columns["stage"]] for row in rows]
    if "onset" not in columns:
        if "index" in columns:
            return _indexed(path, [row[columns["index"]] for row in rows], texts, notes)
        lengths = _lengths(path, rows, columns)
        if None in lengths:
            return Scoring([(None, None, text) for text in texts], LINES, notes=notes)
        ends = itertools.accumulate(length or 0.0 for length in lengths)
        runs = [(end - (length or 0.0), length, text) for end, length, text in zip(ends, lengths, texts, strict=True)]
        return Scoring(runs, "table of durations", notes=notes)
    onsets, start = onsets_of(path, [row[columns["onset"]] for row in rows])
    durations: list[float | None] = [None] * len(rows)
    if "duration" in columns:
        durations = [duration_of(path, i, row[columns["duration"]]) for i, row in enumerate(rows, 1)]
    elif "stop" in columns:
        stops = [row[columns["stop"]] for row in rows]
        durations = [until_of(path, i, *pair, start) for i, pair in enumerate(zip(onsets, stops, strict=True), 1)]
    how = "table of clock times" if start else "table of onsets"
    return Scoring(list(zip(onsets, durations, texts, strict=True)), how, None, start, start is None, notes=notes)


def _lengths(path: Path, rows: Sequence[Sequence[str]], columns: Mapping[str, int]) -> list[float | None]:
    """Durations of stages that follow one another from the start, stated as such or by their ends."""
    if "duration" in columns or "stop" not in columns:
        return [number(row[columns["duration"]]) for row in rows] if "duration" in columns else [None]
    ends = [0.0, *(number(row[columns["stop"]]) or 0.0 for row in rows)]
    if not _rises(ends):
        raise BadInput(path, "has ends of stages that are no ascending seconds", "give onset_s,duration_s,stage")
    return [b - a for a, b in itertools.pairwise(ends)]


def _indexed(path: Path, cells: Sequence[str], texts: Sequence[str], notes: tuple[str, ...]) -> Scoring:
    """Numbered epochs, from 0 or from 1; numbers that are left out are epochs that nobody scored."""
    places = [integer_of(cell) for cell in cells]
    known = [place for place in places if place is not None]
    if len(known) < len(places) or known != sorted(set(known)) or known[0] < 0 or known[-1] > 10 * len(known) + 1000:
        raise BadInput(path, "has epoch numbers that are not ascending integers", "give onset_s,duration_s,stage")
    if len(known) < 0.5 * (known[-1] - known[0] + 1):
        problem = f"names {len(known)} of the epochs {known[0]} to {known[-1]}"
        raise BadInput(path, problem, "give a row for every epoch, or onset_s,duration_s,stage for runs of epochs")
    by_place = dict(zip(known, texts, strict=True))
    every = [(None, None, by_place.get(place, "?")) for place in range(min(known[0], 1), known[-1] + 1)]
    return Scoring(every, "table of numbered epochs", notes=notes)
