"""One night on one page: a self-contained HTML file that a sleep lab can open, print and send."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from src.recordings.sleep.check_signal import ChannelReport
from src.reports.sleep import STAGE_COLOURS
from src.reports.sleep_agreement import agreement, beside
from src.reports.sleep_reliability import reliability_picture
from src.reports.sleep_review import expected_accuracy, review_list
from src.reports.sleep_statistics import COUNTS, LABELS, WAKE_NAMES, bouts, sleep_statistics, transition_counts
from src.signals import HUMAN_STAGES

_LISTED = 25
_STYLE = """
body{font:15px/1.45 system-ui,"Segoe UI",Helvetica,Arial,sans-serif;color:#1d2733;margin:0;background:#f4f6f8}
main{max-width:1120px;margin:0 auto;padding:24px 28px 48px;background:#fff}
h1{font-size:24px;margin:0 0 2px}h2{font-size:17px;margin:30px 0 8px;border-bottom:1px solid #d8dee5;padding-bottom:4px}
.sub{color:#5b6876;margin:0 0 14px}.cols{display:flex;flex-wrap:wrap;gap:36px;align-items:flex-start}
.tiles{display:flex;flex-wrap:wrap;gap:10px;margin:14px 0}
.tile{background:#f0f4f8;border-radius:6px;padding:8px 14px;min-width:104px}
.tile b{display:block;font-size:20px}.tile span{color:#5b6876;font-size:12.5px}
table{border-collapse:collapse;font-size:14px}td,th{padding:3px 12px 3px 0;text-align:right;white-space:nowrap}
th{color:#5b6876;font-weight:600;border-bottom:1px solid #d8dee5}td:first-child,th:first-child{text-align:left}
tr+tr td{border-top:1px solid #eef1f4}.box{border-radius:6px;padding:10px 14px;margin:12px 0}
.ok{background:#e9f6ec}.warn{background:#fff3dc;border-left:4px solid #e0932a}.box ul{margin:4px 0 0 18px;padding:0}
.chip{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:6px}
img{max-width:100%;height:auto}
.note{color:#5b6876;font-size:13px;max-width:78ch}
@media print{body{background:#fff}main{padding:0}h2{break-after:avoid}}
"""


@dataclass(frozen=True)
class ScoredNight:
    """A scored recording and all that is known about it; times from the start of the recording."""

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
    rows: list[str] | None = None
    units: str = "1 µV²/Hz"
    sanity: list[ChannelReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reference: NDArray[np.integer] | None = None
    yasa: NDArray[np.integer] | None = None
    bundle_metrics: dict[str, float] = field(default_factory=dict)


def write_page(path: Path, night: ScoredNight, figure: Path) -> Path:
    """Write the page with ``figure`` (a PNG) and everything else inside it."""
    sections = [
        _head(night),
        _signal(night),
        _picture(figure.read_bytes(), "spectrogram, hypnodensity and hypnogram"),
        _statistics(night),
        _review(night),
        _agreement(night) if night.reference is not None else "",
        _yasa(night) if night.yasa is not None else "",
        _foot(night),
    ]
    title = escape(night.recording_id)
    path.write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} – sleep report</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main>{''.join(sections)}</main></body></html>\n",
        encoding="utf-8",
    )
    return path


def _head(night: ScoredNight) -> str:
    found = sleep_statistics(night.stages, night.classes, night.epoch_s)
    hours = len(night.stages) * night.epoch_s / 3600
    begun = f"started {night.start:%Y-%m-%d %H:%M:%S}, " if night.start else ""
    tiles = [
        ("total sleep time", _span(found["tst_min"])),
        ("sleep efficiency", _number(found["se_percent"], "{:.0f} %")),
        ("sleep latency", _span(found["sol_min"])),
        ("WASO", _span(found["waso_min"])),
        ("REM latency", _span(found["rem_latency_min"])),
        ("expected accuracy", _number(_percent(expected_accuracy(night.probabilities)), "{:.0f} %")),
    ]
    cells = "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for name, value in tiles)
    vote = f"vote of {len(night.channels)} channel groups: " if len(night.channels) > 1 else ""
    listed = escape("; ".join(night.channels))
    return (
        f"<h1>{escape(night.recording_id)}</h1>"
        f'<p class="sub">{begun}{hours:.1f} h in epochs of {night.epoch_s:g} s · {vote}{listed} · scored'
        " automatically</p>"
        f'<div class="tiles">{cells}</div>'
    )


def _signal(night: ScoredNight) -> str:
    findings = [f"<li><b>{escape(r.channel)}</b>: {escape(text)}</li>" for r in night.sanity for text in r.findings]
    findings += [f"<li>{escape(note)}</li>" for note in night.notes]
    if findings:
        return (
            f'<div class="box warn"><b>Look at this before you trust the scoring</b><ul>{"".join(findings)}</ul></div>'
        )
    if not night.sanity:
        return ""
    listed = ", ".join(
        f"{escape(r.channel)} {r.amplitude:.0f} {'µV' if r.units == 'uV' else escape(r.units)} at {r.fs_hz:g} Hz"
        for r in night.sanity
    )
    return (
        '<div class="box ok"><b>Signal:</b> nothing flat, clipped, missing, humming or of unlikely amplitude'
        f" ({listed})</div>"
    )


def _picture(png: bytes, words: str) -> str:
    return f'<img alt="{words}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _statistics(night: ScoredNight) -> str:
    found = sleep_statistics(night.stages, night.classes, night.epoch_s)
    left = _table(["", ""], [[label, _number(found[name], _form(name))] for name, label in LABELS.items()])
    rows = []
    for row in bouts(night.stages, night.classes, night.epoch_s):
        name = row["stage"]
        asleep = name not in WAKE_NAMES
        rows.append(
            [
                _chip(name),
                _number(found[f"min_{name}"], "{:.1f}"),
                _number(found.get(f"percent_{name}"), "{:.1f}") if asleep else "",
                _number(found.get(f"latency_min_{name}"), "{:.1f}") if asleep else "",
                str(row["bouts"]),
                _duration(row["mean_s"]),
                _duration(row["longest_s"]),
            ]
        )
    stages = _table(["stage", "min", "% of TST", "latency (min)", "bouts", "mean bout", "longest"], rows)
    counts = transition_counts(night.stages, len(night.classes))
    np.fill_diagonal(counts, 0)
    moves = _table(
        ["from \\ to", *night.classes],
        [[_chip(name), *(str(c) if c else "·" for c in row)] for name, row in zip(night.classes, counts, strict=True)],
    )
    return (
        f'<h2>Sleep statistics</h2><div class="cols"><div>{left}</div><div>{stages}'
        f'<p class="note">Transitions between neighbouring epochs</p>{moves}</div></div>'
    )


def _review(night: ScoredNight) -> str:
    stretches = review_list(night.probabilities, night.stages)
    rows = []
    for rank, s in enumerate(stretches[:_LISTED], 1):
        mean = night.probabilities[s.first : s.last].mean(axis=0)
        rows.append(
            [
                f"{rank}",
                _clock(night, s.first),
                _duration((s.last - s.first) * night.epoch_s),
                f"{_chip(night.classes[s.stage])} {mean[s.stage]:.0%}",
                f"{_chip(night.classes[s.alternative])} {mean[s.alternative]:.0%}",
                f"{s.expected_errors:.1f} of {s.last - s.first}",
            ]
        )
    gain = [(share, expected_accuracy(night.probabilities, share)) for share in (0.0, 0.05, 0.1, 0.2)]
    curve = _table(
        ["epochs reviewed, least certain first", "expected accuracy"],
        [[f"{share:.0%}", _number(_percent(value), "{:.1f} %")] for share, value in gain],
    )
    table = _table(["", "at", "length", "scored", "or else", "epochs likely wrong"], rows)
    more = f"<p class='note'>… and {len(stretches) - _LISTED} more</p>" if len(stretches) > _LISTED else ""
    words = (
        "Stretches where a second look pays most: expected corrections per epoch read, going there included,"
        " from the calibrated probabilities. These speak of agreement with the scorers of the training data."
    ) + (" People agree among themselves in about 82 % of epochs." if len(night.classes) == len(HUMAN_STAGES) else "")
    return (
        f'<h2>Review these first</h2><p class="note">{words}</p>'
        f'<div class="cols"><div>{table}{more}</div><div>{curve}</div></div>'
    )


def _agreement(night: ScoredNight) -> str:
    assert night.reference is not None
    found = agreement(night.reference, night.stages, night.probabilities, night.classes, night.epoch_s)
    values = found["scores"]
    tiles = "".join(
        f'<div class="tile"><b>{_number(values[key], "{:.2f}")}</b><span>{name}</span></div>'
        for key, name in (("kappa", "Cohen’s κ"), ("accuracy", "accuracy"), ("macro_f1", "macro-F1"))
    )
    confusion = _table(
        ["reference \\ scored", *night.classes, "F1"],
        [
            [_chip(name), *(str(c) if c else "·" for c in row), _number(values[f"f1_{name}"], "{:.2f}")]
            for name, row in zip(night.classes, found["confusion"], strict=True)
        ],
    )
    labels = {**LABELS, **{f"min_{name}": f"{name} (min)" for name in night.classes}}
    differences = _table(
        ["", "reference", "scored", "difference"],
        [
            [
                labels[name],
                *(_number(row[k], _form(name)) for k in ("reference", "scored")),
                _number(row["difference"], _form(name, "+")),
            ]
            for name, row in found["statistics"].items()
        ],
    )
    picture = _picture(reliability_picture(night.probabilities, night.reference), "reliability of the confidence")
    return (
        f'<h2>Agreement with the reference scoring</h2><div class="tiles">{tiles}</div>'
        f'<div class="cols"><div>{confusion}<p class="note">Calibration error (ECE) {found["ece"]:.3f}</p>'
        f'<div style="width:340px">{picture}</div></div><div>{differences}</div></div>'
    )


def _yasa(night: ScoredNight) -> str:
    assert night.yasa is not None
    here, there = (sleep_statistics(stages, night.classes, night.epoch_s) for stages in (night.stages, night.yasa))
    rows = [[label, *(_number(found[name], _form(name)) for found in (here, there))] for name, label in LABELS.items()]
    rows += [
        [f"{name} (min)", *(_number(found[f"min_{name}"], "{:.1f}") for found in (here, there))]
        for name in night.classes
    ]
    words = "".join(
        f"<li>{escape(line)}</li>" for line in beside(night.yasa, night.stages, night.reference, night.classes)
    )
    return f"<h2>YASA’s scoring of the same night</h2><ul>{words}</ul>{_table(['', 'this scoring', 'YASA'], rows)}"


def _foot(night: ScoredNight) -> str:
    known = night.bundle_metrics
    parts = [f"κ {known['test/kappa']:.2f}"] if "test/kappa" in known else []
    parts += [f"macro-F1 {known['test/macro_f1']:.2f}"] if "test/macro_f1" in known else []
    held_out = f"The model reached {', '.join(parts)} on the people it was tested on. " if parts else ""
    return (
        f'<h2>Notes</h2><p class="note">{held_out}Statistics follow the AASM definitions with the whole recording'
        " taken as lights off to lights on; latencies count from its start, REM latency from sleep onset."
        " Epochs without usable signal are unscored, never guessed. Not a medical device.</p>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head) if any(head) else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<tr>{top}</tr>' if top else ''}{body}</table>"


def _chip(name: str) -> str:
    return f'<span class="chip" style="background:{STAGE_COLOURS.get(name, "#999")}"></span>{escape(name)}'


def _clock(night: ScoredNight, epoch: int) -> str:
    seconds = float(night.onset_s[epoch])
    since = f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d}:{seconds % 60:02.0f}"
    return f"{night.start + timedelta(seconds=seconds):%H:%M:%S} ({since})" if night.start else since


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _form(name: str, sign: str = "") -> str:
    """How a statistic is written: minutes and percentages with a decimal, counts without."""
    return f"{{:{sign}.{0 if name in COUNTS else 1}f}}"


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _span(minutes: float | None) -> str:
    if minutes is None:
        return "–"
    return f"{int(minutes // 60)} h {int(minutes % 60):02d}" if minutes >= 100 else f"{minutes:.0f} min"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
