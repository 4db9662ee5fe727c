"""LFP spectrograms of whole sessions: ``python preprocess.py preprocess=spectrogram input_dir=… output_dir=…``.

One shank after the other, each on all cores: memory is that of one shank however many there are. Every
shank is an artifact of its own, ``<output_dir>/<session>/sh<k>/``, so a second run finishes what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.markup import escape

from src.preprocess.lfp import coherence as lfp_coherence
from src.preprocess.lfp import parameters as lfp_parameters
from src.preprocess.lfp import shank as lfp_shank
from src.preprocess.lfp.artifact import open_spectrograms
from src.recordings.extracellular.sessions import Session, find_sessions
from src.recordings.extracellular.spikegadgets import shanks_of
from src.signals import BadInput
from src.storage.batch import Job, Summary, run_batch
from src.storage.output import OutputFolder
from src.storage.progress import steps
from src.storage.step import Artifact, CachedStep, ensure


def spectrograms(
    *,
    input_dir: str,
    output_dir: str,
    workers: int = 0,
    seed: int = 42,
    skip: Sequence[str] = (),
    shanks: Sequence[int] | None = None,
    sampling_rate_hz: float | None = None,
    preset: str = lfp_parameters.DEFAULT,
    window: str | Sequence[str | float] | None = None,
    nperseg: int | None = None,
    window_s: float | None = None,
    noverlap: int | None = None,
    overlap_s: float | None = None,
    nfft: int | None = None,
    detrend: str | None = None,
    scaling: str | None = None,
    fmax_hz: float | None = None,
    log_bins: int | None = None,
    format: str | None = None,
    decibel: bool | None = None,
    dtype: str | None = None,
    band_powers: bool | None = None,
    bands: Mapping[str, Any] = MappingProxyType({}),
    coherence: Sequence[Sequence[str]] = (),
    coherence_window_s: float = 30.0,
    figures: str | None = None,
    figure_channels: Sequence[str] | None = None,
    memory_mb: float = 256.0,
) -> Summary:
    """Spectrograms of every shank of every session at or below ``input_dir``.

    Parameters
    ----------
    input_dir, output_dir
        See :func:`sessions.find_sessions`; results go to ``<output_dir>/<session>/``.
    workers
        Threads; 0 for every core this process may use.
    seed
        Not used: nothing here is random.
    skip
        Sessions (``rat1``) and shanks (``rat1/sh3``) to leave out.
    shanks
        Which shanks every session has to have; ``None`` takes those that are there.
    sampling_rate_hz
        Of ``.npy`` files, which cannot state it; what SpikeGadgets files are brought down to (500).
    preset, window, …, band_powers, bands
        See :func:`parameters.resolve`.
    coherence, coherence_window_s
        Pairs of channels ``[sh0:12, sh3:7]``, and over how long their spectra are averaged.
    figures, figure_channels
        ``png`` or ``pdf`` for a figure of every channel, or of those named.
    memory_mb
        For the spectrograms under way; a session takes this and some 200 MB, whatever its length.

    Returns
    -------
    Summary
        An outcome per shank, and one per session for coherence. A failed one stops no other.

    Raises
    ------
    BadInput
        If there is no session at all, or the parameters make no sense for any.
    """
    given = {
        "window": window,
        "nperseg": nperseg,
        "window_s": window_s,
        "noverlap": noverlap,
        "overlap_s": overlap_s,
        "nfft": nfft,
        "detrend": detrend,
        "scaling": scaling,
        "fmax_hz": fmax_hz,
        "log_bins": log_bins,
        "format": format,
        "decibel": decibel,
        "dtype": dtype,
        "band_powers": band_powers,
    }
    params = lfp_parameters.resolve(preset, given, bands) | {"sampling_rate_hz": sampling_rate_hz}
    lfp_parameters.check(params)
    pairs = [[str(one), str(other)] for one, other in lfp_coherence.parse_pairs(coherence)]
    if workers < 0 or not memory_mb > 0:
        raise BadInput("workers", f"workers={workers}, memory_mb={memory_mb:g}", "give 0 or more, and some memory")
    if figures not in (None, "png", "pdf"):
        raise BadInput("figures", f"{figures!r} is not known", "choose png, pdf or null")
    run = _Run(
        suffix="" if preset == lfp_parameters.DEFAULT else f"_{preset}",
        params=params,
        threads=workers or len(os.sched_getaffinity(0)),
        memory_mb=memory_mb,
        coherence={"pairs": pairs, "coherence_window_s": float(coherence_window_s)},
        figures=figures,
        figure_channels=None if figure_channels is None else tuple(map(str, figure_channels)),
    )
    console = Console(stderr=True)
    jobs: list[Job] = []
    output = OutputFolder(Path(output_dir), (Path(input_dir),))
    for session in find_sessions(Path(input_dir)):
        if session.name in skip:
            continue
        for note in session.notes:
            _say(console, "note", session.name, note)
        jobs += _jobs(session, output, run, shanks)
    jobs = [job for job in jobs if job.name not in skip]
    summary = run_batch(jobs, title="spectrograms")
    for name, artifact in summary.values.items():
        for warning in artifact.manifest["facts"]["warnings"]:
            _say(console, "warning", name, warning)
    kept = sum(artifact.reused for artifact in summary.values.values())
    state = f", {kept} of them there already and verified" if kept else ""
    console.print(f"{len(summary.values)} of {len(jobs)} in {output_dir}{state}", highlight=False, soft_wrap=True)
    return summary


@dataclass(frozen=True)
class _Run:
    """What all jobs share; ``suffix`` keeps the presets' results apart."""

    suffix: str
    params: dict[str, Any]
    threads: int
    memory_mb: float
    coherence: dict[str, Any]
    figures: str | None
    figure_channels: tuple[str, ...] | None


def _jobs(session: Session, output: OutputFolder, run: _Run, shanks: Sequence[int] | None) -> list[Job]:
    if session.problem is not None:
        return [Job(str(session.path), _refuse, (session.problem,))]
    try:
        target = output.path(session.name)
        if session.raw is not None:
            session = replace(session, shanks=dict.fromkeys(shanks_of(session.raw), (session.raw,)))
    except BadInput as problem:
        return [Job(str(session.path), _refuse, (problem,))]
    wanted = sorted(session.shanks) if shanks is None else sorted(set(shanks))
    jobs = [Job(f"{session.name}/sh{shank}", _shank, (session, shank, target, run)) for shank in wanted]
    if run.coherence["pairs"]:
        jobs.append(Job(f"{session.name}/coherence", _coherence, (session, target, run)))
    return jobs


def _refuse(problem: BadInput) -> None:
    raise problem


def _traces(session: Session, shank: int) -> Path:
    """The one trace file of a shank."""
    files = session.shanks.get(shank, ())
    if not files:
        known = ", ".join(map(str, session.shanks))
        raise BadInput(session.path, f"no traces for shank {shank}", f"there are shanks {known}")
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise BadInput(session.path, f"{len(files)} files for shank {shank}: {names}", "leave one of them there")
    return files[0]


def _shank(session: Session, shank: int, target: Path, run: _Run) -> Artifact:
    name, label = f"{session.name}/sh{shank}", f"{session.name}_sh{shank}"
    with ExitStack() as stack:

        def progress(n_channels: int, channel_bytes: int) -> Callable[..., None]:
            return stack.enter_context(steps(f"{name} channels", n_channels, step_bytes=channel_bytes))

        stage = lfp_shank.shank_stage(threads=run.threads, memory_mb=run.memory_mb, progress=progress)
        inputs, params = {lfp_shank.TRACES: _traces(session, shank)}, run.params | {"label": label, "shank": shank}
        artifact = ensure(stage, inputs, params, label=label, target=target / f"sh{shank}{run.suffix}")
    if run.figures:
        _figures(artifact, name, target / f"sh{shank}{run.suffix}_figures", run)
    return artifact


def _coherence(session: Session, target: Path, run: _Run) -> Artifact:
    pairs = lfp_coherence.parse_pairs(run.coherence["pairs"])
    inputs = {f"sh{site.shank}": _traces(session, site.shank) for pair in pairs for site in pair}
    params = run.params | run.coherence | {"label": session.name}
    stage = lfp_coherence.coherence_stage()
    return ensure(stage, inputs, params, label=session.name, target=target / f"coherence{run.suffix}")


def _figures(artifact: Artifact, name: str, target: Path, run: _Run) -> None:
    from src.reports.lfp import draw_shank  # matplotlib is slow to import

    def draw(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
        title = name.replace("/sh", " · shank ")
        return {"figures": len(draw_shank(inputs["spectrograms"], out_dir, title=title, progress=steps, **params))}

    there = open_spectrograms(artifact.path).channel_ids
    channels = list(there) if run.figure_channels is None else [i for i in run.figure_channels if i in there]
    if channels:
        params = {"suffix": run.figures, "channels": channels}
        ensure(CachedStep("lfp_figures", 1, draw), {"spectrograms": artifact.path}, params, label=name, target=target)


def _say(console: Console, kind: str, name: str, text: str) -> None:
    console.print(f"[yellow]{kind}[/] {escape(name)}: {escape(text)}", highlight=False, soft_wrap=True)
