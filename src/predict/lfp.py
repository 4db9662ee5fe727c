"""Sleep states of LFP sessions: ``python infer.py input=rat1.lfp``, without labels or with a trained network.

Without a bundle this is ``preprocess=lfp_epochs``: spectrograms, then the rule that needs no labels. With a bundle the
same epochs go through its network.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.preprocess.lfp.epochs import finished_shanks, lfp_epochs
from src.preprocess.lfp.parameters import LfpEpochsParams
from src.preprocess.sleep.epochs import EpochSettings
from src.preprocess.sleep.prepare import PREPARED
from src.recordings.extracellular.arrays import SUFFIXES
from src.recordings.extracellular.formats import NO_LFP, vendor_format
from src.recordings.extracellular.reader import USUAL_NAMES
from src.recordings.extracellular.sessions import TRACES, find_sessions
from src.recordings.extracellular.spike_trains import holds_spikes
from src.recordings.sleep.nights import is_edf
from src.signals import BadInput, SourceOptions
from src.storage.batch import Outcome, Summary

if TYPE_CHECKING:
    from src.models.bundle import Bundle


def lfp_input(source: Path) -> str | None:
    """What kind of LFP an input is, for a message; ``None`` if it is none."""
    source = Path(source)
    if source.is_file():
        known = vendor_format(source)
        if TRACES.fullmatch(source.name):
            return "LFP traces of a shank"
        if known is not None:
            return None if known.name in NO_LFP else known.name
        if source.suffix.lower() == ".npz":
            return "an array of LFP traces" if _holds_traces(source) else None
        return "an array of LFP traces" if source.suffix.lower() in SUFFIXES and not holds_spikes(source) else None
    if not source.is_dir() or is_edf(source):
        return None
    if shanks := finished_shanks(source):
        return f"finished spectrograms of {len(shanks)} shanks"
    try:
        sessions = [session for session in find_sessions(source) if session.problem is None]
    except BadInput:
        return None
    kinds = {known.name if s.raw and (known := vendor_format(s.raw)) else "extracted traces" for s in sessions}
    return f"{len(sessions)} LFP sessions ({', '.join(sorted(kinds))})" if sessions else None


def score_states(
    source: Path,
    output_dir: Path,
    *,
    channels: Any = None,
    source_options: SourceOptions | None = None,
    examples: str | None = None,
) -> Summary:
    """States of every shank of every session of an input, by the rule that needs no labels.

    Parameters
    ----------
    channels
        Ids of the channels to use; all by default.
    source_options
        What the file does not state.
    examples
        A few epochs scored by hand, see :class:`LfpEpochsParams`.

    Returns
    -------
    Summary
        The values are lines for the console.
    """
    params = _params(source, output_dir, channels, source_options)
    summary = lfp_epochs(replace(params, examples=examples), labelled=False)
    return Summary(summary.title, tuple(_told(outcome) for outcome in summary.outcomes))


def predict(
    bundle: Bundle,
    source: Path,
    output_dir: Path,
    *,
    channels: Any = None,
    source_options: SourceOptions | None = None,
    reference: str | None = None,
) -> Summary:
    """States of every shank by a network; epochs are in ``<output_dir>/epochs``, scorings in ``<output_dir>/states``.

    Parameters
    ----------
    bundle
        A ``sleep_staging`` bundle trained on epochs of ``preprocess=lfp_epochs``.
    channels
        Ids of the channels that stand in the places of the bundle's.
    source_options
        As of :func:`score_states`.
    reference
        ``beside`` compares with ``<session>_hypnogram.csv``.
    """
    from src.predict import sleep  # loads torch

    settings = bundle.settings(EpochSettings.from_params)
    params = _params(source, output_dir / "epochs", channels, source_options)
    names, band = params.channels, bundle.signal.freqs_hz or (params.min_hz, params.max_hz)
    made = lfp_epochs(
        replace(
            params,
            channels=names or list(bundle.signal.channels),
            epoch_s=bundle.signal.window_s,
            species=settings.stages,
            min_hz=band[0],
            max_hz=band[-1],
        )
    )
    if not made.values:
        return made
    given: dict[str, Any] = {"reference": reference} | ({"channels": names} if names else {})
    scored = sleep.predict(bundle, output_dir / "epochs", output_dir / "states", kind=PREPARED, **given)
    return Summary(scored.title, (*scored.outcomes, *made.failures))


def _params(source: Path, output_dir: Path, channels: Any, options: SourceOptions | None) -> LfpEpochsParams:
    names = [channels] if isinstance(channels, str) else channels
    told = options or SourceOptions()
    return LfpEpochsParams(input_dir=str(source), output_dir=str(output_dir), source=told, channels=names)


def _holds_traces(path: Path) -> bool:
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
            return bool(set(archive.files) & set(USUAL_NAMES))
    except (OSError, ValueError):
        return False


def _told(outcome: Outcome) -> Outcome:
    """The outcome of a shank or session with lines for the console in place of its files."""
    if not outcome.ok:
        return outcome
    facts, folder = outcome.value.manifest["facts"], outcome.value.path
    shares = ", ".join(f"{name} {share:.0%}" for name, share in facts["share"].items())
    lines = [f"states     {shares}; mean confidence {facts['confidence']:.2f} ({facts['scored_by']})"]
    files = [folder / name for name in ("hypnogram.csv", "states.png") if (folder / name).is_file()]
    lines.append(f"files      {', '.join(map(str, files))}")
    return Outcome(outcome.name, lines, seconds=outcome.seconds)
