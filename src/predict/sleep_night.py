"""A scored night: its statistics, how far it can be trusted, and its files for people and for other programs."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from src.predict.sleep_input import NightInput
from src.predict.sleep_statistics import (
    COUNTS,
    LABELS,
    WAKE_NAMES,
    agreement,
    beside,
    bouts,
    expected_accuracy,
    reliability,
    review_list,
    sleep_statistics,
    statistic_intervals,
)
from src.recordings.sleep.hypnogram import Hypnogram, transition_counts, write_annotations
from src.reports.sleep import draw_night, reliability_picture, write_page
from src.signals import UNSCORED, Origin, is_human_scoring
from src.storage.progress import printable

UNSCORED_NAME = "unscored"
LEAST_EPOCHS = 10
"""Fewer scored epochs have no statistics."""
WIDE_MIN, EARLY_REM_MIN = 30.0, 15.0
"""A number and its interval that span more than this (or half the recording), a REM latency below this, are marked."""
NO_KAPPA, POOR_KAPPA = 0.1, 0.4
"""A reference is doubtful below the first κ; below the second, if its clock or its length is another one."""
TILES = {
    "tst_min": "total sleep time",
    "se_percent": "sleep efficiency",
    "sol_min": "sleep latency",
    "waso_min": "WASO",
    "rem_latency_min": "REM latency",
}
"""Statistics at the top of the page."""


@dataclass(frozen=True)
class ScoredNight:
    """A recording, its stages, and all that is known about them; times from the start of the recording."""

    given: NightInput
    probabilities: NDArray[np.floating]  # (epoch, class), NaN where unscored
    classes: list[str]
    origin: Origin  # what the network was trained on
    metrics: dict[str, float] = field(default_factory=dict)  # the network's scores on held-back data
    transitions: Sequence[Sequence[float]] | None = None  # (from, to) counts of the training
    margins: Mapping[str, Sequence[float]] | None = None  # of intervals, measured on held-back nights
    scored_by: str = "Network"  # or YASA, or both
    yasa: NDArray[np.integer] | None = None  # (epoch,) YASA's stages, to compare with

    @cached_property
    def stages(self) -> NDArray[np.integer]:
        """``(epoch,)`` the most probable stage, ``UNSCORED`` where there is no usable signal."""
        scored = np.isfinite(self.probabilities).all(axis=1)
        return np.where(scored, np.nan_to_num(self.probabilities).argmax(axis=1), UNSCORED)

    @cached_property
    def in_bed(self) -> slice:
        """Epochs from lights off to lights on."""
        (off, on), onset_s = self.given.lights, self.given.groups[0].onset_s
        first = 0 if off is None else int(np.searchsorted(onset_s, off - 1e-6))
        last = len(onset_s) if on is None else int(np.searchsorted(onset_s, on - 1e-6))
        return slice(first, max(first, last))

    @cached_property
    def statistics(self) -> dict[str, float | None]:
        """From lights off to lights on; empty for too short a recording."""
        stages = self.stages[self.in_bed]
        enough = (stages != UNSCORED).sum() >= LEAST_EPOCHS
        return sleep_statistics(stages, self.classes, self.given.epoch_s) if enough else {}

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float] | None]:
        """Of every statistic, from the probabilities; empty for too short a recording."""
        if not self.statistics:
            return {}
        own = transition_counts(self.stages, len(self.classes))
        counts = np.array(own if self.transitions is None else self.transitions, float)
        rows = self.probabilities[self.in_bed]
        return statistic_intervals(rows, counts, self.classes, self.given.epoch_s, self.margins)

    def doubt(self, name: str) -> str:
        """Why a statistic should be looked at before it is used; empty where there is no reason."""
        value, interval = self.statistics.get(name), self.intervals.get(name)
        if name.startswith("rem_latency") and value is not None and value < EARLY_REM_MIN:
            return f"REM within {EARLY_REM_MIN:.0f} min of sleep onset: check these epochs"
        if name.startswith(("sol", "rem_latency")) and self.statistics.get("sol_min") == 0:
            return "asleep from the first epoch on: sleep onset is not in the recording"
        wide_min = min(WIDE_MIN, (self.statistics.get("trt_min") or 0.0) / 2)
        if (unscored := self.statistics.get("unscored_min") or 0.0) > wide_min:
            return f"{unscored:.0f} min are unscored"
        if value is None or interval is None or not name.endswith("_min"):
            return ""
        # Doubtful epochs can put what is counted outside what their sequence makes likely.
        spread = max(value, interval[1]) - min(value, interval[0])
        return f"uncertain by more than {wide_min:.0f} min" if spread > wide_min else ""

    @cached_property
    def agreement(self) -> dict[str, Any] | None:
        """With the reference, see :func:`~src.predict.sleep_statistics.agreement`."""
        if self.given.reference is None:
            return None
        return agreement(self.given.reference, self.stages, self.probabilities, self.classes, self.given.epoch_s)

    @cached_property
    def reference_doubt(self) -> str:
        """Why the reference is probably of another recording; empty where nothing says so."""
        if self.agreement is None:
            return ""
        kappa, reasons = self.agreement["scores"]["kappa"], self.given.doubts
        if kappa is not None and kappa < NO_KAPPA:
            reasons = [*reasons, f"κ is {kappa:.2f}, about what chance gives"]
        elif kappa is not None and kappa >= POOR_KAPPA:
            reasons = []
        return f"the reference may be of another night: {'; '.join(reasons)}" if reasons else ""

    @property
    def findings(self) -> list[str]:
        """Sentences on the signal."""
        return [f"{report.channel}: {finding}" for report in self.given.signal for finding in report.findings]

    def console_lines(self, folder: Path) -> list[str]:
        """What the console says of the night, whose files are in ``folder``."""
        lines = [f"look at    {finding}" for finding in self.findings]
        lines += [f"note       {note}" for note in self.given.notes]
        lines += [f"look at    {TILES[name]}: {doubt}" for name in TILES if (doubt := self.doubt(name))]
        doubt = self.reference_doubt
        lines += [] if self.agreement is None else [f"reference  {self.given.reference_read}"]
        lines += [f"WARNING    {doubt}. The numbers below then say nothing"] if doubt else []
        if self.agreement is not None:
            lines += [f"{'DOUBTFUL' if doubt else 'agreement':10s} {line}" for line in self.agreement["lines"]]
        if self.yasa is not None:
            found = beside(self.yasa, self.stages, self.given.reference, self.classes)
            lines += [f"yasa       {line}" for line in found]
        files = {"report": "report.html", "hypnogram": "hypnogram.csv", "figure": "night.png"}
        return [*lines, *(f"{name:10s} {folder / file}" for name, file in files.items())]

    def write(self, part: Path) -> None:
        """Write every file of the night but the manifest."""
        given, epochs = self.given, self.given.groups[0]
        names = [*self.classes, UNSCORED_NAME]  # UNSCORED is -1
        self._write_csv(part / "hypnogram.csv", names, float(epochs.facts["tail_s"]))
        self._write_bids(part / "events.tsv", names)
        first_s = float(epochs.onset_s[0]) if len(epochs.onset_s) else 0.0
        classes = tuple(self.classes)
        scoring = Hypnogram(self.stages.astype(np.int8), given.epoch_s, first_s, stage_names=classes)
        write_annotations(scoring.annotations(), given.start, part / "hypnogram.edf")
        draw_night(
            part / "night.png",
            given.level,
            titles=(f"{printable(given.recording_id)} – {given.channels[0]}", f"{self.scored_by} {self.origin}"),
            probabilities=self.probabilities,
            classes=self.classes,
            epoch_s=given.epoch_s,
            start=given.start,
            reference=given.reference,
        )
        if self.agreement is not None:
            found = {"reference": self.given.reference_read} | self.agreement | {"doubt": self.reference_doubt}
            (part / "agreement.json").write_text(json.dumps(found, indent=2, allow_nan=False) + "\n")
        write_page(part / "report.html", self.page(), part / "night.png")

    def _write_csv(self, path: Path, names: Sequence[str], tail_s: float) -> None:
        """``onset_s,duration_s,stage,p_<stage>…``, a row per epoch; ``unscored`` rows have no numbers.

        A rest of the signal too short for an epoch is a last ``unscored`` row of ``tail_s``. EDFBrowser imports
        the file as annotations: separator ``,``, onset in seconds in column 1, duration 2, description 3, data
        from line 2. YASA's stages, where there are any, are a last column ``yasa``.
        """
        yasa, onsets_s = self.yasa, self.given.groups[0].onset_s
        with path.open("w", newline="") as handle:
            writer = csv.writer(handle)
            columns = ["onset_s", "duration_s", "stage", *(f"p_{name}" for name in self.classes)]
            writer.writerow([*columns, *([] if yasa is None else ["yasa"])])
            rows = zip(onsets_s, self.stages, self.probabilities, strict=True)
            for place, (onset, stage, row) in enumerate(rows):
                numbers = [f"{p:.5f}" if stage != UNSCORED else "" for p in row]
                other = [] if yasa is None else [names[yasa[place]]]
                writer.writerow([f"{onset:.10g}", f"{self.given.epoch_s:g}", names[stage], *numbers, *other])
            if tail_s:
                end_s = onsets_s[-1] + self.given.epoch_s
                blank = [""] * len(self.classes) + ([] if yasa is None else [UNSCORED_NAME])
                writer.writerow([f"{end_s:.10g}", f"{tail_s:g}", UNSCORED_NAME, *blank])

    def _write_bids(self, path: Path, names: Sequence[str]) -> None:
        """BIDS ``events.tsv`` (``onset``, ``duration``, ``trial_type``, ``confidence``) and the JSON of its columns."""
        lines = ["onset\tduration\ttrial_type\tconfidence"]
        onsets_s = self.given.groups[0].onset_s
        for onset, stage, row in zip(onsets_s, self.stages, self.probabilities, strict=True):
            sure = f"{row.max():.3f}" if stage != UNSCORED else "n/a"
            lines.append(f"{onset:.10g}\t{self.given.epoch_s:g}\t{names[stage]}\t{sure}")
        path.write_text("\n".join(lines) + "\n")
        levels = {name: f"stage {name}" for name in self.classes} | {UNSCORED_NAME: "no signal that could be scored"}
        meaning = {
            "trial_type": {"LongName": "sleep stage", "Description": "scored automatically", "Levels": levels},
            "confidence": {"Description": "calibrated probability of the stage", "Units": "1"},
        }
        path.with_suffix(".json").write_text(json.dumps(meaning, indent=2) + "\n")

    def page(self) -> dict[str, Any]:
        """The values that ``src/reports/templates/sleep.html`` writes out."""
        given, stages = self.given, self.stages[self.in_bed]
        moves = transition_counts(stages, len(self.classes))
        np.fill_diagonal(moves, 0)
        counted = self.origin.recorded and self.statistics
        values = {
            "title": printable(given.recording_id),
            "night": self,
            "given": given,
            "tiles": {name: words for name, words in TILES.items() if self.statistics},
            "labels": LABELS | {f"min_{name}": f"{name} (min)" for name in self.classes},
            "counts": COUNTS,
            "wake": WAKE_NAMES,
            "human": is_human_scoring(self.classes, given.epoch_s),
            "bouts": bouts(stages, self.classes, given.epoch_s),
            "moves": moves.tolist(),
            "review": review_list(self.probabilities, self.stages),
            "accuracy": {s: expected_accuracy(self.probabilities, s) for s in (0.0, 0.05, 0.1, 0.2)} if counted else {},
            "reliability": None,
            "yasa": None,
        }
        if given.reference is not None:
            values["reliability"] = reliability_picture(*reliability(self.probabilities, given.reference))
        if self.yasa is not None:
            values["yasa"] = sleep_statistics(self.yasa[self.in_bed], self.classes, given.epoch_s)
            values["yasa_lines"] = beside(self.yasa, self.stages, given.reference, self.classes)
        return values
