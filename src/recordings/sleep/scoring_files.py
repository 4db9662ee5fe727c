"""Scoring files of every format, through one gate: read into a ``Hypnogram``.

A format's reader returns rows of onset, duration and text (:class:`~src.recordings.sleep.scoring_tables.Scoring`). The
gate, :func:`read_hypnogram`, decides for all formats alike what is a stage, what integers mean, what is an event that
does not count, and what cannot be believed. Whether a scoring fits its recording is judged by
:func:`src.recordings.sleep.hypnogram.align`.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.recordings.sleep.edf import EDF_SUFFIXES, read_annotations
from src.recordings.sleep.hypnogram import LINES, TABLE_WITHOUT_TIMES, Hypnogram, rasterise
from src.recordings.sleep.scoring_records import json_table, xml_table
from src.recordings.sleep.scoring_tables import Row, Scoring, one_scorer, parse_table
from src.recordings.sleep.scoring_text import parse_text, read_text
from src.recordings.sleep.stage_names import (
    CODINGS,
    LARGEST_STAGE,
    RODENT_CODINGS,
    ScoringOptions,
    integer_of,
    is_stage_word,
    says_stage,
)
from src.signals import HUMAN_STAGES, RODENT_STAGES, UNSCORED, BadInput, counted

_USUAL_S = 30.0
_FINEST_S = 1.0
_LEAST_GRID_S = 4.0
_UNKNOWN = -2
"""The label of an unknown name that stands for a stage."""
_LONGEST_S = 14 * 86_400.0
_FEW = 0.1
"""Share of a scoring that may carry unknown names; they count as unscored."""
_TOUCH_S = 0.5
"""Stages that overlap by less lie side by side: exporters round onsets and durations."""
_JITTER_MS = 50
_XML = {
    "ScoredEvent": ("NSRR XML", None),
    "SleepStage": ("Profusion XML", "edf"),
    "Stage": ("Alice XML", None),
    "Event": ("Embla XML", None),
}
"""Formats by the name of their elements, and what integers in them mean."""
_STAGE_WORD = re.compile(r"(?:sleep[\s_-]*)?stage[\s_-]*(?=\d)", re.IGNORECASE)

_CODING_HINT = f"source.stage_coding={'|'.join(CODINGS)} (aasm: 4 is REM; edf: 5 is REM; dreams: 5 is wake)"
_EVENT = re.compile(
    r"arous|apno?e|hypopn|rera|desat|light|limb|\bleg|plm|snor|spindle|complex|mcap|phase|art[ei]fa|position|supine|prone"
    r"|body|start|stop|begin|end\b|montage|imped|calib|video|cardi|note|comment",
    re.IGNORECASE,
)
"""Words of events, which never stand for a stage."""
_STOP = re.compile(r"\b(?:stop|end)s?\b", re.IGNORECASE)

_AS_IT_IS = ScoringOptions()
Segment = tuple[float, float, int]


def read_hypnogram(path: str | Path, options: ScoringOptions = _AS_IT_IS) -> Hypnogram:
    """Read a scoring of any format: EDF+ or BDF+ annotations, XML, JSON, a table, or one stage a line.

    The format is told from the file's content, and ``options`` say what the file does not.

    Raises
    ------
    BadInput
        For an absent, empty or unreadable file, integers without a coding, more than a few stages with unknown names
        (all of them listed), stages that overlap, or the stages of several scorers of whom none is named.
    """
    path = Path(path)
    if options.coding is not None and options.coding not in CODINGS:
        raise BadInput("stage_coding", f"{options.coding!r} is not known", f"choose from: {', '.join(CODINGS)}")
    if path.suffix.lower() in EDF_SUFFIXES:
        found = read_annotations(path)
        rows = [mark for mark in found.marks if mark[2]]
        if not rows:
            raise BadInput(path, "has no sleep stage among its annotations (none)", "give the hypnogram file")
        scoring = Scoring(rows, f"{path.suffix[1:4].upper()}+ annotations", start=found.start, notes=found.notes)
    else:
        scoring = _parse(path, read_text(path), options)
    scoring = _by_scorer(path, scoring, options)
    if options.scorer and _plain(scoring.scorer) != _plain(options.scorer):
        note = f"names no scorer {options.scorer!r}: its only or first stages are read"
        scoring = replace(scoring, notes=(*scoring.notes, note))
    scoring = replace(scoring, coding=options.coding or scoring.coding)
    meaning = _meaning_of_integers(path, scoring, options)
    codes = _codes(path, scoring, options, meaning)
    numbers = {integer_of(row[2]) for row, code in zip(scoring.rows, codes, strict=True) if code is not None} - {None}
    if numbers and meaning:
        notes = list(scoring.notes)
        if scoring.coding == "edf" and 4 in numbers and 5 not in numbers:
            notes.append("integers hold 4 (R&K stage 4) and no 5 (REM): is stage_coding=aasm meant?")
        if 0 not in codes:
            notes.append("no integer stands for wake: is another stage_coding meant?")
        how = f"{scoring.how}, integers as {'its legend says' if scoring.legend else scoring.coding}"
        scoring = replace(scoring, how=how, notes=tuple(notes))
    return (_one_per_epoch if scoring.rows[0][0] is None else _on_grid)(path, scoring, codes, options)


def has_stages(path: str | Path, options: ScoringOptions) -> bool:
    """Whether the annotations of a recording hold stages; integers count only where a coding says what they mean."""
    texts = {text for _, _, text in read_annotations(path).marks if text}
    texts = {text for text in texts if options.coding is not None or integer_of(text) is None}
    of_scorers = {stage for stage, scorer in (_stage_and_scorer(text, options) for text in texts) if scorer}
    named = {options.stage(stage) for stage in of_scorers if integer_of(stage) is None} - {None, UNSCORED}
    return len(named) > 1 or any(options.stage(text) not in (None, UNSCORED) for text in texts)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _parse(path: Path, text: str, options: ScoringOptions) -> Scoring:
    """A text of any format, told from how it begins."""
    if text.lstrip().startswith("<"):
        table, epoch_s, name = xml_table(path, text, options)
        how, coding = _XML.get(name, ("XML", None))
        return replace(parse_table(path, table, options, 0), how=how, epoch_s=epoch_s, coding=coding)
    if text.lstrip().startswith(("[", "{")) and (found := json_table(path, text, options)):
        table, epoch_s, scorer = found
        scoring = parse_table(path, table, options, None if len(table[0]) == 1 else 0)
        return replace(scoring, how="JSON", epoch_s=epoch_s, scorer=scorer or scoring.scorer)
    return parse_text(path, text, options)


def _by_scorer(path: Path, scoring: Scoring, options: ScoringOptions) -> Scoring:
    """The rows of one scorer where texts name it: ``AB: Sleep stage N2``, ``N2 (CD)``, ``Sleep stage N2@@AB``."""
    texts = [text for _, _, text in scoring.rows]
    split = {text: _stage_and_scorer(text, options) for text in set(texts)}
    named = Counter(scorer for text in texts if (scorer := split[text][1]))
    plain = sum(not split[text][1] and options.stage(text) not in (None, UNSCORED) for text in texts)
    # A scorer names several stages; "N2 (spindles)" is one stage with a remark.
    several = Counter(scorer for _, scorer in {(options.stage(stage), who) for stage, who in split.values()})
    scorers = {name for name, n in named.items() if n > 0.2 * sum(named.values()) and several[name] > 1}
    if plain or not scorers:
        return scoring
    chosen = one_scorer(path, sorted(scorers), options)
    rows = [
        (onset, duration, split[text][0] if split[text][1] == chosen else text)
        for onset, duration, text in scoring.rows
        if split[text][1] not in scorers - {chosen}
    ]
    return replace(scoring, rows=rows, scorer=chosen)


def _stage_and_scorer(text: str, options: ScoringOptions) -> tuple[str, str]:
    """The part of a text that is a stage and the part that is none; the text and nothing where it has no such parts."""
    parts = [part for part in re.split(r"\s*(?:@@|[:|/()\[\];,]|\s-\s)\s*", text.strip()) if part]
    stages = [part for part in parts if options.stage(part) is not None or integer_of(part) is not None]
    others = [part for part in parts if part not in stages and not is_stage_word(part)]
    return (stages[0], others[0]) if len(stages) == len(others) == 1 and not _EVENT.search(others[0]) else (text, "")


def _meaning_of_integers(path: Path, scoring: Scoring, options: ScoringOptions) -> Mapping[int, int]:
    """What integers mean: as the file's own legend says, or as the coding of its format or the user's; else nothing."""
    stated = CODINGS[scoring.coding] if scoring.coding else {}
    against = [n for n, code in scoring.legend.items() if options.coding and stated.get(n, code) != code]
    if against:
        problem = f"says itself what integers mean, and {against[0]} is not what stage_coding={options.coding} says"
        raise BadInput(path, problem, "give no stage_coding, or the one of the file")
    of_rodents = scoring.coding in RODENT_CODINGS
    if scoring.coding and not scoring.legend and of_rodents != (options.stage_names == RODENT_STAGES):
        problem = f"has integers in the coding {scoring.coding!r}, which is for {'rodents' if of_rodents else 'people'}"
        raise BadInput(path, problem, f"choose one for {' or '.join(options.stage_names)}: {_CODING_HINT}")
    return scoring.legend or stated


def _codes(path: Path, scoring: Scoring, options: ScoringOptions, meaning: Mapping[int, int]) -> list[int | None]:
    """What every row stands for; ``None`` for what is no stage that we know."""
    texts = [text for _, _, text in scoring.rows]
    by_name = {text: options.stage(text) for text in set(texts)}
    free = (text for text in by_name if text not in options.more_names)
    integers = {text: number for text in free if (number := integer_of(text)) is not None}
    named = {code for text, code in by_name.items() if text not in integers} - {None, UNSCORED}
    numbered = {text: number for text in by_name if (number := integer_of(_STAGE_WORD.sub("", text))) is not None}
    if meaning and len(numbered) > len(integers) and not {t for t in by_name if by_name[t] == 4} - {*numbered}:
        # "Sleep stage 4" is a name of R&K's stage 4 only where no coding says otherwise and REM has a name of its own.
        integers, named = numbered, {by_name[text] for text in by_name if text not in numbered} - {None, UNSCORED}
    timed = scoring.rows[0][0] is not None
    any_nrem = any(0 < code < len(options.stage_names) - 1 for code in named if code is not None)
    if integers and timed and any_nrem:
        # Stages have names here: the integers among them are triggers.
        return [None if text in integers else by_name[text] for text in texts]
    if integers and meaning:
        wrong = sorted({n for n in integers.values() if n not in meaning and 0 <= n <= LARGEST_STAGE})
        if wrong:
            listed = ", ".join(repr(str(number)) for number in wrong)
            problem = f"has unknown stages in the coding {scoring.coding or 'of its legend'!r}: {listed}"
            raise BadInput(path, problem, f"say what integers mean: {_CODING_HINT}")
        by_name |= {text: meaning.get(number) for text, number in integers.items()}
    elif (integers and not named) or (not meaning and _is_unclear(by_name, numbered, options.stage_names)):
        listed = ", ".join(sorted(integers or numbered, key=lambda text: (numbered[text], text))[:12])
        problem = f"has {'bare ' if integers else ''}integers for stages ({listed}), which mean different things in"
        raise BadInput(path, f"{problem} different files", f"say which: {_CODING_HINT}")
    return [by_name[text] for text in texts]


def _is_unclear(by_name: Mapping[str, int | None], numbered: Mapping[str, int], stage_names: tuple[str, ...]) -> bool:
    """Whether an integer may be wake or REM: it is 0 or 5, or a bare 4, and that stage has no name in the file."""
    named = {code for text, code in by_name.items() if text not in numbered}
    may_be = {0: 0, 5: 4} | ({4: 4} if any(integer_of(text) == 4 for text in numbered) else {})
    return stage_names == HUMAN_STAGES and any(may_be.get(number) not in {None, *named} for number in numbered.values())


def _refuse_unknown(path: Path, unknown: Sequence[str], share: float, n: int, options: ScoringOptions) -> list[str]:
    """Notes on names that count as unscored; more than a few are refused."""
    if not unknown:
        return []
    listed = ", ".join(repr(name) for name in sorted(set(unknown))[:8])
    if share > _FEW and (len(unknown) > 1 or n < 6):
        hint = f"use {', '.join(options.stage_names)} or ?, or say what they mean: source.stage_names={{name: stage}}"
        raise BadInput(path, f"has unknown stages: {listed}", hint)
    return [f"{counted(len(unknown), 'epoch')} with an unknown name ({listed}): unscored"]


def _one_per_epoch(path: Path, scoring: Scoring, codes: Sequence[int | None], options: ScoringOptions) -> Hypnogram:
    unknown = [(i, row[2]) for i, (row, code) in enumerate(zip(scoring.rows, codes, strict=True)) if code is None]
    names = [text for _, text in unknown]
    lines = scoring.how.startswith(LINES) and not scoring.how.startswith(TABLE_WITHOUT_TIMES)
    first = next((i for i, code in enumerate(codes) if code is not None), 0) if lines else 0
    notes = _refuse_unknown(path, names[first:], len(names[first:]) / len(codes), len(codes), options)
    stages = np.array([UNSCORED if code is None else code for code in codes], np.int8)
    length_s = options.epoch_s or scoring.epoch_s
    return Hypnogram(
        stages, length_s or _USUAL_S, 0.0, scoring.start, str(path), options.stage_names,
        (*scoring.notes, *([] if lines else notes)), how=scoring.how,
        length_by="user" if options.epoch_s else "file" if length_s else "nobody",
        no_stages=tuple(unknown) if lines else (),
    )  # fmt: skip


def _on_grid(path: Path, scoring: Scoring, codes: Sequence[int | None], options: ScoringOptions) -> Hypnogram:
    usual_s = options.epoch_s or _USUAL_S
    rows = sorted(zip(scoring.rows, codes, strict=True), key=lambda pair: pair[0][0] or 0.0)
    for_stages = _for_stages(rows)
    lasting = [
        (row, _UNKNOWN if code is None else code) for row, code in rows if code is not None or row[2] in for_stages
    ]
    known = _lasting(lasting, usual_s, [row[0] or 0.0 for row, code in rows if code is None and _STOP.search(row[2])])
    stages = [segment for segment in known if segment[2] >= 0]
    if len(lasting) == sum(code == _UNKNOWN for _, code in lasting):
        listed = ", ".join(sorted({repr(text) for _, _, text in scoring.rows})[:8])
        raise BadInput(path, f"has no sleep stage among its annotations ({listed})", "give the hypnogram file")
    epoch = float(np.median([duration for _, duration, _ in stages or known]))
    others = [row for row, code in rows if code is None and row[2] not in for_stages]
    spans = np.array([(onset, onset + duration) for onset, duration, _ in stages]).reshape(-1, 2)
    unknown = [row for row in others if says_stage(row[2]) or _is_epoch(row, spans, min(epoch, usual_s))]
    left_out = len(others) - len(unknown)
    unknown += [(a, s, row[2]) for (row, code), (a, s, _) in zip(lasting, known, strict=True) if code == _UNKNOWN]
    total_s = sum(duration for _, duration, _ in stages)
    lost_s = sum(duration or usual_s for _, duration, _ in unknown)
    share = lost_s / max(lost_s + total_s, 1e-9)
    notes = _refuse_unknown(path, [text for _, _, text in unknown], share, len(rows), options)
    segments, clipped = _side_by_side(path, stages)
    blanks = [segment for segment in known if segment[2] == UNSCORED and _free(segment, spans)]
    left_out += sum(segment[2] == UNSCORED for segment in known) - len(blanks)
    if left_out:
        usual = Counter(row[2] for row in others if row not in unknown).most_common(3)
        listed = f" ({', '.join(repr(name) for name, _ in usual)})" if usual else ""
        notes.append(f"{counted(left_out, 'annotation')} without a stage left out{listed}")
    without_end = {round(lasts) for (row, _), (_, lasts, _) in zip(lasting, known, strict=True) if not row[1]}
    if len(without_end) > 2 and not lasting[-1][0][1] and known[-1][2] >= 0 and known[-1][1] <= usual_s:
        notes.append(f"the last stage states no end: taken as {known[-1][1]:g} s long")
    if clipped:
        notes.append(f"{counted(clipped, 'stage')} cut short, which overlapped the next by less than {_TOUCH_S:g} s")
    return _rasterised(path, replace(scoring, notes=(*scoring.notes, *notes)), segments, blanks, options)


def _rasterised(
    path: Path, scoring: Scoring, segments: Sequence[Segment], blanks: Sequence[Segment], options: ScoringOptions
) -> Hypnogram:
    """Segments on the coarsest grid that all of their borders lie on."""
    first = min(onset for onset, _, _ in (*segments, *blanks))
    end = max(onset + duration for onset, duration, _ in (*segments, *blanks))
    if end - first > _LONGEST_S:
        raise BadInput(path, f"spans {(end - first) / 86_400:.0f} days", "give onsets in seconds from the start")
    # What nobody scored may lie off the grid, an artefact for instance.
    bounds = segments or blanks
    lengths = [round(1000 * x) for onset, duration, _ in bounds for x in (onset - first, duration)]
    whole = [1000 * round(x / 1000) for x in lengths]
    near = all(abs(a - b) <= _JITTER_MS for a, b in zip(lengths, whole, strict=True))
    durations = [duration for _, duration, _ in segments or blanks]
    epoch_s, notes = math.gcd(*(whole if near else lengths)) / 1000, scoring.notes
    if epoch_s < _FINEST_S:
        notes = (*notes, f"onsets lie on no grid of whole seconds: laid on {_FINEST_S:g} s by majority")
        epoch_s = _FINEST_S
    usual_s = _common(durations)
    if sum(abs(duration - usual_s) < _TOUCH_S for duration in durations) < 0.8 * len(durations):
        usual_s = epoch_s  # a row for every run of epochs
    n_epochs = math.ceil((end - first) / epoch_s - 0.1)
    stages = rasterise(segments, epoch_s, n_epochs, onset_s=first)
    return Hypnogram(
        stages, epoch_s, first, scoring.start, str(path), options.stage_names, notes, how=scoring.how,
        dated=scoring.dated, or_day=scoring.or_day, length_by="user" if options.epoch_s else "file",
        scored_epoch_s=usual_s,
    )  # fmt: skip


def _lasting(rows: Sequence[tuple[Row, int]], usual_s: float, stops: Sequence[float]) -> list[Segment]:
    """Segments with a duration each: one that states none lasts until the next stage, in a list of epochs an epoch.

    The last one ends with the recording, where one of ``stops`` says when that is.
    """
    onsets = [row[0] or 0.0 for row, _ in rows]
    # An artefact that lasts for a time of its own does not end the stage around it.
    ends = sorted({onset for onset, (row, code) in zip(onsets, rows, strict=True) if code != UNSCORED or not row[1]})
    steps = [b - a for a, b in itertools.pairwise(ends)]
    step_s = _common(steps) if steps else usual_s
    longest_s = step_s + _TOUCH_S if _are_epochs(steps, step_s) else math.inf
    ends = ends or onsets[-1:] or [0.0]
    ends.append(next((stop for stop in stops if stop > ends[-1]), ends[-1] + min(usual_s, step_s)))
    places = np.searchsorted(ends, onsets, side="right").clip(max=len(ends) - 1)
    lasts = [ends[place] - a for a, place in zip(onsets, places, strict=True)]
    return [
        (a, row[1] or max(step_s if until_s > longest_s else until_s, _FINEST_S), code)
        for (row, code), a, until_s in zip(rows, onsets, lasts, strict=True)
    ]


def _are_epochs(steps: Sequence[float], step_s: float) -> bool:
    """Whether rows without durations are epochs, not changes: most follow each other at one distance."""
    return sum(abs(step - step_s) < _TOUCH_S for step in steps) > 0.8 * len(steps) > 4


def _for_stages(rows: Sequence[tuple[Row, int | None]]) -> set[str]:
    """Unknown names that stand for stages in a list without durations: they begin on its grid, and never with a stage.

    In a list of epochs one such row is enough, in a list of changes it takes two. Left out as events they would be
    given the stage before them.
    """
    begins = sorted({round(10 * (row[0] or 0.0)) for row, code in rows if code is not None and row[1] is None})
    grid = math.gcd(*(b - a for a, b in itertools.pairwise(begins)))
    if grid < 10 * _LEAST_GRID_S:
        return set()
    places: dict[str, list[int]] = {}
    for row, code in rows:
        if code is None and row[1] is None and not _EVENT.search(row[2]):
            places.setdefault(row[2], []).append(round(10 * (row[0] or 0.0)))
    taken = set(begins)
    on_grid = {
        name: onsets
        for name, onsets in places.items()
        if not any((onset - begins[0]) % grid or onset in taken for onset in onsets)
    }
    every = sorted(taken.union(*on_grid.values()))
    epochs = _are_epochs([b - a for a, b in itertools.pairwise(every)], grid)
    return {name for name, onsets in on_grid.items() if epochs or len(onsets) > 1}


def _common(lengths: Sequence[float]) -> float:
    return Counter(round(length, 3) for length in lengths).most_common(1)[0][0]


def _free(segment: Segment, stages: NDArray[np.float64]) -> bool:
    """Whether no stage (``(stage, 2)`` onsets and ends) lies where the segment does."""
    shared = np.minimum(stages[:, 1], segment[0] + segment[1]) - np.maximum(stages[:, 0], segment[0])
    return bool((shared <= _TOUCH_S).all())


def _is_epoch(row: Row, spans: NDArray[np.float64], epoch_s: float) -> bool:
    """Whether what is no stage stands where a stage would: an epoch long, or longer between the stages."""
    onset, duration, _ = row
    if onset is None or duration is None or duration < 0.9 * epoch_s or not len(spans):
        return False
    between = spans[0, 0] <= onset < spans[-1, 1]
    return (between or duration < 1.5 * epoch_s) and _free((onset, duration, UNSCORED), spans)


def _side_by_side(path: Path, stages: Sequence[Segment]) -> tuple[list[Segment], int]:
    """Segments without overlap, and how many were cut short for it."""
    out: list[Segment] = []
    clipped = 0
    for onset, duration, code in stages:
        before = out[-1] if out else None
        shared = before[0] + before[1] - onset if before else 0.0
        if before and shared > 1e-6:
            if code == before[2]:
                out[-1] = (before[0], max(before[1], onset + duration - before[0]), code)
                continue
            if shared > _TOUCH_S:
                span = f"{before[0]:g}..{before[0] + before[1]:g} s"
                problem = f"stages overlap: one lasts {span}, the next starts at {onset:g} s"
                raise BadInput(path, problem, "correct the onsets and durations")
            out[-1] = (before[0], onset - before[0], before[2])
            clipped += shared > 1e-3
        out.append((onset, duration, code))
    return [segment for segment in out if segment[1] > 0], clipped
