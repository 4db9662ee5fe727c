"""A scored night as files: the page, the figure, hypnograms for other programs, and lines for the console."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.predict.sleep_agreement import agreement, beside, expected_accuracy, reliability, review_list
from src.predict.sleep_files import write_bids, write_edf_annotations, write_stages
from src.predict.sleep_statistics import (
    COUNTS,
    LABELS,
    WAKE_NAMES,
    bouts,
    sleep_statistics,
    statistic_intervals,
)
from src.recordings.sleep.hypnogram import transition_counts
from src.reports.sleep import draw_night, reliability_picture
from src.reports.sleep_page import embedded, write_page
from src.signals import HUMAN_ACCURACY, HUMAN_KAPPA, UNSCORED, Origin, is_human_scoring

_LISTED = 25
LEAST_EPOCHS = 10
"""Fewer scored epochs have no statistics."""
WIDE_MIN, EARLY_REM_MIN = 30.0, 15.0
"""A number and its interval that span more than this, a REM latency below this, are marked."""
TILES = {
    "tst_min": "total sleep time",
    "se_percent": "sleep efficiency",
    "sol_min": "sleep latency",
    "waso_min": "WASO",
    "rem_latency_min": "REM latency",
}


@dataclass(frozen=True)
class ScoredNight:
    """A scored recording and all that is known about it; times from the start of the recording.

    ``findings`` are sentences on the signal, ``signal`` describes one in which nothing was found; ``lights`` are
    seconds of lights off and on; ``transitions`` are those of the training, see
    :func:`~src.predict.sleep_statistics.draw_hypnograms`.
    """

    recording_id: str
    channels: list[str]
    classes: list[str]
    epoch_s: float
    start: datetime | None
    onset_s: NDArray[np.floating]
    stages: NDArray[np.integer]
    probabilities: NDArray[np.floating]
    decibels: NDArray[np.floating]
    freqs_hz: NDArray[np.floating]
    origin: Origin
    rows: list[str] | None = None
    units: str = "1 µV²/Hz"
    findings: list[str] = field(default_factory=list)
    signal: str = ""
    notes: list[str] = field(default_factory=list)
    reference: NDArray[np.integer] | None = None
    yasa: NDArray[np.integer] | None = None
    bundle_metrics: dict[str, float] = field(default_factory=dict)
    lights: tuple[float | None, float | None] = (None, None)
    transitions: NDArray[np.floating] | None = None

    @cached_property
    def in_bed(self) -> slice:
        """Epochs from lights off to lights on."""
        off, on = self.lights
        first = 0 if off is None else int(np.searchsorted(self.onset_s, off - 1e-6))
        last = len(self.onset_s) if on is None else int(np.searchsorted(self.onset_s, on - 1e-6))
        return slice(first, max(first, last))

    @property
    def enough(self) -> bool:
        """Whether there are enough scored epochs for statistics."""
        return int((self.stages[self.in_bed] != UNSCORED).sum()) >= LEAST_EPOCHS

    @cached_property
    def statistics(self) -> dict[str, float | None]:
        """From lights off to lights on; empty for too short a recording."""
        return sleep_statistics(self.stages[self.in_bed], self.classes, self.epoch_s) if self.enough else {}

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float] | None]:
        if not self.enough:
            return {}
        own = transition_counts(self.stages, len(self.classes)).astype(float)
        counts = own if self.transitions is None else self.transitions
        return statistic_intervals(self.probabilities[self.in_bed], counts, self.classes, self.epoch_s)

    def doubt(self, name: str) -> str:
        """Why a statistic should be looked at before it is used; empty where there is no reason."""
        value, interval = self.statistics.get(name), self.intervals.get(name)
        if name.startswith("rem_latency") and value is not None and value < EARLY_REM_MIN:
            return f"REM within {EARLY_REM_MIN:.0f} min of sleep onset: check these epochs"
        if name.endswith("_min") and value is not None and interval is not None:
            # Doubtful epochs can put what is counted outside what their sequence makes likely.
            spread = max(value, interval[1]) - min(value, interval[0])
        else:
            spread = 0.0
        if spread > WIDE_MIN:
            return f"uncertain by more than {WIDE_MIN:.0f} min"
        return ""

    @cached_property
    def agreement(self) -> dict[str, Any] | None:
        if self.reference is None:
            return None
        return agreement(self.reference, self.stages, self.probabilities, self.classes, self.epoch_s)


def write_night(part: Path, night: ScoredNight, tail_s: float) -> None:
    """Write every file of a scored night but the manifest; ``tail_s`` is the rest too short for an epoch."""
    onset_s, epoch_s, classes = night.onset_s, night.epoch_s, night.classes
    write_stages(
        part / "hypnogram.csv", onset_s, epoch_s, night.stages, night.probabilities, classes, tail_s, night.yasa
    )
    write_bids(part / "events.tsv", onset_s, epoch_s, night.stages, night.probabilities, classes)
    write_edf_annotations(part / "hypnogram.edf", onset_s, epoch_s, night.stages, classes, night.start)
    draw_night(
        part / "night.png",
        title=f"{night.recording_id} – {night.channels[0]}",
        decibels=night.decibels,
        freqs_hz=night.freqs_hz,
        probabilities=night.probabilities,
        stages=night.stages,
        classes=classes,
        epoch_s=epoch_s,
        start=night.start,
        reference=night.reference,
        rows=night.rows,
        units=night.units,
        caption=f"network {night.origin}",
    )
    if night.agreement is not None:
        (part / "agreement.json").write_text(json.dumps(night.agreement, indent=2, allow_nan=False) + "\n")
    write_page(part / "report.html", describe(night), part / "night.png")


def console_lines(night: ScoredNight, folder: Path) -> list[str]:
    """What the console says of a night."""
    lines = [f"look at    {finding}" for finding in night.findings] + [f"note       {note}" for note in night.notes]
    lines += [f"look at    {TILES[name]}: {doubt}" for name in TILES if (doubt := night.doubt(name))]
    if night.agreement is not None:
        lines += [f"agreement  {line}" for line in night.agreement["lines"]]
    if night.yasa is not None:
        lines += [f"yasa       {line}" for line in beside(night.yasa, night.stages, night.reference, night.classes)]
    files = {"report": "report.html", "hypnogram": "hypnogram.csv", "figure": "night.png"}
    return [*lines, *(f"{name:10s} {folder / file}" for name, file in files.items())]


def describe(night: ScoredNight) -> dict[str, Any]:
    """The texts and tables of the page; see :func:`src.reports.sleep_page.write_page`."""
    hours = len(night.stages) * night.epoch_s / 3600
    begun = f"started {night.start:%Y-%m-%d %H:%M:%S}, " if night.start else ""
    vote = f"vote of {len(night.channels)} channel groups: " if len(night.channels) > 1 else ""
    page: dict[str, Any] = {
        "title": night.recording_id,
        "subtitle": f"{begun}{hours:.1f} h in epochs of {night.epoch_s:g} s · {vote}{'; '.join(night.channels)}"
        " · scored automatically",
        "origin": str(night.origin),
        "banner": ""
        if night.origin.recorded
        else "This network has learned from simulated data alone. Its stages and its confidence say nothing about"
        " recordings: do not use them.",
        "classes": list(night.classes),
        "summary": _tiles(night),
        "findings": [*night.findings, *night.notes],
        "signal": night.signal,
        "notes": _notes(night),
        "review": _review(night),
    }
    if night.enough:
        page["statistics"] = _statistics(night)
    if night.agreement is not None:
        page["agreement"] = _agreement(night)
    if night.yasa is not None:
        page["yasa"] = _yasa(night)
    return page


def _tiles(night: ScoredNight) -> list[dict[str, str]]:
    tiles = []
    for name, words in TILES.items() if night.enough else ():
        value, interval = night.statistics[name], night.intervals[name]
        write = _percent if name == "se_percent" else _span
        between = f"{write(interval[0])} – {write(interval[1])}" if interval else ""
        tiles.append({"name": words, "value": write(value), "interval": between, "doubt": night.doubt(name)})
    expected = expected_accuracy(night.probabilities) if night.origin.recorded and night.enough else None
    if expected is not None:
        tiles.append({"name": "expected accuracy", "value": _percent(100 * expected), "interval": "", "doubt": ""})
    return tiles


def _statistics(night: ScoredNight) -> dict[str, Any]:
    found, intervals = night.statistics, night.intervals
    rows = []
    for row in bouts(night.stages[night.in_bed], night.classes, night.epoch_s):
        name = row["stage"]
        asleep = name not in WAKE_NAMES
        rows.append(
            [
                name,
                _number(found[f"min_{name}"], "{:.1f}"),
                _between(intervals[f"min_{name}"], "{:.0f}"),
                _number(found.get(f"percent_{name}"), "{:.1f}") if asleep else "",
                _number(found.get(f"latency_min_{name}"), "{:.1f}") if asleep else "",
                str(row["bouts"]),
                _duration(row["mean_s"]),
                _duration(row["longest_s"]),
            ]
        )
    moves = transition_counts(night.stages[night.in_bed], len(night.classes))
    np.fill_diagonal(moves, 0)
    off, on = (_clock(night, value) if value is not None else None for value in night.lights)
    return {
        "note": f"From {f'lights off at {off}' if off else 'the first epoch'} to"
        f" {f'lights on at {on}' if on else 'the last'}. A number is counted in the hypnogram, where every epoch has"
        " its most probable stage. The interval holds 90 % of the hypnograms that the probabilities allow, with the"
        " transitions between stages that were seen in training. A number can lie outside its interval: these"
        " hypnograms change stage less often. Review the doubtful epochs then.",
        "night": [
            [label, _number(found[name], _form(name)), _between(intervals[name], _form(name))]
            for name, label in LABELS.items()
        ],
        "head": ["stage", "min", "90 % interval", "% of TST", "latency (min)", "bouts", "mean bout", "longest"],
        "stages": rows,
        "moves": [[name, *(str(c) if c else "·" for c in row)] for name, row in zip(night.classes, moves, strict=True)],
    }


def _review(night: ScoredNight) -> dict[str, Any]:
    stretches = review_list(night.probabilities, night.stages)
    rows = []
    for rank, s in enumerate(stretches[:_LISTED], 1):
        mean = night.probabilities[s.first : s.last].mean(axis=0)
        rows.append(
            [
                f"{rank}",
                _clock(night, float(night.onset_s[s.first])),
                _duration((s.last - s.first) * night.epoch_s),
                f"{night.classes[s.stage]} {mean[s.stage]:.0%}",
                f"{night.classes[s.alternative]} {mean[s.alternative]:.0%}",
                f"{s.expected_errors:.1f} of {s.last - s.first}",
            ]
        )
    gain = [(share, expected_accuracy(night.probabilities, share)) for share in (0.0, 0.05, 0.1, 0.2)]
    words = (
        "Stretches where a second look pays most: expected corrections per epoch read, going there included, from the"
        " probabilities."
    )
    if night.origin.recorded:
        words += " These speak of agreement with the scorers of the training data."
        if is_human_scoring(night.classes, night.epoch_s):
            words += f" People agree among themselves in about {HUMAN_ACCURACY:.0%} of epochs."
    shown = night.origin.recorded and night.enough
    return {
        "note": words,
        "rows": rows,
        "more": max(0, len(stretches) - _LISTED),
        "gain": [[f"{share:.0%}", _number(v and 100 * v, "{:.1f} %")] for share, v in gain] if shown else [],
    }


def _agreement(night: ScoredNight) -> dict[str, Any]:
    assert night.agreement is not None
    assert night.reference is not None
    found, values = night.agreement, night.agreement["scores"]
    shown = (("kappa", "Cohen’s κ"), ("accuracy", "accuracy"), ("macro_f1", "macro-F1"))
    labels = {**LABELS, **{f"min_{name}": f"{name} (min)" for name in night.classes}}
    people = f"; human scorers among themselves: κ {HUMAN_KAPPA}"
    return {
        "tiles": [{"name": n, "value": _number(values[k], "{:.2f}"), "interval": "", "doubt": ""} for k, n in shown],
        "confusion": [
            [name, *(str(c) if c else "·" for c in row), _number(values[f"f1_{name}"], "{:.2f}")]
            for name, row in zip(night.classes, found["confusion"], strict=True)
        ],
        "ece": f"{found['ece']:.3f}",
        "people": people if is_human_scoring(night.classes, night.epoch_s) else "",
        "picture": embedded(reliability_picture(*reliability(night.probabilities, night.reference))),
        "differences": [
            [
                labels[name],
                *(_number(row[k], _form(name)) for k in ("reference", "scored")),
                _number(row["difference"], _form(name, "+")),
            ]
            for name, row in found["statistics"].items()
        ],
    }


def _yasa(night: ScoredNight) -> dict[str, Any]:
    assert night.yasa is not None
    scorings = (night.stages, night.yasa)
    here, there = (sleep_statistics(s[night.in_bed], night.classes, night.epoch_s) for s in scorings)
    names = {**LABELS, **{f"min_{name}": f"{name} (min)" for name in night.classes}}
    return {
        "lines": beside(night.yasa, night.stages, night.reference, night.classes),
        "rows": [[label, *(_number(f[name], _form(name)) for f in (here, there))] for name, label in names.items()],
    }


def _notes(night: ScoredNight) -> str:
    known = night.bundle_metrics
    shown = (("test/kappa", "κ"), ("test/macro_f1", "macro-F1"))
    parts = [f"{words} {known[name]:.2f}" for name, words in shown if name in known]
    who = "recordings of subjects it was not trained on" if night.origin.recorded else "simulated recordings"
    held_out = f"The network reached {', '.join(parts)} on {who} ({', '.join(night.origin.cohorts)}). " if parts else ""
    return (
        f"{held_out}Statistics follow the AASM definitions; latencies count from lights off, REM latency from sleep"
        " onset. Epochs without usable signal are unscored, never guessed. Not a medical device."
    )


def _clock(night: ScoredNight, seconds: float) -> str:
    since = f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d}:{seconds % 60:02.0f}"
    return f"{night.start + timedelta(seconds=seconds):%H:%M:%S} ({since})" if night.start else since


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _between(interval: tuple[float, float] | None, form: str) -> str:
    return "–" if interval is None else f"{form.format(interval[0])} – {form.format(interval[1])}"


def _form(name: str, sign: str = "") -> str:
    """How a statistic is written: minutes and percentages with a decimal, counts without."""
    return f"{{:{sign}.{0 if name in COUNTS else 1}f}}"


def _percent(value: float | None) -> str:
    return _number(value, "{:.0f} %")


def _span(minutes: float | None) -> str:
    if minutes is None:
        return "–"
    return f"{int(minutes // 60)} h {int(minutes % 60):02d}" if minutes >= 100 else f"{minutes:.0f} min"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
