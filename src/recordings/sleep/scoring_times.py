"""Times in scoring files: seconds, clock times, dates, durations and Luna's notations."""

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from pathlib import Path

from src.signals import BadInput

ABSENT = ("", "n/a", "na", "nan", ".", "...", "-")
_LUNA_DATE = r"\d{1,2}[-/]\w{1,3}[-/]\d{2,4}-"
_CLOCK = re.compile(
    rf"(?:^|[T\s]|^{_LUNA_DATE})(\d{{1,2}})([:.])(\d{{2}})(?:\2(\d{{2}}(?:[.,:]\d+)?))?\s*([ap]\.?\s?m\.?)?(?:Z|[+-]\d{{2}}:?\d{{2}})?$",
    re.IGNORECASE,
)
_HOURS = re.compile(r"(?<!\d)(\d{1,2})\s?h\s?(\d{2})(?:\s?m(?:in)?)?(?:\s?(\d{2}(?:[.,]\d+)?)\s?s?)?$", re.IGNORECASE)
"""``22h58m10s``, ``22h58``."""
DATE = re.compile(r"(?<!\d)(\d{1,4})(?P<sign>[-/.])(\d{1,2}|[a-z]{3})(?P=sign)(\d{4}|\d{2})(?!\d)", re.IGNORECASE)
_DATE_FORMS = ("%Y-%m-%d", "%d-%m-%Y", "%d-%m-%y", "%d-%b-%Y", "%d-%b-%y", "%m-%d-%Y", "%m-%d-%y")
_LUNA_ELAPSED = re.compile(r"(?<![^\s,;])0\+(\d+):(\d{2})(?::(\d{2}(?:\.\d+)?))?(?![^\s,;])")
_LUNA_EPOCH = re.compile(r"(?<![^\s,;])e:(?:(\d+(?:\.\d+)?):)?(\d+)(?![^\s,;])")
_LUNA_EPOCH_S = 30.0
_NO_DATE = datetime(1985, 1, 1)
_FIRST_YEAR = 1971


def without_luna_times(line: str) -> str:
    """A line with seconds for Luna's elapsed times (``0+00:02:00``) and numbers of epochs (``e:5`` or ``e:20:5``)."""
    line = _LUNA_ELAPSED.sub(lambda t: f"{3600 * int(t[1]) + 60 * int(t[2]) + float(t[3] or 0):.6f}", line)
    # The second number is the last epoch of the stage, which ends where the next one begins.
    before = itertools.chain([1], itertools.repeat(0))
    return _LUNA_EPOCH.sub(lambda e: f"{(int(e[2]) - next(before)) * float(e[1] or _LUNA_EPOCH_S):.6f}", line)


def onsets_of(
    path: Path, cells: Sequence[str], *, elapsed: bool = False
) -> tuple[list[float], datetime | None, tuple[date, ...]]:
    """Seconds from the first sample; of clock times from the first row, with its time of day and its possible dates.

    ``elapsed``: clock times count from the first sample. The time of day has the date 1985-01-01 if none is known.
    """
    is_clock = number(cells[0]) is None and _clock(cells[0]) is not None
    times: list[float] = []
    for line, cell in enumerate(cells, 1):
        if (seconds := (_clock if is_clock else number)(cell)) is None:
            what, hint = (
                ("no clock time", "hh:mm:ss throughout") if is_clock else ("not a number", "seconds from the start")
            )
            raise BadInput(path, f"row {line}: onset {cell!r} is {what}", f"give {hint}")
        times.append(seconds)
    if not is_clock:
        return times, None, ()
    readings = _dates(cells)
    dates = tuple(dict.fromkeys(days[0] for days in readings))
    if elapsed or (dates and dates[0].year < _FIRST_YEAR):  # MNE writes 1970-01-01 00:00:30 for 30 s
        days = readings[0] if readings else [_NO_DATE.date()] * len(times)
        return [86_400 * (day - min(days)).days + t for day, t in zip(days, times, strict=True)], None, ()
    clocks = next((found for days in readings if (found := _by_date(times, days))), None)
    clocks = clocks or _past_midnight(path, cells, times)
    if all(len(re.findall(r"[:.]", DATE.sub("", cell))) == 1 for cell in cells):
        clocks = _within_minutes(clocks)
    start = datetime.combine(dates[0] if dates else _NO_DATE, datetime.min.time()) + timedelta(seconds=clocks[0])
    return [clock - clocks[0] for clock in clocks], start, dates


def _past_midnight(path: Path, cells: Sequence[str], times: Sequence[float]) -> list[float]:
    """Clock times in seconds that go forward: one that falls back by hours has passed midnight."""
    clocks: list[float] = []
    for line, (cell, seconds) in enumerate(zip(cells, times, strict=True), 1):
        day = 86_400 * math.floor(clocks[-1] / 86_400) if clocks else 0
        back_s = clocks[-1] - seconds - day if clocks else 0.0
        if 39_600 < back_s <= 43_200:  # 12:59 and 01:00 without AM and PM
            problem = f"row {line}: clock time {cell!r} is half a day before the row above it"
            raise BadInput(path, problem, "give 24-hour clock times, AM and PM, or seconds from the start")
        clocks.append(seconds + day + (86_400 if back_s > 43_200 else 0))
    return clocks


def _by_date(times: Sequence[float], days: Sequence[date]) -> list[float] | None:
    """Seconds since the first midnight; ``None`` where time falls back by hours: one date may stand for the night."""
    clocks = [86_400.0 * (day - days[0]).days + time for day, time in zip(days, times, strict=True)]
    steps = [b - a for a, b in itertools.pairwise(clocks)]
    return None if min(steps, default=0) < -39_600 or max(clocks) - min(clocks) > 14 * 86_400 else clocks


def _dates(cells: Sequence[str]) -> list[list[date]]:
    """The dates of cells in the orders of day, month and year that are possible, the shortest span first."""
    texts = [match[0] for cell in cells if (match := DATE.search(cell))]
    forms = [form for form in _DATE_FORMS if not (form.startswith("%m") and "." in "".join(texts[:1]))]
    readings = []
    for form in forms if len(texts) == len(cells) else ():
        with suppress(ValueError):
            days = {text: datetime.strptime(re.sub("[/.]", "-", text), form).date() for text in set(texts)}
            readings.append([days[text] for text in texts])
    readings.sort(key=lambda days: max(days) - min(days))
    return readings[:1] + [days for days in readings[1:] if max(days) - min(days) <= timedelta(days=14)]


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


def duration_of(path: Path, line: int, cell: str) -> float | None:
    """Seconds; ``None`` for absent and for zero, which both mean: until the next stage."""
    if cell.lower() in ABSENT:
        return None
    seconds = seconds_of(re.sub(r"\s*s(?:ec(?:onds)?)?\.?$", "", cell, flags=re.IGNORECASE))
    if seconds is None:
        raise BadInput(path, f"row {line}: duration {cell!r} is not a number", "give seconds")
    if seconds < 0:
        raise BadInput(path, f"row {line}: duration is not positive", "give seconds")
    return seconds or None


def until_of(path: Path, line: int, onset: float, cell: str, start: datetime | None) -> float | None:
    """Seconds from an onset to the end that a cell states; ``start`` is the time of day of zero."""
    if cell.startswith("+") or cell.lower() in ABSENT:
        return duration_of(path, line, cell.removeprefix("+"))
    seconds = seconds_of(cell) if start is None else _clock(cell)
    if start is not None and seconds is not None:
        zero_s = (start - datetime.combine(start, datetime.min.time())).total_seconds()
        seconds = onset + (seconds - zero_s - onset) % 86_400
    if seconds is None or seconds < onset:
        raise BadInput(path, f"row {line}: end {cell!r} is not a time after {onset:g} s", "give seconds from the start")
    return seconds - onset or None


def seconds_of(cell: str) -> float | None:
    return _clock(cell) if (value := number(cell)) is None else value


def number(cell: str) -> float | None:
    """A finite number, with a decimal point or a decimal comma."""
    try:
        value = float(cell.replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _clock(cell: str) -> float | None:
    """Seconds since midnight of ``23:00:30``, ``23.00.30``, ``23h00m30s``, ``11:00:30 PM``, with a date or without."""
    match = _CLOCK.search(_HOURS.sub(r"\1:\2:\3", cell.strip()).rstrip(":"))
    if not match or (match[2] == "." and match[4] is None):
        return None
    hours, minutes, seconds = int(match[1]), int(match[3]), float(re.sub("[,:]", ".", match[4] or "0"))
    if match[5]:
        hours = hours % 12 + (12 if match[5][0].lower() == "p" else 0)
    return hours * 3600 + minutes * 60 + seconds if hours < 24 and minutes < 60 and seconds < 61 else None
