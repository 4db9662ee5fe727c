"""Hypnogram files: EDF+ annotations, CSV, text of one stage a line; read into and written from a ``Hypnogram``."""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import edfio
import numpy as np

from src.recordings.sleep.edf import read_annotations
from src.recordings.sleep.hypnogram import Hypnogram, rasterise
from src.signals import HUMAN_STAGES, RODENT_STAGES, UNSCORED, BadInput
from src.storage.atomic import atomic_file

_N1, _N2, _N3, _REM = 1, 2, 3, 4
_NOBODY = ("?", "movement time", "movement", "mt", "m", "unscored", "uns", "unknown", "art", "artefact", "artifact", "")
_HUMAN_NAMES: dict[str, int] = (
    dict.fromkeys(("w", "wake", "awake", "0w"), 0)
    | dict.fromkeys(("1", "n1", "s1", "nrem1"), _N1)
    | dict.fromkeys(("2", "n2", "s2", "nrem2"), _N2)
    # Rechtschaffen & Kales' stages 3 and 4 are the AASM's N3.
    | dict.fromkeys(("3", "n3", "s3", "nrem3", "4", "n4", "s4", "nrem4", "sws"), _N3)
    | dict.fromkeys(("r", "rem"), _REM)
    | dict.fromkeys(_NOBODY, UNSCORED)
)
_RODENT_NAMES: dict[str, int] = (
    dict.fromkeys(("w", "wake", "awake"), 0)
    | dict.fromkeys(("n", "nr", "nrem", "sws"), 1)
    | dict.fromkeys(("r", "rem"), 2)
    | dict.fromkeys(_NOBODY, UNSCORED)
)
_NAMES = {HUMAN_STAGES: _HUMAN_NAMES, RODENT_STAGES: _RODENT_NAMES}

CODINGS: dict[str, dict[int, int]] = {
    "aasm": {0: 0, 1: _N1, 2: _N2, 3: _N3, 4: _REM, -1: UNSCORED, -2: UNSCORED},
    "edf": {0: 0, 1: _N1, 2: _N2, 3: _N3, 4: _N3, 5: _REM, 6: UNSCORED, 9: UNSCORED},
    "dreams": {5: 0, 4: _REM, 3: _N1, 2: _N2, 1: _N3, 0: _N3, -1: UNSCORED, -2: UNSCORED, -3: UNSCORED},
    "ucddb": {0: 0, 1: _REM, 2: _N1, 3: _N2, 4: _N3, 5: _N3, 6: UNSCORED, 7: UNSCORED, 8: UNSCORED},
    "rodent": {1: 0, 2: 1, 3: 2, 0: UNSCORED, -1: UNSCORED},
}
"""Integer codings by name: AASM as YASA writes it, R&K as the EDF FAQ numbers it, two databases', a rodent one."""

_COLUMNS = {
    "onset": ("onset_s", "onset", "start_s", "start", "time", "time_s"),
    "duration": ("duration_s", "duration", "length_s"),
    "stage": ("stage", "stages", "sleep_stage", "label", "trial_type", "description", "hypnogram"),
}
_FINEST_S = 1.0
_LONGEST_S = 14 * 86_400.0
_INTEGER = re.compile(r"(-?\d+)(?:\.0*)?")


def read_hypnogram(
    path: str | Path,
    *,
    epoch_s: float | None = None,
    coding: str | None = None,
    stage_names: tuple[str, ...] = HUMAN_STAGES,
) -> Hypnogram:
    """Read a scoring from EDF+ annotations (``.edf``), CSV or TSV, or text of one stage a line.

    Parameters
    ----------
    path
        The file. A first line ``[Hypnogram]`` announces the DREAMS format (integers, 5 s).
    epoch_s
        Length of a line's epoch where the file does not state it; 30 s if not given.
    coding
        What integers mean, a key of :data:`CODINGS`. Stage names need none.
    stage_names
        ``HUMAN_STAGES`` or ``RODENT_STAGES``.

    Raises
    ------
    BadInput
        For an absent, empty or unreadable file, stages it cannot interpret (all of them listed), bare
        integers without ``coding``, or segments that overlap.
    """
    path = Path(path)
    if coding is not None and coding not in CODINGS:
        raise BadInput("stage_coding", f"{coding!r} is not known", f"choose from: {', '.join(CODINGS)}")
    if path.suffix.lower() == ".edf":
        return _from_annotations(path, stage_names)
    rows = _text_rows(path)
    if rows[0] == ["[Hypnogram]"]:
        rows, epoch_s, coding = rows[1:], epoch_s or 5.0, coding or "dreams"
    columns = _columns(rows[0])
    if columns is not None:
        rows = rows[1:]
    elif len(rows[0]) >= 3:
        columns = {"onset": 0, "duration": 1, "stage": 2}
    else:
        columns = {"stage": 0}
    if not rows:
        raise BadInput(path, "holds no stage", "give a hypnogram with at least one epoch")
    if any(len(row) <= max(columns.values()) for row in rows):
        short = next(i for i, row in enumerate(rows, 1) if len(row) <= max(columns.values()))
        raise BadInput(path, f"row {short} of its stages has too few columns", "give onset_s,duration_s,stage")
    codes = _codes(path, [row[columns["stage"]] for row in rows], coding, stage_names)
    if "onset" not in columns:
        return Hypnogram(np.array(codes, np.int8), epoch_s or 30.0, source=str(path), stage_names=stage_names)
    onsets = _numbers(path, rows, columns["onset"], "onset")
    durations = _durations(path, rows, columns, onsets, epoch_s or 30.0)
    return _from_segments(path, list(zip(onsets, durations, codes, strict=True)), None, stage_names, ())


def write_csv(hypnogram: Hypnogram, path: str | Path) -> None:
    """Write ``onset_s,duration_s,stage``, a line per epoch; unscored epochs as ``?``."""
    with atomic_file(Path(path)) as part, part.open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(("onset_s", "duration_s", "stage"))
        for index, stage in enumerate(hypnogram.stages):
            onset = hypnogram.onset_s + index * hypnogram.epoch_s
            writer.writerow((f"{onset:.10g}", f"{hypnogram.epoch_s:.10g}", _name(hypnogram, int(stage))))


def write_annotations(hypnogram: Hypnogram, path: str | Path) -> None:
    """Write EDF+ annotations as Sleep-EDF has them: ``Sleep stage W/1/2/3/R/?``, a line per run of epochs."""
    texts = dict(enumerate(("W", "1", "2", "3", "R"))) if hypnogram.stage_names == HUMAN_STAGES else {}
    named = [
        (onset, duration, f"Sleep stage {texts.get(stage, _name(hypnogram, stage))}")
        for onset, duration, stage in hypnogram.segments()
    ]
    write_annotation_texts(named, hypnogram.start, path)


def write_annotation_texts(
    annotations: Sequence[tuple[float, float, str]], start: datetime | None, path: str | Path
) -> None:
    """Write ``(onset_s, duration_s, text)`` as an EDF+ file without signals."""
    start = start or datetime(1985, 1, 1)
    edf = edfio.Edf(
        [],
        recording=edfio.Recording(startdate=start.date()),
        starttime=start.time(),
        annotations=[edfio.EdfAnnotation(*annotation) for annotation in annotations],
    )
    with atomic_file(Path(path)) as part:
        edf.write(part)


def stage_code(name: str, stage_names: tuple[str, ...] = HUMAN_STAGES) -> int | None:
    """The label of a stage name in any usual spelling, ``UNSCORED`` for movement and the like, ``None`` if unknown."""
    short = re.sub(r"^(sleep[\s_-]*)?stage[\s_-]*", "", " ".join(name.split()).lower())
    return _NAMES[stage_names].get(short)


def _name(hypnogram: Hypnogram, stage: int) -> str:
    return "?" if stage == UNSCORED else hypnogram.stage_names[stage]


def _from_annotations(path: Path, stage_names: tuple[str, ...]) -> Hypnogram:
    annotations, start = read_annotations(path)
    segments, unknown, others = [], [], 0
    for onset, duration, text in annotations:
        code = stage_code(text, stage_names) if text else None
        if code is None and re.match(r"(sleep[\s_-]*)?stage\b", text, re.IGNORECASE):
            unknown.append(text)
        elif code is None:
            others += 1
        else:
            segments.append((onset, duration, code))
    _refuse_unknown(path, unknown, stage_names)
    if not segments:
        listed = ", ".join(sorted({repr(t) for _, _, t in annotations if t})[:8]) or "none"
        raise BadInput(path, f"has no sleep stage among its annotations ({listed})", "give the hypnogram file")
    notes = (f"{others} annotations that are not stages left out",) if others else ()
    onsets = [onset for onset, _, _ in segments] + [segments[-1][0] + 30.0]
    # A stage without a duration lasts until the next one.
    known = [(a, d if d else b - a, c) for (a, d, c), b in zip(segments, onsets[1:], strict=True)]
    return _from_segments(path, known, start, stage_names, notes)


def _from_segments(
    path: Path,
    segments: Sequence[tuple[float, float, int]],
    start: datetime | None,
    stage_names: tuple[str, ...],
    notes: tuple[str, ...],
) -> Hypnogram:
    segments = sorted(segments)
    for (onset, duration, _), (following, _, _) in itertools.pairwise(segments):
        if onset + duration > following + 1e-3:
            problem = f"stages overlap: one lasts {onset:g}..{onset + duration:g} s, the next starts at {following:g} s"
            raise BadInput(path, problem, "mend the onsets and durations")
    first = segments[0][0]
    lengths = [round(1000 * x) for onset, duration, _ in segments for x in (onset - first, duration)]
    epoch_s = math.gcd(*lengths) / 1000
    if epoch_s < _FINEST_S:
        notes = (*notes, f"onsets lie on no grid of whole seconds: laid on {_FINEST_S:g} s by majority")
        epoch_s = _FINEST_S
    end = max(onset + duration for onset, duration, _ in segments)
    if end - first > _LONGEST_S:
        raise BadInput(path, f"spans {(end - first) / 86_400:.0f} days", "give onsets in seconds from the start")
    n_epochs = math.ceil((end - first) / epoch_s - 1e-3)
    stages = rasterise([s for s in segments if s[2] != UNSCORED], epoch_s, n_epochs, onset_s=first)
    return Hypnogram(stages, epoch_s, first, start, str(path), stage_names, notes)


def _text_rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput(path, "does not exist", "check the path") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise BadInput(path, "is not a text file", "give an EDF+, CSV or text hypnogram") from None
    except PermissionError:
        raise BadInput(path, "cannot be read (permission denied)", "ask for read access") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise BadInput(path, "holds no stage", "give a hypnogram with at least one epoch")
    delimiter = next((mark for mark in (",", ";", "\t") if mark in lines[-1]), ",")
    return [[cell.strip() for cell in row] for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)]


def _columns(row: list[str]) -> dict[str, int] | None:
    names = [cell.lower() for cell in row]
    found = {k: next((names.index(n) for n in usual if n in names), -1) for k, usual in _COLUMNS.items()}
    return None if found["stage"] < 0 else {k: v for k, v in found.items() if v >= 0}


def _codes(path: Path, names: Sequence[str], coding: str | None, stage_names: tuple[str, ...]) -> list[int]:
    numbers = [int(match[1]) if (match := _INTEGER.fullmatch(name)) else None for name in names]
    if coding is None and all(number is not None for number in numbers):
        listed = ", ".join(str(number) for number in sorted({n for n in numbers if n is not None}))
        problem = f"has bare integers for stages ({listed}), which mean different things in different files"
        raise BadInput(path, problem, f"say which: stage_coding={'|'.join(CODINGS)}")
    codes = [
        stage_code(name, stage_names) if coding is None or number is None else CODINGS[coding].get(number)
        for name, number in zip(names, numbers, strict=True)
    ]
    where = f" in the coding {coding!r}" if coding else ""
    _refuse_unknown(path, [n for n, code in zip(names, codes, strict=True) if code is None], stage_names, where)
    return [code for code in codes if code is not None]


def _refuse_unknown(path: Path, unknown: Sequence[str], stage_names: tuple[str, ...], where: str = "") -> None:
    if unknown:
        listed = ", ".join(repr(name) for name in sorted(set(unknown))[:8])
        raise BadInput(path, f"has unknown stages{where}: {listed}", f"use {', '.join(stage_names)} or ?")


def _numbers(path: Path, rows: Sequence[Sequence[str]], column: int, name: str) -> list[float]:
    values = []
    for line, row in enumerate(rows, 1):
        try:
            values.append(float(row[column]))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            raise BadInput(path, f"row {line}: {name} {row[column]!r} is not a number", "give seconds from the start")
    return values


def _durations(
    path: Path, rows: Sequence[Sequence[str]], columns: Mapping[str, int], onsets: Sequence[float], last_s: float
) -> list[float]:
    if "duration" not in columns:
        return [b - a for a, b in zip(onsets, [*onsets[1:], onsets[-1] + last_s], strict=True)]
    durations = _numbers(path, rows, columns["duration"], "duration")
    if min(durations) <= 0:
        raise BadInput(path, f"row {durations.index(min(durations)) + 1}: duration is not positive", "give seconds")
    return durations
