"""LFP spectrograms of whole sessions: ``python preprocess.py preprocess=spectrogram input_dir=… output_dir=…``.

One shank after the other, each on all cores: memory is that of one shank however many there are. Every
shank is a cached step of its own, ``<output_dir>/<session>/sh<k>/``, so a second run finishes what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from src.preprocess.lfp.extraction import extract
from src.preprocess.lfp.parameters import DEFAULT, SpectrogramParams
from src.preprocess.lfp.spectrogram_step import STEP, TRACES, VERSION, run
from src.recordings.extracellular.reader import open_recording
from src.recordings.extracellular.sessions import Session, find_sessions
from src.signals import BadInput, SourceOptions
from src.storage.batch import Job, Summary, run_batch
from src.storage.manifest import read_manifest
from src.storage.output import OutputFolder, refuse_foreign
from src.storage.parallel import available_cores
from src.storage.progress import say
from src.storage.step import Artifact, CachedStep, ensure

if TYPE_CHECKING:
    from src.preprocess.lfp.coherence import Pair


def spectrograms(params: SpectrogramParams) -> Summary:
    """Spectrograms of every shank of every session at or below ``input_dir``.

    Returns
    -------
    Summary
        An outcome per shank, and one per session for coherence. A failed one stops no other.

    Raises
    ------
    BadInput
        If there is no session at all, or the parameters make no sense for any.
    """
    params.check()
    pairs, output = [], OutputFolder(Path(params.output_dir), (Path(params.input_dir),))
    if params.coherence:
        from src.preprocess.lfp.coherence import parse_pairs

        pairs = parse_pairs(params.coherence)
    console, jobs, absent = Console(stderr=True), list[Job](), list[BadInput]()
    sessions = [session for session in find_sessions(Path(params.input_dir)) if session.name not in params.skip]
    for session in sessions:
        for note in session.notes:
            say(console, f"{session.name}: {note}", label="note", style="yellow")
        try:
            work = Work(session, output.path(session.name), params, pairs)
            absent += [problem for problem in [work.absent_channel()] if problem]
            jobs += work.jobs()
        except BadInput as problem:
            jobs.append(Job(str(session.path), _refuse, (problem,)))
    if absent and len(absent) == len(sessions):
        raise absent[0]  # no session has the channels of the pairs
    jobs = [job for job in jobs if job.name not in params.skip]
    summary = run_batch(jobs, title="spectrograms")
    for session in sessions:
        made = read_manifest(Path(params.output_dir) / session.name / "lfp_traces") or {"facts": {"warnings": []}}
        say_warnings(console, session.name, made)
    for name, artifact in summary.values.items():
        say_warnings(console, name, artifact.manifest)
    kept = sum(artifact.reused for artifact in summary.values.values())
    state = f", {kept} of them there already and verified" if kept else ""
    say(console, f"{len(summary.values)} of {len(jobs)} in {params.output_dir}{state}")
    return summary


def say_warnings(console: Console, name: str, manifest: Mapping[str, Any]) -> None:
    """Print the warnings in a result's facts."""
    for warning in manifest["facts"]["warnings"]:
        say(console, f"{name}: {warning}", label="warning", style="yellow")


@dataclass(frozen=True)
class Work:
    """What is made of one session, in its folder ``target``; ``pairs`` are the channels whose coherence is wanted."""

    session: Session
    target: Path
    params: SpectrogramParams
    pairs: list[Pair]

    def jobs(self) -> list[Job]:
        """One per shank, and one for coherence.

        Raises
        ------
        BadInput
            If nothing of the session can be used.
        """
        there = self.session.shank_numbers(asdict(self.params.source))
        if self.session.raw is None:
            self.params.require_raw(self.session.path)
        wanted = there if self.params.shanks is None else sorted(set(self.params.shanks))
        jobs = [Job(f"{self.session.name}/sh{shank}", self.shank, (shank,)) for shank in wanted]
        return jobs + [Job(f"{self.session.name}/coherence", self.coherence)] * bool(self.pairs)

    def absent_channel(self) -> BadInput | None:
        """What is wrong with a channel of a pair, before anything is computed."""
        from src.preprocess.lfp.coherence import column_of  # loads SciPy

        try:
            for site in {site for pair in self.pairs for site in pair}:
                if self.session.raw is None:
                    path, source = self._traces(site.shank)
                    found = open_recording(path, SourceOptions(**source))
                else:
                    found = open_recording(self.session.raw, self.params.source).shank(site.shank)
                column_of(found, site)
                if site.channel in map(str, self.params.bad_channels):
                    raise BadInput("coherence", f"{site} is one of bad_channels", "choose another channel")
        except BadInput as problem:
            return problem
        return None

    def shank(self, shank: int) -> Artifact:
        """The spectrograms of a shank, and its figures."""
        label = f"{self.session.name}_sh{shank}"
        refuse_foreign(self._folder(f"sh{shank}"), "output_dir")
        traces, source = self._traces(shank)
        how: dict[str, Any] = {"threads": self.params.workers or available_cores(), "memory_mb": self.params.memory_mb}
        given = {**self.params.transform(), "label": label, "source": source}
        step = CachedStep(STEP, VERSION, partial(run, **how))
        artifact = ensure(step, {TRACES: traces}, given, label=label, target=self._folder(f"sh{shank}"))
        if self.params.figures:
            from src.preprocess.lfp.pages import draw_shank  # loads matplotlib

            self._figures(draw_shank, artifact, f"{self.session.name}/sh{shank}")
        return artifact

    def coherence(self) -> Artifact:
        """The coherence of all pairs, and its figures."""
        from src.preprocess.lfp.coherence import COHERENCE

        found = {f"sh{k}": self._traces(k) for k in sorted({site.shank for pair in self.pairs for site in pair})}
        given = {
            **self.params.transform(),
            "label": self.session.name,
            "pairs": [[str(one), str(other)] for one, other in self.pairs],
            "coherence_window_s": float(self.params.coherence_window_s),
            "source": next(iter(found.values()))[1],
        }
        inputs = {name: path for name, (path, _) in found.items()}
        artifact = ensure(COHERENCE, inputs, given, label=self.session.name, target=self._folder("coherence"))
        if self.params.figures:
            from src.preprocess.lfp.pages import draw_coherences  # loads matplotlib

            self._figures(draw_coherences, artifact, self.session.name)
        return artifact

    def _folder(self, name: str) -> Path:
        """Results of another preset lie beside those of the default one."""
        return self.target / (name if self.params.preset == DEFAULT else f"{name}_{self.params.preset}")

    def _traces(self, shank: int) -> tuple[Path, dict[str, Any]]:
        """The trace file of a shank, and the options to read it with."""
        if self.session.raw is None:
            stated = self.params.source.fs_hz or self.params.sampling_rate_hz
            return self.session.trace_file(shank), asdict(self.params.source) | {"fs_hz": stated}
        name, folder = self.session.name, self.target / "lfp_traces"
        extract(self.session.raw, name, folder, self.params.extraction())
        if not (path := folder / f"{name}_sh{shank}_lfp_traces.npz").is_file():
            there = sorted(file.name.split("_sh")[-1].split("_")[0] for file in folder.glob("*_sh*.npz"))
            raise BadInput(self.session.path, f"no traces for shank {shank}", f"there are shanks {', '.join(there)}")
        return path, asdict(SourceOptions())

    def _figures(self, draw: Callable[..., list[Path]], artifact: Artifact, name: str) -> None:
        def run(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
            title = name.replace("/sh", " · shank ")
            return {"figures": len(draw(inputs["results"], out_dir, title=title, **params))}

        given, target = {"suffix": self.params.figures}, self.target / f"{artifact.path.name}_figures"
        ensure(CachedStep("lfp_figures", 2, run), {"results": artifact.path}, given, label=name, target=target)


def _refuse(problem: BadInput) -> None:
    raise problem
