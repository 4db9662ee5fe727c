"""Times in scoring files: seconds, clock times, durations and Luna's notations."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from src.signals import BadInput

ABSENT = ("", "n/a", "na", "nan", ".", "...", "-")
_LUNA_DATE = r"\d{1,2}[-/]\w{1,3}[-/]\d{2,4}-"
_CLOCK = re.compile(
    rf"(?:^|[T\s]|^{_LUNA_DATE})(\d{{1,2}})([:.])(\d{{2}})(?:\2(\d{{2}}(?:[.,]\d+)?))?\s*([ap]m)?(?:Z|[+-]\d{{2}}:?\d{{2}})?$",
    re.IGNORECASE,
)
_ELAPSED = re.compile(r"0\+(\d+):(\d{2})(?::(\d{2}(?:[.,]\d+)?))?")
_LUNA_EPOCH = re.compile(r"e:(?:(\d+(?:\.\d+)?):)?(\d+)")
_LUNA_EPOCH_S = 30.0
_NO_DATE = datetime(1985, 1, 1)


def without_luna_times(row: Sequence[str]) -> list[str]:
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


def onsets_of(path: Path, cells: Sequence[str]) -> tuple[list[float], datetime | None]:
    """Seconds from the first sample, or seconds from the first row and its time of day."""
    if number(cells[0]) is None and _clock(cells[0]) is not None:
        clocks: list[float] = []
        for line, cell in enumerate(cells, 1):
            if (seconds := _clock(cell)) is None:
                raise BadInput(path, f"row {line}: onset {cell!r} is no clock time", "give hh:mm:ss throughout")
            # Rows go forward in time: a clock that falls back by hours has passed midnight.
            day = 86_400 * math.floor(clocks[-1] / 86_400) if clocks else 0
            back_s = clocks[-1] - seconds - day if clocks else 0.0
            if 39_600 < back_s <= 43_200:  # 12:59 and 01:00 without AM and PM
                problem = f"row {line}: clock time {cell!r} is half a day before the row above it"
                raise BadInput(path, problem, "give 24-hour clock times, AM and PM, or seconds from the start")
            clocks.append(seconds + day + (86_400 if back_s > 43_200 else 0))
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
    if cell.startswith("+") or cell.lower() in ABSENT:
        return duration_of(path, line, cell.removeprefix("+"))
    if start is None:
        seconds = number(cell)
    elif (clock := _clock(cell)) is not None:
        seconds = onset + (clock - (start - _NO_DATE).total_seconds() - onset) % 86_400
    else:
        seconds = None
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
    """Seconds since midnight of ``23:00:30``, ``23.00.30``, ``11:00:30 PM`` or a date and such a time."""
    match = _CLOCK.search(cell.strip())
    if not match or (match[2] == "." and match[4] is None):
        return None
    hours, minutes, seconds = int(match[1]), int(match[3]), float((match[4] or "0").replace(",", "."))
    if match[5]:
        hours = hours % 12 + (12 if match[5].lower() == "pm" else 0)
    return hours * 3600 + minutes * 60 + seconds if hours < 24 and minutes < 60 and seconds < 61 else None
