"""Tables of a scoring, whatever file they come from: which column holds what, and the rows in seconds.

Only the form is dealt with here; what the words mean is judged in :mod:`src.recordings.sleep.scoring_files`, by the
same rules for every format.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.recordings.sleep.hypnogram import LINES, TABLE_WITHOUT_TIMES
from src.recordings.sleep.scoring_times import (
    ABSENT,
    DATE,
    duration_of,
    number,
    onsets_of,
    seconds_of,
    until_of,
)
from src.recordings.sleep.stage_names import CODINGS, ScoringOptions, integer_of, says_stage
from src.signals import UNSCORED, BadInput, counted

Row = tuple[float | None, float | None, str]
"""``(onset_s, duration_s, text)``; ``None`` where the file does not say."""

_USUAL_NAMES = {
    "onset": "onset_s onset recording_onset start_s start_sec start start_time epoch_start begin time_s time elapsed "
    "elapsed_time time_from_start",
    "stop": "stop_s stop stop_time end_s end end_time epoch_end ende fin",
    "duration": "duration_s duration duration_sec length_s length dauer durée duración",
    "index": "epoch epochs epoch_number epoch_no epoch_index index nr",
    "stage": "consensus majority stage stages sleep_stage sleep_stages sleepstage hypnogram label scoring state "
    "brain_state trial_type description annotation event class instance value name",
}
_COLUMNS = {what: names.split() for what, names in _USUAL_NAMES.items()}
_STAGE_COLUMNS = _COLUMNS.pop("stage")
_LONGEST_PREAMBLE = 100
LONGEST_ROW = 20


@dataclass(frozen=True)
class Scoring:
    """What a file says, before its words are judged."""

    rows: Sequence[Row]  # in the order of the file
    how: str  # how it was read, for people
    epoch_s: float | None = None  # length of an epoch where the file states it
    start: datetime | None = None  # zero of the onsets on the wall clock
    dated: bool = True  # false where only the time of day is known
    or_day: date | None = None  # the other date that start may have: 01/03/2020 is two
    coding: str | None = None  # what integers mean where the format says so
    notes: tuple[str, ...] = ()  # what had to be decided
    scorer: str = ""  # whose stages they are, where the file has those of several
    legend: Mapping[int, int] = field(default_factory=dict)  # what integers mean where the file says so


StageOf = Callable[[str], int | None]
"""The label of a word that names a stage, ``None`` of any other; see :func:`~stage_names.stage_code`."""
_RECORDING_COLUMNS = ("subject", "subject_id", "participant", "participant_id", "patient", "night", "recording")
SCORER = re.compile(r"scorer|scored_by|rater|reader|annotator", re.IGNORECASE)
"""Headings, elements and keys that name who scored."""
_BY_PERSON = re.compile(rf"hum|expert|manual|consensus|majority|true|truth|gold|technician|{SCORER.pattern}")
_BY_PROGRAM = re.compile(r"(?:^|_)(?:ai|auto\w*|algo\w*|machine|pred\w*|yasa|usleep)(?:_|$)")
_ELAPSED = re.compile(r"elapsed|relative|from_start|since")
_UNIT = re.compile(r"[\s_(\[]+(ms|msec|min|mins|minutes|h|hr|hrs|hours|samples?)[)\]]?$", re.IGNORECASE)
_UNIT_S = {"ms": 1e-3, "mi": 60.0, "h": 3600.0, "hr": 3600.0, "ho": 3600.0}
"""Seconds of a unit in a heading, by its first letters."""


def parse_table(
    path: Path, table: Sequence[Sequence[str]], options: ScoringOptions, heading: int | None = None
) -> Scoring:
    """Rows of a table of cells; ``heading`` is the row that names the columns, -1 for none, ``None`` to find it."""
    stage_of, table = options.stage, list(table)
    heading = _heading(table, stage_of) if heading is None else heading
    rows: list[Sequence[str]] = list(table[heading + 1 :])
    if heading >= 0 and len(rows) > 2 and {len(row) - len(table[heading]) for row in rows} == {1}:
        table[heading] = ["", *table[heading]]  # R names its rows and not their names
    if heading < 0:  # lines before the first time or stage
        rows = [*itertools.dropwhile(lambda row: len(row) > 1 and _is_words(row, stage_of), rows)]
    if not rows:
        raise BadInput(path, "holds no stage", "give a hypnogram with at least one epoch")
    width = len(table[heading]) if heading >= 0 else max(len(row) for row in rows[:_LONGEST_PREAMBLE])
    names = _names(table[heading]) if heading >= 0 else []
    legend = CODINGS["accusleep"] if "brain_state" in names else {}
    if width == 1:
        return Scoring([(None, None, row[0]) for row in rows], LINES, legend=legend)
    rows, scorer = _of_one_scorer(path, names, rows, options)
    columns = _columns(path, names, rows, width, options)
    rows, notes = _complete_rows(path, rows, columns, stage_of)
    notes += _second_scorer(path, names, rows, columns, options)
    if names:
        rows = _in_seconds(path, table[heading], rows, columns)
    if any(re.fullmatch(r"p_\w+|confidence\w*", name) for name in names):
        notes.append("was scored by a program, not by a person (it holds probabilities)")
    rows = _with_dates(rows, columns)
    elapsed = "onset" in columns and bool(names) and _ELAPSED.search(names[columns["onset"]]) is not None
    scoring = _timed(path, rows, columns, elapsed=elapsed)
    scorer = scorer or (names[columns["stage"]] if names and options.scorer else "")
    return replace(scoring, notes=(*notes, *scoring.notes), legend=legend, scorer=scorer)


def _of_one_scorer(
    path: Path, names: Sequence[str], rows: Sequence[Sequence[str]], options: ScoringOptions
) -> tuple[list[Sequence[str]], str]:
    """The rows of one scorer and who it is, where a column names several; several recordings are refused."""
    for column, name in enumerate(names):
        values = [row[column] if len(row) > column else "" for row in rows]
        several = 1 < len(set(values)) <= len(rows) / 5
        if several and name in _RECORDING_COLUMNS:
            problem = f"holds the rows of {len(set(values))} recordings (column {name!r})"
            raise BadInput(path, problem, "give a file for each recording")
        if several and SCORER.search(name) and {options.stage(value) for value in values} <= {None, UNSCORED}:
            chosen = one_scorer(path, values, options)
            return [row for row, scorer in zip(rows, values, strict=True) if scorer in ("", chosen)], chosen
    return list(rows), ""


def one_scorer(path: Path, scorers: Sequence[str], options: ScoringOptions) -> str:
    """The one of several scorers that the options name, or the only one."""
    found = sorted({*scorers} - {""})
    chosen = [name for name in found if name.casefold() == (options.scorer or name).casefold()]
    if len(chosen) != 1:
        problem = f"holds the stages of {counted(len(found), 'scorer')} ({', '.join(found[:8])})"
        raise BadInput(path, problem, f"name one: source.scorer={found[0]}")
    return chosen[0]


def _complete_rows(
    path: Path, rows: Sequence[Sequence[str]], columns: Mapping[str, int], stage_of: StageOf
) -> tuple[list[Sequence[str]], list[str]]:
    """Rows that have all of the columns that are needed, without the lines before and after a table."""
    needed, stage = max(columns.values()), columns["stage"]
    time = columns.get("onset", columns.get("index", stage))

    def is_foreign(row: Sequence[str]) -> bool:
        if len(row) > stage and (stage_of(row[stage]) is not None or integer_of(row[stage]) is not None):
            return False
        return time != stage and (len(row) <= time or seconds_of(row[time]) is None)

    before = sum(1 for _ in itertools.takewhile(lambda row: len(row) <= needed, rows[:_LONGEST_PREAMBLE]))
    after = sum(1 for _ in itertools.takewhile(is_foreign, rows[:before:-1][:LONGEST_ROW]))
    inner = rows[before : len(rows) - after]
    short = [i for i, row in enumerate(inner, before + 1) if len(row) <= needed]
    # Rows without times are epochs: none may be missing after the first.
    if not inner or (short and set(columns) == {"stage"}) or len(short) > 0.1 * len(inner):
        row = short[0] if short else 1
        raise BadInput(path, f"row {row} of its stages has too few columns", "give onset_s,duration_s,stage")
    notes = [f"{counted(len(short) + before, 'row')} with too few columns left out"] if short or before else []
    if after:
        notes.append(f"{counted(after, 'line')} after the table left out ({', '.join(rows[-1])!r})")
    return [row for row in inner if len(row) > needed], notes


def _with_dates(rows: Sequence[Sequence[str]], columns: Mapping[str, int]) -> list[Sequence[str]]:
    """The rows with the date of a column of its own before their clock times."""
    onset = columns.get("onset", -1)
    width = min(map(len, rows), default=0)
    dates = [c for c in range(width) if c != onset and all(DATE.fullmatch(row[c]) for row in rows)]
    clocks = onset >= 0 and all(":" in row[onset] and not DATE.search(row[onset]) for row in rows)
    if not clocks or not dates:
        return list(rows)
    date_column = min(dates, key=lambda column: abs(column - onset))  # a date of birth may stand farther away
    return [[*row[:onset], f"{row[date_column]} {row[onset]}", *row[onset + 1 :]] for row in rows]


def _second_scorer(
    path: Path, names: Sequence[str], rows: Sequence[Sequence[str]], columns: Mapping[str, int], options: ScoringOptions
) -> list[str]:
    """A note on another column that is full of stages, and other ones; refused where no heading says which to read."""
    stage, cells = columns["stage"], list(zip(*rows, strict=False))
    integers = [sum(integer_of(cell) is not None for cell in column) > 0.9 * len(column) for column in cells]
    meaning = integer_of if integers[stage] else options.stage
    for column in set(range(len(cells))) - set(columns.values()):
        if integers[column] != integers[stage] or (integers[column] and not _integers(cells[column])):
            continue
        means = {cell: meaning(cell) for cell in {*cells[stage], *cells[column]}}
        pairs = ((means[a], means[b]) for a, b in zip(cells[stage], cells[column], strict=True))
        known = [(a, b) for a, b in pairs if a not in (None, UNSCORED) and b not in (None, UNSCORED)]
        others = len({b for _, b in known}) > 1 and any(a != b for a, b in known)
        if not others or len(known) <= 0.5 * len(rows):
            continue
        name, other = (names[c] if c < len(names) else "" for c in (stage, column))
        both = f"columns {stage + 1} and {column + 1} hold different stages"
        says = name in _STAGE_COLUMNS or name.startswith("stage_") or _BY_PERSON.search(name)
        if says or (options.scorer and name == _names([options.scorer])[0]):
            return [f"{both}: column {stage + 1} was read (source.scorer={other} reads the other)"]
        hint = f"name one: source.scorer={name}" if name else "write a heading, with 'stage' over the one to read"
        raise BadInput(path, f"has no heading that says where the stages are: its {both}", hint)
    return []


def _integers(cells: Sequence[str]) -> bool:
    """Whether a column may hold stages as integers: small ones, several, that do not count the rows."""
    found = [integer_of(cell) for cell in cells]
    small = [number for number in found if number is not None and -3 <= number <= 9]
    return len(small) > 0.9 * len(found) and len(set(small)) > 2 and small != sorted(set(small))


def _in_seconds(
    path: Path, heading: Sequence[str], rows: Sequence[Sequence[str]], columns: Mapping[str, int]
) -> list[Sequence[str]]:
    """The rows with times in seconds, where the heading states another unit."""
    found = [list(row) for row in rows]
    for column in {*columns.values()} - {columns["stage"], columns.get("index")}:
        unit = _UNIT.search(heading[column].strip(" #:\"'"))
        if unit and unit[1].lower().startswith("sample"):
            raise BadInput(path, f"counts its column {heading[column]!r} in samples", "give seconds from the start")
        for row in found:
            if unit and (value := number(row[column])) is not None:
                row[column] = f"{value * _UNIT_S[unit[1].lower()[:2]]:.6f}"
    return [*found]


def _names(row: Sequence[str]) -> list[str]:
    words = (re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cell).lower() for cell in row)  # StartTime
    plain = (re.sub(r"[\[(].*?[\])]", "", cell).strip(" #:\"'") for cell in words)
    return [_UNIT.sub("", re.sub(r"[\s_-]+", "_", cell)) for cell in plain]


def _heading(table: Sequence[Sequence[str]], stage_of: StageOf) -> int:
    """The row that names the columns, by usual names or because words stand over numbers; -1 without one."""
    first = table[:_LONGEST_PREAMBLE]
    width = max(Counter(map(len, first)).items(), key=lambda item: item[1], default=(0, 0))[0]
    for place, row in enumerate(first):
        names = _names(row)
        timed = any(name in names for usual in _COLUMNS.values() for name in usual)
        if timed and any(name in _STAGE_COLUMNS or name.startswith("stage_") for name in names):
            return place
    if first and len(first[0]) >= width and any(name in _STAGE_COLUMNS for name in _names(first[0])):
        return 0
    for place, (row, below) in enumerate(itertools.pairwise(first)):
        above = len(row) == len(below) > 1 and _is_words(row, stage_of)
        if above and any(seconds_of(cell) is not None for cell in below):
            return place
    return -1


def _is_words(row: Sequence[str], stage_of: StageOf) -> bool:
    """Whether no cell is a time or a stage."""
    return all(seconds_of(cell) is None and not (cell and stage_of(cell) is not None) for cell in row)


def _columns(
    path: Path, names: Sequence[str], rows: Sequence[Sequence[str]], width: int, options: ScoringOptions
) -> dict[str, int]:
    """What the columns of a table are: by their names where these are usual, else by what they hold."""
    cells = [[row[column] for row in rows if len(row) > column] for column in range(width)]
    named = {what: names.index(n) for what, usual in _COLUMNS.items() for n in reversed(usual) if n in names}
    stage = _stage_column(names, cells, list(named.values()), options)
    found = {what: column for what, column in named.items() if column != stage}
    if "onset" not in found:
        # A column of clock times is one of onsets, whatever its heading.
        whole = [row for row in rows if len(row) > max(stage, *found.values(), 0)]
        free = [c for c in range(width) if c != stage and c not in found.values()]
        found = _by_content(path, whole, stage, free, found) | found
    return found | {"stage": stage}


def _stage_column(
    names: Sequence[str], cells: Sequence[Sequence[str]], others: Sequence[int], options: ScoringOptions
) -> int:
    """The column of stages: the one that is named, else the fullest of those with a usual name, else of all."""
    if options.scorer and (chosen := _names([options.scorer])[0]) in names:
        return names.index(chosen)
    likeness = [_likeness(column, options.stage) for column in cells]
    more = [name for name in names if name.startswith("stage_")]
    usual = [names.index(name) for name in (*_STAGE_COLUMNS, *more) if name in names]
    columns = range(len(cells))
    candidates = usual or [c for c in columns if c not in others] or list(columns)
    if not any(likeness[c][1] for c in candidates):
        full = [c for c in columns if 2 * likeness[c][1] > len(cells[c])]
        full = full or [c for c in candidates if _integers(cells[c])]
        candidates = full or (candidates if usual else candidates[-1:])
    most = max(likeness[c][1] for c in candidates)

    def rank(column: int) -> tuple[int, ...]:
        says, named, kinds = likeness[column]
        name = names[column] if column < len(names) and 2 * named >= most else ""
        by_person = bool(_BY_PERSON.search(name)) - bool(_BY_PROGRAM.search(name))
        # "R" and "L" are sides of the body too: a column of few kinds of stages counts less.
        return by_person, says, named * min(kinds, 3), -candidates.index(column)

    return max(candidates, key=rank)


def _by_content(
    path: Path, rows: Sequence[Sequence[str]], stage: int, free: Sequence[int], named: Mapping[str, int]
) -> dict[str, int]:
    """Times among the ``free`` columns: rising clock times or numbers are onsets, then come ends or durations.

    Beside numbers of epochs that are ``named`` only clock times count.
    """
    times = {c: [t for row in rows if c < len(row) and (t := seconds_of(row[c])) is not None] for c in free}
    full = (c for c, column in times.items() if len(column) == len(rows))
    times = {c: times[c] for c in full if max(times[c], default=0.0) > 1}  # else probabilities
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


def _likeness(cells: Sequence[str], stage_of: StageOf) -> tuple[int, int, int]:
    """How many cells call themselves a stage, how many are the name of one, and of how many stages."""
    words = {cell: n for cell, n in Counter(cells).items() if integer_of(cell) is None and cell.lower() not in ABSENT}
    named = {word: n for word, n in words.items() if stage_of(word) is not None}
    kinds = {stage_of(word) for word in named} - {UNSCORED}
    return sum(n for word, n in named.items() if says_stage(word)), sum(named.values()), len(kinds)


def _timed(path: Path, rows: Sequence[Sequence[str]], columns: dict[str, int], *, elapsed: bool) -> Scoring:
    texts = [row[columns["stage"]] for row in rows]
    if "onset" not in columns:
        if "index" in columns:
            return _indexed(path, [row[columns["index"]] for row in rows], texts)
        ends = _ends(path, rows, columns)
        if not ends:
            return Scoring([(None, None, text) for text in texts], TABLE_WITHOUT_TIMES)
        runs = zip(itertools.pairwise([0.0, *ends]), texts, strict=True)
        return Scoring([(a, b - a, text) for (a, b), text in runs], "table of durations")
    onsets, start, dates = onsets_of(path, [row[columns["onset"]] for row in rows], elapsed=elapsed)
    durations: list[float | None] = [None] * len(rows)
    if "duration" in columns:
        durations = [duration_of(path, i, row[columns["duration"]]) for i, row in enumerate(rows, 1)]
    elif "stop" in columns:
        stops = [row[columns["stop"]] for row in rows]
        durations = [until_of(path, i, *pair, start) for i, pair in enumerate(zip(onsets, stops, strict=True), 1)]
    rows_s, how = list(zip(onsets, durations, texts, strict=True)), f"table of {'clock times' if start else 'onsets'}"
    or_day = dates[1] if len(dates) > 1 else None
    return Scoring(rows_s, how, start=start, dated=start is None or bool(dates), or_day=or_day)


def _ends(path: Path, rows: Sequence[Sequence[str]], columns: Mapping[str, int]) -> list[float]:
    """Ends of stages that follow one another from the start, stated as such or by their durations, if they are."""
    if "duration" in columns:
        lengths = [length for row in rows if (length := seconds_of(row[columns["duration"]])) is not None]
        return list(itertools.accumulate(lengths)) if len(lengths) == len(rows) else []
    ends = [number(row[columns["stop"]]) or 0.0 for row in rows] if "stop" in columns else []
    if ends and not _rises([0.0, *ends]):
        raise BadInput(path, "has ends of stages that are no ascending seconds", "give onset_s,duration_s,stage")
    return ends


def _indexed(path: Path, cells: Sequence[str], texts: Sequence[str]) -> Scoring:
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
    notes = (f"its first epoch has the number {known[0]}: counted from 1",) if known[0] > 1 else ()
    return Scoring(every, "table of numbered epochs", notes=notes)
