"""Typed root configurations: a key that is not declared here fails when the configuration is composed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from src.signals import SourceOptions

if TYPE_CHECKING:
    from src.storage.parameters import PreprocessConfig


@dataclass
class TrainConfig:
    """``train.py``: one experiment.

    ``source`` says where the recordings come from, ``split`` who of them is tested. ``datamodule``, ``model``,
    ``optimizer``, ``scheduler``, ``trainer``, ``logger`` and each of the ``callbacks`` are ``_target_`` blocks whose
    schema is the constructor they name; a typo in them fails before anything is computed.
    """

    name: str = MISSING  # of the experiment; its runs are in <runs_dir>/<name>/
    seed: int = 42  # of split, weights, batches and augmentation
    source: Any = None  # where the recordings come from
    split: Any = None  # which subjects are trained on, validated and tested
    datamodule: Any = MISSING
    model: Any = MISSING
    optimizer: Any = None
    scheduler: Any = None
    callbacks: Any = None
    trainer: Any = MISSING
    logger: Any = None
    patience: int = 8  # epochs without a better validation score before training ends
    compile: bool = False  # whether the network is compiled by torch.compile
    workers: int = 2  # processes that prepare recordings and load batches
    resume: bool = True  # continue the interrupted run of the same command; false: start a new one
    runs_dir: str = "runs"  # folder for runs and sweeps
    cache_dir: str = "artifacts"  # folder for prepared recordings
    group: str | None = None  # group of the run in the tracker
    tags: list[str] = field(default_factory=list)  # tags of the run in the tracker


@dataclass
class InferOptions:
    """Keyword arguments of the predictors of all tasks; what is not given is the predictor's default.

    What stands before the colon says who takes an option: ``src/predict/sleep.py``, ``src/predict/lfp.py``,
    ``src/predict/spikes.py`` or ``src/predict/grids.py``.
    """

    channels: Any = None  # sleep, LFP: names of the channels to read, in the bundle's order
    kind: str | None = None  # sleep: what kind of folder the input is: edf_folder, sleep_edf, dreams, …
    reference: str | None = None  # sleep, LFP: scoring to compare with; beside: the one beside the recording
    scale: float | None = None  # sleep: factor from the file's units to microvolts
    stage_coding: str | None = None  # sleep: what integers in the reference mean: aasm, edf, …
    text_epoch_s: float | None = None  # sleep: seconds; length of an epoch in a scoring text file
    stage_names: Any = None  # sleep: further names in the reference and their stages: {kernschlaf: N2}
    scorer: str | None = None  # sleep: whose stages to read where the reference has those of several
    yasa: bool | None = None  # sleep: score with the package YASA too
    lights_off: Any = None  # sleep: clock time, or seconds from the start of the recording
    lights_on: Any = None  # sleep: likewise
    examples: str | None = None  # LFP: a few epochs scored by hand, from which the others are scored
    classifier: str | None = None  # spikes: bundle of the classifier that names the neurons
    truth: str | None = None  # spikes: folder of labelled recordings to score against
    channel: int | None = None  # spikes: number of the channel
    gain: float | None = None  # spikes: factor from the file's units to those of the training data
    detector_config: str | None = None  # spikes: detector_config.npz whose threshold replaces the bundle's
    figures: bool | None = None  # spikes, grids: draw figures
    exports: list[str] | None = None  # spikes: spikeinterface, phy, nwb
    sorting: str | None = None  # spikes: an earlier sorting of the labelled recording, in place of Index and Class
    labelled_fs_hz: float | None = None  # spikes: Hz; rate of a labelled recording that states none; 25 000
    subject: str | None = None  # grids: the subject of the bundle to predict as
    stride: int | None = None  # grids: frames between two predicted windows


@dataclass
class InferConfig:
    """``infer.py``: a bundle or a method that needs none, recordings, and options of its task."""

    bundle: str | None = None  # folder of a run or bundle, or hf:owner/name; null: LFP by rule, else human sleep
    method: str | None = None  # bank or discover (spikes) or lfp_states, which need no bundle
    labelled: str | None = None  # spikes: the labelled recording that method=bank learns from
    input: str = MISSING  # a recording, or a folder of them
    output_dir: str = "predictions"  # folder for the results, a folder per recording
    list: bool = False  # show the channels, units and rates of the input and which bundles fit, and do nothing else
    runs_dir: str = "runs"  # where list=true looks for bundles, besides pretrained/
    source: SourceOptions = field(default_factory=SourceOptions)  # spikes, LFP: what the file does not state
    options: InferOptions = field(default_factory=InferOptions)


@cache
def steps() -> dict[str, type[PreprocessConfig]]:
    """Step of ``preprocess=<step>`` → its parameters; Hydra knows them as ``preprocess/<step>_schema``."""
    from src.preprocess.calcium.parameters import CalciumParams
    from src.preprocess.cascade.parameters import CascadeEvaluateParams, CascadeTrainParams
    from src.preprocess.lfp.parameters import LfpEpochsParams, SpectrogramParams
    from src.preprocess.spikes.parameters import SpikeConditioningParams, SpikeHybridsParams, SpikeLookalikesParams
    from src.recordings.sleep.sleep_edf import SleepEdfParams

    return {
        "cascade_grid": CalciumParams,
        "cascade_coo": CalciumParams,
        "cascade_spikes": CalciumParams,
        "cascade_train": CascadeTrainParams,
        "cascade_evaluate": CascadeEvaluateParams,
        "spectrogram": SpectrogramParams,
        "lfp_epochs": LfpEpochsParams,
        "sleep_edf": SleepEdfParams,
        "spike_lookalikes": SpikeLookalikesParams,
        "spike_hybrids": SpikeHybridsParams,
        "spike_conditioning": SpikeConditioningParams,
    }


def register_models() -> None:
    """Put the schemas of ``train.py`` and ``infer.py`` where Hydra's ``defaults`` lists find them."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="infer_schema", node=InferConfig)


def register() -> None:
    """Put all schemas there, those of the preprocessing steps too."""
    from src.storage.parameters import PreprocessConfig

    register_models()
    store = ConfigStore.instance()
    store.store(name="preprocess_schema", node=PreprocessConfig)
    for name, params in steps().items():
        store.store(group="preprocess", name=f"{name}_schema", node=params, package="_global_")
