"""Parameters of an LFP spectrogram: two presets, and whatever the user puts in place of their values."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.recordings.extracellular.recording import require_rate
from src.signals import BadInput, SourceOptions
from src.storage.batch import Summary
from src.storage.parameters import PreprocessConfig

if TYPE_CHECKING:
    from src.preprocess.spectrogram import SpectrogramPlan

DEFAULT = "scipy_compat"
LONGEST_EPOCH_S = 600.0
OVERLAP = 0.75  # share of a window that the next one covers, where no overlap is given
_ELSEWHERE = {"preset", "bands", "shanks", "coherence", "coherence_window_s", "figures", "memory_mb"}
"""Parameters of spectrograms that do not change what a shank's spectrogram holds, or are recorded apart."""
PRESETS: dict[str, dict[str, Any]] = {
    # The parameters of the original pipeline, and SciPy's defaults where it states none.
    "scipy_compat": {
        "window": ["tukey", 0.25],
        "nperseg": 1024,
        "zero_padding": 2.0,
        "format": "npz",
        "decibel": False,
        "dtype": "float32",
        "band_powers": False,
    },
    # What scoring looks at: 2 s divide 4-s and 30-s epochs, Hann keeps slow waves out of the other bands.
    "sleep": {
        "window": "hann",
        "window_s": 2.0,
        "zero_padding": 1.0,
        "fmax_hz": 64.0,
        "format": "hdf5",
        "decibel": True,
        "dtype": "float16",
        "band_powers": True,
    },
}
FORMATS, DTYPES, REFERENCES = ("npz", "hdf5"), ("float32", "float16"), ("none", "median", "average")
BANDS_HZ = {
    "delta": [0.5, 4.0],
    "theta": [5.0, 10.0],
    "sigma": [10.0, 16.0],
    "beta": [16.0, 30.0],
    "gamma": [40.0, 100.0],
}
_EITHER = (("nperseg", "window_s"), ("noverlap", "overlap_s"))


@dataclass
class LfpParams(PreprocessConfig):
    """How recordings become LFP traces; the keys that all steps of the LFP share."""

    workers: int = 0  # threads; 0: every core
    # Hz; rate that recordings of acquisition systems are brought down to (500). Of .npy traces, which cannot state
    # it, their own rate.
    sampling_rate_hz: float | None = None
    source: SourceOptions = field(default_factory=SourceOptions)  # what a recording cannot say itself
    reference: str = "none"  # none, median or average of the shank's channels is subtracted (acquisition systems only)
    bad_channels: list[Any] = field(default_factory=list)  # ids to leave out (acquisition systems only)

    def require_raw(self, path: Path) -> None:
        """Refuse what cannot be done with the extracted traces or spectrograms at ``path``."""
        for name, given in (("reference", self.reference != "none"), ("bad_channels", bool(self.bad_channels))):
            if given:
                hint = "leave it out, or give the recording itself"
                raise BadInput(name, f"applies to recordings of acquisition systems, and {path} is extracted", hint)

    def extraction(self) -> dict[str, Any]:
        """What decides how a recording is read and brought down, for a step's key.

        Raises
        ------
        BadInput
            If a value is not known, or the rate makes no sense.
        """
        _require_known("reference", self.reference, REFERENCES)
        if self.sampling_rate_hz is not None:
            require_rate("sampling_rate_hz", self.sampling_rate_hz)
        return {
            "source": asdict(self.source),
            "sampling_rate_hz": self.sampling_rate_hz,
            "reference": self.reference,
            "bad_channels": sorted(map(str, self.bad_channels)),
        }


@dataclass
class SpectrogramParams(LfpParams):
    """``preprocess=spectrogram``: spectrograms, band powers, coherence and figures of every shank.

    What is ``None`` is as the preset has it. Lengths are in samples or, with ``_s``, in seconds.
    """

    # scipy_compat: 2.048-s Tukey windows, all bins, float32 power in npz. sleep: 2-s Hann, up to 64 Hz, float16 dB
    # in HDF5.
    preset: str = DEFAULT
    window: Any = None  # hann, [tukey,0.25], [multitaper,NW,K], or another of scipy.signal.get_window
    nperseg: int | None = None  # samples in a window
    window_s: float | None = None  # s; length of a window
    noverlap: int | None = None  # samples that two windows share; three quarters of the window
    overlap_s: float | None = None  # s that two windows share
    nfft: int | None = None  # samples of the zero-padded transform; twice the window, in the sleep preset the window
    detrend: str | None = None  # constant subtracts each window's mean; none
    scaling: str | None = None  # density: units²/Hz; spectrum: units²
    fmax_hz: float | None = None  # Hz; bins above are left out; inf keeps all
    log_bins: int | None = None  # this many bins evenly spaced in log frequency instead
    format: str | None = None  # npz or hdf5
    decibel: bool | None = None  # dB instead of power
    dtype: str | None = None  # float32 or float16 (decibel only)
    band_powers: bool | None = None  # power of each band and the theta ratio, frame by frame
    bands: dict[str, Any] = field(default_factory=lambda: dict(BANDS_HZ))  # Hz; name: [low, high], null leaves it out
    shanks: list[int] | None = None  # shanks every session has to have; null: those that are there
    coherence: list[Any] = field(default_factory=list)  # pairs of channels: [[sh0:12,sh3:7]]
    coherence_window_s: float = 30.0  # s; spectra are averaged over it
    figures: str | None = None  # png or pdf: one figure per channel, one per shank and per pair
    memory_mb: float = 256.0  # MB for the spectrograms being computed; a session takes this and some 200 MB

    def run(self) -> Summary:
        from src.preprocess.lfp.spectrograms import spectrograms  # loads SciPy

        return spectrograms(self)

    def check(self) -> None:
        """Raise ``BadInput`` for values that make no sense for any recording."""
        self.transform()
        self.extraction()
        if self.workers < 0 or not self.memory_mb > 0:
            problem = f"workers={self.workers}, memory_mb={self.memory_mb:g}"
            raise BadInput("workers", problem, "give 0 or more, and some memory")
        if self.figures is not None:
            _require_known("figures", self.figures, ("png", "pdf"))

    def transform(self) -> dict[str, Any]:
        """The preset with the given values in its place: plain values, nothing left out, for a step's key.

        Raises
        ------
        BadInput
            For an unknown preset, two lengths for one thing, or values that do not go together.
        """
        _require_known("preset", self.preset, PRESETS)
        known = self.own(*_ELSEWHERE, beyond=LfpParams)
        given = {name: value for name, value in known.items() if value is not None}
        scale: dict[str, Any] = {"detrend": "constant", "scaling": "density"}
        params: dict[str, Any] = dict.fromkeys(known) | scale | PRESETS[self.preset]
        for samples, seconds in _EITHER:
            if samples in given and seconds in given:
                problem = f"{samples}={given[samples]} and {seconds}={given[seconds]}"
                raise BadInput(samples, problem, "give one of the two")
            if samples in given or seconds in given:
                params |= {samples: None, seconds: None}
        params |= given
        params["window"] = params["window"] if isinstance(params["window"], str) else list(params["window"])
        params["fmax_hz"] = None if params["fmax_hz"] == float("inf") else params["fmax_hz"]
        _require_known("format", params["format"], FORMATS)
        _require_known("dtype", params["dtype"], DTYPES)
        if params["dtype"] == "float16" and not params["decibel"]:
            raise BadInput("dtype", "float16 cannot hold linear power", "set decibel=true or dtype=float32")
        params["bands"] = checked_bands(self.bands) if params["band_powers"] else {}
        # What is in seconds is checked with the recording's rate; here it is a window of 1000 samples.
        in_samples = params["nperseg"] is not None and params["overlap_s"] is None
        stand_in = {"nperseg": 1000, "window_s": None, "noverlap": None, "overlap_s": None, "nfft": None}
        plan(params if in_samples else params | stand_in, 1000.0)
        return params


@dataclass
class LfpEpochsParams(LfpParams):
    """``preprocess=lfp_epochs``: epochs of every shank, labelled by a hypnogram or scored without labels.

    ``input_dir`` holds finished spectrograms or recordings, whose spectrograms (``sleep`` preset) are made first.
    """

    epoch_s: float = 4.0  # s; length of an epoch
    species: str = "rodent"  # rodent: Wake, NREM, REM; human: W, N1, N2, N3, REM
    channels: list[Any] | None = None  # ids in the order of the channel axis; null: all
    hypnograms: str | None = None  # folder of <session>_hypnogram.csv; null: beside the recordings or spectrograms
    # A few epochs scored by hand, from which the others are scored: a file like a hypnogram, or a folder of
    # <session>_examples.csv.
    examples: str | None = None
    min_hz: float = 0.5  # Hz; lowest row kept
    max_hz: float | None = 60.0  # Hz; highest row kept
    margin_s: float | None = None  # s of wake kept before the first and after the last sleep; null: all
    stage_coding: str | None = None  # what whole numbers in hypnograms mean
    text_epoch_s: float | None = None  # s; epoch of text hypnograms that do not state it

    def run(self) -> Summary:
        from src.preprocess.lfp.epochs import lfp_epochs  # loads SciPy

        return lfp_epochs(self)

    def check(self) -> None:
        """Raise ``BadInput`` for values that make no sense for any recording."""
        self.extraction()
        if not 0 < self.epoch_s <= LONGEST_EPOCH_S:
            raise BadInput("epoch_s", f"is {self.epoch_s:g}", "give seconds, such as 4")
        if self.margin_s is not None and not self.margin_s >= 0:
            raise BadInput("margin_s", f"is {self.margin_s:g}", "give seconds of wake to keep, or null for all")
        if not 0 <= self.min_hz < (self.max_hz or float("inf")) - 1:
            problem = f"is {self.min_hz:g}, max_hz is {self.max_hz}"
            raise BadInput("min_hz", problem, "give Hz, the lower one first, at least 1 Hz apart")


def plan(params: Mapping[str, Any], fs_hz: float) -> SpectrogramPlan:
    """The spectrogram of :meth:`SpectrogramParams.transform` at a sampling rate, with all its bins.

    Raises
    ------
    BadInput
        If a parameter makes no sense.
    """
    from src.preprocess.spectrogram import SpectrogramPlan

    nperseg = _samples("window_s", params["nperseg"], params["window_s"], fs_hz)
    noverlap = _samples("overlap_s", params["noverlap"], params["overlap_s"], fs_hz)
    if nperseg is None:
        raise BadInput("nperseg", "no window length", "give nperseg or window_s")
    return SpectrogramPlan(
        fs_hz=fs_hz,
        window=params["window"],
        nperseg=nperseg,
        noverlap=nperseg - max(1, round((1 - OVERLAP) * nperseg)) if noverlap is None else noverlap,
        nfft=params["nfft"] or round(params["zero_padding"] * nperseg),
        detrend=params["detrend"],
        scaling=params["scaling"],
    )


def resolution_warnings(plan: SpectrogramPlan) -> list[str]:
    """Warnings about these windows at this sampling rate."""
    window_s, said = plan.nperseg / plan.fs_hz, []
    if plan.resolution_hz > 1:
        said.append(
            f"windows of {window_s:.3g} s at {plan.fs_hz:g} Hz: rhythms closer than {plan.resolution_hz:.3g} Hz cannot "
            "be told apart; give window_s=2 or preset=sleep"
        )
    if window_s > 10:
        said.append(f"windows of {window_s:.3g} s are longer than most bouts of rodents; give window_s=2")
    if plan.fs_hz < 100:
        said.append(f"a sampling rate of {plan.fs_hz:g} Hz holds nothing above {plan.fs_hz / 2:g} Hz; is it right?")
    return said


def checked_bands(bands: Mapping[str, Any]) -> dict[str, list[float]]:
    """Bands by name with their edges in Hz; those without edges are left out."""
    checked = {}
    for name, edges in bands.items():
        if edges is None:
            continue
        try:
            low, high = map(float, edges)
        except (TypeError, ValueError):
            low = high = 0.0
        if not 0 <= low < high:
            raise BadInput("bands", f"{name}: {edges}", "give a lower and a higher frequency in Hz")
        checked[name] = [low, high]
    if not checked:
        raise BadInput("bands", "none given", "name at least one, or set band_powers=false")
    return checked


def _require_known(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise BadInput(name, f"{value!r} is not known", f"choose one of {', '.join(known)}")


def _samples(name: str, samples: int | None, seconds: float | None, fs_hz: float) -> int | None:
    if samples is not None or seconds is None:
        return samples
    if not 0 <= seconds < float("inf"):
        raise BadInput(name, f"{seconds} s", "give a length in seconds")
    return round(seconds * fs_hz)
