"""Sleep-EDF Expanded from PhysioNet: fetched with checksums, resumed after a break, counted against the literature.

Source: Kemp et al. 2000 (IEEE TBME 47:1185), PhysioNet ``sleep-edfx`` 1.0.0. The sleep cassette files alone: SC-20 are
the 39 nights of the first 20 subjects, SC-78 all 153 nights of 78.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from src.signals import BadInput
from src.storage.atomic import folder_lock
from src.storage.batch import Job, Summary, run_batch
from src.storage.manifest import file_digest
from src.storage.output import OutputFolder
from src.storage.parameters import PreprocessConfig
from src.storage.progress import show

if TYPE_CHECKING:
    from src.recordings.sleep.nights import Night

CHECKSUMS = "SHA256SUMS.txt"
COUNTS_FILE = "counts.json"
_FOLDER = "sleep-cassette"
_NAME = re.compile(r"^SC4(\d{2})\d[A-Z0-9]{2}-(PSG|Hypnogram)\.edf$")
_LINE = re.compile(r"^([0-9a-f]{64})\s+\*?(?:\./)?(\S+)$")
_TIMEOUT_S = 60
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Cohort:
    """Which subjects and nights it has, and the published epochs of each stage within ±30 min of sleep."""

    subjects: range
    nights: int
    published: Mapping[str, int]


COHORTS: dict[str, Cohort] = {
    "sc20": Cohort(range(20), 39, {"W": 10197, "N1": 2804, "N2": 17799, "N3": 5703, "REM": 7717}),
    "sc78": Cohort(range(83), 153, {"W": 69824, "N1": 21522, "N2": 69132, "N3": 13039, "REM": 25835}),
}
"""Counts: Supratak & Guo 2020 (TinySleepNet), the preparation most papers share."""
_TOLERANCE = {"W": 0.02}
"""Papers trim wake by rules that differ by a few epochs a night; sleep has to agree to one epoch in a thousand."""
_SLEEP_TOLERANCE = 0.001


@dataclass
class SleepEdfParams(PreprocessConfig):
    """``preprocess=sleep_edf``: Sleep-EDF Expanded from PhysioNet, checked and counted."""

    input_dir: str = ""  # folder that has the files already, at any depth; empty: download
    workers: int = 2  # files at a time
    cohort: str = "sc20"  # sc20: the first 20 subjects, 39 nights, 2 GB; sc78: all 153 nights, 7 GB
    base_url: str = "https://physionet.org/files/sleep-edfx/1.0.0/"  # where SHA256SUMS.txt and the files are

    def run(self) -> Summary:
        return sleep_edf(self)


def sleep_edf(params: SleepEdfParams) -> Summary:
    """Fetch a cohort (or take a folder that is there), check every file, count its stages.

    ``output_dir`` gets ``sleep-cassette/*.edf`` when downloading, and ``counts.json``. A file that fails is a failure
    of its own in the summary; the next call fetches what is missing. An unknown cohort, a list of checksums that cannot
    be had and a folder without nights raise :class:`BadInput`.
    """
    from src.recordings.sleep.nights import discover  # the dataclass above is loaded by every command

    cohort, target = params.cohort, Path(params.output_dir)
    if cohort not in COHORTS:
        raise BadInput("cohort", f"{cohort!r} is not known", f"choose from: {', '.join(COHORTS)}")
    output = OutputFolder(target, (Path(params.input_dir),) if params.input_dir else ())
    output.check(known=(_FOLDER,))
    summary = Summary("files")
    if not params.input_dir:
        listed = [(name, digest) for name, digest in checksums_of(params.base_url).items() if wanted(name, cohort)]
        if not listed:
            raise BadInput(params.base_url + CHECKSUMS, f"lists no file of {cohort}", "check base_url")
        jobs = [
            Job(Path(name).name, fetch, (params.base_url + name, digest, target / _FOLDER))
            for name, digest in listed
            if Path(name).name not in params.skip
        ]
        summary = run_batch(jobs, title="downloading Sleep-EDF", workers=params.workers)
        if summary.failures:
            return summary
    nights = [n for n in discover("sleep_edf", params.input_dir or target) if wanted(n.psg[0].name, cohort)]
    if not nights:
        raise BadInput(params.input_dir or target, f"holds no night of {cohort}", "download it: leave input_dir out")
    jobs = [Job(night.recording_id, night_counts, (night,)) for night in nights]
    counting = run_batch(jobs, title="counting epochs", workers=params.workers)
    report = compare(list(counting.values.values()), cohort)
    with output.files(known=(_FOLDER,)) as part:
        (part / COUNTS_FILE).write_text(json.dumps(report, indent=2) + "\n")
    show(Console(), _table(report))
    return Summary("Sleep-EDF", (*summary.outcomes, *counting.outcomes))


def wanted(name: str, cohort: str) -> bool:
    """Whether a file belongs to the cohort."""
    match = _NAME.match(Path(name).name)
    return match is not None and int(match[1]) in COHORTS[cohort].subjects


def checksums_of(base_url: str) -> dict[str, str]:
    """``{path below base_url: SHA-256}`` as the archive lists them."""
    import requests

    try:
        answer = requests.get(base_url + CHECKSUMS, timeout=_TIMEOUT_S)
        answer.raise_for_status()
    except requests.RequestException as error:
        hint = "check the network, or give input_dir=<folder with the EDF files>"
        raise BadInput(base_url + CHECKSUMS, f"cannot be fetched ({type(error).__name__})", hint) from error
    lines = (_LINE.match(line.strip()) for line in answer.text.splitlines())
    return {match[2]: match[1] for match in lines if match}


def fetch(url: str, digest: str, folder: Path) -> str:
    """One file into ``folder``: nothing to do if it is there and right, the rest of it if a part is there."""
    import requests

    name = url.rpartition("/")[2]
    target, part = folder / name, folder / f".{name}.part"
    with folder_lock(target):
        if target.exists():
            if file_digest(target) != digest:
                problem = "has another checksum than the archive's file"
                raise BadInput(target, problem, "rename it, or choose output_dir")
            return str(target)
        try:
            _resume(url, part)
        except (requests.RequestException, OSError) as error:
            problem = f"cannot be fetched ({type(error).__name__})"
            raise BadInput(url, problem, "give the same command again, it goes on where it stopped") from error
        if file_digest(part) != digest:
            part.unlink()
            raise BadInput(url, "came with another checksum", "give the same command again")
        part.rename(target)
    return str(target)


def _resume(url: str, part: Path) -> None:
    """Ask for what has not come in yet, and append it."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as answer:
        # 416: nothing is left to send. 200: the server sends all of it again.
        if answer.status_code != 416:
            answer.raise_for_status()
            with part.open("ab" if answer.status_code == 206 else "wb") as handle:
                for block in answer.iter_content(_BLOCK):
                    handle.write(block)


def night_counts(night: Night) -> dict[str, int]:
    """Epochs of every stage within ±30 min of sleep, from the headers and the scoring; no sample is read."""
    from src.recordings.sleep.edf import read_header
    from src.recordings.sleep.hypnogram import align, stage_counts, trim_wake
    from src.recordings.sleep.scoring_files import read_hypnogram

    if night.hypnogram is None:
        raise BadInput(night.psg[0], "has no hypnogram beside it", "download it")
    header = read_header(night.psg[0])
    stages, _ = align(read_hypnogram(night.hypnogram), header.duration_s, 30.0, start=header.start)
    return stage_counts(stages[trim_wake(stages)])


def compare(nights: list[dict[str, int]], cohort: str) -> dict[str, Any]:
    """Sum the nights and hold them against the published counts; an incomplete cohort is only counted."""
    names = list(COHORTS[cohort].published)
    counts = {name: int(np.sum([night[name] for night in nights])) for name in names}
    published = dict(COHORTS[cohort].published)
    complete = len(nights) == COHORTS[cohort].nights
    agrees = all(
        abs(counts[name] - n) <= max(1, _TOLERANCE.get(name, _SLEEP_TOLERANCE) * n) for name, n in published.items()
    )
    return {
        "cohort": cohort,
        "nights": len(nights),
        "nights_expected": COHORTS[cohort].nights,
        "counts": counts,
        "published": published,
        "agrees": agrees if complete else None,
    }


def _table(report: Mapping[str, Any]) -> Table:
    verdict = {True: "agrees", False: "DIFFERS", None: "incomplete, not compared"}[report["agrees"]]
    title = f"{report['cohort']}: {report['nights']} of {report['nights_expected']} nights, {verdict}"
    table = Table(title=title, title_justify="left")
    for column in ("stage", "epochs", "published"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for name, count in report["counts"].items():
        table.add_row(name, str(count), str(report["published"][name]))
    return table
