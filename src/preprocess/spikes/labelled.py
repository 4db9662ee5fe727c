"""The recording whose spikes are known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.filters import slow_baseline
from src.preprocess.spikes.plausibility import checked_labels, without_hum
from src.preprocess.spikes.trace import Trace, load_trace
from src.preprocess.spikes.waveforms import TEMPLATE_BEFORE, WaveformModel, fit_waveforms
from src.recordings.extracellular.spike_trains import SpikeTrain, read_sorting, read_spikes
from src.signals import BadInput

PEAK_BEFORE_MS = 1.2
"""How long before its peak a spike may begin: sorters count peaks."""


@dataclass(frozen=True)
class LabelledRecording:
    """A recording with known spikes.

    Attributes
    ----------
    flat, bandpassed
        ``(time,)`` the trace without its slow baseline, and behind the band-pass.
    notes
        What was repaired.
    before
        Samples of a waveform ahead of a label: more where labels are peaks and not onsets.
    """

    trace: Trace
    train: SpikeTrain
    flat: np.ndarray
    bandpassed: np.ndarray
    notes: tuple[str, ...] = ()
    before: int = TEMPLATE_BEFORE

    def waveforms(self, part: range, n_units: int | None = None) -> WaveformModel:
        """Waveforms fitted to one stretch alone, of as many neurons as the labels name unless given."""
        n_units = int(self.train.unit.max()) if n_units is None else n_units
        flat, train = self.flat[part.start : part.stop], self.train.between(part.start, part.stop)
        return fit_waveforms(flat, train, n_units, before=self.before)


def load_labelled(
    path: Path, conditioning: Conditioning, *, key: str = "d", n_units: int | None = None, sorting: Path | None = None
) -> LabelledRecording:
    """Read a recording and its spikes; ``n_units`` limits the names of neurons, ``None`` allows any.

    Parameters
    ----------
    sorting
        Where the spikes are, if not in ``Index`` and ``Class`` of the file: what :func:`read_sorting` reads.

    Raises
    ------
    BadInput
        A recording or labels that cannot be used.
    """
    trace = load_trace(path, fs_hz=conditioning.fs_hz, key=key)
    if sorting is None:
        train = read_spikes(path, n_samples=len(trace.centred), n_units=n_units)
        return labelled_recording(trace, train, conditioning)
    train, said = read_sorting(sorting, conditioning.fs_hz)
    if len(train) and train.index[-1] >= len(trace.centred):
        problem = f"has a spike at sample {train.index[-1]}, the recording has {len(trace.centred)} samples"
        raise BadInput(sorting, problem, "give the sorting of this recording")
    known = labelled_recording(trace, train, conditioning)
    notes = (*(f"labelled recording: {note}" for note in said), *known.notes)
    return replace(known, notes=notes, before=round(PEAK_BEFORE_MS * trace.fs_hz / 1000))


def labelled_recording(trace: Trace, train: SpikeTrain, conditioning: Conditioning) -> LabelledRecording:
    """A recording in memory with its spikes, checked and conditioned.

    Raises
    ------
    BadInput
        Labels that cannot be used.
    """
    if len(train) == 0:
        raise BadInput(trace.source, "holds no labelled spike", "a labelled recording needs spikes in Index and Class")
    train, twice = checked_labels(train, trace.fs_hz, len(trace.centred), trace.source)
    cleaned, hum = without_hum(trace.centred, trace.fs_hz)
    flat = cleaned - slow_baseline(cleaned)
    notes = tuple(f"labelled recording: {note}" for note in (*twice, *hum))
    return LabelledRecording(trace, train, flat, conditioning.linear(cleaned), notes)
