"""Parameters of the calcium chain: ``preprocess=cascade_spikes``, ``cascade_coo`` and ``cascade_grid``."""

from dataclasses import dataclass, fields
from math import inf
from numbers import Real
from typing import Any

from src.signals import BadInput
from src.storage.batch import Summary
from src.storage.parameters import PreprocessConfig

_CHOICES = {
    "grid_format": ("dense", "coo", "none"),
    "baseline": ("auto", "divide", "subtract", "none"),
    "sampling": ("bernoulli", "poisson"),
    "engine": ("dense", "neuralib", "oasis"),
    "align": ("centered", "upstream"),
    "threshold": (0, 1, None),
}
_AT_LEAST = {
    "num_neurons": 0, "batch_size": 1, "split_block_frames": 1, "split_guard_frames": 0, "workers": 1, "seed": 0,
}  # fmt: skip
_POSITIVE = ("baseline_window_s", "dff_scale", "fs_hz")


@dataclass
class InferenceParams:
    """From traces to expected spikes. All of them are in the manifest of the expected spikes."""

    # name, folder or .zip of a CASCADE package (the default is the original's); embedded; auto: by frame rate
    cascade_model: str = "Global_EXC_2Hz_smoothing500ms"
    engine: str = "dense"  # dense | neuralib (window by window, the reference) | oasis (no networks)
    threshold: int | None = 1  # 1: cut CASCADE's noise floor; 0: remove negative values; null: keep everything
    align: str = "centered"  # centered: on the frame of the spikes | upstream: one frame early, as CASCADE writes
    fs_hz: float | None = None  # Hz; volume rate, where the files state none or a wrong one
    neuropil: float = 0.7  # share of the neuropil that is subtracted from suite2p's and NWB's fluorescence
    baseline: str = "auto"  # divide: ΔF/F | subtract: F − F0 | none: the traces are ΔF/F | auto
    baseline_window_s: float = 30.0  # seconds; centred window of the baseline
    baseline_percentile: float = 8.0  # percent
    dff_scale: float = 1.0  # multiplies ΔF/F before inference; 0.01 for percent


@dataclass
class GridParams:
    """From expected spikes to grids. All of them are in the manifest of the grids."""

    sampling: str = "bernoulli"  # bernoulli: min(λ, 1) | poisson: 1 − exp(−λ)
    z_markers: bool = True  # burn the number of the plane into its top-right corner
    split_ratio: float = 0.95  # share of the frames that train
    split_block_frames: int | None = None  # frames of a test block; null: 330, fewer in a short recording
    split_guard_frames: int | None = None  # frames between training and test; null: what one frame depends on
    num_neurons: int = 10  # neurons drawn in the PDF
    figures: bool = True  # draw the PDFs


@dataclass
class CalciumParams(GridParams, InferenceParams, PreprocessConfig):
    """Calcium traces to spikes to grids; ``docs/calcium.md`` has a paragraph on each."""

    input_dir: str = "raw_trace_data_2018"  # folder of subjects, or one recording
    output_dir: str = "processed_spike_grids_2018"  # a folder per subject
    grid_format: str = "dense"  # dense | coo | none: ΔF/F, noise levels and spike rates only
    cache_dir: str = "artifacts"  # expected spikes are kept here
    models_dir: str = "artifacts/cascade_models"  # CASCADE packages are looked for, and put, here
    models_url: str | None = None  # address of a folder with <model>.zip, instead of CASCADE's catalogue
    batch_size: int = 30_000  # neurons at a time; does not change the result

    def run(self) -> Summary:
        self.check()
        from src.preprocess.calcium.spikes_to_grids import run  # loads SciPy and Numba

        return run(self)

    def check(self) -> None:
        """Refuse values that make no sense.

        Raises
        ------
        BadInput
            Naming the key, its value and what to give.
        """
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices or isinstance(getattr(self, name), bool):
                given = ", ".join("null" if c is None else str(c) for c in choices)
                raise BadInput(name, f"is {getattr(self, name)!r}", f"give one of {given}")
        for name, least in _AT_LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise BadInput(name, f"is {value}", f"give {least} or more")
        if self.engine == "oasis" and not self.cascade_model.startswith("tau"):
            problem = f"is {self.cascade_model}; engine=oasis needs no network but the indicator's decay time"
            hint = "give it in seconds: cascade_model=tau1.25s (GCaMP6s), tau1s (GCaMP6m), tau0.7s (GCaMP6f)"
            raise BadInput("cascade_model", problem, hint)
        if not 0 < self.split_ratio < 1:
            raise BadInput("split_ratio", f"is {self.split_ratio}", "give the training share, such as 0.95")
        if not 0 <= self.baseline_percentile <= 100 or 0 < self.baseline_percentile < 1:
            raise BadInput("baseline_percentile", f"is {self.baseline_percentile}", "give percent, 0 or 1 to 100")
        if not 0 <= self.neuropil <= 2:
            raise BadInput("neuropil", f"is {self.neuropil}", "give the share to subtract, such as 0.7, or 0 for none")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, Real) and 0 < float(value) < inf):
                raise BadInput(name, f"is {value!r}", "give a positive number")

    def of(self, part: type) -> dict[str, Any]:
        """The values of :class:`InferenceParams` or :class:`GridParams`, for a manifest."""
        return {f.name: getattr(self, f.name) for f in fields(part)}
