"""Typed root configurations: a key that is not declared here fails when the configuration is composed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from src.preprocess.spikes.parameters import SpikeLookalikesParams
from src.storage.parameters import PreprocessConfig


@dataclass
class TrainConfig:
    """``train.py``: one experiment.

    ``source`` says where the recordings come from, ``split`` who of them is tested. ``datamodule``, ``model``,
    ``optimizer``, ``scheduler``, ``trainer``, ``logger`` and each of the ``callbacks`` are ``_target_`` blocks whose
    schema is the constructor they name; a typo in them fails before anything is computed.
    """

    name: str = MISSING
    seed: int = 42
    source: Any = None
    split: Any = None
    datamodule: Any = MISSING
    model: Any = MISSING
    optimizer: Any = None
    scheduler: Any = None
    callbacks: Any = None
    trainer: Any = MISSING
    logger: Any = None
    patience: int = 8
    compile: bool = False
    workers: int = 2
    resume: bool = True
    runs_dir: str = "runs"
    cache_dir: str = "artifacts"
    group: str | None = None
    tags: list[str] = field(default_factory=list)


@dataclass
class InferOptions:
    """Keyword arguments of the predictors of all tasks; what is not given is the predictor's default.

    ``src/predict/sleep.py`` takes the first nine, ``src/predict/spikes.py`` those up to ``exports``,
    ``src/predict/grids.py`` ``figures`` and the last two.
    """

    channels: Any = None
    kind: str | None = None
    reference: str | None = None
    scale: float | None = None
    stage_coding: str | None = None
    text_epoch_s: float | None = None
    yasa: bool | None = None
    lights_off: Any = None
    lights_on: Any = None
    classifier: str | None = None
    recordings: list[str] | None = None
    truth: str | None = None
    key: str | None = None
    fs_hz: float | None = None
    channel: int | None = None
    gain: float | None = None
    reject: float | None = None
    figures: bool | None = None
    exports: list[str] | None = None
    subject: str | None = None
    stride: int | None = None


@dataclass
class InferConfig:
    """``infer.py``: a bundle or a method that needs none, recordings, and options of its task."""

    bundle: str | None = None
    method: str | None = None
    labelled: str | None = None
    input: str = MISSING
    output_dir: str = "predictions"
    options: InferOptions = field(default_factory=InferOptions)


@dataclass
class CascadeGridConfig(PreprocessConfig):
    """Calcium traces to spikes to grids; what each key means is in ``docs/calcium.md``."""

    _target_: str = "src.preprocess.calcium.spikes_to_grids.run"
    grid_format: str = "dense"
    input_dir: str = "raw_trace_data_2018"
    output_dir: str = "processed_spike_grids_2018"
    cache_dir: str = "artifacts"
    models_dir: str = "artifacts/cascade_models"
    num_neurons: int = 10
    batch_size: int = 30_000
    split_ratio: float = 0.95
    split_block_frames: int = 330
    split_guard_frames: int | None = None
    cascade_model: str = "Global_EXC_2Hz_smoothing500ms"
    engine: str = "dense"
    threshold: int | None = 1
    align: str = "upstream"
    fs_hz: float | None = None
    baseline: str = "auto"
    baseline_window_s: float = 30.0
    baseline_percentile: float = 8.0
    dff_scale: float = 1.0
    sampling: str = "bernoulli"
    z_markers: bool = True


@dataclass
class CascadeCooConfig(CascadeGridConfig):
    """The same chain, written as sparse coordinates."""

    grid_format: str = "coo"
    output_dir: str = "processed_spike_grids_coo_2018"


@dataclass
class SpectrogramConfig(PreprocessConfig):
    """``preprocess=spectrogram``; see ``src.preprocess.lfp.spectrograms``."""

    workers: int = 0
    preset: str = "scipy_compat"
    window: Any = None
    nperseg: int | None = None
    window_s: float | None = None
    noverlap: int | None = None
    overlap_s: float | None = None
    nfft: int | None = None
    detrend: str | None = None
    scaling: str | None = None
    fmax_hz: float | None = None
    log_bins: int | None = None
    format: str | None = None
    decibel: bool | None = None
    dtype: str | None = None
    band_powers: bool | None = None
    bands: dict[str, Any] = field(default_factory=dict)
    shanks: list[int] | None = None
    sampling_rate_hz: float | None = None
    coherence: list[Any] = field(default_factory=list)
    coherence_window_s: float = 30.0
    figures: str | None = None
    figure_channels: list[Any] | None = None
    memory_mb: float = 256.0


@dataclass
class SleepEdfConfig(PreprocessConfig):
    """``preprocess=sleep_edf``; see ``src.recordings.sleep.sleep_edf``."""

    input_dir: str = ""
    cohort: str = "sc20"
    base_url: str = MISSING


@dataclass
class SpikeHybridsConfig(PreprocessConfig):
    """``preprocess=spike_hybrids``; see ``src.simulate.spike_hybrids``."""

    _target_: str = "src.preprocess.spikes.commands.hybrids"
    seed: int = 0
    duration_s: float = 57.6


@dataclass
class SpikeConditioningConfig(PreprocessConfig):
    """``preprocess=spike_conditioning``; see ``src.preprocess.spikes.conditioning``."""

    _target_: str = "src.preprocess.spikes.commands.condition"
    key: str = "d"
    fs_hz: float = 25_000.0
    conditioning: dict[str, Any] = field(default_factory=dict)
    template_from: str | None = None
    n_units: int = 5
    figures: bool = True


STEPS: dict[str, type[PreprocessConfig]] = {
    "cascade_grid": CascadeGridConfig,
    "cascade_coo": CascadeCooConfig,
    "spectrogram": SpectrogramConfig,
    "sleep_edf": SleepEdfConfig,
    "spike_lookalikes": SpikeLookalikesParams,
    "spike_hybrids": SpikeHybridsConfig,
    "spike_conditioning": SpikeConditioningConfig,
}
"""Step of ``preprocess=<step>`` → its parameters; Hydra knows them as ``preprocess/<step>_schema``."""


def register() -> None:
    """Put the schemas where Hydra's ``defaults`` lists find them."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="infer_schema", node=InferConfig)
    store.store(name="preprocess_schema", node=PreprocessConfig)
    for name, params in STEPS.items():
        store.store(group="preprocess", name=f"{name}_schema", node=params, package="_global_")
