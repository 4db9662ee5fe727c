"""Text files that hold a scoring: a table with or without a heading, or one stage a line."""

import csv
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from src.recordings.sleep.scoring_tables import LONGEST_ROW, Scoring, StageOf, parse_table
from src.recordings.sleep.scoring_times import DATE, seconds_of, without_luna_times
from src.recordings.sleep.stage_names import ASIAN_NAMES, ScoringOptions, integer_of
from src.signals import UNSCORED, BadInput
from src.storage.foreign_files import explained

_LARGEST_BYTES = 1 << 26
_LEAST_IN_LINE = 5
_LONGEST_LINE = 100
_AS_IT_IS = ScoringOptions()
_NUMBERED = re.compile(r"(?:ep\w*[\W_]*)?(\d+)\s*[:.)=-]\s*([^\W\d].*)|ep\w*[\W_]*(\d+)\W+([^\W\d].*)", re.IGNORECASE)
"""``Epoch 5: N2``, ``5: N2``, ``EPOCH=5 STAGE=N2``."""
_MEANING = re.compile(
    r"(?<![\w.+-])([+-]?\d+)\s*(?:=|:|->)\s*([^\W\d][\w +-]*?)\s*(?=$|[,;|)\t]|\s[+-]?\d+\s*[=:-])"
    r"|(?<!\w)([^\W\d]\w*)\s*[=:]\s*([+-]?\d+)(?![\w.])"
)
"""``0=Wake 1=N1`` or ``Wake: 0, N1: 1``."""


def read_text(path: Path) -> str:
    """A text file of a size that a scoring can have."""
    with explained(path, hint="give a hypnogram file"):
        if path.stat().st_size > _LARGEST_BYTES:
            raise BadInput(path, f"is too large for a scoring ({path.stat().st_size} bytes)", "give the hypnogram")
        raw = path.read_bytes()
    asian = [code for code, names in ASIAN_NAMES.items() if any(name.encode(code) in raw for name in names)]
    for encoding in ("utf-16",) if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", *asian, "latin-1"):
        with suppress(UnicodeDecodeError):
            if "\0" not in (text := raw.decode(encoding)):
                return text
    raise BadInput(path, "is not a text file", "give an EDF+, XML, CSV or text hypnogram")


def parse_text(path: Path, text: str, options: ScoringOptions = _AS_IT_IS) -> Scoring:
    """Rows of a text: a table with a heading, a table without, or one stage a line.

    Onsets and durations that are no numbers, and numbers that may be times but do not say which, raise
    :class:`BadInput`.
    """
    legend, every = _legend([without_luna_times(line) for line in text.splitlines()], options.stage)
    lines = [line for line in every if line.strip()]
    if lines and lines[0].strip().lower() == "[hypnogram]":
        return Scoring([(None, None, line.strip()) for line in lines[1:]], "DREAMS text", 5.0, coding="dreams")
    if lines and lines[0].startswith("*Duration_sec"):
        ends = [line.rsplit(None, 1) for line in lines if not line.startswith("*")]
        lines = ["stop,stage", *(f"{end[-1]},{end[0]}" for end in ends)]
    found = (match for line in lines if (match := _NUMBERED.fullmatch(line.strip())))
    numbered = [(m[1] or m[3], m[2] or m[4]) for m in found if options.stage(m[2] or m[4]) is not None]
    if 2 * len(numbered) > len(lines):  # "Epoch 5: N2"
        lines = ["epoch,stage", *(f'{epoch},"{stage}"' for epoch, stage in numbered)]
    table = _cells(lines)
    words = [word for line in lines for word in re.split(r"[\s,;]+", line) if word]
    all_stages = all(options.stage(word) is not None for word in words)
    if (len(table) == 1 and len(table[0]) > LONGEST_ROW) or (all_stages and len(words) >= _LEAST_IN_LINE * len(lines)):
        if len(lines) > 1 and len({*map(len, table)}) == 1 and len(words) > _LONGEST_LINE * len(lines):
            problem = f"has {len(lines)} lines of {len(words) // len(lines)} stages, which may be of several scorers"
            raise BadInput(path, problem, "give one stage a line")
        table = [[word] for word in words]  # all stages in one line, or some in each
    if max(map(len, table), default=0) == 1:
        _require_no_blank_line(path, [line.strip() for line in every], options.stage)
    scoring = parse_table(path, table, options)
    return replace(scoring, legend=legend or scoring.legend)


def _legend(lines: Sequence[str], stage_of: StageOf) -> tuple[dict[int, int], list[str]]:
    """What integers mean, where comments or a line with three or more of them say so, and the other lines."""
    found: dict[int, int] = {}
    rest = []
    for line in lines:
        pairs = [(int(a or d), stage_of((b or c).strip())) for a, b, c, d in _MEANING.findall(line)]
        known = {number: code for number, code in pairs if code is not None and abs(number) < 10}
        comment = line.lstrip().startswith(("#", "%", "//"))
        if comment or len(known) > 2:
            found |= known
        else:
            rest.append(line)
    return found if len({*found.values()} - {UNSCORED}) > 2 else {}, rest


def _require_no_blank_line(path: Path, lines: Sequence[str], stage_of: StageOf) -> None:
    """Refuse a blank line between stages, which may stand for an epoch; every second one is blank by a line's end."""
    staged = [
        i for i, line in enumerate(lines) if line and (stage_of(line) is not None or integer_of(line) is not None)
    ]
    inside = lines[staged[0] : staged[-1]] if staged else []
    if "" in inside and 2 * inside.count("") < len(inside) - 1:
        problem = f"has a blank line among its stages, {inside.index('') + 1} lines after the first"
        raise BadInput(path, problem, "write ? for an epoch that nobody scored, or delete the line")


def _cells(lines: Sequence[str]) -> list[list[str]]:
    delimiter = next((mark for mark in "\t;," if 2 * sum(mark in line for line in lines) > len(lines)), None)
    if delimiter:
        table = csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)
        return [[cell.strip() for cell in row] for row in table]
    # A date and its time, and a time and its AM or PM, are one cell.
    dated = (re.sub(rf"({DATE.pattern})[ ]+(?=\d\d?[:.h]\d\d)", r"\1T", line, flags=re.IGNORECASE) for line in lines)
    words = [re.sub(r"(?<=\d)[ ]+(?=[AP]M\b)", "", line, flags=re.IGNORECASE).split() for line in dated]
    if min(map(len, words), default=0) == max(map(len, words), default=0) > 3:
        timed = [all(seconds_of(cell) is not None for cell in column) for column in zip(*words[1:], strict=True)]
        if sum(timed) > 1:  # Luna's columns may stand between blanks
            return words
    # Blanks separate columns only where a number leads; "Sleep stage W" is one cell.
    if sum(len(row) > 1 and seconds_of(row[0]) is not None for row in words) > 0.5 * len(words):
        leads = [2 if len(row) > 2 and seconds_of(row[1]) is not None else 1 for row in words]
        return [[*row[:n], " ".join(row[n:])] for row, n in zip(words, leads, strict=True)]
    return [[re.sub(r'^"(.*)"$', r"\1", line.strip())] for line in lines]
