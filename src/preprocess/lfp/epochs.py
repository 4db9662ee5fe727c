"""The step ``lfp_epochs``: a shank's spectrograms in, epochs for training out, and states where nobody scored.

The same ``epochs.h5`` that ``sleep_epochs`` makes from nights: 4-s epochs in the three states of rodents, 30-s
epochs in the five stages of people, or any other length. Nothing is transformed again.
"""

from collections.abc import Iterator, Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from src.preprocess.lfp.extraction import EMG_FILE
from src.preprocess.lfp.parameters import LfpEpochsParams, LfpParams, SpectrogramParams
from src.preprocess.lfp.spectrogram_file import SILENT_DB, Spectrograms, open_spectrograms
from src.preprocess.lfp.spectrogram_step import STEP
from src.preprocess.lfp.spectrograms import say_warnings, spectrograms
from src.preprocess.lfp.states import HYPNOGRAM, NREM, WAKE, epoch_features, quietly, score, summary_of, write_states
from src.preprocess.sleep.epochs import AXES, EpochSet, label_epochs, write_epochs
from src.recordings.extracellular.sessions import find_sessions
from src.recordings.sleep.hypnogram import Hypnogram, align
from src.recordings.sleep.scoring_files import read_hypnogram
from src.recordings.sleep.stage_names import ScoringOptions
from src.reports.tables import ResultsTable
from src.signals import HUMAN_STAGES, STAGE_SETS, UNSCORED, BadInput, SignalSpec
from src.storage.batch import Job, Outcome, Summary, all_selected, run_batch
from src.storage.foreign_files import absent
from src.storage.manifest import MANIFEST, read_manifest
from src.storage.output import OutputFolder
from src.storage.progress import show
from src.storage.step import Artifact, CachedStep, ensure


def epochs_from_spectrogram(
    artifact: Path,
    hypnogram: Hypnogram | None,
    epoch_s: float,
    *,
    channels: Sequence[str] | None = None,
    min_hz: float = 0.5,
    max_hz: float | None = None,
    margin_s: float | None = None,
) -> EpochSet:
    """Cut finished spectrograms into epochs of ``epoch_s`` seconds, and label them.

    An epoch has the frames that lie wholly inside it, the same number in each: frames never reach across
    a border. A 2-s window every 0.5 s leaves 5 frames in 4 s and 57 in 30 s.

    Parameters
    ----------
    artifact
        A shank's folder or its spectrogram file, of any preset.
    hypnogram
        Scoring whose onsets count from the first sample of the traces; ``None`` for unlabelled epochs.
    channels
        Ids in the order of the channel axis; ``None`` for all.
    min_hz, max_hz
        Rows kept, both ends included.
    margin_s
        Wake kept before the first and after the last sleep epoch; ``None`` keeps all.

    Raises
    ------
    BadInput
        If an epoch is shorter than a window, a recording than an epoch, a channel absent, or the scoring of no use.
    """
    source = open_spectrograms(artifact)
    firsts, n_frames = _frames(source, epoch_s)
    rows = (source.freqs >= min_hz) & (source.freqs <= (np.inf if max_hz is None else max_hz))
    if not len(firsts) or not rows.any():
        problem = f"has no row between {min_hz:g} and {max_hz} Hz" if len(firsts) else "is shorter than an epoch"
        raise BadInput(source.path, problem, "choose another epoch_s, min_hz or max_hz")
    places = source.places(channels)
    features = _cut(source, places, rows, firsts, n_frames)
    there = np.asarray(np.isfinite(features).all(axis=(2, 3)))
    usable = np.any(there, axis=1)
    names = HUMAN_STAGES if hypnogram is None else hypnogram.stage_names
    why = "no channel has a signal in all their frames"
    stages, kept, facts = label_epochs(hypnogram, usable, epoch_s, names, source.duration_s, margin_s=margin_s, why=why)
    dead = ", ".join(source.channel_ids[places[k]] for k in np.flatnonzero(there.mean(axis=0) < 0.5))
    if dead:
        facts["warnings"].append(f"masked because they are flat or missing most of the time: channels {dead}")
    units = source.params["units"] if source.decibel else f"dB re 1 {source.params['units']}"
    about = (tuple(source.channel_ids[place] for place in places), source.params["fs_hz"], epoch_s, units, AXES)
    return EpochSet(
        features=features[kept],
        stages=stages[kept],
        usable=usable[kept],
        onset_s=np.arange(len(firsts), dtype=np.float64)[kept] * epoch_s,
        times_s=source.params["window_s"] / 2 + np.arange(n_frames, dtype=np.float64) * source.params["hop_s"],
        signal=SignalSpec(*about, features.shape[1:], tuple(source.freqs[rows].tolist())),
        facts=facts,
    )


def _frames(source: Spectrograms, epoch_s: float) -> tuple[NDArray[np.int64], int]:
    """First frame of every epoch that has all its frames, and how many frames an epoch has."""
    window_s, hop_s = source.params["window_s"], source.params["hop_s"]
    aligned = abs(epoch_s / hop_s - round(epoch_s / hop_s)) < 1e-6
    n_frames = int(np.floor((epoch_s - window_s) / hop_s + 1e-6)) + aligned
    if n_frames < 1:
        problem = f"an epoch of {epoch_s:g} s has no room for a window of {window_s:g} s every {hop_s:g} s"
        raise BadInput(source.path, problem, "lengthen epoch_s or shorten the window")
    n_epochs = int(source.duration_s / epoch_s + 1e-9)
    firsts = np.ceil(np.arange(n_epochs) * epoch_s / hop_s - 1e-6).astype(np.int64)
    return firsts[firsts + n_frames <= len(source.times)], n_frames


def _cut(
    source: Spectrograms, places: Sequence[int], rows: NDArray[np.bool_], firsts: NDArray[np.int64], n_frames: int
) -> NDArray[np.float16]:
    """``(epoch, channel, frequency, time)`` dB; NaN throughout where a channel is flat or lacks samples."""
    features = np.empty((len(firsts), len(places), int(rows.sum()), n_frames), dtype=np.float16)
    frames = firsts[:, None] + np.arange(n_frames)
    for place, values in source.channels(places):
        features[:, places.index(place)] = source.to_decibel(values[rows])[:, frames].transpose(1, 0, 2)
    flat = (features <= SILENT_DB).all(axis=(2, 3))
    features[flat | ~np.isfinite(features).all(axis=(2, 3))] = np.nan
    return features


class FinishedShank(NamedTuple):
    """A shank whose spectrograms are in a folder, and the scoring of its session if there is one."""

    label: str
    session: str
    spectrograms: Path
    hypnogram: Path | None


def finished_shanks(root: Path, hypnograms: Path | None = None) -> list[FinishedShank]:
    """Shanks that ``preprocess=spectrogram`` finished below a folder, each with its session's scoring.

    Parameters
    ----------
    hypnograms
        Where ``<session>_hypnogram.csv`` are; ``None`` looks in ``root`` and in the sessions' folders.
    """
    found = []
    for manifest in sorted(Path(root).rglob(MANIFEST)):
        record = read_manifest(manifest.parent) or {}
        if record.get("step") == STEP:
            session = record["label"].rpartition("_sh")[0]
            places = [hypnograms] if hypnograms is not None else [Path(root), *manifest.parents[1:3]]
            files = [Path(place) / f"{session}_hypnogram.csv" for place in places]
            scoring = next((file for file in files if file.is_file()), None)
            found.append(FinishedShank(record["label"], session, manifest.parent, scoring))
    return found


def _run(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    names = _stages_of(params["species"])
    reading = ScoringOptions(params["text_epoch_s"], params["stage_coding"], names)
    scorings = {name: read_hypnogram(inputs[name], reading) for name in ("hypnogram", "examples") if name in inputs}
    hypnogram = scorings.get("hypnogram")
    cutting = {name: params[name] for name in ("channels", "min_hz", "max_hz", "margin_s")}
    epochs = epochs_from_spectrogram(inputs["spectrograms"], hypnogram, params["epoch_s"], **cutting)
    facts = epochs.facts
    made = (read_manifest(inputs["spectrograms"]) or {}).get("facts", {})
    facts["warnings"] += [one for one in made.get("warnings", []) if one not in facts["warnings"]]
    facts["signal"] = made.get("signal", {})
    if hypnogram is None and params["species"] == "rodent":
        facts |= _score(epochs, inputs.get("emg"), scorings.get("examples"), params["epoch_s"], out_dir)
    return write_epochs(out_dir, epochs, names)


def _score(
    epochs: EpochSet, emg: Path | None, examples: Hypnogram | None, epoch_s: float, out_dir: Path
) -> dict[str, Any]:
    """Write the states of epochs that nobody scored: ``hypnogram.csv`` and ``states.png``."""
    from src.reports.lfp import draw_states  # loads matplotlib

    muscle, labels = None, None
    if emg is not None:
        with np.load(emg, allow_pickle=False) as stored:
            edges = np.append(epochs.onset_s, epochs.onset_s[-1] + epoch_s)
            place = np.digitize(stored["times"], edges) - 1
            muscle = np.array([_mean(stored["emg"][place == epoch]) for epoch in range(len(epochs.onset_s))])
    if examples is not None:
        found, _ = align(examples, float(epochs.onset_s[-1] + epoch_s), epoch_s)
        labels = found[: len(epochs.onset_s)]
        if absent := [name for name, stage in (("Wake", WAKE), ("NREM", NREM)) if not (labels == stage).any()]:
            raise BadInput(examples.source, f"names no epoch of {absent[0]}", "score at least one of Wake and of NREM")
    features, said = epoch_features(epochs.features, epochs.freqs_hz, muscle)
    states = score(features, epoch_s, labels)
    write_states(out_dir, epochs.onset_s.tolist(), epoch_s, states.stages, states.confidence)
    level = quietly(np.nanmedian, epochs.features.astype(np.float32).mean(axis=3), axis=1).T
    traces = {"slow waves (z)": features.slow, "theta ratio": features.theta}
    traces |= {} if muscle is None else {"muscle": muscle}
    draw_states(out_dir / "states.png", level, epochs.freqs_hz, epochs.onset_s + epoch_s / 2, states, traces)
    return summary_of(states.stages, states.confidence) | {
        "scored_by": "a rule without labels" if labels is None else f"a rule from {int((labels >= 0).sum())} epochs",
        "warnings": [*epochs.facts["warnings"], *said, *states.warnings],
    }


def _mean(values: NDArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _vote(inputs: Mapping[str, Path], params: dict[str, Any], out_dir: Path, seed: int | None) -> dict[str, Any]:
    """An animal is in one state at a time: in every epoch the one with most confidence over its shanks."""
    names = STAGE_SETS["rodent"]
    tables = [[row.split(",") for row in (p / HYPNOGRAM).read_text().splitlines()[1:]] for p in inputs.values()]
    votes = np.zeros((min(map(len, tables)), len(names)))
    voters = np.zeros(len(votes), int)
    for table in tables:
        for epoch, (_, _, state, sure) in enumerate(table[: len(votes)]):
            if state in names:  # else unscored
                votes[epoch, names.index(state)] += float(sure)
                voters[epoch] += 1
    scored = voters > 0
    stages = np.where(scored, votes.argmax(axis=1), UNSCORED)
    confidence = np.where(scored, votes.max(axis=1) / np.maximum(voters, 1), np.nan)
    onset_s = [float(onset) for onset, *_ in tables[-1][: len(votes)]]
    write_states(out_dir, onset_s, params["epoch_s"], stages, confidence)
    agreed = float((np.count_nonzero(votes, axis=1) <= 1).mean())
    return summary_of(stages, confidence) | {
        "shanks": list(inputs),
        "epochs": len(votes),
        "epoch_s": params["epoch_s"],
        "stage_names": list(names),
        "shanks_agree": round(agreed, 4),
        "signal": {},
        "scored_by": f"the vote of {len(tables)} shanks",
        "warnings": [] if agreed > 0.9 else [f"the shanks agree in {agreed:.0%} of the epochs: look at their figures"],
    }


LFP_EPOCHS = CachedStep("lfp_epochs", 5, _run)
"""Inputs ``spectrograms`` (a shank's folder) and, if there are, ``hypnogram``, ``examples`` and ``emg``; parameters
``epoch_s``, ``species``, ``channels``, ``min_hz``, ``max_hz``, ``margin_s``, ``stage_coding``, ``text_epoch_s``; writes
``epochs.h5`` and, where nobody scored, ``hypnogram.csv`` and ``states.png``."""

SESSION_STATES = CachedStep("lfp_session_states", 3, _vote)
"""Inputs: the folders of the scored shanks by their labels; parameter ``epoch_s``; writes ``hypnogram.csv``."""


def _stages_of(species: str) -> tuple[str, ...]:
    if species not in STAGE_SETS:
        raise BadInput("species", f"{species!r} is not known", f"choose one of {', '.join(STAGE_SETS)}")
    return STAGE_SETS[species]


def lfp_epochs(params: LfpEpochsParams, *, labelled: bool = True) -> Summary:
    """Epochs and states of every shank of every session; spectrograms are made first where there are none.

    With ``labelled=False`` hypnograms that lie beside are not looked at.

    Raises
    ------
    BadInput
        If there is neither a finished shank nor a session.
    """
    root, output = Path(params.input_dir), Path(params.output_dir)
    hypnograms = None if params.hypnograms is None else Path(params.hypnograms)
    _stages_of(params.species)
    params.check()
    for given in (params.hypnograms, params.examples):
        if given is not None and not Path(given).exists():
            raise absent(given)
    shanks, failed = finished_shanks(root, hypnograms) if root.is_dir() else [], tuple[Outcome, ...]()
    if not shanks:
        door = OutputFolder(output, (root,))
        for name in (session.name for session in find_sessions(root)):
            for path in output.glob(f"{escape(name)}_sh*"):
                door.check(path.name)
        place = output / "spectrograms"
        keys = ("workers", "sampling_rate_hz", "source", "reference", "bad_channels")
        shared = {key: getattr(params, key) for key in keys}
        made = spectrograms(SpectrogramParams(input_dir=str(root), output_dir=str(place), preset="sleep", **shared))
        beside = root if root.is_dir() else root.parent
        folders, failed = {artifact.path for artifact in made.values.values()}, made.failures
        shanks = [shank for shank in finished_shanks(place, hypnograms or beside) if shank.spectrograms in folders]
        if not shanks:
            return made
    else:
        params.require_raw(root)
    # Of several presets beside each other the last by name is taken: sh0, sh0_sleep.
    shanks = list({(shank.spectrograms.parent, shank.label): shank for shank in shanks}.values())
    if not labelled:
        shanks = [shank._replace(hypnogram=None) for shank in shanks]
    jobs = [Job(shank.label, _epochs_of, (shank, params)) for shank in shanks if shank.label not in params.skip]
    summary = run_batch(jobs, title="epochs")
    together = _sessions(shanks, summary, params) if all_selected() else ()
    summary = Summary("states", (*summary.outcomes, *together, *failed))
    console = Console(stderr=True)
    for name, artifact in summary.values.items():
        say_warnings(console, name, artifact.manifest)
    if summary.values:
        rows = [state_row(name, artifact.manifest["facts"]) for name, artifact in summary.values.items()]
        how = {artifact.manifest["facts"].get("scored_by", "hypnograms") for artifact in summary.values.values()}
        show(console, ResultsTable(rows, title=f"states by {', '.join(sorted(how))}"))
    return summary


def _sessions(shanks: Sequence[FinishedShank], summary: Summary, params: LfpEpochsParams) -> Iterator[Outcome]:
    """The states of each session of which several shanks were scored without labels."""
    scored = [s for s in shanks if s.label in summary.values and "share" in summary.values[s.label].manifest["facts"]]
    for session in dict.fromkeys(shank.session for shank in scored):
        inputs = {shank.label: summary.values[shank.label].path for shank in scored if shank.session == session}
        target = Path(params.output_dir) / session
        if len(inputs) > 1:
            try:
                made = ensure(SESSION_STATES, inputs, {"epoch_s": params.epoch_s}, label=session, target=target)
                yield Outcome(session, made)
            except BadInput as problem:
                yield Outcome(session, reason=str(problem))


def state_row(shank: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A shank in the table of states: their shares, and how many channels have what fault."""
    scored, total = facts.get("share"), max(1, facts["epochs"])
    share = scored or {name: facts["counts"].get(name, 0) / total for name in facts["stage_names"]}
    wrong = ", ".join(f"{what} {len(ids)}" for what, ids in facts["signal"].items())
    return {
        "shank": shank,
        "hours": f"{total * facts['epoch_s'] / 3600:.2f}",
        **{name: f"{100 * share[name]:.0f} %" for name in facts["stage_names"]},
        "confidence": f"{facts['confidence']:.2f}" if "confidence" in facts else "",
        "signal": wrong or "ok",
    }


def _epochs_of(shank: FinishedShank, params: LfpEpochsParams) -> Artifact:
    inputs = {"spectrograms": shank.spectrograms}
    if shank.hypnogram is not None:
        inputs["hypnogram"] = shank.hypnogram
    else:
        session = shank.spectrograms.parent / "lfp_traces" / f"{shank.session}_{EMG_FILE}"
        own = shank.spectrograms / f"{shank.label}_{EMG_FILE}"
        if found := [file for file in (session, own) if file.is_file()]:
            inputs["emg"] = found[0]
        if params.examples is not None:
            given = Path(params.examples)
            inputs["examples"] = given / f"{shank.session}_examples.csv" if given.is_dir() else given
    given_params = params.own("hypnograms", "examples", beyond=LfpParams)
    given_params["channels"] = None if params.channels is None else [str(channel) for channel in params.channels]
    return ensure(LFP_EPOCHS, inputs, given_params, label=shank.label, target=Path(params.output_dir) / shank.label)
