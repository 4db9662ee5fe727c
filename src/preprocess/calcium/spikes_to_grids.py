"""``preprocess=cascade_spikes``, ``cascade_coo`` and ``cascade_grid``: recordings to spike rates or grids."""

import resource
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from src.preprocess.calcium import expected_spikes as spikes
from src.preprocess.calcium.grid_store import COMBINED_FILE, write_combined
from src.preprocess.calcium.parameters import CalciumParams, GridParams, InferenceParams
from src.preprocess.calcium.subject_grids import STEPS
from src.preprocess.cascade.download import AUTO, SUBSTITUTES, find_package, package_for_rate
from src.recordings.calcium.sources import find_subjects, open_recording, subject_files, subject_name
from src.reports.tables import ResultsTable
from src.signals import BadInput
from src.storage.atomic import folder_lock
from src.storage.batch import Job, Outcome, Summary, all_selected, run_batch
from src.storage.output import OutputFolder, distinct_names
from src.storage.progress import printable
from src.storage.step import ensure, read_artifact


def run(params: CalciumParams) -> "GridSummary":
    """Process every subject of ``input_dir`` into ``output_dir``; see ``docs/calcium.md``.

    Raises
    ------
    BadInput
        For a model that cannot be had, no subjects, or an output folder that
        another run is writing or that holds another format. What is wrong with one subject is in the summary instead.
    """
    subjects = find_subjects(Path(params.input_dir), params.skip)
    target = Path(params.output_dir)
    output = OutputFolder(target, (Path(params.input_dir),))
    for option in ("cache_dir", "models_dir"):
        OutputFolder(Path(getattr(params, option)), (params.input_dir,), option)
    if params.grid_format != "none":
        output.check()  # a file that describes all subjects is written into it
    refuse_other_format(target, STEPS[params.grid_format].name)
    # Jobs of a cluster share the folder: each locks its subjects alone, and waits for its turn at the common file.
    with folder_lock(target, wait=False) if all_selected() else nullcontext():
        package, notes = _package(params)
        inside = max(params.workers // len(subjects), 1)
        names = distinct_names((subject_name(place), place) for place in subjects)
        jobs = [
            Job(name, process_subject, (place, name, output, params, package, inside))
            for name, place in zip(names, subjects, strict=True)
        ]
        summary = run_batch(jobs, title=f"{params.input_dir} → {target}", workers=params.workers)
        outcomes, totals = list(summary.outcomes), {}
        if params.grid_format != "none":
            try:
                failed = {outcome.name for outcome in summary.failures}
                mine = STEPS[params.grid_format].name
                finished = [name for name, step in steps_in(target).items() if step == mine and name not in failed]
                totals = write_combined(output, finished, params.grid_format == "coo")
            except BadInput as error:
                outcomes.append(Outcome(COMBINED_FILE, reason=str(error)))
    if params.skip:
        notes.append(f"skipped: {', '.join(sorted(set(params.skip)))}")
    return GridSummary(summary.title, tuple(outcomes), totals, tuple(notes))


def steps_in(target: Path) -> dict[str, str]:
    """The subjects with whole results in a folder, also from earlier runs, and the step that made each."""
    folders = sorted(p for p in target.iterdir() if p.is_dir()) if target.is_dir() else []
    found = ((folder.name, read_artifact(folder)) for folder in folders)
    return {name: artifact.manifest["step"] for name, artifact in found if artifact}


def refuse_other_format(target: Path, mine: str) -> None:
    """Refuse an output folder whose subjects have another format: its ``combined_metadata.h5`` describes them.

    Raises
    ------
    BadInput
        Naming one such subject.
    """
    for name, step in steps_in(target).items():
        if step != mine and step in {s.name for s in STEPS.values()}:
            problem = f"holds {name} of preprocess={step}, and this run is {mine}"
            raise BadInput(target, problem, "choose another output_dir")


@dataclass(frozen=True)
class SubjectResult:
    """What is reported of one finished subject."""

    facts: dict[str, Any]
    upstream: dict[str, Any]
    inferred: bool
    gridded: bool
    inference_s: float
    gridding_s: float
    peak_gb: float


def process_subject(
    place: Path, name: str, output: OutputFolder, params: CalciumParams, package: Path | None, workers: int
) -> SubjectResult:
    """One subject, in whatever process: expected spikes from the cache or anew, then grids or rates, and figures."""
    output.check(name)
    target = output.path(name)
    files, clock = subject_files(place), time.monotonic()
    inference = params.of(InferenceParams) | {"subject": name, "need_positions": params.grid_format != "none"}
    if package:
        inference["cascade_model"] = package.name
    elif params.engine != "oasis":  # auto: by the recording's rate
        rate = open_recording(files, name, params.fs_hz, need_positions=False).fs_hz
        package = package_for_rate(rate, Path(params.models_dir))
    inputs = files | ({spikes.MODEL: package} if package else {})
    make = partial(spikes.make_expected_spikes, workers=workers, batch_size=params.batch_size)
    step = replace(spikes.EXPECTED_SPIKES, run=make)
    expected = ensure(step, inputs, inference, label=name, cache=Path(params.cache_dir))
    inference_s, clock = time.monotonic() - clock, time.monotonic()
    upstream = expected.manifest["facts"] | {"params": inference}
    gridding = params.of(GridParams) if params.grid_format != "none" else {}
    drawing = {"num_neurons": params.num_neurons, "figures": params.figures}
    result = ensure(
        STEPS[params.grid_format],
        files | {spikes.EXPECTED: expected.path / spikes.SPIKES_FILE},
        gridding | drawing | {"subject": name, "upstream": upstream},
        label=name,
        target=target,
        seed=params.seed,
        wait=False,
    )
    gridding_s, facts = time.monotonic() - clock, result.manifest["facts"]
    return SubjectResult(facts, upstream, not expected.reused, not result.reused, inference_s, gridding_s, _peak_gb())


def _package(params: CalciumParams) -> tuple[Path | None, list[str]]:
    """Folder of the model package, and a sentence where it is not the one that was named.

    There is none for an engine without networks, or where each subject's rate decides.
    """
    if params.engine == "oasis" or params.cascade_model == AUTO:
        return None, []
    package = find_package(params.cascade_model, Path(params.models_dir), models_url=params.models_url)
    if params.cascade_model not in SUBSTITUTES or package.name == params.cascade_model:
        return package, []
    used = f"used {package.name} ({package.parent})"
    return package, [f"cascade_model: {params.cascade_model} is not in {params.models_dir}; {used}"]


def _peak_gb() -> float:
    """Largest resident memory of this process and the ones it started, so far."""
    unit = 1e9 if sys.platform == "darwin" else 1e6
    usage = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in usage) / unit


@dataclass(frozen=True)
class GridSummary(Summary):
    """Outcomes with the numbers a person wants to see after a run."""

    totals: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def table(self) -> ResultsTable:
        """A line per subject; the totals below; what to know about each subject below that."""
        done = [o.value for o in self.outcomes if o.ok]
        row = _rate_row if any("mean_rate_hz" in result.facts for result in done) else _grid_row
        caption = [*self.notes, *self._totals([result.facts for result in done])]
        if done:
            caption.append(f"peak memory {max(result.peak_gb for result in done):.2f} GB")
        rows, columns = [], row(done[0]) if done else {"result": ""}
        for outcome in self.outcomes:
            name = {"subject": printable(outcome.name)}
            if outcome.ok:
                rows.append(name | row(outcome.value))
                caption += [f"{outcome.name}: {note}" for note in outcome.value.facts["notes"]]
            else:
                rows.append(name | dict.fromkeys(columns, "") | {next(iter(columns)): "failed"})
                caption.append(f"{outcome.name} failed: {outcome.reason}")
        return ResultsTable(rows, title=printable(self.title), notes=list(map(printable, caption)))

    def _totals(self, facts: list[dict[str, Any]]) -> list[str]:
        totals, lines = self.totals, []
        if totals:
            subjects = "subject" if totals["total_subjects"] == 1 else "subjects"
            lines.append(
                f"{totals['total_subjects']} {subjects} in {COMBINED_FILE}: {totals['total_spikes']:,} active pixels, "
                f"{totals['overall_sparsity_percent']:.4f} % of all (markers included)"
            )
            written, dense = (sum(f[name] for f in facts) for name in ("grid_file_bytes", "dense_bytes"))
            if dense:
                saved = f"{100 * (1 - written / dense):.1f} % less than raw dense grids"
                lines.append(f"the files of this run take {written / 1e6:,.1f} MB, {saved}")
        return lines


def _seconds(spent: float, done: bool) -> str:
    return f"{spent:.0f} s" if done else "kept"


def _grid_row(result: SubjectResult) -> dict[str, str]:
    facts = result.facts
    spent = _seconds(result.inference_s, result.inferred), _seconds(result.gridding_s, result.gridded)
    return {
        "cells": f"{facts['num_cells']:,}",
        "/voxel": f"{facts['num_cells'] / max(facts['occupied_voxels'], 1):.2f}",
        "T×Z": f"{facts['shape'][0]}×{facts['shape'][1]}",
        "train/test/gap": "/".join(f"{facts[f'{part}_percent']:.0f}" for part in ("train", "test", "gap")) + " %",
        "spikes": f"{facts['active_voxels']:,}",
        "density": f"{facts['density_percent']:.2g}%",
        "time": " + ".join(spent),
    }


def _rate_row(result: SubjectResult) -> dict[str, str]:
    up = result.upstream
    return {
        "cells": f"{up['cells']['used']:,} of {up['cells']['kept']:,}",
        "frames": f"{up['frames']:,}",
        "Hz": f"{up['fs_hz']:g}",
        "model": up["engine"]["model"],
        "signal": {"divide": "ΔF/F", "subtract": "F − F0", "none": "as given"}[up["baseline"]["mode"]],
        "mean rate": f"{result.facts['mean_rate_hz']:.3g} Hz",
        "infer": _seconds(result.inference_s, result.inferred),
    }
