"""Arrays in, results in memory out: what the verbs compute, for a notebook; for sleep :func:`src.predict.sleep.stage`.

Every function runs the code of its verb with the verb's parameters and defaults. ``docs/python.md`` shows them.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from importlib import import_module
from io import StringIO
from numbers import Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from src.preprocess.calcium.expected_spikes import Inference
from src.preprocess.calcium.parameters import CalciumParams, InferenceParams
from src.preprocess.lfp.parameters import LfpEpochsParams, SpectrogramParams
from src.preprocess.lfp.spectrogram_file import open_spectrograms
from src.preprocess.spikes.conditioning import Conditioning
from src.preprocess.spikes.discover import DiscoverParams, Units, discover
from src.preprocess.spikes.sorting import BankSorter, Sorted
from src.preprocess.spikes.trace import Trace, as_trace
from src.preprocess.spikes.waveforms import labelled_recording
from src.recordings.calcium.recording import CalciumRecording, rows_are_frames
from src.recordings.calcium.sources import find_subjects, open_recording, subject_files, subject_name
from src.recordings.extracellular.spike_trains import checked_train
from src.signals import BadInput
from src.storage.manifest import read_manifest
from src.storage.parameters import PreprocessConfig, from_keywords

Array = NDArray[np.floating]
TRACES_FILE = "signal_sh0_lfp_traces.npz"  # what the step for LFP reads an array from


@dataclass(frozen=True)
class Spectrogram:
    """``power (channel, frequency, time)`` in dB re units²/Hz, ``freqs_hz``, ``times_s`` of the windows' centres."""

    power: Array
    freqs_hz: Array
    times_s: Array
    channels: list[str]


@dataclass(frozen=True)
class SleepStates:
    """``stages (epoch,)`` as names, ``confidence (epoch,)``, ``onset_s (epoch,)``, and what to know before use.

    Epochs in which nothing was recorded are ``unscored``, their confidence is NaN.
    """

    stages: NDArray[np.str_]
    confidence: Array
    onset_s: Array
    warnings: list[str]


@dataclass(frozen=True)
class SpikeRates:
    """Calcium traces as spikes.

    Attributes
    ----------
    dff
        ``(neuron, time)`` ΔF/F as a fraction; NaN for neurons that cannot be used.
    expected
        ``(neuron, time)`` expected spikes per frame; NaN where nothing can be predicted.
    noise_levels
        ``(neuron,)`` percent per square root of Hz.
    cell_state
        ``(neuron,)`` index into :data:`~src.preprocess.calcium.baseline.CELL_STATES`; 0 is used.
    fs_hz
        Frame rate.
    notes
        What to know before use.
    """

    dff: Array
    expected: Array
    noise_levels: Array
    cell_state: NDArray[np.uint8]
    fs_hz: float
    notes: list[str]

    @property
    def rates_hz(self) -> Array:
        """``(neuron, time)`` spikes per second."""
        return self.expected * self.fs_hz


def spectrogram(signal: Any, fs_hz: float | None = None, **params: Any) -> Spectrogram:
    """Spectrograms of LFP, as ``preprocess=spectrogram`` makes them.

    Parameters
    ----------
    signal
        ``(channel, time)`` or ``(time,)``, or a SpikeInterface recording.
    fs_hz
        Sampling rate of an array; it is kept.
    params
        Keys of :class:`~src.preprocess.lfp.parameters.SpectrogramParams`; ``preset="sleep"`` unless given.

    Raises
    ------
    BadInput
        If the signal or a parameter makes no sense.
    """
    with _made(SpectrogramParams, signal, fs_hz, {"preset": "sleep", **params}) as out:
        (file,) = out.rglob("*_spectrograms.*")
        stored = open_spectrograms(file)
        rows = [stored.to_decibel(values) for _, values in stored.channels(range(len(stored.channel_ids)))]
        return Spectrogram(np.stack(rows), stored.freqs, stored.times, list(stored.channel_ids))


def sleep_states(signal: Any, fs_hz: float | None = None, **params: Any) -> SleepStates:
    """Wake, NREM and REM of LFP without labels, as ``preprocess=lfp_epochs`` finds them.

    Parameters
    ----------
    signal
        ``(channel, time)`` or ``(time,)``, or a SpikeInterface recording. Two channels at 1000 Hz or more give muscle
        activity.
    fs_hz
        Sampling rate of an array.
    params
        Keys of :class:`~src.preprocess.lfp.parameters.LfpEpochsParams`, such as ``epoch_s``.

    Raises
    ------
    BadInput
        If the signal or a parameter makes no sense.
    """
    with _made(LfpEpochsParams, signal, fs_hz, params) as out:
        (scored,) = out.rglob("hypnogram.csv")
        kinds = [("onset", float), ("duration", float), ("stage", "U8"), ("confidence", float)]
        columns = np.atleast_1d(np.genfromtxt(scored, delimiter=",", skip_header=1, dtype=kinds, encoding="utf-8"))
        warnings = (read_manifest(scored.parent) or {}).get("facts", {}).get("warnings", [])
        return SleepStates(columns["stage"], columns["confidence"], columns["onset"], list(warnings))


def spike_rates(source: Any, fs_hz: float | None = None, *, is_dff: bool = False, **params: Any) -> SpikeRates:
    """ΔF/F and spikes of calcium traces, as ``preprocess=cascade_spikes`` computes them.

    Parameters
    ----------
    source
        ``(neuron, time)`` fluorescence, or a file or folder that ``preprocess.py`` reads (suite2p, NWB, …).
    fs_hz
        Frame rate; needed for an array.
    is_dff
        Whether the array is ΔF/F already, as a fraction.
    params
        Keys of :class:`~src.preprocess.calcium.parameters.InferenceParams`; ``cascade_model`` is ``auto`` by default.

    Raises
    ------
    BadInput
        If the traces or a parameter make no sense.
    """
    given = {"cascade_model": "auto", **params, "fs_hz": fs_hz}
    settings = from_keywords(CalciumParams, given, "is_dff")
    settings.check()
    recording = _calcium(source, settings, is_dff)
    inference = Inference(recording, settings.of(InferenceParams))
    with inference.naming():
        dff, expected, found = inference.infer(recording.traces(np.arange(recording.cells)))
        notes = inference.judge(found)[1]
    return SpikeRates(dff, expected, found.levels, found.state, recording.fs_hz, notes)


def find_units(signal: Any, fs_hz: float | None = None, params: DiscoverParams | None = None) -> Units:
    """The units of one wire, tetrode or shank that nobody labelled, as ``infer.py method=discover`` finds them.

    Parameters
    ----------
    signal
        ``(channel, time)`` or ``(time,)``, or a SpikeInterface recording.
    fs_hz
        Sampling rate of an array.
    params
        How the units are found; see :class:`~src.preprocess.spikes.discover.DiscoverParams`.

    Raises
    ------
    BadInput
        If the rate is too low, or there are too few peaks for a unit.
    """
    samples, rate = _extracellular(signal, fs_hz)
    return discover(samples, rate, params)


def sort_spikes(signal: Any, labelled: Any, index: ArrayLike, unit: ArrayLike, fs_hz: float | None = None) -> Sorted:
    """Spikes of one wire, sorted with the neurons of a labelled recording, as ``infer.py method=bank`` sorts them.

    Parameters
    ----------
    signal
        ``(time,)`` the recording to sort, or a SpikeInterface recording of one channel.
    labelled
        The labelled recording, given in the same way.
    index
        ``(spike,)`` sample from 0 at which each labelled spike begins.
    unit
        ``(spike,)`` its neuron from 1.
    fs_hz
        Sampling rate of the arrays.

    Raises
    ------
    BadInput
        If a recording or the labels are not plausible.
    """
    known, other = _one_wire("labelled", labelled, fs_hz), _one_wire("signal", signal, fs_hz)
    if other.fs_hz != known.fs_hz:
        problem = f"has {other.fs_hz:g} Hz, the labelled recording {known.fs_hz:g} Hz"
        raise BadInput("signal", problem, "resample one of them")
    chain = Conditioning(fs_hz=known.fs_hz)
    train = checked_train("labels", {"index": index, "unit": unit}, n_samples=len(known.centred))
    return BankSorter.from_labelled(labelled_recording(known, train, chain), chain).sort(other)


def _calcium(source: Any, params: CalciumParams, is_dff: bool) -> CalciumRecording:
    if isinstance(source, str | Path):
        places = find_subjects(Path(source))
        if len(places) != 1:
            raise BadInput(source, f"holds {len(places)} subjects", "give one recording")
        files, name = subject_files(places[0]), subject_name(places[0])
        return open_recording(files, name, params.fs_hz, neuropil=params.neuropil, need_positions=False)
    traces = np.asarray(source)
    if isinstance(source, np.ma.MaskedArray):
        traces = np.where(np.ma.getmaskarray(source), np.nan, source.data)
    if traces.ndim != 2 or 0 in traces.shape or traces.dtype.kind not in "fiu" or params.fs_hz is None:
        problem = f"has shape {traces.shape}, type {traces.dtype} and rate {params.fs_hz}"
        raise BadInput("source", problem, "give numbers as (neuron, time), and fs_hz in Hz")
    notes: tuple[str, ...] = ()
    if rows_are_frames(traces):
        problem = f"has shape {traces.shape}: neighbouring rows are more alike than neighbouring columns"
        hint = "give (neuron, time), which may be source.T"
        if len(traces) > traces.shape[1]:
            raise BadInput("source", problem, hint)
        notes = (f"source {problem}; {hint}",)
    return CalciumRecording(
        subject="signal",
        file=Path("signal"),
        notes=notes,
        fs_hz=params.fs_hz,
        frames=traces.shape[1],
        positions=np.full((len(traces), 3), np.nan),
        cell_ids=np.arange(1, len(traces) + 1),
        reader=traces.__getitem__,
        signal="dff" if is_dff else "fluorescence",
    )


def _one_wire(name: str, signal: Any, fs_hz: float | None) -> Trace:
    samples, rate = _extracellular(signal, fs_hz)
    if len(samples) > 1:
        raise BadInput(name, f"has {len(samples)} channels", "give one: signal[0], or recording.select_channels([id])")
    return as_trace(samples[0], rate, name, name)


def _extracellular(signal: Any, fs_hz: float | None) -> tuple[Array, float]:
    """``(channel, time)`` and the rate of an array or a SpikeInterface recording."""
    if hasattr(signal, "get_traces") and hasattr(signal, "get_sampling_frequency"):
        signal, fs_hz = signal.get_traces().T, float(signal.get_sampling_frequency())
    samples = np.atleast_2d(np.asarray(signal, np.float32))
    if samples.ndim != 2 or samples.size == 0 or not isinstance(fs_hz, Real) or not fs_hz > 0:
        raise BadInput("signal", f"has shape {samples.shape} and rate {fs_hz}", "give (channel, time) and fs_hz")
    if len(samples) > samples.shape[1]:
        problem = f"has shape {samples.shape}: more channels than samples"
        raise BadInput("signal", problem, "give (channel, time), which may be signal.T")
    return samples, float(fs_hz)


def _undisplayed() -> AbstractContextManager[Any]:
    """In a notebook rich displays messages in place of printing them."""
    if "IPython" not in sys.modules:
        return nullcontext()
    context: AbstractContextManager[Any] = import_module("IPython.utils.capture").capture_output()
    return context


@contextmanager
def _made(step: type[PreprocessConfig], signal: Any, fs_hz: float | None, params: Mapping[str, Any]) -> Iterator[Path]:
    """The folder that a step of LFP makes of a signal, without its messages; a failure becomes an error."""
    settings = from_keywords(step, {"workers": 1, **params}, "fs_hz")
    samples, rate = _extracellular(signal, fs_hz)
    with TemporaryDirectory() as folder:
        session, out = Path(folder) / "signal", Path(folder) / "out"
        (session / "low_freq").mkdir(parents=True)
        fields: dict[str, Any] = {"sampling_rate": rate, "channel_ids": np.arange(len(samples)), "units": "uV"}
        np.savez(session / "low_freq" / TRACES_FILE, traces=samples.T, shank=0, **fields)
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), _undisplayed():
            summary = replace(settings, input_dir=str(session), output_dir=str(out)).run()
        for failure in summary.failures:
            _, _, reason = str(failure.reason).rpartition(f"{TRACES_FILE}: ")  # the user has no such file
            problem, _, hint = reason.partition("; ")
            raise BadInput("signal", problem, hint or "give a signal that can be used")
        yield out
